"""A server for tests: the real application, under the real protocol, on a free port of this machine, in a thread."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from allinone import AllInOne
from allinone.server.context import ServerContext
from allinone.server.keys import KeyRing
from allinone.server.serving import GuardedServer, bind, make_server
from allinone.server.settings import ServerSettings
from allinone.store.database import Store


@dataclass(frozen=True)
class Live:
    """A server that runs."""

    port: int
    context: ServerContext
    server: GuardedServer

    @property
    def url(self) -> str:
        """Where paths begin."""
        return f"http://127.0.0.1:{self.port}"

    def client(self, **headers: str) -> httpx.Client:
        """A client of its own; closed with a `with` block."""
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)


@contextmanager
def context_of(ai: AllInOne, folder: Path, *, keys: KeyRing | None = None, **settings: Any) -> Iterator[ServerContext]:
    """A context with a store of its own."""
    keys = keys or KeyRing()
    with Store.open(f"sqlite:///{folder / 'store.db'}") as store:
        yield ServerContext.create(ai, store, settings=ServerSettings(**settings), keys=keys)
    keys.close()


@contextmanager
def live(
    ai: AllInOne,
    folder: Path,
    *,
    keys: KeyRing | None = None,
    extend: Callable[[FastAPI], None] = lambda app: None,
    **settings: Any,
) -> Iterator[Live]:
    """A running server; `extend` may add routes for what no route of ours does."""
    with context_of(ai, folder, keys=keys, **settings) as context:
        is_ready = threading.Event()
        server = make_server(context, on_ready=is_ready.set)
        assert isinstance(server.config.app, FastAPI)
        extend(server.config.app)
        sockets = bind("127.0.0.1", 0)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets)), daemon=True)
        thread.start()
        try:
            assert is_ready.wait(60), "the server did not start"
            yield Live(port=sockets[0].getsockname()[1], context=context, server=server)
        finally:
            context.drain.begin()
            thread.join(60)
            assert not thread.is_alive(), "the server did not end"


def read_all(connection: socket.socket) -> bytes:
    """Everything until the other side ends the connection, in whichever way."""
    received = b""
    try:
        while piece := connection.recv(65_536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def read_one(connection: socket.socket) -> bytes:
    """One whole response with a Content-Length, on a connection that stays open."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65_536)
    head, _, body = received.partition(b"\r\n\r\n")
    (length,) = re.findall(rb"content-length: (\d+)", head.lower())
    while len(body) < int(length):
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens elsewhere, however slow the machine is."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


@contextmanager
def logged() -> Iterator[list[str]]:
    """Every line that the server logs, at any level."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(logging.Formatter().format(record))  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("allinone.server", "uvicorn.error", "uvicorn.access", "fastapi")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
