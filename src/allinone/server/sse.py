"""Server-sent events: how one is written, and a log of them that can be read again from any point.

A log outlives the connection that reads it: who comes back says which event was the last one and goes on after it.
Knows no model. Above: `reply_runs.py`, `reply_api.py`. Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from allinone.server.problems import to_json

PING = b": ping\n\n"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""A proxy must not collect events before it passes them on."""


def format_event(name: str, data: Mapping[str, Any], *, id: str) -> bytes:
    """One event as it goes over the wire; JSON has no line breaks, so the data is one line."""
    return b"".join(
        (b"id: ", id.encode("ascii"), b"\nevent: ", name.encode("ascii"), b"\ndata: ", to_json(data), b"\n\n")
    )


class EventLog:
    """Events of one reply, numbered from 0, kept until the log is dropped. Used from one event loop.

    Attributes:
        id: what event ids begin with.
        num_readers: connections that read it now.
    """

    def __init__(self, id: str) -> None:
        self.id = id
        self.num_readers = 0
        self._events: list[bytes] = []
        self._is_closed = False
        self._changed = asyncio.Event()

    @property
    def num_events(self) -> int:
        """Events so far."""
        return len(self._events)

    @property
    def is_closed(self) -> bool:
        """No event will come any more."""
        return self._is_closed

    def append(self, name: str, data: Mapping[str, Any]) -> None:
        """One event more."""
        self._events.append(format_event(name, data, id=f"{self.id}:{len(self._events)}"))
        self._wake()

    def close(self) -> None:
        """That was the last one. Idempotent."""
        self._is_closed = True
        self._wake()

    async def read(self, start: int, *, ping_interval_s: float) -> AsyncGenerator[bytes]:
        """Events from number `start` on, several in a piece when they are there, and a sign of life in between."""
        self.num_readers += 1
        try:
            while True:
                changed = self._changed
                if start < len(self._events):
                    fresh, start = b"".join(self._events[start:]), len(self._events)
                    yield fresh
                elif self._is_closed:
                    return
                else:
                    try:
                        await asyncio.wait_for(changed.wait(), ping_interval_s)
                    except asyncio.TimeoutError:
                        yield PING
        finally:
            self.num_readers -= 1

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class EventResponse(StreamingResponse):
    """The response that carries a log. However it ends (a slow reader is cut, for one), the reading ends with it."""

    def __init__(self, pieces: AsyncGenerator[bytes]) -> None:
        super().__init__(pieces, media_type="text/event-stream", headers=HEADERS)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        async with aclosing(self._pieces):
            await super().__call__(scope, receive, send)
