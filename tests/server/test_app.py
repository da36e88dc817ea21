"""The application as a whole: what its OpenAPI document tells a reader (`test_schema.py` holds the server to it)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from allinone import AllInOne

from .live import live


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on the fake backend, on which everything is allowed."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "tasks").mkdir()
    with (
        AllInOne.load(backend="fake", tasks=folder / "tasks") as ai,
        live(ai, folder, edit_prompts=True, body_idle_timeout_s=60) as server,
    ):
        yield server.url


@pytest.fixture(scope="module")
def document(url: str) -> dict[str, Any]:
    """The OpenAPI document."""
    return httpx.get(f"{url}/openapi.json", timeout=60).json()


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_every_operation_says_how_it_fails(document: dict[str, Any]) -> None:
    """With problem details, or with OpenAI's errors on OpenAI's paths; a client can be generated from it."""
    operations = dict(_operations(document))
    assert len(operations) >= 20
    for name, operation in operations.items():
        if name == "GET /" or "/page" in name:
            continue
        statuses = set(operation["responses"])
        assert {"401", "403", "429", "503"} <= statuses and statuses & {"200", "201", "204"}, name
        for status, response in operation["responses"].items():
            if status.startswith(("4", "5")):
                (content_type,) = response["content"]
                assert content_type in ("application/problem+json", "application/json"), name


def test_operations_have_names_texts_and_examples(document: dict[str, Any]) -> None:
    """What a person sees first who opens the document in a viewer."""
    operations = dict(_operations(document))
    ids = [operation["operationId"] for operation in operations.values()]
    assert len(ids) == len(set(ids))
    for name, operation in operations.items():
        assert operation.get("description"), name
    for path in ("/v1/tasks/{name}", "/v1/reply", "/v1/chat/completions", "/v1/feedback"):
        (content,) = document["paths"][path]["post"]["requestBody"]["content"].values()
        assert "'examples'" in f"{content} {_resolve(document, content)}", path


def _resolve(document: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    reference = content["schema"].get("$ref", "")
    return document["components"]["schemas"].get(reference.rpartition("/")[2], content["schema"])


def test_examples_work(url: str, document: dict[str, Any]) -> None:
    """An example that is refused teaches the wrong thing."""
    tasks = document["paths"]["/v1/tasks/{name}"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    for name, example in tasks.items():
        response = httpx.post(f"{url}/v1/tasks/sentiment", json=example["value"], timeout=60)
        assert response.status_code == 200, name


def test_the_document_names_no_place_of_this_machine(document: dict[str, Any]) -> None:
    """It is public."""
    assert str(Path.home()) not in str(document) and str(Path(__file__).parents[2]) not in str(document)
