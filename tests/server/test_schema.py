"""The server keeps what its OpenAPI document promises, and nothing that fits the document's shape makes it fail.

schemathesis makes the requests: the document's examples, every boundary that it names, values at random that fit it or
just do not, and sequences in which one answer's ids are the next one's parameters. ALLINONE_CASES sets how many.
"""

from __future__ import annotations

import itertools
import json
import os
import zlib
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from schemathesis.python import asgi
from starlette.testclient import TestClient

from allinone import AllInOne
from allinone.server.app import create_app
from allinone.server.context import ServerContext
from allinone.server.fields import MAX_NAME_CHARS
from allinone.server.key_file import KeyFile
from allinone.server.keys import KeyRing
from allinone.server.settings import ServerSettings
from allinone.store.database import Store

from .editing import PROMPT

NUM_CASES = int(os.environ.get("ALLINONE_CASES", "300"))
IS_FULL = NUM_CASES >= 2_000
MAX_EXAMPLES = 60 if IS_FULL else 3
LARGE = r"^/v1/(chat/completions|completions|embeddings|tasks/\{name\}|prompts/compare)$"
"""Their many fields have more than a thousand boundaries: visited in a full run only."""
MAX_TOKENS = 6
TASKS = ("sentiment", "title", "keywords", "chat", "own")

EXPLAINED: dict[tuple[str, str], str] = {
    ("unsupported_method", "GET /v1/conversations/export"): "the path is one of /v1/conversations/{id} too",
    (
        "ensure_resource_availability",
        "DELETE /v1/conversations/{id}/turns/last",
    ): "a conversation that was just begun has no last turn",
    ("allow_header_conformance", "GET /v1/conversations/export"): "the path is one of /v1/conversations/{id} too",
    ("allow_header_conformance", "POST /v1/prompts/check"): "the path is one of /v1/prompts/{name} too",
    ("allow_header_conformance", "POST /v1/prompts/compare"): "the path is one of /v1/prompts/{name} too",
}
"""What schemathesis finds and is right as it is: check and operation, and why."""
SAYS_EVERYTHING = (
    "GET /healthz", "GET /readyz", "GET /metrics", "GET /v1/status", "GET /v1/tasks", "GET /v1/models",
    "GET /v1/conversations", "GET /v1/conversations/export", "GET /v1/conversations/{id}",
    "DELETE /v1/conversations/{id}", "GET /v1/feedback", "GET /v1/prompts", "DELETE /v1/reply/{id}",
)  # fmt: skip
"""Operations whose schema says all there is: what fits it is never a mistake. The others read texts, files or names."""


@dataclass(slots=True)
class Findings:
    """What a run has found.

    Attributes:
        mistakes: descriptions, by check and operation; a few of each.
    """

    num_cases: int = 0
    operations: Counter[str] = field(default_factory=Counter[str])
    statuses: Counter[int] = field(default_factory=Counter[int])
    num_streams: int = 0
    mistakes: dict[tuple[str, str], list[str]] = field(default_factory=dict[tuple[str, str], list[str]])

    def add(self, recorder: Any) -> None:
        """Take in one scenario."""
        self.num_cases += len(recorder.cases)
        for node in recorder.cases.values():
            self.operations[node.value.operation.label] += 1
        for interaction in recorder.interactions.values():
            if interaction.response is not None:
                self.statuses[interaction.response.status_code] += 1
                content_type = interaction.response.headers.get("content-type", [""])[0]
                self.num_streams += content_type.startswith("text/event-stream")
        for case_id, checks in recorder.checks.items():
            for check in checks:
                if check.failure_info is not None:
                    self._add_mistake(recorder, case_id, check)

    def _add_mistake(self, recorder: Any, case_id: str, check: Any) -> None:
        case = recorder.cases[case_id].value
        operation = case.operation.label
        if (check.name, operation) in EXPLAINED:
            return
        if check.name == "positive_data_acceptance" and operation not in SAYS_EVERYTHING:
            return
        if check.name == "negative_data_rejection" and "completions" in operation and has_nothing(case.body):
            return
        found = self.mistakes.setdefault((check.name, operation), [])
        if len(found) < 3:
            response = recorder.interactions[case_id].response
            shown = "nothing" if response is None else f"{response.status_code} {response.text[:500]}"
            failure = check.failure_info
            found.append(f"{failure.failure.message[:1_000]}\n{failure.code_sample[:1_500]}\n→ {shown}")

    def report(self) -> str:
        """All mistakes, to be read."""
        return "\n\n".join(
            f"== {check} · {operation}\n" + "\n-- \n".join(found)
            for (check, operation), found in sorted(self.mistakes.items())
        )


