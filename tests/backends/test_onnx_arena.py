"""Regions of the arena: never shared by two arrays, used again, given back."""

from __future__ import annotations

import random

import numpy as np
import pytest

from allinone.backends.onnx import arena as module
from allinone.backends.onnx.arena import MAX_FREE_SHARE, MIN_FREE_BYTES, MIN_REGION_BYTES, Arena, FloatArray

LARGE = MIN_REGION_BYTES // 4


def test_arrays_that_live_never_share_memory() -> None:
    """Whatever order arrays come and go in, what was written to one is still there when it is read."""
    arena, rng = Arena(), random.Random(7)
    alive: dict[int, FloatArray] = {}
    for number in range(600):
        if alive and rng.random() < 0.48:
            which = rng.choice(list(alive))
            assert (alive.pop(which) == which).all()
        else:
            array = arena.empty((rng.randint(1, 12), rng.randint(LARGE // 8, LARGE)))
            array[:] = number
            alive[number] = array[::-1]  # a view is enough to keep it
            del array
    for number, array in alive.items():
        assert (array == number).all()


def test_memory_is_used_again_and_the_rest_goes_back() -> None:
    """An array of about the size of one that died takes its region; without arrays little is kept."""
    arena = Arena()
    first = arena.empty((40, LARGE))
    address = first.ctypes.data
    del first
    again = arena.empty((39, LARGE))
    assert again.ctypes.data == address
    assert arena.num_free_bytes == 0
    others = [arena.empty((9, LARGE)) for _ in range(40)]
    most = arena.num_used_bytes
    assert most >= 40 * 9 * MIN_REGION_BYTES

    del again, others
    arena.settle()

    assert arena.num_used_bytes == 0
    assert arena.num_free_bytes <= MIN_FREE_BYTES
    assert MAX_FREE_SHARE < 1


def test_small_arrays_come_from_the_heap() -> None:
    """A region is a page at least, and a call of the system: not for a few numbers."""
    arena = Arena()
    array = arena.empty((3, 5))
    assert array.shape == (3, 5)
    assert array.dtype == np.float32
    assert arena.num_used_bytes == 0


def test_a_region_is_at_most_an_eighth_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Growing by a step fits the region before it, and not much memory is lost to that."""
    sizes: list[int] = []
    monkeypatch.setattr(module.mmap, "mmap", lambda _, size: sizes.append(size) or bytearray(size))
    for num_bytes in (MIN_REGION_BYTES, MIN_REGION_BYTES + 4, 3_000_000, 12_345_678):
        assert num_bytes <= module._map(num_bytes).num_bytes <= 1.125 * num_bytes
    assert len(sizes) == 4
