"""Awaiting the engine: no thread waits, nothing is lost, and who stops waiting cancels."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from allinone import AllInOne
from allinone.errors import InvalidInput
from allinone.server.waiting import events, settled, wait


@pytest.fixture(scope="module")
def ai() -> Iterator[AllInOne]:
    with AllInOne.load() as ai:
        yield ai


def test_awaited_answers_equal_blocking_ones(ai: AllInOne) -> None:
    texts = [f"这家店第{i}次来还是这么好吃" for i in range(40)]
    expected = [ai.run("sentiment", text).probs for text in texts]

    async def ask() -> list[object]:
        pending = [ai.start("sentiment", text, client="another") for text in texts]
        return [result.probs for result in await asyncio.gather(*map(wait, pending))]

    assert asyncio.run(ask()) == expected


def test_cached_answer_does_not_wait(ai: AllInOne) -> None:
    ai.run("sentiment", "同一个问题")
    assert asyncio.run(wait(ai.start("sentiment", "同一个问题"))).cached


def test_answers_are_kept_for_the_same_client_only(ai: AllInOne) -> None:
    """The time of an answer must not tell what somebody else asked."""
    ai.run("sentiment", "只有我问过", client="a")
    assert ai.run("sentiment", "只有我问过", client="a").cached
    assert not ai.run("sentiment", "只有我问过", client="b").cached


def test_awaited_stream_equals_the_blocking_one(ai: AllInOne) -> None:
    text = "请总结：今天上午公司开会讨论了新产品的发布计划，决定下周一开始内测。"
    expected = "".join(event.text for event in ai.stream("summarize", text))

    async def read() -> str:
        return "".join([event.text async for event in events(ai.stream("summarize", text))])

    assert asyncio.run(read()) == expected


def test_stream_left_early_is_cancelled(ai: AllInOne) -> None:
    async def read_one() -> None:
        source = events(stream)
        async for _ in source:
            break
        await source.aclose()

    stream = ai.stream("chat", "讲一个很长很长的故事")
    asyncio.run(read_one())
    assert stream.result().finish_reason in ("cancelled", "stop")


def test_cancelled_wait_cancels_the_request(ai: AllInOne) -> None:
    async def give_up() -> None:
        pending = ai.start("summarize", "很长的一段话。" * 100)
        task = asyncio.create_task(wait(pending))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await settled(pending)

    asyncio.run(give_up())


def test_error_of_a_request_is_raised(ai: AllInOne) -> None:
    with pytest.raises(InvalidInput):
        asyncio.run(wait(ai.start("sentiment", "   ")))


def test_answer_after_the_loop_has_ended_harms_nobody(ai: AllInOne) -> None:
    """The engine's thread rings bells of loops that are gone; it must survive that."""

    async def ask_and_leave() -> None:
        for text in ("一", "二", "三"):
            asyncio.get_running_loop().call_soon(lambda: None)
            pending.append(ai.start("chat", text))
            waiting.append(asyncio.create_task(settled(pending[-1])))
        await asyncio.sleep(0)

    pending: list[object] = []
    waiting: list[asyncio.Task[None]] = []
    asyncio.run(ask_and_leave())
    assert ai.run("sentiment", "引擎还在").label