def has_nothing(body: Any) -> bool:
    """Whether something is [] or {}: for a field that is not supported, that is the same as leaving it out."""
    return isinstance(body, dict) and any(value in ([], {}) for value in body.values())


@contextmanager
def application(folder: Path, *, keys: KeyRing) -> Generator[FastAPI, None, None]:
    """The application on the fake backend, with a folder of tasks that may be edited."""
    tasks = folder / "tasks"
    tasks.mkdir()
    (tasks / "own.prompt").write_text(PROMPT, encoding="utf-8")
    settings = ServerSettings(edit_prompts=True, unread_reply_s=0.2, ping_interval_s=0.05)
    with (
        AllInOne.load(backend="fake", tasks=[tasks]) as ai,
        Store.open(f"sqlite:///{folder / 'store.db'}") as store,
    ):
        yield create_app(ServerContext.create(ai, store, settings=settings, keys=keys))
        asgi.shutdown_lifespans()
        keys.close()


def explore(
    app: FastAPI, findings: Findings, *, seed: int, headers: dict[str, str] | None = None, has_boundaries: bool = True
) -> None:
    """Have schemathesis ask everything that the document names."""
    config = SchemathesisConfig(seed=seed)
    project = config.projects.default
    project.update(base_url="http://127.0.0.1", headers=headers or {}, continue_on_failure=True)
    project.generation.update(max_examples=MAX_EXAMPLES, database="none", no_shrink=True)
    rejection = project.checks.negative_data_rejection
    rejection.expected_statuses = [*rejection.expected_statuses, "413"]
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=config, headers=headers or {})
    schema.hook("map_case")(make_sense)
    parts = [(schema, has_boundaries)]
    if has_boundaries and not IS_FULL:
        parts = [(schema.exclude(path_regex=LARGE), True), (schema.include(path_regex=LARGE), False)]
    for part, visits_boundaries in parts:
        part.config.phases.coverage.enabled = visits_boundaries
        part.config.phases.stateful.enabled = visits_boundaries or part is schema
        for event in from_schema(part).execute():
            if isinstance(event, events.ScenarioFinished):
                findings.add(event.recorder)
            elif isinstance(event, events.NonFatalError):
                raise event.value
            elif isinstance(event, events.FatalError):
                raise event.exception


