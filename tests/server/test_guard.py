"""The outermost layer: ids, headers, origins, keys before bodies, clients that go, a log without a word of theirs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse

from allinone import AllInOne, AllInOneError
from allinone.errors import ModelError, StoreError
from allinone.server.key_file import KeyFile
from allinone.server.keys import KeyRing

from .live import Live, live, logged, until

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECRET_WORDS = "我的秘密是七七四九"


class Watched:
    """Routes that no server of ours has: one that fails, one that waits for ever, one that streams."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.bodies: list[int] = []
        self.is_begun = threading.Event()

    def extend(self, app: FastAPI) -> None:
        """Add them to an application."""
        app.add_api_route("/test/fail", self.fail, methods=["GET", "POST"])
        app.add_api_route("/test/wait", self.wait, methods=["GET"])
        app.add_api_route("/test/stream", self.stream, methods=["GET"])
        app.add_api_route("/test/body", self.body, methods=["POST"])

    async def fail(self, request: Request) -> None:
        """Raise what nobody foresaw, quoting the user."""
        raise ValueError(f"unforeseen: {(await request.body()).decode()}")

    async def wait(self) -> None:
        """Answer when it is too late."""
        self.is_begun.set()
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            self.events.append("cancelled")
            raise

    async def stream(self) -> StreamingResponse:
        """One piece, then silence."""

        async def pieces() -> Any:
            yield b"first"
            self.is_begun.set()
            try:
                await asyncio.sleep(3_600)
            finally:
                self.events.append("stream ended")

        return StreamingResponse(pieces())

    async def body(self, request: Request) -> JSONResponse:
        """Read the body."""
        self.bodies.append(len(await request.body()))
        return JSONResponse({})


@pytest.fixture(scope="module")
def ai() -> Iterator[AllInOne]:
    """The fake backend: nothing here is about answers."""
    with AllInOne.load(backend="fake") as ai:
        yield ai


@pytest.fixture(scope="module")
def routes() -> Watched:
    """The routes of the module's server."""
    return Watched()


@pytest.fixture
def watched(routes: Watched) -> Watched:
    """The same, with nothing seen yet."""
    routes.events.clear()
    routes.bodies.clear()
    routes.is_begun.clear()
    return routes


@pytest.fixture(scope="module")
def server(ai: AllInOne, tmp_path_factory: pytest.TempPathFactory, routes: Watched) -> Iterator[Live]:
    """A server without keys on loopback names, with small limits."""
    names = frozenset({"127.0.0.1", "localhost"})
    folder = tmp_path_factory.mktemp("store")
    with live(ai, folder, extend=routes.extend, allowed_hosts=names, max_body_bytes=10_000) as server:
        yield server


@pytest.fixture
def client(server: Live) -> Iterator[httpx.Client]:
    """A client of it."""
    with server.client() as client:
        yield client


@pytest.mark.parametrize("path", ["/healthz", "/v1/tasks", "/nothing", "/", "/openapi.json", "/v1/models"])
def test_every_response_has_the_headers(client: httpx.Client, path: str) -> None:
    """Pages, data and refusals alike."""
    response = client.get(path)
    if path != "/":  # the page's own policy is stricter still
        assert response.headers["content-security-policy"] == CSP
    assert "unsafe" not in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cross-origin-opener-policy"] == "same-origin"
    assert response.headers["cross-origin-resource-policy"] == "same-origin"
    assert response.headers["x-request-id"]
    assert "server" not in response.headers
    assert not any(name.startswith("access-control") for name in response.headers)


def test_cors_stays_closed(client: httpx.Client) -> None:
    """A preflight of another site is told nothing that its browser could take for permission."""
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    response = client.options("/v1/tasks/sentiment", headers=headers)
    assert response.status_code == 405
    assert not any(name.startswith("access-control") for name in response.headers)


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [
        ("abc-123_X.9", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("a b", False),
        ("a\tb", False),
        ('"><script>', False),
    ],
)
def test_request_id_of_the_client_is_kept_if_it_is_plain(client: httpx.Client, given: str, is_kept: bool) -> None:
    """It goes into logs and headers."""
    response = client.get("/nothing", headers={"X-Request-ID": given})
    assert (response.headers["x-request-id"] == given) is is_kept
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_request_ids_differ(client: httpx.Client) -> None:
    """One for each request, also on one connection."""
    assert len({client.get("/healthz").headers["x-request-id"] for _ in range(20)}) == 20


