"""Which new tokens share a call of the graph.

Owns the split of a batch into rounds (long chunks in pieces) and calls (pieces that fit one attention grid). The split
is about cost only: no answer depends on it. A chunk is cut by its own length alone, and single steps never share a call
with wider pieces, because attention over one row is summed in another order. Drafts have a call of their own: their
tokens sit side by side like single steps, and read one past.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from allinone.backends.onnx.kv_cache import Prefix, SequenceCache

MAX_PIECE_TOKENS = 256
"""Longest piece of a chunk in one call: bounds the scores of attention (heads x piece x context)."""

MAX_CALL_TOKENS = 512
"""Most packed tokens in one call, unless a single piece has more: beyond, activations leave the CPU's caches."""

MAX_CALL_STEPS = 64
"""Most single steps in one call."""

MAX_MOVED_TOKENS = 128
"""Pieces whose own past is longer do not share a call: moving their past side by side costs more than a second pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of one chunk that is computed in one call.

    Attributes:
        chunk: the chunk's place in the batch.
        num_left: how many ids of the chunk come after this piece.
        is_draft: its ids are computed like single steps of one sequence.
    """

    chunk: int
    cache: SequenceCache
    input_ids: Sequence[int]
    num_left: int
    is_draft: bool = False

    @property
    def is_step(self) -> bool:
        """Whether it is a single token."""
        return len(self.input_ids) == 1


def cut_into_rounds(
    chunks: Sequence[tuple[SequenceCache, Sequence[int]]], drafts: Container[int] = ()
) -> Iterator[list[Piece]]:
    """Round r holds the r-th piece of every chunk that has one; `drafts` are the chunks that are drafts."""
    start = 0
    longest = max(len(ids) for _, ids in chunks)
    while start < longest:
        stop = start + MAX_PIECE_TOKENS
        yield [
            Piece(
                chunk=index,
                cache=cache,
                input_ids=ids[start:stop],
                num_left=max(0, len(ids) - stop),
                is_draft=index in drafts and len(ids[start:stop]) > 1,
            )
            for index, (cache, ids) in enumerate(chunks)
            if start < len(ids)
        ]
        start = stop


def plan_calls(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Split one round into calls."""
    steps = [piece for piece in pieces if piece.is_step]
    drafts = [piece for piece in pieces if piece.is_draft]
    wide = [piece for piece in pieces if not piece.is_step and not piece.is_draft]
    settled = [piece for piece in wide if piece.cache.num_own_tokens > MAX_MOVED_TOKENS]
    movable = [piece for piece in wide if piece.cache.num_own_tokens <= MAX_MOVED_TOKENS]
    return [*_pack(movable), *([piece] for piece in (*settled, *drafts)), *_pack(steps)]


def group_by_prefix(pieces: Sequence[Piece]) -> list[tuple[Prefix | None, list[Piece]]]:
    """Pieces that share a prefix. The order is one of the prefixes, not of the pieces: equal sets make equal groups."""
    groups: dict[int, tuple[Prefix | None, list[Piece]]] = {}
    for piece in pieces:
        prefix = piece.cache.prefix
        groups.setdefault(id(prefix), (prefix, []))[1].append(piece)
    return [groups[key] for key in sorted(groups)]


def _pack(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Greedy: fill a call with pieces of similar size, prefix by prefix, as long as its grid is not mostly padding."""
    runs: list[list[Piece]] = []
    for _, members in group_by_prefix(pieces):
        run: list[Piece] = []
        for piece in sorted(members, key=_size):
            if run and not _fits_one_call([*run, piece]):
                runs.append(run)
                run = []
            run.append(piece)
        runs.append(run)
    calls: list[list[Piece]] = []
    for run in sorted(runs, key=len, reverse=True):
        for call in calls:
            if _fits_one_call([*call, *run]):
                call.extend(run)
                break
        else:
            calls.append(run)
    return calls


def _size(piece: Piece) -> int:
    return piece.cache.num_own_tokens if piece.is_step else len(piece.input_ids)


def _fits_one_call(pieces: Sequence[Piece]) -> bool:
    """Whether one grid holds these pieces without too much padding."""
    groups = group_by_prefix(pieces)
    num_cells = len(groups) * max(len(members) for _, members in groups)
    if pieces[0].is_step:
        past = [piece.cache.num_own_tokens for piece in pieces]
        return len(pieces) <= MAX_CALL_STEPS and num_cells * max(past) <= 2 * sum(past) + 1024
    sizes = [len(piece.input_ids) for piece in pieces]
    return sum(sizes) <= MAX_CALL_TOKENS and num_cells * max(sizes) <= 2 * sum(sizes) + MAX_PIECE_TOKENS
