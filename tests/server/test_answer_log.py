"""Answers are in the store before they are sent, and many of them share a transaction."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable

import pytest

from allinone.errors import StoreError
from allinone.prompts.library import PromptLibrary
from allinone.server.answer_log import AnswerLog
from allinone.server.keys import LOCAL, Access

Row = tuple[str, str, str, str]
PROMPT = PromptLibrary.load().get("sentiment")


class Answers:
    """A store that can be held up, and that can fail."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[Row]]] = []
        self.may_write = threading.Event()
        self.may_write.set()
        self.is_broken = False

    def add_many(self, owner: str, rows: Iterable[Row]) -> None:
        """As the store does, when it may."""
        assert self.may_write.wait(60)
        if self.is_broken:
            raise StoreError("the disk is full")
        self.calls.append((owner, list(rows)))

    @property
    def ids(self) -> list[str]:
        """Everything that was written."""
        return [row[0] for _, rows in self.calls for row in rows]


def test_an_answer_is_written_before_its_id_is_known() -> None:
    """Whoever has the id can rate the answer at once."""
    store = Answers()
    (first,) = asyncio.run(AnswerLog(store).add(LOCAL, PROMPT))
    assert store.calls == [("local", [(first, "sentiment", PROMPT.version, "label")])]
    assert asyncio.run(AnswerLog(store).add(LOCAL, PROMPT, 0)) == []


def test_answers_that_are_ready_together_share_a_transaction() -> None:
    """A hundred at once are two writes for each owner: what came first, and what came while it was written."""

    async def scenario() -> None:
        store = Answers()
        log = AnswerLog(store)
        store.may_write.clear()
        owners = [Access(owner=name) for name in ("ann", "bob")]
        adding = [asyncio.create_task(log.add(owners[number % 2], PROMPT, 2)) for number in range(100)]
        await asyncio.sleep(0.05)
        late = [asyncio.create_task(log.add(owners[0], PROMPT)) for _ in range(10)]
        await asyncio.sleep(0.05)
        store.may_write.set()
        ids = [id for found in await asyncio.gather(*adding, *late) for id in found]
        assert len(store.calls) <= 4
        assert sorted(ids) == sorted(store.ids) and len(set(ids)) == 210
        assert all(row[0] in ids for owner, rows in store.calls for row in rows if owner in ("ann", "bob"))

    asyncio.run(scenario())


def test_a_store_that_fails_is_heard_by_all_who_wait() -> None:
    """Nobody gets an id that means nothing; the next one is written again."""

    async def scenario() -> None:
        store = Answers()
        log = AnswerLog(store)
        store.is_broken = True
        outcomes = await asyncio.gather(*(log.add(LOCAL, PROMPT) for _ in range(5)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [StoreError] * 5
        store.is_broken = False
        (kept,) = await log.add(LOCAL, PROMPT)
        assert store.ids == [kept]

    asyncio.run(scenario())


def test_a_client_that_goes_while_it_is_written_disturbs_nobody() -> None:
    """Its neighbours in the same transaction get their ids."""

    async def scenario() -> None:
        store = Answers()
        log = AnswerLog(store)
        store.may_write.clear()
        going, staying = (asyncio.create_task(log.add(LOCAL, PROMPT)) for _ in range(2))
        await asyncio.sleep(0.05)
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        store.may_write.set()
        (kept,) = await staying
        assert kept in store.ids and len(store.ids) == 2

    asyncio.run(scenario())
