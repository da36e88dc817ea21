"""Keys and values of sequences, as the graph reads them.

Owns the memory of the cache and who uses it: blocks that hold the own past of a grid of sequences, frozen prefixes that
any number of sequences share, and the stacking of several prefixes for one call. Knows no graph and no token ids.

A block keeps one array per layer, float32 (2, groups, key heads, members, capacity, head_dim): keys, then values.
Capacity is a multiple of 16 and padding is zero or any finite value: attention masks it. Cells of nobody are not read.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from allinone.backends.onnx.arena import Arena, FloatArray

WIDTH = 16
"""Widths of prefix and past in attention are multiples of this: each softmax lane then adds the same terms in the same
order, however wide the neighbours are."""

MAX_STACKS = 3
"""Stacks of prefixes that are kept; each is a copy of its prefixes (and one may be that of no prefix at all)."""

MIN_USED_WHEN_LEFT = 0.9
"""A block that a call leaves, because its sequences move to another one, is kept only if it is used to this share."""


def round_up(number: int, multiple: int = WIDTH) -> int:
    """The next multiple."""
    return -(-number // multiple) * multiple


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheShape:
    """What the cache of one model looks like, and where its arrays lie."""

    num_layers: int
    num_heads: int
    head_dim: int
    arena: Arena = field(default_factory=Arena, compare=False)

    @property
    def bytes_per_token(self) -> int:
        """Bytes of keys and values of one token."""
        return 2 * 4 * self.num_layers * self.num_heads * self.head_dim

    def block_size(self, num_groups: int, num_members: int, capacity: int) -> tuple[int, ...]:
        """Shape of one layer of a block."""
        return (2, num_groups, self.num_heads, num_members, capacity, self.head_dim)

    def new_layer(self, num_groups: int, num_members: int, capacity: int) -> LayerCache:
        """One layer of a block, with arbitrary values: what was there before may even be no numbers."""
        return LayerCache.of(self.arena.empty(self.block_size(num_groups, num_members, capacity)))


class LayerCache(NamedTuple):
    """Keys and values of one layer: `both` (2, groups, heads, members, capacity, head_dim), and its two halves."""

    both: FloatArray
    key: FloatArray
    value: FloatArray

    @classmethod
    def of(cls, both: FloatArray) -> LayerCache:
        """Split once, so that the halves stay the same objects from call to call."""
        return cls(both, both[0], both[1])

    def fill(self, group: int, member: int, tokens: FloatArray | None) -> None:
        """Write (2, key heads, tokens, head_dim) into a cell, and zeros behind: attention reads those too."""
        cell = self.both[:, group, :, member]
        num_tokens = 0 if tokens is None else tokens.shape[2]
        if tokens is not None:
            cell[:, :, :num_tokens] = tokens
        cell[:, :, num_tokens:] = 0


class KVBlock:
    """Own past of a grid of `num_groups` x `num_members` cells."""

    __slots__ = ("capacity", "is_frozen", "layers", "num_groups", "num_members", "shape", "users")

    def __init__(self, shape: CacheShape, layers: list[LayerCache], *, is_frozen: bool = False) -> None:
        """Use the arrays of `layers`; those of a frozen block belong to a prefix and are never written."""
        self.shape, self.layers, self.is_frozen = shape, layers, is_frozen
        _, self.num_groups, _, self.num_members, self.capacity, _ = layers[0].both.shape
        self.users: dict[tuple[int, int], set[SequenceCache]] = {}

    @classmethod
    def empty(cls, shape: CacheShape, num_groups: int, num_members: int, capacity: int) -> KVBlock:
        """A block that holds nothing yet."""
        return cls(shape, [shape.new_layer(num_groups, num_members, capacity) for _ in range(shape.num_layers)])

    @property
    def num_cells(self) -> int:
        """Number of cells, used or not."""
        return self.num_groups * self.num_members

    def compact(self, min_used: float = 0.5) -> None:
        """Move out what is left, once less than this share of the block is used: a whole grid must not be kept for a
        few of its sequences. Each token is copied at most once for each time that the memory around it shrinks by that.
        """
        used = {key: max(one.num_own_tokens for one in users) for key, users in self.users.items()}
        if self.is_frozen or sum(map(round_up, used.values())) >= min_used * self.num_cells * self.capacity:
            return
        for (group, member), num_tokens in used.items():
            users = list(self.users[group, member])
            block = KVBlock.empty(self.shape, 1, 1, round_up(num_tokens))
            for old, new in zip(self.layers, block.layers, strict=True):
                new.fill(0, 0, old.both[:, group, :, member, :num_tokens])
            cell = Cell(block, 0, 0)
            for one in users:
                one.set_cell(cell)


@dataclass(slots=True, eq=False)
class Cell:
    """A place in a block. Several sequences may point at one cell after a fork; then none of them writes to it."""

    block: KVBlock
    group: int
    member: int

    def acquire(self, user: SequenceCache) -> None:
        """One more reads it."""
        self.block.users.setdefault((self.group, self.member), set()).add(user)

    def release(self, user: SequenceCache) -> None:
        """One reads it no more."""
        users = self.block.users[self.group, self.member]
        users.remove(user)
        if not users:
            del self.block.users[self.group, self.member]

    @property
    def is_writable(self) -> bool:
        """Whether nobody else reads this cell."""
        return not self.block.is_frozen and len(self.block.users[self.group, self.member]) == 1

    def read(self, layer: int, num_tokens: int) -> FloatArray:
        """View (2, key heads, num_tokens, head_dim)."""
        return self.block.layers[layer].both[:, self.group, :, self.member, :num_tokens]


@dataclass(slots=True, eq=False)
class Prefix:
    """A frozen prefix: per layer (2, 1, key heads, 1, width, head_dim), never written again."""

    layers: list[LayerCache]
    num_tokens: int
    num_users: int = 0

    @property
    def width(self) -> int:
        """Number of columns, with padding."""
        return self.layers[0].both.shape[4]

    @classmethod
    def freeze(cls, cell: Cell, num_tokens: int) -> Prefix:
        """The first tokens of a cell; without a copy when the cell has its block, exactly wide enough, to itself."""
        block, width = cell.block, round_up(num_tokens)
        if block.num_cells == 1 and block.capacity == width:
            block.is_frozen = True
            return cls(list(block.layers), num_tokens)
        layers = KVBlock.empty(block.shape, 1, 1, width).layers
        for layer, frozen in enumerate(layers):
            frozen.fill(0, 0, cell.read(layer, num_tokens))
        return cls(layers, num_tokens)


@dataclass(slots=True, eq=False)
class SequenceCache:
    """What one sequence holds: the first `num_prefix_tokens` of a frozen prefix, then `num_own_tokens` of its own.

    `frozen` is the own past of a sequence without a prefix once that was forked: its forks share it as their prefix,
    while the sequence itself goes on as if it had never been forked.
    """

    prefix: Prefix | None = None
    num_prefix_tokens: int = 0
    cell: Cell | None = None
    num_own_tokens: int = 0
    frozen: Prefix | None = None

    @property
    def num_tokens(self) -> int:
        """All tokens held."""
        return self.num_prefix_tokens + self.num_own_tokens

    def fork(self) -> SequenceCache:
        """Another sequence with the same content. Both read the same memory until one of them writes."""
        fork = SequenceCache()
        if self.prefix is None and self.cell is not None:
            fork._set_prefix(self._freeze(self.cell), self.num_own_tokens)
        else:
            fork._set_prefix(self.prefix, self.num_prefix_tokens)
            if self.cell is not None:
                fork.set_cell(self.cell)
                fork.num_own_tokens = self.num_own_tokens
        return fork

    def set_cell(self, cell: Cell) -> None:
        """Move the own past to another cell."""
        cell.acquire(self)
        if self.cell is not None:
            self.cell.release(self)
        self.cell = cell

    def grow(self, num_tokens: int) -> None:
        """New tokens were written after the own past."""
        self.num_own_tokens += num_tokens
        self._set_frozen(None)

    def trim(self, num_tokens: int) -> None:
        """Keep only the first `num_tokens`."""
        if num_tokens > self.num_prefix_tokens:
            self.num_own_tokens = num_tokens - self.num_prefix_tokens
            return
        self._drop_own()
        self.num_prefix_tokens = num_tokens
        if num_tokens == 0:
            self._set_prefix(None, 0)

    def free(self) -> None:
        """Give everything back."""
        self._drop_own()
        self._set_prefix(None, 0)

    def _freeze(self, cell: Cell) -> Prefix:
        """The own past as a prefix: made once, and the sequence reads the same memory."""
        if self.frozen is None:
            prefix = Prefix.freeze(cell, self.num_own_tokens)
            self._set_frozen(prefix)
            if not cell.block.is_frozen:
                self.set_cell(Cell(KVBlock(cell.block.shape, prefix.layers, is_frozen=True), 0, 0))
            return prefix
        return self.frozen

    def _set_frozen(self, prefix: Prefix | None) -> None:
        _count_users(self.frozen, prefix)
        self.frozen = prefix

    def _set_prefix(self, prefix: Prefix | None, num_tokens: int) -> None:
        _count_users(self.prefix, prefix)
        self.prefix, self.num_prefix_tokens = prefix, num_tokens

    def _drop_own(self) -> None:
        cell, self.cell, self.num_own_tokens = self.cell, None, 0
        if cell is not None:
            cell.release(self)
            cell.block.compact()
        self._set_frozen(None)


def _count_users(old: Prefix | None, new: Prefix | None) -> None:
    if new is not None:
        new.num_users += 1
    if old is not None:
        old.num_users -= 1


def gather_block(shape: CacheShape, grid: Sequence[Sequence[SequenceCache | None]], num_new_tokens: int) -> KVBlock:
    """A new block with the own past of every sequence of a grid, and room for new tokens; the sequences move there.

    Room for 2 * sqrt(n) more tokens balances moving the cache again against attending over empty columns. Who stays in
    a block that is left is mostly idle, for long, so it is kept in no more memory than it needs.
    Layer by layer; a block that nobody else uses is given back while the new one fills.
    """
    sequences = [(g, m, one) for g, row in enumerate(grid) for m, one in enumerate(row) if one is not None]
    leaving = Counter(one.cell.block for _, _, one in sequences if one.cell is not None)
    retiring = [
        old
        for old, num_leaving in leaving.items()
        if not old.is_frozen and sum(map(len, old.users.values())) == num_leaving
    ]
    longest = max(one.num_own_tokens for _, _, one in sequences)
    capacity = round_up(longest + num_new_tokens + 2 * math.isqrt(longest))
    layers: list[LayerCache] = []
    for layer in range(shape.num_layers):
        target = shape.new_layer(len(grid), len(grid[0]), capacity)
        layers.append(target)
        for group, member, one in sequences:
            target.fill(group, member, None if one.cell is None else one.cell.read(layer, one.num_own_tokens))
        for old in retiring:
            old.layers[layer] = target
    block = KVBlock(shape, layers)
    for group, member, one in sequences:
        one.set_cell(Cell(block, group, member))
    for old in leaving:
        old.compact(MIN_USED_WHEN_LEFT)
    return block


class PrefixStacks:
    """Several prefixes side by side for one call. One prefix is passed on as it is; the last stacks are kept,
    because the same tasks tend to meet again: while some are computed the others come in, so two groups take turns.
    """

    def __init__(self, shape: CacheShape) -> None:
        self._shape = shape
        self._stacks: dict[tuple[Prefix | None, ...], list[LayerCache]] = {}  # in the order of their last use

    def layers(self, prefixes: Sequence[Prefix | None]) -> list[LayerCache]:
        """Per layer (2, len(prefixes), key heads, 1, P, head_dim); P is 0 when nobody has a prefix."""
        key = tuple(prefixes)
        if len(key) == 1 and key[0] is not None:
            return key[0].layers
        layers = self._stacks.pop(key, [])
        while len(self._stacks) >= MAX_STACKS:
            del self._stacks[next(iter(self._stacks))]
        self._stacks[key] = layers or self._stack(key)
        return self._stacks[key]

    def forget_unused(self) -> None:
        """Release the stacks that hold a prefix nobody uses any more."""
        for key in list(self._stacks):
            if any(one is not None and not one.num_users for one in key):
                del self._stacks[key]

    def _stack(self, key: Sequence[Prefix | None]) -> list[LayerCache]:
        width = max((prefix.width for prefix in key if prefix is not None), default=0)
        layers: list[LayerCache] = []
        for layer in range(self._shape.num_layers):
            stacked = self._shape.new_layer(len(key), 1, width)
            for group, prefix in enumerate(key):
                stacked.fill(group, 0, None if prefix is None else prefix.layers[layer].both[:, 0, :, 0])
            layers.append(stacked)
        return layers
