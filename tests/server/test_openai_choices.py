"""Several answers at once: in their places, ended together, and begun all or none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator

import pytest

from allinone.errors import ModelError, QueueFull
from allinone.server.openai_choices import Piece, collect, merge, start_all
from allinone.types import Usage


class Source:
    """A choice that says its texts, waiting before each of them as it is told."""

    def __init__(self, *texts: str, error: Exception | None = None, waits: asyncio.Event | None = None) -> None:
        self.texts, self.error, self.waits = texts, error, waits
        self.is_closed = False

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """As `read_stream` gives them."""
        try:
            for place, text in enumerate(self.texts):
                if self.waits is not None:
                    await self.waits.wait()
                is_last = place == len(self.texts) - 1
                yield Piece(text=text, finish="stop" if is_last else None, usage=Usage() if is_last else None)
            if self.error is not None:
                raise self.error
        finally:
            self.is_closed = True


def test_collect_puts_pieces_in_their_places() -> None:
    """However they come."""

    async def run() -> list[str]:
        sources = [Source("a", "b", "c"), Source("x"), Source("1", "2")]
        return [answer.text for answer in await collect([source.pieces() for source in sources])]

    assert asyncio.run(run()) == ["abc", "x", "12"]


def test_merge_does_not_wait_for_the_slowest() -> None:
    """One choice that waits stops no other; while all wait, a sign of life comes."""

    async def run() -> list[object]:
        gate = asyncio.Event()
        found: list[object] = []
        async for item in merge([Source("late", waits=gate).pieces(), Source("a", "b").pieces()], ping_s=0.01):
            found.append(item if item is None else (item[0], item[1].text))
            if found.count(None) == 2:
                gate.set()
        return found

    found = asyncio.run(run())
    assert found[:2] == [(1, "a"), (1, "b")] and found[-1] == (0, "late") and found.count(None) >= 2


def test_merge_ends_all_when_one_fails_or_nobody_reads() -> None:
    """No choice goes on by itself."""

    async def fail() -> list[Source]:
        sources = [Source("a", error=ModelError("broken")), Source("b", waits=asyncio.Event())]
        with pytest.raises(ModelError, match="broken"):
            await collect([source.pieces() for source in sources])
        return sources

    async def leave() -> list[Source]:
        sources = [Source("a", "b"), Source("c", waits=asyncio.Event())]
        pieces = merge([source.pieces() for source in sources], ping_s=60)
        await pieces.__anext__()
        await pieces.aclose()
        return sources

    async def cancel() -> list[Source]:
        sources = [Source("a", waits=asyncio.Event()), Source("b", waits=asyncio.Event())]
        task = asyncio.create_task(collect([source.pieces() for source in sources]))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return sources

    for ending in (fail, leave, cancel):
        assert all(source.is_closed for source in asyncio.run(ending())), ending.__name__


class Begun:
    """Stands for an answer under way."""

    def __init__(self) -> None:
        self.is_cancelled = False
        self.thread = threading.current_thread()

    def cancel(self) -> None:
        """As `Stream.cancel`."""
        self.is_cancelled = True


def test_start_all_begins_all_or_none() -> None:
    """A full queue in the middle leaves nothing behind."""
    begun: list[Begun] = []

    def begin() -> Begun:
        begun.append(Begun())
        return begun[-1]

    def refuse() -> Begun:
        raise QueueFull("full")

    with pytest.raises(QueueFull):
        asyncio.run(start_all([begin, begin, refuse, begin], num_chars=5, is_heavy=False))  # type: ignore[list-item]
    assert [one.is_cancelled for one in begun] == [True, True]


@pytest.mark.parametrize(("num_chars", "is_heavy"), [(5, False), (5, True), (100_000, False)])
def test_start_all_keeps_long_work_off_the_event_loop(num_chars: int, is_heavy: bool) -> None:
    """Short texts are begun at once, without the price of a thread."""
    (one,) = asyncio.run(start_all([Begun], num_chars=num_chars, is_heavy=is_heavy))  # type: ignore[list-item]
    assert isinstance(one, Begun)
    assert (one.thread is threading.current_thread()) == (num_chars == 5 and not is_heavy)