def make_sense(_: Any, case: Any) -> Any:
    """Most names that are made up become names of something, and answers become short; the rest stays as it is."""
    dice = zlib.crc32(repr((case.path_parameters, case.body)).encode("utf-8", errors="replace"))
    path = case.operation.path
    if (
        path.startswith(("/v1/tasks/{name}", "/v1/prompts/{name}"))
        and dice % 4
        and is_name(case.path_parameters["name"])
    ):
        case.path_parameters = {**case.path_parameters, "name": TASKS[dice % len(TASKS)]}
    if isinstance(case.body, dict):
        body: dict[str, Any] = case.body
        if "completions" in path or "embeddings" in path:
            shorten(body)
            if is_name(body.get("model")) and dice % 4:
                body["model"] = ("allinone", "allinone", f"allinone/{TASKS[dice % len(TASKS)]}")[dice // 4 % 3]
        if path.startswith("/v1/prompts") and dice % 4 and len(str(body.get("text", ""))) < 1_000:
            body.update({"text": PROMPT} if isinstance(body.get("text"), str) else {})
    return case


def is_name(value: Any) -> bool:
    """Whether the document allows it: what it does not allow has to stay wrong."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARS


def shorten(body: dict[str, Any]) -> None:
    """Few tokens and few choices, where what is asked for is allowed."""
    for name, most, limit in (
        ("max_tokens", MAX_TOKENS, 2**31),
        ("max_completion_tokens", MAX_TOKENS, 2**31),
        ("n", 3, 129),
    ):
        value = body.get(name)
        if type(value) is int and most < value < limit:
            body[name] = most
    if "max_completion_tokens" not in body:
        body.setdefault("max_tokens", MAX_TOKENS)


@pytest.mark.timeout(3_600)
def test_everything_the_document_promises_is_kept(tmp_path: Path) -> None:
    """Without keys, with prompt editing on: no 5xx, no status, type or body that the document does not have."""
    findings = Findings()
    with application(tmp_path, keys=KeyRing()) as app:
        for seed in itertools.count(1):
            explore(app, findings, seed=seed, has_boundaries=seed == 1)
            if findings.num_cases >= NUM_CASES:
                break
        num_operations = sum(len(methods) for methods in app.openapi()["paths"].values())
    print(f"  {findings.num_cases} cases, {findings.num_streams} streams, {dict(sorted(findings.statuses.items()))}")
    print(f"  {dict(findings.operations)}")
    assert not findings.mistakes, findings.report()
    assert len(findings.operations) == num_operations
    assert {200, 201, 204, 404, 405, 422} <= findings.statuses.keys() and max(findings.statuses) < 500
    assert findings.num_streams > 0


def test_everything_the_document_promises_is_kept_with_keys(tmp_path: Path) -> None:
    """With an administrator's key the same holds; the document says which responses a key can lead to."""
    file = KeyFile(tmp_path / "keys.json")
    _, key = file.add("admin", is_admin=True)
    findings = Findings()
    with application(tmp_path, keys=KeyRing(file=file)) as app:
        headers = {"Authorization": f"Bearer {key}"}
        explore(app, findings, seed=1_000, headers=headers, has_boundaries=False)
    print(f"  {findings.num_cases} cases, {dict(sorted(findings.statuses.items()))}")
    assert not findings.mistakes, findings.report()
    assert findings.statuses[200] > 0
    assert findings.statuses[401] > 0, "schemathesis takes the key away now and then"


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[tuple[FastAPI, TestClient]]:
    """A server that wants a key."""
    file = KeyFile(tmp_path / "keys.json")
    file.add("somebody")
    with application(tmp_path, keys=KeyRing(file=file)) as app, TestClient(app, base_url="http://127.0.0.1") as client:
        yield app, client


def test_every_operation_wants_a_key(locked: tuple[FastAPI, TestClient]) -> None:
    """Those that say whether the server lives do not; all others say 401, whatever else is wrong with the request."""
    app, client = locked
    open_paths = {"/healthz", "/readyz"}
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            assert ("security" in operation) == (path not in open_paths)
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-API-Key": "aio_000000000000_" + "a" * 43}):
                asked = path.replace("{id}", "ans_0" if "reply" in path else "conv_0")
                response = client.request(method, asked, headers=headers, content=b"{" if method != "get" else None)
                if path in open_paths:
                    assert response.status_code == 200
                    continue
                assert response.status_code == 401, (method, path, response.text)
                assert response.headers["WWW-Authenticate"].startswith("Bearer")
                body = response.json()
                assert body.get("code", body.get("error", {}).get("code")) == "authentication_required"


def test_the_document_is_whole(locked: tuple[FastAPI, TestClient]) -> None:
    """Every operation has a name of its own, a description, and its errors; every request body has an example."""
    app, _ = locked
    document = app.openapi()
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    for operation in operations:
        assert operation["summary"] and operation["description"], operation["operationId"]
        assert {"400", "401", "403", "422", "429", "503"} <= operation["responses"].keys() | {"422"}
    assert json.loads(json.dumps(document)) == document
