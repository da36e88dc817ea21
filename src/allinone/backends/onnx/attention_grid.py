"""One call of the graph: which sequence sits where in attention, and the index arrays that say so.

Owns the arithmetic of rows: packed tokens <-> the grid of groups x members x new tokens. Knows no session and moves no
cache (`backend.py` does).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from allinone.backends.onnx.kv_cache import SequenceCache, round_up
from allinone.models.weights import ModelConfig

IndexArray: TypeAlias = NDArray[np.int64]

MASKED = np.float32(-1e9)
NEW_WIDTH = 4
"""Widths of several new tokens are multiples of this (the narrowest vector in use); single steps stay one wide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """New tokens of one sequence, and the cell of the grid where its attention happens.

    `num_ahead`: drafted tokens of the same sequence that this call computes before these, in cells of their own.
    """

    cache: SequenceCache
    input_ids: Sequence[int]
    group: int
    member: int
    num_ahead: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionGrid:
    """The sizes of one call: groups, members, new tokens per member; widths of prefix and past."""

    num_groups: int
    num_members: int
    num_steps: int
    prefix_width: int
    past_width: int

    @classmethod
    def around(
        cls, placements: Sequence[Placement], *, num_groups: int, num_members: int, prefix_width: int, past_width: int
    ) -> AttentionGrid:
        """The grid for these placements. Single steps are one wide, everything else a multiple of `NEW_WIDTH`."""
        longest = max(len(one.input_ids) for one in placements)
        num_steps = 1 if longest == 1 else round_up(longest, NEW_WIDTH)
        return cls(
            num_groups=num_groups,
            num_members=num_members,
            num_steps=num_steps,
            prefix_width=prefix_width,
            past_width=past_width,
        )


def attention_feeds(
    config: ModelConfig, grid: AttentionGrid, placements: Sequence[Placement]
) -> dict[str, NDArray[Any]]:
    """Every input of the graph that says where tokens sit: rows, widths and the mask."""
    heads, key_heads = config.num_heads, config.num_kv_heads
    seats = tuple((one.group, one.member, len(one.input_ids)) for one in placements)
    rows = _rows(heads, key_heads, (grid.num_groups, grid.num_members, grid.num_steps), seats)
    widths = np.array((grid.prefix_width, grid.past_width, grid.num_steps))
    return {**rows, "mask": _mask(grid, placements, heads // key_heads), "part_widths": widths}


def draft_places(num_heads: int, num_past: int, num_drafted: int) -> IndexArray:
    """Where the past of one sequence takes in its drafted tokens: (1, key heads, num_drafted, 1, 4), indices of the
    first four axes of (1, key heads, 1, capacity, head_dim).
    """
    places = np.zeros((1, num_heads, num_drafted, 1, 4), np.int64)
    places[..., 1] = np.arange(num_heads)[:, None, None]
    places[..., 3] = num_past + np.arange(num_drafted)[:, None]
    return places


NO_DRAFT_PLACES: IndexArray = np.zeros((0, 0, 0, 1, 4), np.int64)


@lru_cache(maxsize=64)
def _rows(
    heads: int, key_heads: int, sizes: tuple[int, int, int], seats: tuple[tuple[int, int, int], ...]
) -> dict[str, NDArray[Any]]:
    """Which rows of the packed tokens sit where, and back. Streams ask for the same ones at every step.

    Args:
        heads: query heads of the model.
        key_heads: its key heads.
        sizes: groups, members and new tokens of the grid.
        seats: group, member and number of new tokens of each sequence, in packed order.

    Invariant: every index points at a real row; padding repeats row 0 and is masked.
    """
    groups, members, steps = sizes
    repeat = heads // key_heads
    packed = np.zeros((groups, 1, members, 1, steps), np.int64)  # packed token of each place in the grid
    place = np.empty(sum(count for _, _, count in seats), np.int64)  # place in (G, H, M, R, S) of each, for head 0
    start = 0
    for group, member, count in seats:
        stop = start + count
        packed[group, 0, member, 0, :count] = np.arange(start, stop)
        first = (group * heads * members + member * repeat) * steps
        place[start:stop] = np.arange(first, first + count)
        start = stop
    head = np.arange(heads)
    head_place = (head // repeat) * (members * repeat * steps) + (head % repeat) * steps
    key_head = np.arange(key_heads)[:, None, None]
    query_head = np.arange(heads).reshape(key_heads, 1, repeat, 1)
    rows = packed * (heads + 2 * key_heads)
    folded = repeat * steps
    key_rows = rows[:, :, :, 0] + heads + key_head
    return {
        "query_rows": (rows + query_head).reshape(groups, key_heads, members, folded),
        "key_rows": key_rows,
        "value_rows": key_rows + key_heads,
        "attended_rows": place[:, None] + head_place,
    }


def _mask(grid: AttentionGrid, placements: Sequence[Placement], repeat: int) -> NDArray[np.float32]:
    """Float32 (G, 1, M, R * S, P + O + S): 0 where a token may look, -1e9 elsewhere; the same for all R."""
    prefix, past, steps = grid.prefix_width, grid.past_width, grid.num_steps
    mask = np.full((grid.num_groups, 1, grid.num_members, repeat, steps, prefix + past + steps), MASKED)
    mask[..., prefix + past :] = np.triu(np.full((steps, steps), MASKED), 1)
    for one in placements:
        rows = mask[one.group, 0, one.member]
        rows[..., : one.cache.num_prefix_tokens] = 0
        rows[..., prefix : prefix + one.cache.num_own_tokens + one.num_ahead] = 0
    return mask.reshape(grid.num_groups, 1, grid.num_members, repeat * steps, -1)


class RotaryTable:
    """Cosines and sines of every position up to the longest context, made as far as they are needed."""

    def __init__(self, config: ModelConfig) -> None:
        exponents = np.arange(0, config.head_dim, 2) / config.head_dim
        self._frequencies = 1.0 / config.rope_theta**exponents
        self._cos = self._sin = np.empty((0, len(exponents)), np.float32)

    def rows(self, positions: IndexArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Cos and sin, float32 (len(positions), head_dim / 2)."""
        needed = int(positions.max()) + 1
        if needed > len(self._cos):
            angles = np.arange(round_up(needed, 1024))[:, None] * self._frequencies
            self._cos, self._sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        return self._cos[positions], self._sin[positions]
