"""Conversations that are being held: the store's record of each, and the model's live memory of the recent ones.

The store is the truth; a live conversation is a cache of it that saves prefilling the history again. One that was
continued by another process, or that made room, is read from the store again. Above: `reply_runs.py`,
`conversations_api.py`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from allinone.pipelines.conversation import Conversation, Memory, Turn
from allinone.runtime import AllInOne
from allinone.types import FinishReason, Result

if TYPE_CHECKING:
    from allinone.store.conversations import ConversationRecord, TurnRecord
    from allinone.store.database import Store

MAX_LIVE = 256
"""Conversations whose ids are held in memory; their keys and values have the engine's own budget."""
MAX_TITLE_CHARS = 40


class _Live:
    """One conversation in this process: None until it was read; `state` is what the store has of it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.num_waiting = 0
        self.conversation: Conversation | None = None
        self.state: bytes | None = None


class Talk:
    """One conversation, held by one request at a time. Made by `Talks.hold`.

    Attributes:
        record: what the store says of it.
    """

    def __init__(self, store: Store, record: ConversationRecord, conversation: Conversation, live: _Live) -> None:
        self._store = store
        self._live = live
        self.record = record
        self.conversation = conversation

    async def keep_last_turn(self, *, reply: Result, answer_id: str) -> int:
        """Write the turn that was just held; it is on the disk when this returns. Returns its number.

        Raises:
            VersionConflict: the conversation went on in another process; the turn is not kept.
            NotFound: it was deleted in the meantime.
        """
        turn, state = self.conversation.turns[-1], self.conversation.memory().to_bytes()
        add = self._store.conversations.add_turn
        written = await asyncio.to_thread(
            add,
            self.record.owner,
            self.record.id,
            expected_num_turns=self.record.num_turns,
            text=turn.text,
            reply=turn.reply,
            mood=mood_of(turn.mood),
            finish_reason=reply.finish_reason,
            answer_id=answer_id,
            task_version=reply.version,
            state=state,
        )
        self._live.state = state
        if not self.record.title and written.number == 1:
            title = title_of(turn.text)
            await asyncio.to_thread(self._store.conversations.rename, self.record.owner, self.record.id, title)
        return written.number

    async def drop_last_turn(self) -> ConversationRecord:
        """Take the last turn back, in the store and in the model's memory.

        Raises:
            NotFound: there is none. VersionConflict: the conversation went on in another process.
        """
        memory = self.conversation.memory().without_last_turn()
        return await asyncio.to_thread(
            self._store.conversations.delete_last_turn,
            self.record.owner,
            self.record.id,
            expected_num_turns=self.record.num_turns,
            state=memory.to_bytes(),
        )


class Talks:
    """The conversations of one process. Used from one event loop."""

    def __init__(self, ai: AllInOne, store: Store) -> None:
        self._ai, self._store = ai, store
        self._live: OrderedDict[tuple[str, str], _Live] = OrderedDict()

    async def create(self, owner: str, *, language: str, title: str = "") -> ConversationRecord:
        """A new conversation in the store."""
        return await asyncio.to_thread(self._store.conversations.create, owner, language=language, title=title)

    @asynccontextmanager
    async def hold(self, owner: str, id: str) -> AsyncGenerator[Talk]:
        """One conversation as it is in the store now, for one request at a time; the next one waits.

        Left with an exception, what the model remembers is in doubt and is read from the store the next time.

        Raises:
            NotFound: the owner has no conversation with this id.
        """
        live = self._live.setdefault((owner, id), _Live())
        self._live.move_to_end((owner, id))
        live.num_waiting += 1
        try:
            async with live.lock:
                try:
                    talk = await self._open(live, owner, id)
                    yield talk
                except BaseException:
                    self._forget(live)
                    raise
        finally:
            live.num_waiting -= 1
            if live.conversation is None and not live.num_waiting:
                self._live.pop((owner, id), None)
            self._make_room()

    def forget(self, owner: str, id: str) -> None:
        """A conversation was deleted or changed: nothing of it is kept."""
        live = self._live.get((owner, id))
        if live is not None and not live.lock.locked():
            self._forget(live)
            if not live.num_waiting:
                del self._live[owner, id]

    def close(self) -> None:
        """Forget all of them."""
        for live in self._live.values():
            self._forget(live)
        self._live.clear()

    async def _open(self, live: _Live, owner: str, id: str) -> Talk:
        record = await asyncio.to_thread(self._store.conversations.get, owner, id)
        conversation = live.conversation
        if conversation is None or live.state != record.state:  # another process may have gone on, or taken turns back
            self._forget(live)
            conversation = self._ai.conversation(client=owner, language=record.language)
            if record.num_turns:
                written = await asyncio.to_thread(self._store.conversations.turns, owner, id)
                memory = None if record.state is None else Memory.from_bytes(record.state)
                conversation.restore(turns_of(written), memory)
            live.conversation, live.state = conversation, record.state
        return Talk(self._store, record, conversation, live)

    def _make_room(self) -> None:
        for key in [key for key, live in self._live.items() if not live.num_waiting]:
            if len(self._live) <= MAX_LIVE:
                return
            self._forget(self._live.pop(key))

    @staticmethod
    def _forget(live: _Live) -> None:
        if live.conversation is not None:
            live.conversation.close()
            live.conversation = None


def mood_of(mood: Result) -> dict[str, Any]:
    """A mood as it is stored and shown."""
    return {
        "label": mood.label,
        "name": mood.name,
        "emoji": mood.emoji,
        "probs": None if mood.probs is None else dict(mood.probs),
        "p_max": mood.p_max,
        "task": mood.task,
        "version": mood.version,
    }


def title_of(text: str) -> str:
    """The title of a conversation that begins with this text."""
    words = " ".join(text.split())
    return words if len(words) <= MAX_TITLE_CHARS else words[: MAX_TITLE_CHARS - 1] + "…"


def turns_of(records: Sequence[TurnRecord]) -> list[Turn]:
    """Stored turns as a conversation has them."""
    return [Turn(text=r.text, mood=_result_of(r.mood or {}), reply=r.reply) for r in records]


def _result_of(mood: Mapping[str, Any]) -> Result:
    finish_reason: FinishReason = "stop"
    return Result(
        task=mood.get("task", ""),
        version=mood.get("version", ""),
        model="",
        kind="label",
        label=mood.get("label"),
        name=mood.get("name"),
        emoji=mood.get("emoji"),
        probs=mood.get("probs"),
        p_max=mood.get("p_max"),
        finish_reason=finish_reason,
    )
