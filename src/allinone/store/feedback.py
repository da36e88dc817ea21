"""What people think of answers, and which answers there were. Every query names the owner.

An answer's row says only who got it from which version of which task, not what was asked or answered. It is kept for as
long as somebody is likely to rate it; feedback carries the task and version along, so it does not need it later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import delete, insert, literal, select, tuple_

from allinone.errors import NotFound
from allinone.store.connections import Database
from allinone.store.tables import answers, feedback, new_id

Rating = Literal["up", "down"]
KEEP_ANSWERS_DAYS = 30
_PRUNE_EVERY = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRecord:
    """An answer that was given: by which version of which task, to whom."""

    id: str
    owner: str
    task: str
    version: str
    kind: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackRecord:
    """A rating of one answer, perhaps with words and with what the answer should have been."""

    id: str
    owner: str
    answer_id: str
    task: str
    version: str
    rating: Rating
    comment: str | None
    correction: str | None
    created_at: datetime


class Answers:
    """The answers that feedback may refer to. Thread-safe; all methods block."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._num_until_prune = _PRUNE_EVERY

    def add(self, id: str, owner: str, task: str, version: str, kind: str) -> None:
        """Remember an answer. Power loss may take the last moments of these; nothing else does."""
        self.add_many(owner, [(id, task, version, kind)])

    def add_many(self, owner: str, rows: Iterable[tuple[str, str, str, str]]) -> None:
        """Remember many answers to one owner at once, each as (id, task, version, kind)."""
        now = self._clock()
        values = [
            asdict(AnswerRecord(id=id, owner=owner, task=task, version=version, kind=kind, created_at=now))
            for id, task, version, kind in rows
        ]
        if not values:
            return
        with self._database.writing(is_durable=False) as connection:
            connection.execute(insert(answers), values)
        self._num_until_prune -= len(values)
        if self._num_until_prune <= 0:
            self.prune()

    def get(self, owner: str, id: str) -> AnswerRecord:
        """One answer.

        Raises:
            NotFound: the owner got none with this id, or it is older than `KEEP_ANSWERS_DAYS`.
        """
        wanted = select(answers).where((answers.c.id == id) & (answers.c.owner == owner))
        with self._database.reading() as connection:
            row = connection.execute(wanted).mappings().one_or_none()
        if row is None:
            raise NotFound("There is no such answer.", hint=f"answers can be rated for {KEEP_ANSWERS_DAYS} days")
        return AnswerRecord(**row)

    def prune(self) -> None:
        """Forget answers that are too old to be rated; done now and then by itself."""
        self._num_until_prune = _PRUNE_EVERY
        oldest = self._clock() - timedelta(days=KEEP_ANSWERS_DAYS)
        with self._database.writing(is_durable=False) as connection:
            connection.execute(delete(answers).where(answers.c.created_at < oldest))


class Feedback:
    """Ratings. Thread-safe; all methods block."""

    def __init__(self, database: Database, answers: Answers, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._answers = answers
        self._clock = clock

    def add(
        self, owner: str, answer_id: str, *, rating: Rating, comment: str | None = None, correction: str | None = None
    ) -> FeedbackRecord:
        """Rate an answer; what was said of it before is replaced.

        Raises:
            NotFound: the owner got no answer with this id.
        """
        answer = self._answers.get(owner, answer_id)
        record = FeedbackRecord(
            id=new_id("fb"),
            owner=owner,
            answer_id=answer.id,
            task=answer.task,
            version=answer.version,
            rating=rating,
            comment=comment,
            correction=correction,
            created_at=self._clock(),
        )
        values = asdict(record)
        statement = self._database.insert(feedback).values(values)
        with self._database.writing() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["answer_id"], set_=values))
        return record

    def list(self, owner: str, *, limit: int, before: str | None = None) -> Sequence[FeedbackRecord]:
        """The owner's ratings, newest first.

        Args:
            owner: whose.
            limit: the most.
            before: id of the last one of the page before; the first page where None.

        Raises:
            NotFound: the owner has no rating `before`.
        """
        is_owners = feedback.c.owner == owner
        order = feedback.c.created_at, feedback.c.id
        wanted = select(feedback).where(is_owners).order_by(*(column.desc() for column in order)).limit(limit)
        with self._database.reading() as connection:
            if before is not None:
                last = connection.execute(select(*order).where(is_owners & (feedback.c.id == before))).one_or_none()
                if last is None:
                    raise NotFound("There is no such feedback.", hint="a later rating of the answer replaces it")
                at, id = (literal(value, column.type) for value, column in zip(last, order, strict=True))
                wanted = wanted.where(tuple_(*order) < tuple_(at, id))
            return [FeedbackRecord(**row) for row in connection.execute(wanted).mappings()]