def test_other_names_and_other_sites_are_refused(client: httpx.Client) -> None:
    """DNS rebinding, and forms on other pages."""
    assert client.get("/v1/tasks", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("/v1/tasks", headers={"Host": "localhost"}).status_code == 200
    body = {"text": "好"}
    refused = client.post("/v1/tasks/sentiment", json=body, headers={"Origin": "http://evil.example"})
    assert refused.status_code == 403 and refused.json()["code"] == "not_allowed"
    own = str(client.base_url).rstrip("/")
    assert client.post("/v1/tasks/sentiment", json=body, headers={"Origin": own}).status_code == 200
    assert client.delete("/v1/conversations/conv_x", headers={"Origin": "null"}).status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("POST", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/tasks/", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("DELETE", "/v1/tasks", 405, "method_not_allowed"),
        ("PUT", "/v1/tasks/sentiment", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/tasks", 405, "method_not_allowed"),
        ("TRACE", "/v1/tasks", 405, "method_not_allowed"),
        ("HEAD", "/v1/tasks", 405, None),
    ],
)
def test_what_is_not_there_is_a_problem(
    client: httpx.Client, method: str, path: str, status: int, code: str | None
) -> None:
    """Unknown paths and methods look like every other refusal."""
    response = client.request(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    if code is not None:
        assert response.json()["code"] == code
    assert (status == 405) == ("allow" in response.headers)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/v1/tasks/sentiment", "GET, POST"), ("/v1/tasks", "GET"), ("/v1/conversations/conv_x", "GET, PATCH, DELETE")],
)
def test_all_methods_of_a_path_are_named(client: httpx.Client, path: str, allowed: str) -> None:
    """Also when each of them is a route of its own."""
    assert client.request("TRACE", path).headers["allow"] == allowed


def test_unforeseen_failure_is_a_500_without_its_words(client: httpx.Client) -> None:
    """Neither the client nor the log gets the exception's text: it may quote another user."""
    with logged() as lines:
        response = client.post("/test/fail", content=SECRET_WORDS.encode())
    assert response.status_code == 500 and response.json()["code"] == "error"
    assert SECRET_WORDS not in response.text and "unforeseen" not in response.text
    log = "\n".join(lines)
    assert response.headers["x-request-id"] in log and "ValueError" in log and "test_guard.py" in log
    assert SECRET_WORDS not in log and "unforeseen:" not in log.replace('f"unforeseen: {', "")
    assert client.get("/healthz").status_code == 200


def test_a_deep_body_is_refused_before_it_is_parsed(client: httpx.Client) -> None:
    """Python's parser would raise RecursionError, which nobody could tell from a fault of ours."""
    content = b'{"text": ' + b"[" * 3_000 + b"]" * 3_000 + b"}"
    response = client.post("/v1/tasks/sentiment", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 413 and "nested" in response.json()["detail"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"nul", b"\xff\xfe", b'{"text": 1e999}', b'{"text": ' + b"9" * 5_000 + b"}", b"NaN"]
)
def test_what_is_no_json_of_ours_is_refused(client: httpx.Client, content: bytes) -> None:
    """Whatever it is, it is the client's mistake."""
    response = client.post("/v1/tasks/sentiment", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422) and response.json()["code"] in ("invalid_input", "bad_request")


def test_a_client_that_goes_ends_its_request(server: Live, client: httpx.Client, watched: Watched) -> None:
    """Nobody computes for those who have left; it is counted as theirs (499), and nothing is logged as a failure."""
    with logged() as lines:
        with pytest.raises(httpx.ReadTimeout):
            client.get("/test/wait", timeout=httpx.Timeout(60, read=0.3))
        until(lambda: watched.events == ["cancelled"])
        until(lambda: any(" 499 " in line for line in lines))
    assert not any("Traceback" in line or "Exception" in line for line in lines)
    until(lambda: server.context.drain.num_running == 0)


def test_a_client_that_goes_ends_its_stream(server: Live, watched: Watched) -> None:
    """The generator behind it is closed."""
    with server.client() as client, client.stream("GET", "/test/stream") as response:
        pieces = response.iter_raw()
        assert next(pieces) == b"first"
        assert server.context.drain.num_running == 1
    until(lambda: watched.events == ["stream ended"])
    until(lambda: server.context.drain.num_running == 0)


def test_bodies_are_given_back(server: Live, client: httpx.Client, watched: Watched) -> None:
    """The count of bytes held ends at nothing, whatever became of the requests."""
    for size in (0, 10, 10_000, 10_001):
        assert client.post("/test/body", content=b"x" * size).status_code == (413 if size > 10_000 else 200)
    client.post("/test/fail", content=b"x" * 50)
    assert watched.bodies == [0, 10, 10_000]
    (guard,) = [m for m in _layers(server) if type(m).__name__ == "Guard"]
    until(lambda: guard._bodies.num_buffered_bytes == 0)


def _layers(server: Live) -> list[Any]:
    app: Any = server.server.config.app
    layer, found = app.middleware_stack, []
    while layer is not None:
        found.append(layer)
        layer = getattr(layer, "app", None) or getattr(layer, "_app", None)
    return found


def test_a_key_is_asked_for_before_a_body_is_read(ai: AllInOne, tmp_path: Path, watched: Watched) -> None:
    """Strangers cannot make the server hold their bytes; readiness and health need no key."""
    file = KeyFile(tmp_path / "keys.json")
    _, key = file.add("phone")
    with live(ai, tmp_path, keys=KeyRing(file=file), extend=watched.extend) as server, server.client() as client:
        for path in ("/test/body", "/v1/tasks/sentiment", "/nothing"):
            response = client.post(path, content=b"x" * 1_000)
            assert response.status_code == 401 and response.headers["www-authenticate"].startswith("Bearer")
            assert response.headers["connection"] == "close"
        assert client.request("GET", "/v1/tasks", content=b"x" * 1_000).status_code == 401
        assert watched.bodies == []
        assert client.get("/v1/tasks").status_code == client.get("/v1/status").status_code == 401
        assert [client.get(path).status_code for path in ("/healthz", "/readyz", "/")] == [200, 200, 200]
        for headers in ({"Authorization": f"Bearer {key}"}, {"X-API-Key": key}, {"Authorization": f"bearer  {key}"}):
            assert client.post("/test/body", content=b"x" * 10, headers=headers).status_code == 200
        for headers in ({"Authorization": f"Basic {key}"}, {"Authorization": key}, {"X-API-Key": key[:-1]}):
            assert client.post("/test/body", content=b"x" * 10, headers=headers).status_code == 401
        # a key takes the place of the check of the origin: no page of another site has one
        foreign = {"X-API-Key": key, "Origin": "http://evil.example"}
        assert client.post("/test/body", content=b"x", headers=foreign).status_code == 200


def test_no_text_and_no_secret_is_logged(ai: AllInOne, tmp_path: Path) -> None:
    """Not in a body, a path, a query, a header or an error: at any level, from any logger of the server."""
    file = KeyFile(tmp_path / "keys.json")
    _, key = file.add("phone")
    with live(ai, tmp_path, keys=KeyRing(file=file)) as server, server.client(**{"X-API-Key": key}) as client:
        with logged() as lines:
            for body in ({"text": SECRET_WORDS}, {"text": SECRET_WORDS, "x": SECRET_WORDS}, {"inputs": [SECRET_WORDS]}):
                client.post("/v1/tasks/sentiment", json=body)
            client.post("/v1/tasks/sentiment", json={"text": "好", "labels": [SECRET_WORDS]})
            client.post("/v1/tasks/rewrite", json={"text": "好", "variables": {"style": SECRET_WORDS}})
            client.post(
                "/v1/chat/completions", json={"model": "x", "messages": [{"role": "user", "content": SECRET_WORDS}]}
            )
            client.get(f"/v1/tasks/{SECRET_WORDS}", params={"q": SECRET_WORDS})
            client.get(f"/{SECRET_WORDS}", headers={"X-API-Key": "wrong-" + key, "User-Agent": "secret-agent"})
            client.get("/v1/tasks", headers={"Authorization": f"Bearer {key}x"})
        log = "\n".join(lines)
    assert log.count("/v1/tasks/{name}") == 6 and "(unmatched)" in log
    for secret in (SECRET_WORDS, "七七", "\\u4e03", "%E4%B8%83", key, key.rsplit("_", 1)[1], "secret-agent"):
        assert secret not in log, secret


def test_texts_are_logged_when_asked_for(ai: AllInOne, tmp_path: Path) -> None:
    """On one line, in ASCII: a text cannot forge a line of the log."""
    with live(ai, tmp_path, log_texts=True) as server, server.client() as client, logged() as lines:
        client.post("/v1/tasks/sentiment", json={"text": "好\n2030-01-01 INFO forged\x1b[2J"})
    (line,) = [line for line in lines if "received" in line]
    assert "forged" in line and "\n" not in line and "\x1b" not in line and line.isascii()


def test_the_log_names_the_owner_and_the_route(ai: AllInOne, tmp_path: Path) -> None:
    """What an operator needs to find out who overloads the server with what."""
    file = KeyFile(tmp_path / "keys.json")
    record, key = file.add("phone")
    served = live(ai, tmp_path, keys=KeyRing(file=file))
    with served as server, server.client(**{"X-API-Key": key}) as client, logged() as lines:
        response = client.post("/v1/tasks/sentiment", json={"text": "好"})
        until(lambda: any(response.headers["x-request-id"] in line for line in lines))
    (line,) = [line for line in lines if response.headers["x-request-id"] in line]
    assert " POST /v1/tasks/{name} 200 " in line and line.endswith(record.id)


def test_a_failure_of_ours_is_logged_with_its_place(
    ai: AllInOne, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is said in the system's words; what a model failed with is not, for it may quote the text."""
    raised: list[AllInOneError] = [StoreError("server.db: disk I/O error"), ModelError(f"bad: {SECRET_WORDS}")]
    with live(ai, tmp_path) as server, server.client() as client, logged() as lines:

        def fail(*args: Any, **more: Any) -> None:
            raise raised[0]

        monkeypatch.setattr(ai, "start", fail)
        statuses = []
        while raised:
            statuses.append(client.post("/v1/tasks/sentiment", json={"text": "好"}).status_code)
            raised.pop(0)
    log = "\n".join(lines)
    assert statuses == [500, 500]
    assert "StoreError (store): server.db: disk I/O error" in log and "tasks_api.py" in log
    assert "ModelError (model)" in log and SECRET_WORDS not in log
