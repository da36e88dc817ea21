"""Answers that were given, ratings of them, and tokens of a day."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from allinone.errors import NotFound
from allinone.store.database import Store
from allinone.store.feedback import KEEP_ANSWERS_DAYS

from .conftest import Clock, Open


def test_feedback_carries_task_and_version_of_its_answer(store: Store) -> None:
    """A rating is worth something only with the version that it rates."""
    store.answers.add("ans_1", "ann", "rewrite", "0123456789ab", "text")
    given = store.feedback.add("ann", "ans_1", rating="down", comment="太长\x00", correction="短")
    assert given.id.startswith("fb_")
    assert (given.task, given.version, given.rating) == ("rewrite", "0123456789ab", "down")
    assert list(store.feedback.list("ann", limit=9)) == [given] and not store.feedback.list("bob", limit=9)


def test_second_rating_of_an_answer_replaces_the_first(store: Store) -> None:
    """People change their mind; an answer is not both good and bad."""
    store.answers.add_many("ann", [("ans_1", "chat", "v", "chat"), ("ans_2", "chat", "v", "chat")])
    store.feedback.add("ann", "ans_1", rating="down", comment="no")
    other = store.feedback.add("ann", "ans_2", rating="up")
    latest = store.feedback.add("ann", "ans_1", rating="up")
    assert list(store.feedback.list("ann", limit=9)) == [latest, other] and latest.comment is None


def test_feedback_is_listed_page_by_page(store: Store) -> None:
    """Each once, newest first; a page that begins at somebody else's rating does not exist."""
    store.answers.add_many("ann", [(f"ans_{i}", "chat", "v", "chat") for i in range(5)])
    store.answers.add("ans_bob", "bob", "chat", "v", "chat")
    given = [store.feedback.add("ann", f"ans_{i}", rating="up").id for i in range(5)]
    theirs = store.feedback.add("bob", "ans_bob", rating="up")
    seen: list[str] = []
    while page := store.feedback.list("ann", limit=2, before=seen[-1] if seen else None):
        seen += [record.id for record in page]
    assert seen == given[::-1]
    with pytest.raises(NotFound):
        store.feedback.list("ann", limit=2, before=theirs.id)


@pytest.mark.parametrize(("owner", "id"), [("bob", "ans_1"), ("ann", "ans_2"), ("ann", "\x00")])
def test_answer_of_somebody_else_does_not_exist(store: Store, owner: str, id: str) -> None:
    """Nobody rates, or learns of, what another one was answered."""
    store.answers.add("ans_1", "ann", "chat", "v", "chat")
    with pytest.raises(NotFound):
        store.answers.get(owner, id)
    with pytest.raises(NotFound):
        store.feedback.add(owner, id, rating="up")
    assert not store.feedback.list(owner, limit=9)


def test_old_answers_are_forgotten_and_their_feedback_kept(open_store: Open, clock: Clock) -> None:
    """Every answer leaves a row: without an end the disk would fill up."""
    store = open_store()
    store.answers.add_many("ann", [("ans_old", "chat", "v", "chat"), ("ans_older", "chat", "v", "chat")])
    given = store.feedback.add("ann", "ans_old", rating="up")
    clock.now += timedelta(days=KEEP_ANSWERS_DAYS - 1)
    store.answers.add("ans_new", "ann", "chat", "v", "chat")
    store.answers.prune()
    assert store.answers.get("ann", "ans_old").task == "chat"
    clock.now += timedelta(days=2)
    store.close()
    again = open_store()
    for id in ("ans_old", "ans_older"):
        with pytest.raises(NotFound, match="days"):
            again.answers.get("ann", id)
    assert again.answers.get("ann", "ans_new").kind == "chat" and list(again.feedback.list("ann", limit=9)) == [given]


def test_answers_are_pruned_while_the_store_is_open(store: Store, clock: Clock) -> None:
    """A server runs for months."""
    store.answers.add("ans_old", "ann", "chat", "v", "chat")
    clock.now += timedelta(days=KEEP_ANSWERS_DAYS + 1)
    store.answers.add_many("ann", [(f"ans_{i}", "chat", "v", "chat") for i in range(10_000)])
    with pytest.raises(NotFound):
        store.answers.get("ann", "ans_old")
    assert store.answers.get("ann", "ans_9999")


def test_no_answers_are_no_transaction(store: Store) -> None:
    """A batch whose every item failed."""
    store.answers.add_many("ann", [])


def test_usage_adds_up_by_owner_and_day(store: Store) -> None:
    """Each owner and each day has a count of its own; unknown ones are zero; large ones do not overflow."""
    today, tomorrow = date(2026, 2, 28), date(2026, 3, 1)
    for owner, day, num_tokens in [("ann", today, 5), ("ann", today, 7), ("ann", tomorrow, 1), ("bob", today, 2**40)]:
        store.usage.add(owner, day, num_tokens)
    assert [store.usage.get("ann", day) for day in (today, tomorrow)] == [12, 1]
    assert store.usage.get("bob", today) == 2**40 and store.usage.get("bob", tomorrow) == 0
