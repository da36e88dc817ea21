"""Conversations and their turns. Every query names the owner: another owner's conversation does not exist.

A turn is on the disk when `add_turn` returns. Two processes may talk in one conversation; who adds a turn says how many
there were, and the second of two at once is refused, never mixed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, insert, literal, select, tuple_, update

from allinone.errors import NotFound, VersionConflict
from allinone.store.connections import Database
from allinone.store.tables import conversations, new_id, turns

_LISTED = [column for column in conversations.columns if column.name != "state"]
_TOLD = ("id", "title", "created_at", "updated_at", "language", "num_turns")
_TOLD_OF_TURNS = (
    "number", "text", "mood", "reply", "finish_reason", "task_version", "answer_id", "created_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationRecord:
    """A conversation without its turns.

    Attributes:
        language: "zh" or "en".
        state: what the runtime needs to go on; None where there is none yet, and in lists, which leave it out.
    """

    id: str
    owner: str
    title: str
    created_at: datetime
    updated_at: datetime
    language: str
    num_turns: int
    state: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRecord:
    """What a person said, and the reply.

    Attributes:
        number: 1 for the first turn, without gaps.
        mood: how the text was judged, as JSON.
        task_version: of the chat task that replied.
        answer_id: what feedback refers to.
    """

    id: str
    conversation_id: str
    number: int
    text: str
    reply: str
    mood: dict[str, Any] | None
    finish_reason: str
    task_version: str
    answer_id: str
    created_at: datetime


class Conversations:
    """The conversations of all owners. Thread-safe; all methods block.

    Args:
        clock: says what time it is, in UTC.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def create(self, owner: str, *, language: str, title: str = "") -> ConversationRecord:
        """A new conversation without turns."""
        now = self._clock()
        record = ConversationRecord(
            id=new_id("conv"),
            owner=owner,
            title=title,
            created_at=now,
            updated_at=now,
            language=language,
            num_turns=0,
        )
        with self._database.writing() as connection:
            connection.execute(insert(conversations).values(asdict(record)))
        return record

    def get(self, owner: str, id: str) -> ConversationRecord:
        """One conversation, with its state.

        Raises:
            NotFound: the owner has none with this id.
        """
        with self._database.reading() as connection:
            return _require(connection, owner, id)

    def list(self, owner: str, *, limit: int, before: str | None = None) -> Sequence[ConversationRecord]:
        """The owner's conversations, the one with the newest turn first.

        Args:
            owner: whose.
            limit: the most.
            before: id of the last one of the page before; the first page where None.

        Raises:
            NotFound: the owner has no conversation `before`.
        """
        wanted = select(*_LISTED).where(conversations.c.owner == owner)
        order = conversations.c.updated_at, conversations.c.id
        with self._database.reading() as connection:
            if before is not None:
                last = _require(connection, owner, before)
                wanted = wanted.where(tuple_(*order) < tuple_(_moment(last.updated_at), literal(last.id)))
            rows = connection.execute(wanted.order_by(*(column.desc() for column in order)).limit(limit))
            return [ConversationRecord(**row) for row in rows.mappings()]

    def turns(self, owner: str, id: str) -> Sequence[TurnRecord]:
        """The turns of a conversation, oldest first.

        Raises:
            NotFound: the owner has none with this id.
        """
        with self._database.reading() as connection:
            _require(connection, owner, id)
            rows = connection.execute(select(turns).where(turns.c.conversation_id == id).order_by(turns.c.number))
            return [TurnRecord(**row) for row in rows.mappings()]

    def rename(self, owner: str, id: str, title: str) -> ConversationRecord:
        """Give a conversation another title; its place in lists stays.

        Raises:
            NotFound: the owner has none with this id.
        """
        with self._database.writing() as connection:
            connection.execute(update(conversations).where(_is(owner, id)).values(title=title))
            return _require(connection, owner, id)

    def delete(self, owner: str, id: str) -> None:
        """Delete a conversation and all its turns.

        Raises:
            NotFound: the owner has none with this id.
        """
        with self._database.writing() as connection:
            if connection.execute(delete(conversations).where(_is(owner, id))).rowcount == 0:
                raise _not_found()

    def add_turn(
        self,
        owner: str,
        id: str,
        *,
        expected_num_turns: int,
        text: str,
        reply: str,
        mood: dict[str, Any] | None,
        finish_reason: str,
        answer_id: str,
        task_version: str,
        state: bytes | None,
    ) -> TurnRecord:
        """Add a turn and the state after it, at once. It is on the disk when this returns.

        Raises:
            NotFound: the owner has no conversation with this id.
            VersionConflict: it does not have `expected_num_turns` turns (any more).
        """
        turn = TurnRecord(
            id=new_id("turn"),
            conversation_id=id,
            number=expected_num_turns + 1,
            text=text,
            reply=reply,
            mood=mood,
            finish_reason=finish_reason,
            task_version=task_version,
            answer_id=answer_id,
            created_at=self._clock(),
        )
        with self._database.writing() as connection:
            self._advance(connection, owner, id, expected_num_turns, by=1, state=state)
            connection.execute(insert(turns).values(asdict(turn)))
        return turn

    def delete_last_turn(
        self, owner: str, id: str, *, expected_num_turns: int, state: bytes | None
    ) -> ConversationRecord:
        """Take the last turn back, and put `state` from before it in its place.

        Raises:
            NotFound: the owner has no conversation with this id, or it has no turns.
            VersionConflict: it does not have `expected_num_turns` turns (any more).
        """
        if expected_num_turns < 1:
            raise NotFound("The conversation has no turn to delete.")
        with self._database.writing() as connection:
            self._advance(connection, owner, id, expected_num_turns, by=-1, state=state)
            is_last = (turns.c.conversation_id == id) & (turns.c.number == expected_num_turns)
            connection.execute(delete(turns).where(is_last))
            return _require(connection, owner, id)

    def export(self, owner: str) -> dict[str, Any]:
        """All that the owner said and was answered, as JSON, oldest first; of one moment."""
        wanted = (
            select(*_LISTED, turns)
            .select_from(conversations.outerjoin(turns))
            .where(conversations.c.owner == owner)
            .order_by(conversations.c.created_at, conversations.c.id, turns.c.number)
        )
        found: dict[str, dict[str, Any]] = {}
        with self._database.reading() as connection:
            for row in connection.execute(wanted).mappings():
                conversation = found.setdefault(row[conversations.c.id], {})
                if not conversation:
                    conversation.update({name: _plain(row[conversations.c[name]]) for name in _TOLD}, turns=[])
                if row[turns.c.id] is not None:
                    conversation["turns"].append({name: _plain(row[turns.c[name]]) for name in _TOLD_OF_TURNS})
        return {"conversations": [*found.values()]}

    def _advance(
        self, connection: Connection, owner: str, id: str, expected: int, *, by: int, state: bytes | None
    ) -> None:
        """Count a turn more or less. Its row is locked from here on, so that nobody else can."""
        is_as_expected = _is(owner, id) & (conversations.c.num_turns == expected)
        change = update(conversations).where(is_as_expected)
        values = {"num_turns": expected + by, "state": state, "updated_at": self._clock()}
        if connection.execute(change.values(values)).rowcount == 0:
            found = _require(connection, owner, id)
            raise VersionConflict(
                f"The conversation has {found.num_turns} turns, not {expected}.",
                hint="it went on elsewhere: read it again",
            )


def _is(owner: str, id: str) -> ColumnElement[bool]:
    return (conversations.c.id == id) & (conversations.c.owner == owner)


def _require(connection: Connection, owner: str, id: str) -> ConversationRecord:
    row = connection.execute(select(conversations).where(_is(owner, id))).mappings().one_or_none()
    if row is None:
        raise _not_found()
    return ConversationRecord(**row)


def _not_found() -> NotFound:
    return NotFound("There is no such conversation.", hint="it may have been deleted")


def _moment(value: datetime) -> ColumnElement[datetime]:
    return literal(value, conversations.c.updated_at.type)


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value
