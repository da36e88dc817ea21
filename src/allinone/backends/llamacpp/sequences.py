"""Sequences of ours on llama.cpp's few: who owns which of its sequence ids, and who only shares.

llama.cpp tags each cell of its KV cache with the ids of the sequences it belongs to; it has 256 ids. A fork takes none
until it is extended: until then it is a reference to its source, so a hundred waiting requests share one id with their
prefix. Knows ids and lengths; the three memory operations come from `backend.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from allinone.errors import CacheFull


class CellMemory(Protocol):
    """What can be done to the cells of a sequence id."""

    def copy(self, source: int, destination: int, num_tokens: int) -> None:
        """Let `destination` share the first `num_tokens` of `source`."""
        ...

    def cut(self, slot: int, num_tokens: int) -> None:
        """Forget all of `slot` but the first `num_tokens`."""
        ...


@dataclass(slots=True, eq=False)
class CellSequence:
    """One sequence of ours.

    Attributes:
        num_tokens: how many it holds.
        slot: its id in llama.cpp; None while it holds nothing, or nothing but the beginning of `source`.
        source: whose first `num_tokens` it shares.
        borrowers: whose source this is.
    """

    num_tokens: int = 0
    slot: int | None = None
    source: CellSequence | None = None
    borrowers: set[CellSequence] = field(default_factory=set["CellSequence"])


class SequencePool:
    """Gives ids to sequences that need one, and takes them back.

    Invariant: a source has a slot, and at least as many tokens as each of its borrowers.
    """

    def __init__(self, memory: CellMemory, *, num_slots: int) -> None:
        self._memory = memory
        self._num_slots = num_slots
        self._free = list(range(num_slots - 1, -1, -1))

    def fork(self, source: CellSequence | None) -> CellSequence:
        """A sequence that shares all of `source`; no cell is touched."""
        if source is None or not source.num_tokens:
            return CellSequence()
        owner = source.source or source
        fork = CellSequence(num_tokens=source.num_tokens, source=owner)
        owner.borrowers.add(fork)
        return fork

    def require_slots(self, sequences: Iterable[CellSequence]) -> None:
        """Give each of them a slot, or change nothing.

        Raises:
            CacheFull: there are not enough.
        """
        lacking = [sequence for sequence in sequences if sequence.slot is None]
        if len(lacking) > len(self._free):
            raise CacheFull(
                f"llama.cpp knows {self._num_slots} sequences at a time: {len(self._free)} are free, "
                f"{len(lacking)} are needed.",
                hint="Have fewer requests and conversations at a time.",
            )
        for sequence in lacking:
            sequence.slot = self._free.pop()
            if sequence.source is not None and sequence.source.slot is not None:
                self._memory.copy(sequence.source.slot, sequence.slot, sequence.num_tokens)
            self._detach(sequence)

    def trim(self, sequence: CellSequence, num_tokens: int) -> None:
        """Forget all but the first `num_tokens`; who borrowed more keeps it.

        Raises:
            CacheFull: a borrower would need a slot of its own, and none is free.
        """
        longer = [one for one in sequence.borrowers if one.num_tokens > num_tokens]
        if longer:
            heir = max(longer, key=lambda one: one.num_tokens)
            self.require_slots([heir])
            self._move(longer, heir)
        sequence.num_tokens = num_tokens
        if sequence.slot is not None:
            self._memory.cut(sequence.slot, num_tokens)
        if not num_tokens:
            self._detach(sequence)
            self._give_back(sequence)

    def free(self, sequence: CellSequence) -> None:
        """End a sequence; its longest borrower inherits the slot, and the others borrow from that one."""
        self._detach(sequence)
        if sequence.borrowers:
            heir = max(sequence.borrowers, key=lambda one: one.num_tokens)
            heir.slot, sequence.slot, heir.source = sequence.slot, None, None
            sequence.borrowers.discard(heir)
            self._move(list(sequence.borrowers), heir)
            if heir.slot is not None and heir.num_tokens < sequence.num_tokens:
                self._memory.cut(heir.slot, heir.num_tokens)
        elif sequence.slot is not None:
            self._memory.cut(sequence.slot, 0)
            self._give_back(sequence)

    def _move(self, borrowers: Iterable[CellSequence], owner: CellSequence) -> None:
        for borrower in borrowers:
            if borrower is not owner:
                self._detach(borrower)
                borrower.source = owner
                owner.borrowers.add(borrower)

    @staticmethod
    def _detach(sequence: CellSequence) -> None:
        if sequence.source is not None:
            sequence.source.borrowers.discard(sequence)
            sequence.source = None

    def _give_back(self, sequence: CellSequence) -> None:
        if sequence.slot is not None:
            self._free.append(sequence.slot)
            sequence.slot = None
