"""Conversations: what is kept of them, whose they are, and what happens when two add a turn at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from allinone.errors import InvalidInput, NotFound, VersionConflict
from allinone.store.database import Store

from .conftest import Clock, Open, turn

HOSTILE = [
    "a\x00b",
    "\x10",
    "\x100",
    "\x00\x10\x00\x10\x10",
    "\x10" * 5 + "0",
    "'; DROP TABLE turns; --",
    "𠮷👩‍👩‍👧\u202e",
    "%s ? :x",
]


def test_turns_come_back_as_they_were_given(store: Store) -> None:
    """Also after the conversation is read anew: text, mood, numbers, times."""
    begun = store.conversations.create("ann", language="zh", title="实验")
    first = store.conversations.add_turn("ann", begun.id, expected_num_turns=0, **turn())
    second = store.conversations.add_turn("ann", begun.id, expected_num_turns=1, **turn("再说一次", mood=None))
    found = store.conversations.get("ann", begun.id)
    assert found.id.startswith("conv_") and (found.title, found.language, found.num_turns) == ("实验", "zh", 2)
    assert found.state == b"\x00state\xff" and found.created_at == begun.created_at < found.updated_at
    assert list(store.conversations.turns("ann", begun.id)) == [first, second]
    assert (first.number, second.number, second.mood) == (1, 2, None) and first.created_at.utcoffset() is not None


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_is_kept_as_it_is(store: Store, text: str) -> None:
    """PostgreSQL knows no NUL in text, and nothing may be lost or be taken for SQL."""
    begun = store.conversations.create("ann", language="zh", title=text)
    store.conversations.add_turn("ann", begun.id, expected_num_turns=0, **turn(text, text, mood={"x": text}))
    (kept,) = store.conversations.turns("ann", begun.id)
    assert (kept.text, kept.reply, kept.mood) == (text, text, {"x": text})
    assert store.conversations.get("ann", begun.id).title == text


def test_half_a_surrogate_pair_is_refused(store: Store) -> None:
    """It is no text; refused like any other bad input, and without being repeated."""
    begun = store.conversations.create("ann", language="zh")
    with pytest.raises(InvalidInput) as refusal:
        store.conversations.add_turn("ann", begun.id, expected_num_turns=0, **turn("secret \ud800"))
    assert "secret" not in str(refusal.value)
    assert store.conversations.get("ann", begun.id).num_turns == 0


def test_conversation_is_there_after_opening_again(open_store: Open) -> None:
    """History survives restarts."""
    first = open_store()
    begun = first.conversations.create("ann", language="en")
    first.conversations.add_turn("ann", begun.id, expected_num_turns=0, **turn())
    kept = first.conversations.get("ann", begun.id), first.conversations.turns("ann", begun.id)
    first.close()
    second = open_store()
    assert (second.conversations.get("ann", begun.id), second.conversations.turns("ann", begun.id)) == kept


@pytest.mark.parametrize("expected", [0, 2])
def test_turn_is_refused_when_another_came_first(store: Store, expected: int) -> None:
    """Two processes with one conversation: the second one is told, and nothing of it is kept."""
    begun = store.conversations.create("ann", language="zh")
    store.conversations.add_turn("ann", begun.id, expected_num_turns=0, **turn())
    with pytest.raises(VersionConflict, match="1 turns, not"):
        store.conversations.add_turn("ann", begun.id, expected_num_turns=expected, **turn("x", state=b"other"))
    assert [kept.text for kept in store.conversations.turns("ann", begun.id)] == ["今天的实验终于成功了"]
    assert store.conversations.get("ann", begun.id).state == b"\x00state\xff"


def test_last_turn_can_be_taken_back(store: Store) -> None:
    """For "try again": the turn goes, and the state is the one from before it."""
    begun = store.conversations.create("ann", language="zh")
    store.conversations.add_turn("ann", begun.id, expected_num_turns=0, **turn("one"))
    store.conversations.add_turn("ann", begun.id, expected_num_turns=1, **turn("two"))
    with pytest.raises(VersionConflict):
        store.conversations.delete_last_turn("ann", begun.id, expected_num_turns=1, state=None)
    left = store.conversations.delete_last_turn("ann", begun.id, expected_num_turns=2, state=b"before")
    assert (left.num_turns, left.state) == (1, b"before")
    assert [kept.text for kept in store.conversations.turns("ann", begun.id)] == ["one"]
    store.conversations.delete_last_turn("ann", begun.id, expected_num_turns=1, state=None)
    with pytest.raises(NotFound):
        store.conversations.delete_last_turn("ann", begun.id, expected_num_turns=0, state=None)


ACCESSES: dict[str, Callable[[Store, str, str], Any]] = {
    "get": lambda store, owner, id: store.conversations.get(owner, id),
    "turns": lambda store, owner, id: store.conversations.turns(owner, id),
    "before": lambda store, owner, id: store.conversations.list(owner, limit=5, before=id),
    "rename": lambda store, owner, id: store.conversations.rename(owner, id, "mine"),
    "delete": lambda store, owner, id: store.conversations.delete(owner, id),
    "add_turn": lambda store, owner, id: store.conversations.add_turn(owner, id, expected_num_turns=1, **turn()),
    "delete_last_turn": lambda store, owner, id: store.conversations.delete_last_turn(
        owner, id, expected_num_turns=1, state=None
    ),
}


@pytest.mark.parametrize("access", ACCESSES)
def test_conversation_of_another_owner_does_not_exist(store: Store, access: str) -> None:
    """Whoever guesses an id learns nothing: the same error as for one that was never there, and nothing changes."""
    begun = store.conversations.create("ann", language="zh", title="hers")
    store.conversations.add_turn("ann", begun.id, expected_num_turns=0, **turn())
    before = store.conversations.export("ann")
    messages: set[str] = set()
    for owner, id in [("bob", begun.id), ("ann", "conv_never"), ("", begun.id), ("ANN", begun.id), ("ann", "\x00%")]:
        with pytest.raises(NotFound) as refusal:
            ACCESSES[access](store, owner, id)
        messages.add(str(refusal.value))
    assert len(messages) == 1
    assert store.conversations.export("ann") == before


def test_list_has_the_newest_turn_first_and_goes_on_page_by_page(store: Store) -> None:
    """Every conversation once, whatever the size of a page; other owners' never; states are left out."""
    ids = [store.conversations.create("ann", language="zh", title=str(i)).id for i in range(7)]
    store.conversations.create("bob", language="zh")
    store.conversations.add_turn("ann", ids[2], expected_num_turns=0, **turn())
    expected = [ids[2], *(id for id in reversed(ids) if id != ids[2])]
    for limit in (1, 2, 3, 7, 100):
        seen: list[str] = []
        while page := store.conversations.list("ann", limit=limit, before=seen[-1] if seen else None):
            assert len(page) <= limit and all(record.state is None for record in page)
            seen += [record.id for record in page]
        assert seen == expected


