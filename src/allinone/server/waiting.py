"""Waiting for the engine without a thread: its tickets wake the event loop.

The engine calls back on its own thread; here that becomes something an `await` can wait for. Whoever stops waiting (a
client that has gone) cancels what was asked. Above: the API modules. Below: tickets and streams of the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from allinone.engine.requests import TokenEvent
from allinone.errors import AllInOneError, QueueFull

MAX_QUEUE_WAIT_S = 60.0

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Awaitable(Protocol):
    """What `settled` can wait for."""

    @property
    def is_done(self) -> bool:
        """There is nothing to wait for any more."""
        ...

    def add_done_callback(self, callback: Callable[[], object]) -> None:
        """Have `callback` called when `is_done` may have become true."""
        ...


class Waited(Awaitable, Protocol[T_co]):
    """A ticket, or a task's pending answer."""

    def result(self) -> T_co:
        """The answer; does not wait once it is done."""
        ...

    def cancel(self) -> None:
        """Nobody wants it any more."""
        ...


class EventSource(Protocol):
    """A stream of the engine, or what is made of one."""

    def poll(self) -> TokenEvent | None:
        """The next event, if it is there."""
        ...

    def listen(self, listener: Callable[[], object]) -> None:
        """Have `listener` called when `poll` may have something."""
        ...

    def cancel(self) -> None:
        """Nobody wants the rest."""
        ...


class Bell:
    """An event that other threads may ring; they may do so after the loop has ended, when nobody listens."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake who waits; from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        """Wait for the next ring, or return at once if there was one since the last call."""
        await self._event.wait()
        self._event.clear()


async def settled(awaited: Awaitable) -> None:
    """Wait until it is done, however it ends."""
    if awaited.is_done:
        return
    bell = Bell()
    awaited.add_done_callback(bell.ring)
    while not awaited.is_done:
        await bell.wait()


async def wait(pending: Waited[T]) -> T:
    """Its result. Cancelled itself, it cancels the request.

    Raises:
        AllInOneError: whatever ended the request.
    """
    try:
        await settled(pending)
    except asyncio.CancelledError:
        pending.cancel()
        raise
    return pending.result()


async def outcome_of(answer: Callable[[], Coroutine[Any, Any, T]]) -> T | AllInOneError:
    """One answer of many, or why there is none; a full queue is waited out for a while, for it moves."""
    left_s = MAX_QUEUE_WAIT_S
    while True:
        try:
            return await answer()
        except QueueFull as error:
            if left_s <= 0:
                return error
            pause_s = min(error.retry_after_s, 1.0)
            left_s -= pause_s
            await asyncio.sleep(pause_s)
        except AllInOneError as error:
            return error


async def events(stream: EventSource) -> AsyncGenerator[TokenEvent]:
    """Its events, to the one with a finish_reason. Left early, it cancels the request.

    Raises:
        AllInOneError: whatever ended the stream.
    """
    bell = Bell()
    stream.listen(bell.ring)
    try:
        while True:
            event = stream.poll()
            if event is None:
                await bell.wait()
                continue
            yield event
            if event.finish_reason is not None:
                return
    finally:
        stream.cancel()
