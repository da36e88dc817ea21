"""Which new tokens share a call of the graph.

Owns the split of a batch into rounds (long chunks in pieces) and calls (pieces that fit one attention grid). The split
is about cost only: no answer depends on it. A chunk is cut by its own length alone, and single steps never share a call
with wider pieces, because attention over one row is summed in another order. Drafts have a call of their own: their
tokens sit side by side like single steps, and read one past.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from allinone.backends.onnx.kv_cache import Prefix, SequenceCache

MAX_PIECE_TOKENS = 256
"""Longest piece of a chunk in one call: bounds the scores of attention (heads x piece x context)."""

MAX_CALL_TOKENS = 512
"""Most packed tokens in one call, unless a single piece has more: beyond, activations leave the CPU's caches."""

MAX_CALL_STEPS = 64
"""Most single steps in one call."""

MAX_PADDING = 64
"""Padded tokens of a grid (attention only) that cost about as much as a call of its own, which reads all weights."""

MAX_STEP_PADDING = 1024
"""Padded tokens of the pasts of single steps, beyond as many as there are real ones."""

_MAX_PARTS = 4
"""The runs of the largest group are tried whole, as halves, thirds and quarters."""

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
    """Fill calls with pieces of similar size, so that their grids are not mostly padding.

    The pieces of a prefix are dealt out in runs of equal length, because a grid has as many cells for each prefix as
    for the one with the most pieces. Two texts of each of eight tasks and two that are left over fill one call and a
    bit; one call of all would compute attention for three texts of each. Of some lengths of runs, the one with the
    cheapest calls is taken; the shortest of several, because then equal sets of prefixes meet again. Single steps stay
    together as far as they fit: padding costs them little, and a call much.
    """
    groups = [sorted(members, key=_size) for _, members in group_by_prefix(pieces)]
    most = max(map(len, groups), default=0)
    is_simple = len(groups) <= 1 or pieces[0].is_step
    widths = {most} if is_simple else {-(-most // parts) for parts in range(1, _MAX_PARTS + 1)}
    plans = [_fill_calls(groups, width) for width in sorted(widths)]
    return [call.pieces for call in min(plans, key=_cost)]


def _fill_calls(groups: Sequence[Sequence[Piece]], width: int) -> list[_Filling]:
    """Greedy: the first run of each prefix, then the second ones; long ones first, each into the first call it fits."""
    runs: list[tuple[int, list[Piece]]] = []
    for members in groups:
        place, run = 0, _Filling()
        for piece in members:
            if run.pieces and (len(run.pieces) == width or not run.fits([piece])):
                runs.append((place, run.pieces))
                place, run = place + 1, _Filling()
            run.add([piece])
        runs.append((place, run.pieces))
    calls: list[_Filling] = []
    for _, run in sorted(runs, key=lambda one: (one[0], -len(one[1]))):
        call = next((call for call in calls if call.fits(run)), None)
        if call is None:
            call = _Filling()
            calls.append(call)
        call.add(run)
    return calls


def _cost(calls: Sequence[_Filling]) -> int:
    """What calls cost beyond the tokens in them, in tokens of padding."""
    return sum(MAX_PADDING + call.num_padding for call in calls)


class _Filling:
    """A call while it is filled: its pieces, and the size of their grid."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self._num_by_prefix: Counter[int] = Counter()
        self._num_tokens = self._longest = 0

    @property
    def num_padding(self) -> int:
        """Tokens of the grid that are nobody's: of new tokens, or of the pasts of single steps."""
        num_cells = len(self._num_by_prefix) * max(self._num_by_prefix.values(), default=0)
        return num_cells * self._longest - self._num_tokens

    def add(self, run: Sequence[Piece]) -> None:
        """Put pieces of one prefix in."""
        self.pieces.extend(run)
        self._num_by_prefix[id(run[0].cache.prefix)] += len(run)
        self._num_tokens += sum(map(_size, run))
        self._longest = max(self._longest, *map(_size, run))

    def fits(self, run: Sequence[Piece]) -> bool:
        """Whether pieces of one prefix, all single steps or all wider, can join without too much padding."""
        prefix, sizes = id(run[0].cache.prefix), [_size(piece) for piece in run]
        num_members = max(*self._num_by_prefix.values(), self._num_by_prefix[prefix] + len(run), 0)
        num_groups = len(self._num_by_prefix.keys() | {prefix})
        num_tokens = self._num_tokens + sum(sizes)
        num_padding = num_groups * num_members * max(self._longest, *sizes) - num_tokens
        if run[0].is_step:
            return len(self.pieces) + len(run) <= MAX_CALL_STEPS and num_padding <= num_tokens + MAX_STEP_PADDING
        return num_tokens <= MAX_CALL_TOKENS and num_padding <= max(MAX_PADDING, num_tokens // 8)


def _size(piece: Piece) -> int:
    return piece.cache.num_own_tokens if piece.is_step else len(piece.input_ids)
