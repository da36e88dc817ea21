"""Any order of calls: SQLite, PostgreSQL and a dict agree on what is kept and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from allinone.errors import AllInOneError, NotFound, VersionConflict
from allinone.store.database import Store

from . import postgres
from .conftest import Clock, turn

texts = st.text(max_size=6)
owners = st.sampled_from([0, 1])
handles = st.integers(0, 5)


@dataclass
class Kept:
    """What the model knows of one conversation; `ids` has one id for each store."""

    owner: int
    ids: list[str]
    title: str
    touched: int
    turns: list[str] = field(default_factory=list[str])
    states: list[bytes | None] = field(default_factory=lambda: [None])


class Stores(RuleBasedStateMachine):
    """All stores, driven alike. A conversation is named by a number that may be anybody's or gone."""

    stores: list[Store]

    @initialize()
    def begin(self) -> None:
        """Owners of this example's own."""
        self.owners = [f"{name}-{uuid4()}" for name in ("ann", "bob")]
        self.kept: dict[int, Kept] = {}
        self.time = 0

    def _all(self, expected: type[AllInOneError] | None, call: Callable[[Store, int], Any]) -> list[Any]:
        """The same call on every store: all succeed, or all refuse with the same error and words."""
        outcomes: list[Any] = []
        for i, store in enumerate(self.stores):
            try:
                outcomes.append(call(store, i))
            except AllInOneError as error:
                outcomes.append(error)
        if expected is None:
            assert not any(isinstance(outcome, AllInOneError) for outcome in outcomes), outcomes
        else:
            assert [type(outcome) for outcome in outcomes] == [expected] * len(outcomes)
            assert len({str(outcome) for outcome in outcomes}) == 1
        return outcomes

    def _find(self, owner: int, handle: int) -> tuple[Kept | None, list[str]]:
        """The conversation if it is the owner's, and the ids to ask for."""
        kept = self.kept.get(handle)
        ids = kept.ids if kept else [f"conv_{handle}"] * len(self.stores)
        return (kept if kept and kept.owner == owner else None), ids

    def _touch(self, kept: Kept) -> None:
        self.time += 1
        kept.touched = self.time

    @rule(owner=owners, handle=handles, title=texts)
    def create(self, owner: int, handle: int, title: str) -> None:
        """A conversation begins; the one that had the number before goes."""
        if handle in self.kept:
            self.delete(self.kept[handle].owner, handle)
        records = self._all(None, lambda s, i: s.conversations.create(self.owners[owner], language="zh", title=title))
        self.kept[handle] = Kept(owner=owner, ids=[record.id for record in records], title=title, touched=0)
        self._touch(self.kept[handle])

    @rule(owner=owners, handle=handles, text=texts, off_by=st.sampled_from([0, 0, 0, -1, 1]))
    def add_turn(self, owner: int, handle: int, text: str, off_by: int) -> None:
        """Somebody says something; perhaps another process was quicker."""
        kept, ids = self._find(owner, handle)
        expected = NotFound if kept is None else VersionConflict if off_by else None
        number = max(0, (len(kept.turns) if kept else 0) + off_by)
        if kept and number == len(kept.turns):
            expected = None
        state = None if text == "" else text.encode()
        told = turn(text, text[::-1], mood={"text": text}, state=state)
        self._all(
            expected,
            lambda s, i: s.conversations.add_turn(self.owners[owner], ids[i], expected_num_turns=number, **told),
        )
        if kept and expected is None:
            kept.turns.append(text)
            kept.states.append(state)
            self._touch(kept)

    @rule(owner=owners, handle=handles, off_by=st.sampled_from([0, 0, 1]))
    def delete_last_turn(self, owner: int, handle: int, off_by: int) -> None:
        """Try again."""
        kept, ids = self._find(owner, handle)
        number = (len(kept.turns) if kept else 0) + off_by
        expected = NotFound if kept is None or number == 0 else VersionConflict if off_by else None
        state = kept.states[-2] if kept and expected is None else None
        call = {"expected_num_turns": number, "state": state}
        self._all(expected, lambda s, i: s.conversations.delete_last_turn(self.owners[owner], ids[i], **call).num_turns)
        if kept and expected is None:
            kept.turns.pop()
            kept.states.pop()
            self._touch(kept)

    @rule(owner=owners, handle=handles, title=texts)
    def rename(self, owner: int, handle: int, title: str) -> None:
        """Another title."""
        kept, ids = self._find(owner, handle)
        self._all(
            None if kept else NotFound, lambda s, i: s.conversations.rename(self.owners[owner], ids[i], title).title
        )
        if kept:
            kept.title = title

    @rule(owner=owners, handle=handles)
    def delete(self, owner: int, handle: int) -> None:
        """Gone, for good."""
        kept, ids = self._find(owner, handle)
        self._all(None if kept else NotFound, lambda s, i: s.conversations.delete(self.owners[owner], ids[i]))
        if kept:
            del self.kept[handle]

    @rule(owner=owners, limit=st.integers(1, 4))
    def read_pages(self, owner: int, limit: int) -> None:
        """The list, page by page, is the model's: newest turn first."""
        mine = [kept for kept in self.kept.values() if kept.owner == owner]
        for i, store in enumerate(self.stores):
            seen: list[str] = []
            while page := store.conversations.list(self.owners[owner], limit=limit, before=seen[-1] if seen else None):
                seen += [record.id for record in page]
            assert seen == [kept.ids[i] for kept in sorted(mine, key=lambda kept: -kept.touched)]

    @invariant()
    def stores_hold_what_the_model_holds(self) -> None:
        """Title, turns, state and count of each conversation, and the export of each owner."""
        for i, store in enumerate(self.stores):
            for kept in self.kept.values():
                found = store.conversations.get(self.owners[kept.owner], kept.ids[i])
                assert (found.title, found.num_turns, found.state) == (kept.title, len(kept.turns), kept.states[-1])
                turns = store.conversations.turns(self.owners[kept.owner], kept.ids[i])
                assert [(said.number, said.text, said.reply, said.mood) for said in turns] == [
                    (number, text, text[::-1], {"text": text}) for number, text in enumerate(kept.turns, 1)
                ]
        for owner, name in enumerate(self.owners):
            exports = [_without_ids(store.conversations.export(name)) for store in self.stores]
            assert all(export == exports[0] for export in exports)
            assert len(exports[0]) == sum(kept.owner == owner for kept in self.kept.values())


def _without_ids(export: dict[str, Any]) -> list[dict[str, Any]]:
    """What two stores must agree on: not ids, which are random, and not times, which pass between the calls."""
    conversations: list[dict[str, Any]] = []
    for told in export["conversations"]:
        kept = {key: value for key, value in told.items() if key not in ("id", "created_at", "updated_at")}
        kept["turns"] = [{**said, "created_at": None} for said in told["turns"]]
        conversations.append(kept)
    return conversations


def test_stores_agree_with_a_dict_in_any_order_of_calls(sqlite_url: str, request: pytest.FixtureRequest) -> None:
    """The same machine drives SQLite, PostgreSQL where it is there, and plain Python."""
    urls = [sqlite_url]
    if postgres.why_not() is None:
        urls.append(request.getfixturevalue("postgres_url"))
    opened = [Store.open(url, clock=Clock()) for url in urls]

    class Machine(Stores):
        stores = opened

    try:
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
            ),
        )
    finally:
        for store in opened:
            store.close()
