"""The curves of growth: what is called proportional, what is not, and one real point in a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

SIZES = (1, 4, 16, 64, 256)
MB = 2**20


@pytest.mark.parametrize(
    ("values", "holds"),
    [
        ([3.0] * 5, True),  # it does not grow
        ([float(n) for n in SIZES], True),
        ([5.0 + n for n in SIZES], True),
        ([1.9 * n if n > 20 else float(n) for n in SIZES], True),  # one step of an allocator
        ([float(n**1.5) for n in SIZES], False),
        ([float(n * n) for n in SIZES], False),
        ([1.0, 4.0, 16.0, 64.0, 1024.0], False),  # with the square, at the end only
    ],
)
def test_proportional_growth_holds_and_more_does_not(values: list[float], holds: bool) -> None:
    """The verdict does what its words say."""
    from benchmarks.curves import judge

    verdict = judge(SIZES, values)
    assert verdict.holds is holds and verdict.large == 256
    assert ("FASTER" in str(verdict)) is not holds


def test_square_is_seen_above_a_floor_that_hides_the_small_sizes() -> None:
    """Compared with the smallest alone, 8 MB for one request would let it have 2 GB for 256."""
    from benchmarks.curves import judge

    verdict = judge(SIZES, [0.002 * MB * n * n for n in SIZES], floor=8 * MB)
    assert not verdict.holds and verdict.small == 64
    assert judge(SIZES, [0.0, 0.0, 1.0 * MB, 0.0, 7.9 * MB], floor=8 * MB).ratio == 1.0


def _measure(added_bytes: Callable[[int], int]) -> Any:
    from benchmarks.curves import Point
    from benchmarks.growth import measure

    def one(axis: str, size: int) -> Point:
        seconds = 0.01 * (size if axis == "queue" else 1)
        value = seconds if axis == "history" else 100.0
        return Point(
            size=size, value=value, seconds=seconds, base_bytes=100 * MB, peak_bytes=100 * MB + added_bytes(size)
        )

    return measure(one, {"queue": (1, 4, 16), "tasks": (1, 8), "history": (1, 50)})


def test_curves_have_memory_above_the_base_verdicts_and_a_picture() -> None:
    """What is written, drawn and judged is what each size took, not what the process had before."""
    from benchmarks.curves import draw
    from benchmarks.growth import report_verdicts

    curves = _measure(lambda size: 10 * MB * size)
    record = json.loads(json.dumps(curves[0].to_record()))
    assert [point["memory_mb"] for point in record["points"]] == [10.0, 40.0, 160.0]
    assert record["verdicts"]["memory"] == {"small": 1, "large": 16, "input_ratio": 16.0, "ratio": 16.0, "holds": True}
    assert report_verdicts(curves)
    picture = draw(curves)
    assert picture.count("no faster than the input") == 3 and "+160 MB" in picture


def test_curve_that_grows_faster_is_said_and_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    """A benchmark that finds nothing must be able to."""
    from benchmarks.curves import draw
    from benchmarks.growth import report_verdicts

    curves = _measure(lambda size: 10 * MB * size * size)
    assert not report_verdicts(curves)
    said = capsys.readouterr().err
    assert "requests in flight: memory GROWS FASTER THAN ITS INPUT" in said and "time grows no faster" in said
    assert draw(curves).count("faster than the input: memory") == 3


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_the_largest_while_it_is_watched() -> None:
    """Given back again before the end, and counted; what was there before is not."""
    from benchmarks.memory import MemoryWatch

    before = b"\1" * (64 * MB)
    with MemoryWatch(interval_s=0.01) as memory:
        base_bytes = memory.samples[0][1]
        block = b"\1" * (64 * MB)
        while memory.max_bytes < base_bytes + 60 * MB:
            pass  # until the other thread has looked; the suite's time limit ends it otherwise
        del block
    assert 60 * MB <= memory.max_bytes - base_bytes < 120 * MB
    assert base_bytes > len(before)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("axis", ["queue", "tasks", "history"])
def test_point_is_measured_in_a_process_of_its_own(axis: str) -> None:
    """The bundled model, two of everything; what this process holds is not counted."""
    from benchmarks.growth import measure_apart

    ballast = b"\1" * (400 * MB)
    point = measure_apart(axis, 2, num_labels=4, model=None)
    assert point.size == 2 and point.value > 0
    per_label = {"queue": 2 / point.value, "tasks": 1 / point.value, "history": point.value}
    assert point.seconds == pytest.approx(per_label[axis])
    assert 20 * MB < point.base_bytes <= point.peak_bytes < len(ballast)
