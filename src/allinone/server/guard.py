"""The outermost layer: every request passes it, and nothing that a client does gets past its limits.

Gives each request an id, checks where it comes from and who sends it before it reads the body, cancels what a client
that has gone was waiting for, counts, logs without a word of the user's, and adds the security headers. Pure ASGI, so
that streams pass as they are. Knows no endpoint; beside it: `body.py`, `origins.py`. Slow readers and slow heads are
the connection's business (`connection.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import secrets
import time
from collections.abc import Mapping

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from allinone.errors import AllInOneError
from allinone.server.body import BodyReader, has_body
from allinone.server.context import ServerContext, authenticate
from allinone.server.failures import log_failure
from allinone.server.origins import check_host, check_origin
from allinone.server.problems import problem_response

SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
UNMATCHED = "(unmatched)"
_ALWAYS_ANSWERED = frozenset({"/healthz", "/readyz", "/metrics"})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_MAX_LOGGED_BYTES = 4_096
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})
_log = logging.getLogger("allinone.server")


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, *, context: ServerContext) -> None:
        self._app = app
        self._context = context
        self._bodies = BodyReader(context.settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        response = _Response(send, request_id=_request_id(headers))
        scope["request_id"] = response.request_id
        started = time.perf_counter()
        self._context.metrics.in_flight.inc()
        try:
            await self._answer(scope, headers, receive, response)
        finally:
            self._context.metrics.in_flight.dec()
            self._note(scope, response, time.perf_counter() - started)

    async def _answer(
        self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, response: _Response
    ) -> None:
        """Admit, read, hand on; every error that the application did not answer itself becomes a response here."""
        num_held = 0
        try:
            await self._admit(scope, headers)
            waits = scope["path"] not in _ALWAYS_ANSWERED
            with self._context.drain.running() if waits else contextlib.nullcontext():
                body = await self._bodies.read(receive, headers)
                num_held = len(body)
                if self._context.settings.log_texts and body:
                    _log.info("%s received %s", response.request_id, _shown(body))
                await self._run(scope, body, receive, response)
        except ClientDisconnect:
            response.is_abandoned = True
        except asyncio.CancelledError:
            if not response.is_abandoned and not self._context.drain.is_over:
                raise
        except AllInOneError as error:
            await self._refuse(scope, response, error)
        except Exception as error:
            log_failure(error, request_id=response.request_id, with_message=self._context.settings.log_texts)
            await self._refuse(scope, response, AllInOneError("The server failed at this request; its log says where."))
        finally:
            self._bodies.release(num_held)

    async def _admit(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        """What is known before the body: where the request comes from, who sends it, whether anything new is taken."""
        check_host(headers, self._context.settings.allowed_hosts)
        if not self._context.keys.is_required:
            check_origin(scope["method"], headers)
        if scope["path"] not in _ALWAYS_ANSWERED:
            self._context.drain.require_open()
        if scope["method"] not in _BODILESS or has_body(headers):
            await authenticate(self._context, scope)

    async def _run(self, scope: Scope, body: bytes, receive: Receive, response: _Response) -> None:
        """Run the application; when the client goes before the response is complete, it is cancelled."""
        task = asyncio.current_task()
        assert task is not None
        client = _Client(body, receive)

        def stop(_: asyncio.Task[None]) -> None:
            if not response.is_complete:
                response.is_abandoned = True
                task.cancel()

        client.watch.add_done_callback(stop)
        try:
            await self._app(scope, client.receive, response.send)
        finally:
            client.watch.remove_done_callback(stop)
            client.watch.cancel()

    async def _refuse(self, scope: Scope, response: _Response, error: AllInOneError) -> None:
        """Say what is wrong, and end the connection: what is left of the body is not read."""
        if response.status:
            _log.error("%s broke off in the middle of its response: %s", response.request_id, error.code)
            raise ConnectionAbortedError(f"{response.request_id}: the response had begun") from None
        refusal = problem_response(
            error, path=scope["path"], request_id=response.request_id, headers={"Connection": "close"}
        )
        await refusal(scope, _nothing, response.send)

    def _note(self, scope: Scope, response: _Response, seconds: float) -> None:
        """Count and log one request: the template of its path, never the path, the query or a text."""
        route = getattr(scope.get("route"), "path", None) or UNMATCHED
        status = response.status if response.is_complete or not response.is_abandoned else 499
        self._context.metrics.count_request(method=scope["method"], route=route, status=status or 500, seconds=seconds)
        access = scope.get("access")
        _log.info(
            "%s %s %s %s %.1f ms %d bytes %s",
            response.request_id,
            scope["method"] if scope["method"].isalpha() else "?",
            route,
            status or 500,
            seconds * 1_000,
            response.num_bytes,
            "-" if access is None else access.owner,
        )


class _Response:
    """The way out: adds the headers that every response has, and remembers how far it got.

    Attributes:
        status: 0 until it has begun.
        is_abandoned: the client went before it was complete.
    """

    def __init__(self, send: Send, *, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.status = 0
        self.num_bytes = 0
        self.is_complete = False
        self.is_abandoned = False

    async def send(self, message: Message) -> None:
        """Pass one message on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers: list[tuple[bytes, bytes]] = list(message.get("headers", ()))
            present = {name.lower() for name, _ in headers}
            own = (*SECURITY_HEADERS, (b"x-request-id", self.request_id.encode("ascii")))
            headers += [header for header in own if header[0] not in present]
            if b"cache-control" not in present:
                headers.append((b"cache-control", b"no-store"))
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body":
            self.num_bytes += len(message.get("body", b""))
            self.is_complete = not message.get("more_body", False)
        await self._send(message)
        if message.get("more_body"):
            await asyncio.sleep(0)  # a stream that never waits would keep everybody else waiting


class _Client:
    """The way in, once the body is read: gives it to the application, and watches for the client's leaving."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive
        self.watch = asyncio.create_task(self._wait_until_gone())

    async def receive(self) -> Message:
        """The body, once; then the disconnect, when it comes."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.shield(self.watch)
        return {"type": "http.disconnect"}

    async def _wait_until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def _nothing() -> Message:
    raise AssertionError("a refusal reads nothing")


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    """The client's own id if it is a plain one, else a new one."""
    given = headers.get(b"x-request-id", b"")
    return given.decode("ascii") if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _shown(body: bytes) -> str:
    """A body on one line of ASCII: nothing in it can write to a terminal or start a line of its own."""
    return json.dumps(body[:_MAX_LOGGED_BYTES].decode("utf-8", errors="replace"))
