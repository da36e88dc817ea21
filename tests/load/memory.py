"""The process's memory while a load runs: looked at about once a second, and whether it keeps growing.

Above: `driver.py`. What a process holds once it is idle again says nothing of what it needed meanwhile.
"""

from __future__ import annotations

import resource
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

INTERVAL_S = 1.0
MIN_SAMPLES = 30
"""Fewer say nothing of growth: the first seconds of a load are its rise from idle."""


def rss_bytes() -> int:
    """What this process holds now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


@dataclass(slots=True)
class MemoryWatch:
    """Samples of (seconds, bytes) from when this is entered until it is left, those two moments among them."""

    interval_s: float = INTERVAL_S
    samples: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    _left: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> MemoryWatch:
        began = time.monotonic()
        self.samples.append((0.0, rss_bytes()))

        def watch() -> None:
            is_left = False
            while not is_left:
                is_left = self._left.wait(self.interval_s)
                self.samples.append((time.monotonic() - began, rss_bytes()))

        self._thread = threading.Thread(target=watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._thread is not None
        self._left.set()
        self._thread.join()

    @property
    def max_bytes(self) -> int:
        """The largest."""
        return max(held for _, held in self.samples)

    @property
    def grown_bytes(self) -> int:
        """How much higher the floor of the later half of the time is than that of the earlier one.

        The floor is what four fifths of the samples exceed. What is computed comes and goes by a gigabyte, so that
        means of ten minutes differ by a hundred megabytes; what leaks never goes, and lifts the floor.
        """
        middle = self.samples[-1][0] / 2
        early = [held for when, held in self.samples if when <= middle]
        late = [held for when, held in self.samples if when > middle]
        return _floor(late or early) - _floor(early)

    @property
    def slope_bytes_per_s(self) -> float:
        """Of the line that is nearest to all samples."""
        times, held = [when for when, _ in self.samples], [float(held) for _, held in self.samples]
        return statistics.linear_regression(times, held).slope if times[-1] > 0 else 0.0

    def to_record(self) -> dict[str, float]:
        """For JSON."""
        return {
            "num_samples": len(self.samples),
            "mean_bytes": round(statistics.mean(held for _, held in self.samples)),
            "max_bytes": self.max_bytes,
            "floor_bytes": _floor([held for _, held in self.samples]),
            "floor_later_minus_earlier_bytes": self.grown_bytes,
            "slope_bytes_per_s": round(self.slope_bytes_per_s),
        }


def _floor(held: Sequence[int]) -> int:
    return sorted(held)[len(held) // 5]


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
    is_steady = len(second_half.samples) < MIN_SAMPLES or second_half.grown_bytes < max_growth_bytes
    return after < before + max_growth_bytes and is_steady