def test_conversations_of_the_same_moment_are_listed_once_each(open_store: Open, clock: Clock) -> None:
    """A coarse clock gives many the same time; the next page must neither repeat nor skip."""
    store = open_store(clock=lambda: clock.now)
    ids = {store.conversations.create("ann", language="zh").id for _ in range(6)}
    seen: list[str] = []
    while page := store.conversations.list("ann", limit=2, before=seen[-1] if seen else None):
        seen += [record.id for record in page]
    assert len(seen) == 6 and set(seen) == ids


def test_rename_changes_the_title_and_not_the_place(store: Store) -> None:
    """Tidying up old conversations does not shuffle the list."""
    old, new = (store.conversations.create("ann", language="zh") for _ in range(2))
    assert store.conversations.rename("ann", old.id, "旧").title == "旧"
    assert [record.id for record in store.conversations.list("ann", limit=9)] == [new.id, old.id]


def test_delete_takes_the_turns_along(store: Store) -> None:
    """A turn that nobody can find any more is still somebody's text."""
    gone, kept = (store.conversations.create("ann", language="zh") for _ in range(2))
    for record in (gone, kept):
        store.conversations.add_turn("ann", record.id, expected_num_turns=0, **turn())
    store.conversations.delete("ann", gone.id)
    with pytest.raises(NotFound):
        store.conversations.turns("ann", gone.id)
    with store.database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM turns").scalar_one() == 1


def test_export_has_all_of_one_owner_as_json(store: Store) -> None:
    """Conversations without turns too; nothing of others, nothing that only the program needs."""
    with_turns = store.conversations.create("ann", language="zh", title="a")
    store.conversations.create("ann", language="en", title="b")
    theirs = store.conversations.create("bob", language="zh", title="not hers")
    for number, text in enumerate(("one", "二\x00")):
        store.conversations.add_turn("ann", with_turns.id, expected_num_turns=number, **turn(text))
    store.conversations.add_turn("bob", theirs.id, expected_num_turns=0, **turn("not hers"))
    told = json.loads(json.dumps(store.conversations.export("ann")))["conversations"]
    assert [(entry["title"], [said["text"] for said in entry["turns"]]) for entry in told] == [
        ("a", ["one", "二\x00"]),
        ("b", []),
    ]
    assert told[0]["turns"][0]["mood"]["probs"] == {"正面": 0.75, "负面": 0.25}
    assert not {"state", "owner"} & told[0].keys() and told[0]["created_at"].endswith("+00:00")
    assert store.conversations.export("nobody") == {"conversations": []}


def test_delete_owner_leaves_others_alone(store: Store) -> None:
    """Everything of one person goes: what was said, rated and counted."""
    for owner in ("ann", "bob"):
        begun = store.conversations.create(owner, language="zh")
        store.conversations.add_turn(owner, begun.id, expected_num_turns=0, **turn())
        store.answers.add(f"ans_{owner}", owner, "sentiment", "v", "label")
        store.feedback.add(owner, f"ans_{owner}", rating="up")
    store.delete_owner("ann")
    with store.database.reading() as connection:
        for table in ("conversations", "turns", "answers", "feedback"):
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one() == 1, table
    assert store.conversations.list("bob", limit=9) and store.feedback.list("bob", limit=9)
