"""Which chunks run in the next step. Decides order and amount only: what a chunk is depends on its request alone.

Order: tokens of running streams (and of labels that go on), then prefills: who was passed over too often, prefixes that
requests wait for, labels (shortest first), the others in the order of admission; people before bulk work. Streams
leave room for one prefill chunk, and prefills take no more than one beside a stream, which so never waits longer than
for that. In every step both go on, and within each of them nobody is passed over for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from allinone.backends.base import Chunk
from allinone.engine.prefix_cache import Prefix
from allinone.engine.running import Running

MAX_SKIPPED_STEPS = 8
Owner: TypeAlias = Running | Prefix
Rank: TypeAlias = tuple[int, bool, int, int]  # kind of work, bulk work, order within the kind, place


@dataclass(frozen=True, slots=True)
class Work:
    """A chunk and whose it is; `is_decode`: it continues an answer rather than taking in a prompt."""

    owner: Owner
    chunk: Chunk
    is_decode: bool


def schedule(
    running: Sequence[Running], prefixes: Sequence[Prefix], *, max_batch_tokens: int, chunk_tokens: int
) -> list[Work]:
    """The next batch; empty only when nobody has anything to feed.

    Args:
        running: admitted requests, oldest first; those passed over are counted in `num_skipped`.
        prefixes: those that are not ready.
        max_batch_tokens: most tokens in the batch.
        chunk_tokens: most tokens of a chunk; at most half of `max_batch_tokens`.
    """
    wishes: list[tuple[Rank, Owner]] = [(_rank(owner, place), owner) for place, owner in enumerate(running)]
    wishes += [(_rank_prefix(prefix, place), prefix) for place, prefix in enumerate(prefixes)]
    wishes.sort(key=lambda wish: wish[0])
    left_to_prefill = chunk_tokens if any(rank[0] > _DECODE for rank, _ in wishes) else 0
    batch: list[Work] = []
    to_decode, to_prefill = max_batch_tokens - left_to_prefill, max_batch_tokens
    is_beside_stream = False
    for rank, owner in wishes:
        if rank[0] == _DECODE:
            num_tokens, is_passed_over = _take(owner, batch, to_decode, chunk_tokens)
            to_decode -= num_tokens
            is_beside_stream |= isinstance(owner, Running) and owner.is_stream
            to_prefill = (
                chunk_tokens if is_beside_stream else left_to_prefill + to_decode
            )  # one whole chunk always fits
        else:
            num_tokens, is_passed_over = _take(owner, batch, to_prefill, chunk_tokens)
            to_prefill -= num_tokens
        owner.num_skipped = owner.num_skipped + 1 if is_passed_over else 0
    return batch


def _take(owner: Owner, batch: list[Work], budget: int, chunk_tokens: int) -> tuple[int, bool]:
    """Add what fits of an owner's chunks: tokens added, and whether something did not fit."""
    num_tokens = 0
    is_request = isinstance(owner, Running)
    for chunk in owner.next_chunks(chunk_tokens) if is_request else [owner.next_chunk(chunk_tokens)]:
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
