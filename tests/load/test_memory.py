"""What the driver of the load says of memory: samples while it runs, and two ways to see a leak."""

from __future__ import annotations

import sys
import threading
import time

import pytest
from benchmarks.memory import MemoryWatch

from .memory import is_memory_flat

MB = 2**20


def held(*sizes_mb: float) -> MemoryWatch:
    """A watch that saw these, a second apart."""
    return MemoryWatch(samples=[(float(second), round(size * MB)) for second, size in enumerate(sizes_mb)])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_looked_at_all_the_time() -> None:
    """What is taken and given back within the load is seen, and no thread stays."""
    num_threads = threading.active_count()
    with MemoryWatch(interval_s=0.01) as watch:
        block = b"\1" * (64 * MB)
        time.sleep(0.1)
        del block
        time.sleep(0.1)
    assert len(watch.samples) > 5
    assert watch.max_bytes > watch.samples[0][1] + 50 * MB > watch.samples[-1][1]
    assert threading.active_count() == num_threads


def test_load_that_ends_at_once_has_two_samples() -> None:
    """Small loads are judged too, by what there is."""
    with MemoryWatch() as watch:
        pass
    assert len(watch.samples) == 2 and abs(watch.floor_grown_bytes) < 50 * MB
    assert set(watch.to_record()) >= {"num_samples", "max_bytes", "slope_bytes_per_s"}


def test_slope_and_growth_are_those_of_the_samples() -> None:
    """A megabyte a second; waves are no growth."""
    rising = held(*range(100, 121))
    assert rising.slope_bytes_per_s == pytest.approx(MB) and rising.floor_grown_bytes == pytest.approx(11 * MB, abs=1)
    assert rising.mean_grown_bytes == pytest.approx(10.5 * MB, abs=1)
    waves = held(*(100.0, 150.0) * 10)
    assert abs(waves.mean_grown_bytes) < 6 * MB and waves.max_bytes == 150 * MB


@pytest.mark.parametrize(
    ("idle_mb", "meanwhile", "is_flat"),
    [
        ((800, 820), held(*[900] * 40), True),
        ((800, 820), held(*(850, 950) * 20), True),
        ((800, 820), held(*(850, 1100, 1200, 1300) * 10, *(850, 1900, 1950, 2000) * 10), True),  # larger requests
        ((800, 820), held(*(850, 1100, 1200, 1300) * 10, *(900, 1100, 1200, 1300) * 10), False),  # a lifted floor
        ((800, 849), held(*[900] * 40), False),  # not given back
        ((800, 800), held(*range(900, 1020)), False),  # given back at the end, and growing until then
        ((800, 800), held(800, 900, 950), True),  # a load of seconds rises from idle
    ],
)
def test_leak_is_seen_idle_or_under_load(idle_mb: tuple[int, int], meanwhile: MemoryWatch, is_flat: bool) -> None:
    """Either is enough to fail the load."""
    found = is_memory_flat([size * MB for size in idle_mb], meanwhile, max_growth_bytes=48 * MB)
    assert found is is_flat
