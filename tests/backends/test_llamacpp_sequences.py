"""Sharing of llama.cpp's sequence ids, without llama.cpp: any order of forks, extensions, trims and frees."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from allinone.backends.llamacpp.sequences import CellSequence, SequencePool
from allinone.errors import CacheFull

NUM_SLOTS = 4


class ListMemory:
    """What llama.cpp holds for each sequence id, as lists of token ids."""

    def __init__(self) -> None:
        self.held: list[list[int]] = [[] for _ in range(NUM_SLOTS)]

    def copy(self, source: int, destination: int, num_tokens: int) -> None:
        """See `CellMemory`; what is copied must be there, and the place must be empty."""
        assert not self.held[destination] and len(self.held[source]) >= num_tokens
        self.held[destination] = self.held[source][:num_tokens]

    def cut(self, slot: int, num_tokens: int) -> None:
        """See `CellMemory`."""
        del self.held[slot][num_tokens:]


class SequencesMachine(RuleBasedStateMachine):
    """The pool against plain copies of every sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = ListMemory()
        self.pool = SequencePool(self.memory, num_slots=NUM_SLOTS)
        self.live: list[tuple[CellSequence, list[int]]] = []
        self.next_token = 0

    @rule(place=st.integers(0, 9), is_empty=st.booleans())
    def fork(self, place: int, is_empty: bool) -> None:
        """From nothing, or from any sequence."""
        if is_empty or not self.live:
            self.live.append((self.pool.fork(None), []))
        else:
            source, ids = self.live[place % len(self.live)]
            self.live.append((self.pool.fork(source), list(ids)))

    @precondition(lambda self: self.live)
    @rule(places=st.sets(st.integers(0, 9), min_size=1, max_size=3), length=st.integers(1, 3))
    def extend(self, places: set[int], length: int) -> None:
        """Several at once, each by new tokens; or a refusal that changes nothing."""
        chosen = {place % len(self.live) for place in places}
        before = self._contents()
        try:
            self.pool.require_slots([self.live[place][0] for place in chosen])
        except CacheFull:
            assert self._contents() == before
            return
        for place in chosen:
            sequence, ids = self.live[place]
            new = list(range(self.next_token, self.next_token + length))
            self.next_token += length
            assert sequence.slot is not None
            self.memory.held[sequence.slot] += new
            ids += new
            sequence.num_tokens += length

    @precondition(lambda self: self.live)
    @rule(place=st.integers(0, 9), share=st.floats(0, 1))
    def trim(self, place: int, share: float) -> None:
        """To any shorter length."""
        sequence, ids = self.live[place % len(self.live)]
        num_tokens = int(share * len(ids))
        before = self._contents()
        try:
            self.pool.trim(sequence, num_tokens)
        except CacheFull:
            assert self._contents() == before
            return
        del ids[num_tokens:]

    @precondition(lambda self: self.live)
    @rule(place=st.integers(0, 9))
    def free(self, place: int) -> None:
        """Any of them, sources and borrowers."""
        sequence, _ = self.live.pop(place % len(self.live))
        self.pool.free(sequence)

    @invariant()
    def everybody_holds_what_they_were_given(self) -> None:
        """Nothing lost, crossed or left behind."""
        assert self._contents() == [ids for _, ids in self.live]
        owned = [sequence.slot for sequence, _ in self.live if sequence.slot is not None]
        assert len(owned) == len(set(owned))
        for slot in set(range(NUM_SLOTS)) - set(owned):
            assert not self.memory.held[slot], "a slot that nobody has holds tokens"
        assert len(owned) + len(self.pool._free) == NUM_SLOTS

    def _contents(self) -> list[list[int]]:
        contents: list[list[int]] = []
        for sequence, _ in self.live:
            owner = sequence if sequence.slot is not None else sequence.source
            held = [] if owner is None or owner.slot is None else self.memory.held[owner.slot]
            assert len(held) >= sequence.num_tokens
            contents.append(held[: sequence.num_tokens])
        return contents


TestSequences = SequencesMachine.TestCase
TestSequences.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_forks_of_a_prefix_take_no_slot() -> None:
    """What makes a burst of requests possible: only those that run need an id of llama.cpp's."""
    pool = SequencePool(memory := ListMemory(), num_slots=NUM_SLOTS)
    prefix = pool.fork(None)
    pool.require_slots([prefix])
    memory.held[0], prefix.num_tokens = [1, 2, 3], 3
    forks = [pool.fork(prefix) for _ in range(100)]
    pool.require_slots(forks[: NUM_SLOTS - 1])
    with pytest.raises(CacheFull, match="4 sequences"):
        pool.require_slots([forks[-1]])
    pool.free(forks[0])
    pool.require_slots([forks[-1]])
    assert forks[-1].slot is not None and memory.held[forks[-1].slot] == [1, 2, 3]
