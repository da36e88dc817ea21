"""Bare sockets against the real protocol: slow heads, large heads, slow readers, too many connections, no HTTP."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse, StreamingResponse

from allinone import AllInOne

from .live import Live, live, logged, read_all, read_one, until

GET = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
LARGE = 30_000_000


class Pieces:
    """Routes with much to say, and how far they got."""

    def __init__(self) -> None:
        self.num_sent = 0

    def extend(self, app: FastAPI) -> None:
        """Add them to an application."""
        app.add_api_route("/test/large", self.large, methods=["GET"])
        app.add_api_route("/test/pieces", self.pieces, methods=["GET"])

    async def large(self) -> PlainTextResponse:
        """One large answer."""
        return PlainTextResponse("x" * LARGE)

    async def pieces(self) -> StreamingResponse:
        """An answer that does not end."""

        async def produce() -> Any:
            while True:
                yield b"x" * 50_000
                self.num_sent += 1

        return StreamingResponse(produce())


@pytest.fixture(scope="module")
def ai() -> Iterator[AllInOne]:
    """The fake backend: nothing here is about answers."""
    with AllInOne.load(backend="fake") as ai:
        yield ai


@pytest.fixture(scope="module")
def server(ai: AllInOne, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server with a short patience for heads, and a long one for readers."""
    with live(
        ai,
        tmp_path_factory.mktemp("store"),
        header_timeout_s=0.5,
        body_idle_timeout_s=0.5,
        max_head_bytes=4_000,
        max_body_bytes=10_000,
        keep_alive_s=60,
    ) as server:
        yield server


