"""Memory for large arrays that come and go: mapped regions that are used again.

The heap keeps holes of every size that caches ever had, and fresh pages from the system must be cleared first. Here a
region that nobody reads any more serves the next array of about its size; what is free beyond a share of what is in
use goes back to the system. Knows bytes only.
"""

from __future__ import annotations

import mmap
import weakref
from collections import deque
from dataclasses import dataclass, field
from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]

MIN_REGION_BYTES = 1 << 18
"""Smaller arrays come from the heap."""

MAX_FREE_SHARE = 0.25
"""How much may be kept free for the next arrays, as a share of what is in use."""

MIN_FREE_BYTES = 32 << 20
"""This much may be kept free however little is in use."""

MAX_SLACK = 0.5
"""A free region serves an array if it is larger by at most this share."""


@dataclass(frozen=True, slots=True)
class _Region:
    memory: mmap.mmap
    num_bytes: int


@dataclass(slots=True)
class Arena:
    """Regions in use and regions kept for the next arrays. One thread asks; any thread may drop an array.

    Attributes:
        num_used_bytes: of the regions that arrays lie in.
        num_free_bytes: of the regions kept.
    """

    num_used_bytes: int = 0
    num_free_bytes: int = 0
    _free: list[_Region] = field(default_factory=list)  # the one that was left last at the end
    _left: deque[_Region] = field(default_factory=deque)  # by arrays that died since the last look
    _owners: dict[int, weakref.ref[FloatArray]] = field(default_factory=dict)

    def empty(self, size: tuple[int, ...]) -> FloatArray:
        """An array with arbitrary values: zeros, or what an array before left there."""
        num_bytes = 4 * prod(size)
        if num_bytes < MIN_REGION_BYTES:
            return np.empty(size, np.float32)
        self.settle()
        region = self._take(num_bytes) or _map(num_bytes)
        self.num_used_bytes += region.num_bytes
        owner = np.frombuffer(region.memory, np.float32, prod(size))

        def leave(dead: weakref.ref[FloatArray]) -> None:
            self._owners.pop(id(dead), None)
            self._left.append(region)

        dying = weakref.ref(owner, leave)
        self._owners[id(dying)] = dying
        return owner.reshape(size)  # every view keeps its owner alive

    def settle(self) -> None:
        """Take back what arrays have left, and give the system what is too much."""
        while self._left:
            region = self._left.popleft()
            self._free.append(region)
            self.num_used_bytes -= region.num_bytes
            self.num_free_bytes += region.num_bytes
        while self._free and self.num_free_bytes > max(MIN_FREE_BYTES, MAX_FREE_SHARE * self.num_used_bytes):
            self.num_free_bytes -= self._free.pop(0).num_bytes

    def _take(self, num_bytes: int) -> _Region | None:
        """The smallest free region that fits; of equal ones the one left last, which the caches may still hold."""
        fits = [one for one in reversed(self._free) if num_bytes <= one.num_bytes <= (1 + MAX_SLACK) * num_bytes]
        if not fits:
            return None
        region = min(fits, key=lambda one: one.num_bytes)
        self._free.remove(region)
        self.num_free_bytes -= region.num_bytes
        return region


def _map(num_bytes: int) -> _Region:
    """A new region, larger by at most an eighth: arrays that grow step by step then fit the one before."""
    step = 1 << (num_bytes.bit_length() - 4)
    size = -(-num_bytes // step) * step
    return _Region(mmap.mmap(-1, size), size)
