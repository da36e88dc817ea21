"""The answers to one of OpenAI's requests while they are written: several at a time, piece by piece, counted.

Owns the way from engine events to pieces of text, and from many streams to one. Knows no JSON. Above: `openai_api.py`.
Below: `waiting.py` (events without threads) and the runtime.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from allinone.engine.requests import TokenEvent
from allinone.engine.tickets import Stream
from allinone.errors import AllInOneError
from allinone.server.context import ServerContext
from allinone.server.keys import Access
from allinone.server.openai_logprobs import LogprobReader, TokenLogprob, label_logprob
from allinone.server.waiting import events, wait
from allinone.tasks.run import Pending, TaskStream
from allinone.types import FinishReason, Usage

Finish = Literal["stop", "length"]
Started: TypeAlias = Stream | TaskStream | Pending
"""An answer that the runtime is working on."""
Pieces: TypeAlias = AsyncGenerator["Piece", None]
Begin: TypeAlias = Callable[[], Awaitable[list[Pieces]]]
"""Submits the choices of a request."""

_SHORT_CHARS = 2_000
_FINISH: Mapping[FinishReason, Finish] = {
    "stop": "stop",
    "length": "length",
    "deadline": "length",  # OpenAI knows no other word for an answer that was cut short
    "cancelled": "length",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of an answer; the last one says how it ended and what it cost."""

    text: str
    tokens: tuple[TokenLogprob, ...] = ()
    finish: Finish | None = None
    usage: Usage | None = None


@dataclass(slots=True)
class Whole:
    """An answer whose pieces came together."""

    text: str = ""
    tokens: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    finish: Finish = "length"
    usage: Usage = field(default_factory=Usage)

    def add(self, piece: Piece) -> None:
        """The next piece."""
        self.text += piece.text
        self.tokens += piece.tokens
        self.finish = piece.finish or self.finish
        self.usage = piece.usage or self.usage


async def start_all(begin: Sequence[Callable[[], Started]], *, num_chars: int, is_heavy: bool) -> list[Started]:
    """Submit all of them, or none: what was begun is cancelled when one is refused.

    Args:
        begin: submit one each.
        num_chars: of the texts that are tokenised for it; long ones are not the event loop's business.
        is_heavy: something else takes long, such as reading a schema.
    """
    started: list[Started] = []

    def run() -> None:
        for one in begin:
            started.append(one())

    try:
        if is_heavy or num_chars > _SHORT_CHARS:
            await asyncio.to_thread(run)
        else:
            run()
    except BaseException:
        for one in started:
            one.cancel()
        raise
    return started


async def read_stream(
    stream: Stream | TaskStream, context: ServerContext, access: Access, *, has_logprobs: bool
) -> Pieces:
    """The pieces of a generation; its tokens are counted, also those of one whose end nobody waits for."""
    reader = LogprobReader(context.ai.encoder.tokenizer) if has_logprobs else None

    def count(event: TokenEvent) -> None:
        if event.usage is not None and event.timings is not None:
            context.limits.add_tokens(access, event.usage)
            context.metrics.count_tokens(event.usage)
            context.metrics.count_first_token(event.timings.ttft_s)

    is_over = False
    try:
        async with aclosing(events(stream)) as found:
            async for event in found:
                is_over = event.finish_reason is not None
                count(event)
                tokens = () if reader is None else reader.push(event)
                finish = None if event.finish_reason is None else _FINISH[event.finish_reason]
                yield Piece(text=event.text, tokens=tokens, finish=finish, usage=event.usage)
    finally:
        if not is_over:
            _read_rest(stream, count)


def _read_rest(stream: Stream | TaskStream, count: Callable[[TokenEvent], None]) -> None:
    """Have the last event of a cancelled stream counted when it comes; nobody else is told of it."""
    loop = asyncio.get_running_loop()

    def drain() -> None:
        with contextlib.suppress(StopIteration, AllInOneError):
            while (event := stream.poll()) is not None:
                count(event)

    stream.listen(lambda: None if loop.is_closed() else loop.call_soon_threadsafe(drain))


async def read_label(pending: Pending, context: ServerContext, access: Access, *, num_logprobs: int | None) -> Pieces:
    """A label as the one piece of an answer."""
    result = await wait(pending)
    if not result.cached:
        context.limits.add_tokens(access, result.usage)
    context.metrics.count_result(result)
    tokens = () if num_logprobs is None else (label_logprob(result, num_logprobs),)
    yield Piece(text=result.label or "", tokens=tokens, finish="stop", usage=result.usage)


async def merge(choices: Sequence[Pieces], *, ping_s: float) -> AsyncGenerator[tuple[int, Piece] | None, None]:
    """Pieces of all choices with their place, as they come; None where nothing came for so long.

    Leaving early cancels all of them.
    """
    coming: dict[asyncio.Future[Piece], int] = {}
    try:
        for place, choice in enumerate(choices):
            coming[asyncio.ensure_future(choice.__anext__())] = place
        while coming:
            done, _ = await asyncio.wait(coming, timeout=ping_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                yield None
            for one in sorted(done, key=lambda done_one: coming[done_one]):
                place = coming.pop(one)
                try:
                    piece = one.result()
                except StopAsyncIteration:
                    continue
                coming[asyncio.ensure_future(choices[place].__anext__())] = place
                yield place, piece
    finally:
        for one in coming:
            one.cancel()
        await asyncio.gather(*coming, return_exceptions=True)
        for choice in choices:
            await choice.aclose()


async def collect(choices: Sequence[Pieces]) -> list[Whole]:
    """All answers, when all are complete."""
    answers = [Whole() for _ in choices]
    async with aclosing(merge(choices, ping_s=3_600)) as pieces:
        async for found in pieces:
            if found is not None:
                place, piece = found
                answers[place].add(piece)
    return answers
