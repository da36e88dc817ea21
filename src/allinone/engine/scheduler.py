"""Which chunks run in the next step. Decides order and amount only: what a chunk is depends on its request alone.

Order of prefills: who was passed over too often, prefixes that requests wait for, labels (shortest first), the others
in the order of admission; people before bulk work. Beside streams a step is either their next tokens or prefills, so
that a label is answered by a short call of its own: other prefills come in slices, and labels that arrive meanwhile go
before the rest of them. Between two tokens of a stream there is never more than one chunk of prefill. Nobody is passed
over for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from allinone.backends.base import Chunk
from allinone.engine.prefix_cache import Prefix
from allinone.engine.running import Running

MAX_SKIPPED_STEPS = 8
SLICE_TOKENS = 32
"""Beside streams, prefills share a step up to this size; labels have a step of their own, up to a whole chunk."""

MAX_SLICES = 8
"""Where so many prefills wait that it would take more slices than this, they are larger: then everybody waits in line,
and a line moves the faster the more a step takes in."""

Owner: TypeAlias = Running | Prefix
Rank: TypeAlias = tuple[int, bool, int, int]  # kind of work, bulk work, order within the kind, place
Wish: TypeAlias = tuple[Rank, Owner]


@dataclass(frozen=True, slots=True)
class Work:
    """A chunk and whose it is; `is_decode`: it continues an answer rather than taking in a prompt."""

    owner: Owner
    chunk: Chunk
    is_decode: bool


class Scheduler:
    """Chooses step after step; remembers how much was prefilled since the streams had their last token.

    Args:
        chunk_tokens: most tokens of a chunk; at most half of any `max_batch_tokens`.
    """

    def __init__(self, chunk_tokens: int) -> None:
        self._chunk_tokens = chunk_tokens
        self._left = chunk_tokens  # to prefill before the streams' next tokens

    def next_batch(
        self, running: Sequence[Running], prefixes: Sequence[Prefix], *, max_batch_tokens: int
    ) -> list[Work]:
        """The next batch; empty only when nobody has anything to feed.

        Args:
            running: admitted requests, oldest first; those passed over are counted in `num_skipped`.
            prefixes: those that are not ready.
            max_batch_tokens: most tokens in the batch.
        """
        wishes: list[Wish] = [(_rank(owner, place), owner) for place, owner in enumerate(running)]
        wishes += [(_rank_prefix(prefix, place), prefix) for place, prefix in enumerate(prefixes)]
        wishes.sort(key=lambda wish: wish[0])
        decodes = [wish for wish in wishes if wish[0][0] == _DECODE]
        streams = [owner for _, owner in decodes if isinstance(owner, Running) and owner.is_stream]
        for owner in streams:
            owner.may_guess = len(streams) == 1
        prefills = wishes[len(decodes) :]
        batch: list[Work] = []
        if not streams:
            reserved = self._chunk_tokens if prefills else 0  # one whole chunk always fits
            num_decoded = self._fill(batch, decodes, max_batch_tokens - reserved)
            self._fill(batch, prefills, max_batch_tokens - num_decoded)
        elif num_prefilled := self._fill_slice(batch, prefills):
            self._left -= num_prefilled
            return batch
        else:
            self._fill(batch, decodes, max_batch_tokens)
        self._left = self._chunk_tokens
        return batch

    def _fill(self, batch: list[Work], wishes: Sequence[Wish], budget: int) -> int:
        """Add what fits, in order; tokens added."""
        num_tokens = 0
        for _, owner in wishes:
            num_taken, is_passed_over = self._take(owner, batch, budget - num_tokens)
            num_tokens += num_taken
            owner.num_skipped = owner.num_skipped + 1 if is_passed_over else 0
        return num_tokens

    def _fill_slice(self, batch: list[Work], prefills: Sequence[Wish]) -> int:
        """The same for a step beside streams: labels by themselves, or a slice of other prefills; nothing, if the first
        has to wait until a whole chunk fits again.
        """
        num_tokens, has_label = 0, False
        num_waiting = sum(owner.num_to_feed for _, owner in prefills if isinstance(owner, Running))
        slice_tokens = min(max(SLICE_TOKENS, num_waiting // MAX_SLICES), self._left)
        for _, owner in prefills:
            is_label = isinstance(owner, Running) and owner.is_short
            is_whole = is_label or num_tokens == 0
            most = self._left if is_whole else 0 if has_label else slice_tokens
            num_taken, is_passed_over = self._take(owner, batch, most - num_tokens)
            if is_passed_over and num_tokens == 0:
                break
            num_tokens += num_taken
            has_label |= is_label and num_taken > 0
            owner.num_skipped = owner.num_skipped + 1 if is_passed_over else 0
        return num_tokens

    def _take(self, owner: Owner, batch: list[Work], budget: int) -> tuple[int, bool]:
        """Add what fits of an owner's chunks: tokens added, and whether something did not fit."""
        num_tokens, size = 0, self._chunk_tokens
        is_request = isinstance(owner, Running)
        for chunk in owner.next_chunks(size) if is_request else [owner.next_chunk(size)]:
            if num_tokens + len(chunk.input_ids) > budget:
                return num_tokens, True
            batch.append(Work(owner, chunk, is_request and not owner.is_prefilling))
            num_tokens += len(chunk.input_ids)
        return num_tokens, False


_DECODE, _OVERDUE, _PREFIX, _LABEL, _PREFILL = range(5)


def _rank(owner: Running, place: int) -> Rank:
    if not owner.is_prefilling:
        return _DECODE, False, -owner.num_skipped, place
    if owner.num_skipped > MAX_SKIPPED_STEPS:
        return _OVERDUE, False, -owner.num_skipped, place
    is_bulk = owner.caller.priority == "batch"
    return (_LABEL, is_bulk, owner.num_to_feed, place) if owner.is_short else (_PREFILL, is_bulk, 0, place)


def _rank_prefix(prefix: Prefix, place: int) -> Rank:
    if prefix.num_skipped > MAX_SKIPPED_STEPS:
        return _OVERDUE, False, -prefix.num_skipped, place
    return _PREFIX, False, 0, place
