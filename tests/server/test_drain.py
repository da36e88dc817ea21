"""Ending well: what runs is finished, new requests are told to come back, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import math
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.responses import StreamingResponse

from allinone import AllInOne
from allinone.errors import ShuttingDown
from allinone.server.drain import Drain

from .live import live, read_all, until


class Held:
    """A stream that ends when the test says so."""

    def __init__(self) -> None:
        self.may_end = threading.Event()

    def extend(self, app: FastAPI) -> None:
        """Add it to an application."""
        app.add_api_route("/test/held", self.held, methods=["GET"])

    async def held(self) -> StreamingResponse:
        """The beginning at once, the end later."""

        async def pieces() -> Any:
            yield b"begin "
            while not self.may_end.is_set():
                await asyncio.sleep(0.01)
            yield b"end"

        return StreamingResponse(pieces())


@pytest.fixture(scope="module")
def ai() -> Iterator[AllInOne]:
    """The fake backend: nothing here is about answers."""
    with AllInOne.load(backend="fake") as ai:
        yield ai


def test_drain_is_over_when_nothing_runs() -> None:
    """Or at once, if nothing did; never before it began."""
    drain = Drain(timeout_s=3_600)
    assert not drain.is_over and not drain.is_draining
    drain.require_open()
    with drain.running(), drain.running():
        assert drain.num_running == 2
        drain.begin()
        assert drain.is_draining and not drain.is_over
        with pytest.raises(ShuttingDown):
            drain.require_open()
    assert drain.is_over


def test_drain_is_over_when_its_time_is_up() -> None:
    """The first signal sets the time; a second one does not begin it anew."""
    drain = Drain(timeout_s=0.05)
    with drain.running():
        drain.begin()
        end = drain._deadline
        assert end != math.inf
        drain.begin()
        assert drain._deadline == end
        until(lambda: drain.is_over)


def test_a_running_stream_ends_and_new_requests_are_refused(ai: AllInOne, tmp_path: Path) -> None:
    """Not a byte of the answer is lost; a load balancer sees that this server is going."""
    held = Held()
    with (
        live(ai, tmp_path, extend=held.extend) as server,
        server.client() as client,
        server.client() as other,
        client.stream("GET", "/test/held") as response,
    ):
        pieces = response.iter_raw()
        assert next(pieces) == b"begin "
        assert other.get("/readyz").status_code == 200
        server.server.handle_exit(signal.SIGTERM, None)
        for path in ("/v1/tasks", "/readyz"):
            refused = other.get(path)
            assert refused.status_code == 503 and refused.json()["code"] == "shutting_down"
            assert int(refused.headers["retry-after"]) >= 1
        refused = other.post("/v1/tasks/sentiment", json={"text": "好"})
        assert refused.status_code == 503 and refused.headers["connection"] == "close"
        refused = other.post("/v1/chat/completions", json={"model": "x", "messages": []})
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "shutting_down"
        assert other.get("/healthz").status_code == 200 and other.get("/metrics").status_code == 200
        held.may_end.set()
        assert b"".join(pieces) == b"end"


def test_a_stream_that_does_not_end_is_ended(ai: AllInOne, tmp_path: Path) -> None:
    """After the time for it; the client sees a broken answer, not a complete one."""
    held = Held()
    started = time.monotonic()
    with live(ai, tmp_path, extend=held.extend, drain_timeout_s=0.3) as server, server.connect() as connection:
        connection.sendall(b"GET /test/held HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        received = b""
        while b"begin" not in received:
            received += connection.recv(65_536)
        server.server.handle_exit(signal.SIGTERM, None)
        assert b"0\r\n\r\n" not in read_all(connection)
    assert time.monotonic() - started >= 0.3


def test_counts_are_written_at_the_end(ai: AllInOne, tmp_path: Path) -> None:
    """Tokens that were used in the last second are not forgotten."""
    with live(ai, tmp_path, usage_flush_s=3_600) as server:
        with server.client() as client:
            used = client.post("/v1/tasks/sentiment", json={"text": "好"}).json()["usage"]
        server.context.drain.begin()
        until(lambda: not server.context.limits._unwritten)
        day = server.context.limits._today()
        stored = server.context.store.usage.get("local", day)
        assert stored == used["num_prompt_tokens"] + used["num_output_tokens"] > 0