def _answer(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Status and problem of a response that ends the connection."""
    head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), json.loads(body)


def _is_served(server: Live) -> bool:
    """Whether an honest client is answered."""
    with server.client() as client:
        return client.get("/healthz").status_code == 200


def test_a_head_that_does_not_come_is_given_up(server: Live) -> None:
    """Slow loris: a byte now and then keeps nothing open; one that sends nothing is closed without a word."""
    with server.connect() as dripping, server.connect() as silent:
        started = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in GET[:-2] * 1_000:
                dripping.sendall(bytes([byte]))
                time.sleep(0.01)
                if time.monotonic() - started > 0.3:
                    break
        status, problem = _answer(dripping)
        assert status == 408 and problem["code"] == "request_too_slow" and problem["request_id"]
        assert read_all(silent) == b""
    assert _is_served(server)


def test_two_hundred_slow_heads_keep_nobody_out(server: Live) -> None:
    """An honest client is served while they are there, and they are gone soon."""
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(server.connect()) for _ in range(200)]
        for connection in slow:
            connection.sendall(GET[:20])
        assert _is_served(server)
        assert all(b" 408 " in read_all(connection) for connection in slow)
    until(lambda: len(server.server.server_state.connections) == 0)


def test_a_second_request_has_to_come_in_time_too(server: Live) -> None:
    """The time of a head begins with its first byte, also on a connection that was used before."""
    with server.connect() as connection:
        connection.sendall(GET)
        assert b" 200 " in read_one(connection)
        connection.sendall(GET[:20])
        assert _answer(connection)[0] == 408


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 5_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 5_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 3_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 5_000,
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 500_000,
    ],
    ids=["path", "header", "headers", "unfinished", "endless"],
)
def test_a_large_head_is_refused(server: Live, head: bytes) -> None:
    """Whether it comes in one piece or never ends."""
    with server.connect() as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(head)
        assert _answer(connection)[0] == 431
    assert _is_served(server)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50,
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(server: Live, data: bytes) -> None:
    """TLS on a plain port, request smuggling, control characters."""
    with server.connect() as connection:
        connection.sendall(data)
        assert _answer(connection)[0] == 400
    assert _is_served(server)


def test_bad_chunks_end_the_connection(server: Live) -> None:
    """The request had begun: its application hears that the client is gone."""
    head = b"POST /v1/tasks/sentiment HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(head + b"5\r\nhello\r\nzz\r\n")
        assert read_all(connection) == b""
    until(lambda: server.context.drain.num_running == 0)
    assert _is_served(server)


@pytest.mark.parametrize("framing", [b"5;" + b"x" * 5_000, b"0\r\n" + b"X: y\r\n" * 3_000, b"0\r\nX: " + b"x" * 5_000])
def test_endless_framing_ends_the_connection(server: Live, framing: bytes) -> None:
    """Extensions of chunks and trailers hold no body, so no limit on bodies would stop them."""
    head = b"POST /v1/tasks/sentiment HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with server.connect() as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(head + framing)
        assert read_all(connection) == b""
    assert _is_served(server)


def test_small_chunks_are_honest(server: Live) -> None:
    """A body in chunks of one byte is mostly framing, and still within the limits."""
    body = json.dumps({"text": "好" * 1_000}).encode()
    head = b"POST /v1/tasks/sentiment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    chunks = b"".join(b"1\r\n" + body[i : i + 1] + b"\r\n" for i in range(len(body))) + b"0\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(head + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        assert read_all(connection).split()[1] in (b"200", b"422")


def test_a_gigabyte_is_refused_without_being_read(server: Live) -> None:
    """At its announcement; a client that sends it all the same is not listened to."""
    head = b"POST /v1/tasks/sentiment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1073741824\r\n\r\n"
    num_sent = 0
    with server.connect() as connection:
        connection.sendall(head)
        status, problem = _answer(connection)
        assert status == 413 and problem["code"] == "request_too_large"
    with server.connect() as connection:
        connection.sendall(head)
        with contextlib.suppress(ConnectionError):
            while num_sent < 2**30:
                num_sent += connection.send(b"x" * 65_536)
    assert num_sent < 2**27
    assert _is_served(server)


def test_a_client_that_waits_for_leave_is_not_given_any(server: Live) -> None:
    """`Expect: 100-continue` of a large upload gets the refusal, not the invitation."""
    head = b"POST /v1/tasks/sentiment HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\n"
    with server.connect() as connection:
        connection.sendall(head + b"Content-Length: 1073741824\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_stops_is_given_up(server: Live) -> None:
    """With an answer that says so."""
    head = b"POST /v1/tasks/sentiment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(head + b"x" * 50)
        assert _answer(connection)[0] == 408
    assert _is_served(server)


def test_requests_in_a_row_are_answered_in_order(server: Live) -> None:
    """Pipelining is allowed, within reason."""
    with server.connect() as connection:
        connection.sendall(GET * 10 + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert read_all(connection).count(b"HTTP/1.1 200 ") == 11
    with server.connect() as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(GET * 5_000)
        assert read_all(connection).count(b"HTTP/1.1 200 ") < 5_000
    assert _is_served(server)


def test_connections_are_bounded_and_idle_ones_make_room(ai: AllInOne, tmp_path: Path) -> None:
    """The one too many is told so at once; one that was used and waits gives its place to a newcomer."""
    with (
        live(ai, tmp_path, max_connections=3, header_timeout_s=30, keep_alive_s=60) as server,
        contextlib.ExitStack() as all,
    ):
        busy = [all.enter_context(server.connect()) for _ in range(2)]
        for connection in busy:
            connection.sendall(GET[:20])
        idle = all.enter_context(server.connect())
        idle.sendall(GET)
        assert b" 200 " in read_one(idle)
        newcomer = all.enter_context(server.connect())
        newcomer.sendall(GET)
        assert b" 200 " in read_one(newcomer)
        assert read_all(idle) == b""
        newcomer.sendall(GET[:20])
        until(lambda: sum(not c.is_idle for c in server.server.server_state.connections) == 3)
        with server.connect() as refused:
            answer = read_all(refused)
        assert answer.startswith(b"HTTP/1.1 503 ") and b"Retry-After: 1\r\n" in answer
        for connection in busy:
            connection.sendall(GET[20:])
            assert b" 200 " in read_one(connection)


@pytest.mark.parametrize("path", ["/test/large", "/test/pieces"])
def test_a_slow_reader_is_cut(ai: AllInOne, tmp_path: Path, path: str) -> None:
    """Whether the answer is whole and waits in memory, or goes on without ever waiting; its application is told."""
    pieces = Pieces()
    with (
        live(ai, tmp_path, extend=pieces.extend, send_timeout_s=0.4) as server,
        logged() as lines,
        server.connect() as connection,
    ):
        connection.sendall(GET.replace(b"/healthz", path.encode()))
        until(lambda: any("was cut" in line for line in lines))
        until(lambda: len(server.server.server_state.connections) == 0)
        until(lambda: server.context.drain.num_running == 0)
        assert len(read_all(connection)) < LARGE


def test_a_reader_that_keeps_a_pace_is_not_cut(ai: AllInOne, tmp_path: Path) -> None:
    """It takes far longer than the time limit in all, and gets every byte."""
    pieces = Pieces()
    with (
        live(ai, tmp_path, extend=pieces.extend, send_timeout_s=0.5, min_send_bytes_per_s=1.0) as server,
        server.connect() as connection,
    ):
        connection.sendall(
            GET.replace(b"/healthz", b"/test/large").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )
        received, started = 0, time.monotonic()
        while piece := connection.recv(1_000_000):
            received += len(piece)
            time.sleep(0.05)
        assert received > LARGE and time.monotonic() - started > 1.0


def test_a_slow_reader_does_not_fill_the_memory(ai: AllInOne, tmp_path: Path) -> None:
    """An endless stream is produced as fast as it is read, not faster."""
    pieces = Pieces()
    with live(ai, tmp_path, extend=pieces.extend) as server, server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.sendall(GET.replace(b"/healthz", b"/test/pieces"))
        assert connection.recv(1_000)
        last = -1
        while pieces.num_sent != last:  # until the buffers of both sides are full
            last = pieces.num_sent
            time.sleep(0.2)
        (protocol,) = server.server.server_state.connections
        assert protocol.transport.get_write_buffer_size() <= 2 * 50_100
