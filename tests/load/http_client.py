"""A small HTTP/1.1 client on asyncio's streams: JSON and server-sent events, cheap enough to be 500 clients at once.

One `Client` is one user: a key, one request at a time, a connection that is kept while it can be. A connection on which
nothing comes for too long is cut by the `Watch` that all clients share, so no read needs a timer of its own. Knows
nothing of what is asked. Above: `http_chats.py`, `http_jobs.py`, `http_speed.py`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

MAX_LINE_BYTES = 2**20
ANSWER_TIMEOUT_S = 300.0
"""Until a response begins: a request may wait in the queue behind hundreds of others."""
SILENCE_TIMEOUT_S = 45.0
"""Within a stream, which gives a sign of life every ten seconds."""


class ConnectionCut(Exception):
    """The connection ended before the response did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """What a problem is called; the status where the body is no problem."""
        try:
            return str(self.json()["code"])
        except (ValueError, TypeError, KeyError):
            return f"status {self.status}"

    @property
    def retry_after_s(self) -> float | None:
        """When to ask again, where the server is busy."""
        return float(self.headers.get("retry-after", 1)) if self.status in (429, 503) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One server-sent event."""

    id: str
    name: str
    data: Any


class Watch:
    """Cuts connections on which nothing came for too long. Used from one event loop."""

    def __init__(self) -> None:
        self._due: dict[asyncio.StreamWriter, float] = {}

    def expect(self, writer: asyncio.StreamWriter, timeout_s: float) -> None:
        """Something has to come within this time."""
        self._due[writer] = time.monotonic() + timeout_s

    def rest(self, writer: asyncio.StreamWriter) -> None:
        """Nothing is expected any more."""
        self._due.pop(writer, None)

    async def run(self) -> None:
        """Look once a second, for ever."""
        while True:
            await asyncio.sleep(1)
            now = time.monotonic()
            for writer in [writer for writer, due in self._due.items() if due < now]:
                del self._due[writer]
                writer.transport.abort()


class Client:
    """One user of the server.

    Args:
        address: host and port.
        key: sent with every request.
        watch: shared by all clients of an event loop.
    """

    def __init__(self, address: tuple[str, int], key: str, watch: Watch) -> None:
        self._address, self._key, self._watch = address, key, watch
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def is_connected(self) -> bool:
        """A connection is open, or was when it was last used."""
        return self._writer is not None

    async def ask(self, method: str, path: str, body: Any = None, *, abandon_after_s: float | None = None) -> Answer:
        """Send a request and read the whole response; with `abandon_after_s`, go away where it takes longer.

        Raises:
            ConnectionCut: it ended early, also by `abandon_after_s`.
        """
        timer = asyncio.get_running_loop().call_later(abandon_after_s, self.cut) if abandon_after_s else None
        try:
            status, headers = await self._send(method, path, body, {})
            content = await self._body(headers)
        except (OSError, EOFError) as error:
            self.cut()
            raise ConnectionCut(f"{method} {path}: {type(error).__name__}") from error
        finally:
            if timer is not None:
                timer.cancel()
        self._settle(headers)
        return Answer(status=status, headers=headers, body=content)

    async def events(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Event | Answer]:
        """Send a request and read its events; one `Answer` instead where the response is no stream. Left early, the
        connection is cut.

        Raises:
            ConnectionCut: it ended before the response did.
        """
        is_whole, found = False, dict[str, str]()
        try:
            status, found = await self._send(method, path, body, headers or {})
            if not found.get("content-type", "").startswith("text/event-stream"):
                content = await self._body(found)
                is_whole = True
                yield Answer(status=status, headers=found, body=content)
                return
            rest = b""
            async for chunk in self._chunks():
                *whole, rest = (rest + chunk).split(b"\n\n")
                for block in whole:
                    if (event := parse_event(block)) is not None:
                        yield event
            is_whole = not rest
            if rest:
                raise ConnectionCut(f"{path}: the stream ends within an event")
        except (OSError, EOFError) as error:
            raise ConnectionCut(f"{method} {path}: {type(error).__name__}") from error
        finally:
            if is_whole:
                self._settle(found)
            else:
                self.cut()

    def cut(self) -> None:
        """Go away without a word."""
        if self._writer is not None:
            self._watch.rest(self._writer)
            self._writer.transport.abort()
        self._reader = self._writer = None

    async def _send(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> tuple[int, dict[str, str]]:
        """The head of the response. A kept connection that the server has closed meanwhile is replaced."""
        message = self._message(method, path, body, headers)
        if self._writer is not None:
            try:
                return await self._exchange(message)
            except (ConnectionError, EOFError) as error:
                is_begun = isinstance(error, asyncio.IncompleteReadError) and bool(error.partial)
                if is_begun or not self.is_connected:  # or cut by ourselves
                    raise
                self.cut()
        self._reader, self._writer = await asyncio.open_connection(*self._address, limit=MAX_LINE_BYTES)
        return await self._exchange(message)

    def _message(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> bytes:
        content = b"" if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8")
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self._address[0]}:{self._address[1]}",
            f"Authorization: Bearer {self._key}",
            f"Content-Length: {len(content)}",
            "Content-Type: application/json",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode("ascii") + content

    async def _exchange(self, message: bytes) -> tuple[int, dict[str, str]]:
        reader, writer = self._reader, self._writer
        assert reader is not None and writer is not None
        self._watch.expect(writer, ANSWER_TIMEOUT_S)
        writer.write(message)
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        return int(first.split(" ", 2)[1]), {name.lower(): value.strip() for name, _, value in pairs}

    async def _body(self, headers: Mapping[str, str]) -> bytes:
        if self._reader is None:
            raise EOFError("we went away while the head came")
        if headers.get("transfer-encoding") == "chunked":
            return b"".join([chunk async for chunk in self._chunks()])
        return await self._reader.readexactly(int(headers.get("content-length", 0)))

    async def _chunks(self) -> AsyncGenerator[bytes]:
        reader, writer = self._reader, self._writer
        if reader is None or writer is None:
            raise EOFError("we went away while the head came")
        while True:
            self._watch.expect(writer, SILENCE_TIMEOUT_S)
            size = int(await reader.readuntil(b"\r\n"), 16)
            chunk = await reader.readexactly(size + 2)
            if not size:
                return
            yield chunk[:-2]

    def _settle(self, headers: Mapping[str, str]) -> None:
        """The response is complete: keep the connection, or not."""
        if self._writer is not None:
            self._watch.rest(self._writer)
        if headers.get("connection", "").lower() == "close":
            self.cut()


def parse_event(block: bytes) -> Event | None:
    """One event of a stream, without the blank line after it; None for a comment."""
    fields: dict[str, str] = {}
    for line in block.decode("utf-8").split("\n"):
        name, _, value = line.partition(": ")
        if name:
            fields[name] = value
    fields.pop(":", None)
    if not fields:
        return None
    return Event(id=fields.get("id", ""), name=fields.get("event", "message"), data=json.loads(fields["data"]))
