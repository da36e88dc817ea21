"""Whether memory stays flat under a load. Above: `driver.py`. Below: `benchmarks/memory.py`, which looks at it."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.memory import MemoryWatch

MIN_SAMPLES = 30
"""Fewer say nothing of growth: the first seconds of a load are its rise from idle."""


def is_memory_flat(idle_bytes: Sequence[int], second_half: MemoryWatch, *, max_growth_bytes: int) -> bool:
    """Whether memory stayed flat over the second half of a load.

    Two ways to see a leak: an idle process that holds more than it did before the half, and a half whose later part
    never holds as little as its earlier one did, while what came and went was alike. The first half is left out: until
    the largest requests have met once, memory grows.

    Args:
        idle_bytes: after the first half and after the second one.
        second_half: what was seen meanwhile; not judged with fewer samples than `MIN_SAMPLES`.
        max_growth_bytes: what allocators may keep.
    """
    before, after = idle_bytes
    is_steady = len(second_half.samples) < MIN_SAMPLES or second_half.floor_grown_bytes < max_growth_bytes
    return after < before + max_growth_bytes and is_steady
