"""This process's memory while something runs: looked at regularly, its largest, its floor, and whether it grows.

What a process holds once it is idle again says nothing of what it needed meanwhile. Above: `growth_point.py`, and the
driver of the load in `tests/load`.
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
    def floor_grown_bytes(self) -> int:
        """How much higher the floor of the later half of the time is than that of the earlier one.

        The floor is what four fifths of the samples exceed. What is computed comes and goes by a gigabyte, so that
        means of ten minutes differ by a hundred megabytes; what leaks never goes, and lifts the floor.
        """
        early, late = self._halves()
        return _floor(late) - _floor(early)

    @property
    def mean_grown_bytes(self) -> int:
        """The same of the means."""
        early, late = self._halves()
        return round(statistics.mean(late) - statistics.mean(early))

    def _halves(self) -> tuple[list[int], list[int]]:
        """What was held in the earlier and in the later half of the time."""
        middle = self.samples[-1][0] / 2
        early = [held for when, held in self.samples if when <= middle]
        return early, [held for when, held in self.samples if when > middle] or early

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
            "floor_later_minus_earlier_bytes": self.floor_grown_bytes,
            "mean_later_minus_earlier_bytes": self.mean_grown_bytes,
            "slope_bytes_per_s": round(self.slope_bytes_per_s),
        }


def _floor(held: Sequence[int]) -> int:
    return sorted(held)[len(held) // 5]
