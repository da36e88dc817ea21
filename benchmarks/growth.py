"""How speed and memory grow with what is asked: `python -m benchmarks.growth --json growth.json --plot growth.svg`.

Three curves of this product on one model: labels a second against requests in flight and against the number of tasks
that are mixed, the time to the first token against the turns of a conversation; and the memory that each size takes
above the loaded model. Every point has a process of its own. Nothing may grow faster than its input: a verdict on time
and memory of each curve, and exit code 1 where one does. Speeds are of this machine, at this moment: read the shapes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.curves import Curve, Point, draw

ROOT = Path(__file__).parents[1]
NUM_LABELS = 512
SIZES = {
    "queue": (1, 4, 16, 64, 256, 1024),
    "tasks": (1, 2, 4, 8, 16, 32, 64),
    "history": (1, 5, 10, 20, 30, 40, 50),
}
QUICK_NUM_LABELS = 32
QUICK_SIZES = {"queue": (1, 8, 64), "tasks": (1, 4, 16), "history": (1, 3, 12)}
"""For a look whether everything works."""


def measure_apart(axis: str, size: int, *, num_labels: int, model: str | None) -> Point:
    """Measure one point in a new process."""
    order = {"axis": axis, "size": size, "num_labels": num_labels, "model": model}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.growth_point", json.dumps(order)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": path},
        check=True,
    )
    return Point(**json.loads(done.stdout.splitlines()[-1]))


def measure(one: Callable[[str, int], Point], sizes: dict[str, tuple[int, ...]]) -> list[Curve]:
    """All three curves.

    Args:
        one: measures (axis, size).
        sizes: of each axis, rising.
    """
    curves = {
        "queue": Curve(title="labels a second", unit="/s", of="requests in flight"),
        "tasks": Curve(title="labels a second, 64 in flight", unit="/s", of="tasks mixed"),
        "history": Curve(title="time to the first token", unit="s", of="turns of the conversation"),
    }
    for axis, curve in curves.items():
        for size in sizes[axis]:
            point = one(axis, size)
            curve.points.append(point)
            added_mb = point.added_bytes / 2**20
            said = f"{size} {curve.of}: {point.value:.3g} {curve.unit}, +{added_mb:.1f} MB"
            print(said, file=sys.stderr, flush=True)
    return list(curves.values())


def report_verdicts(curves: Sequence[Curve]) -> bool:
    """Say of each curve whether its time and its memory grow faster than its input; whether none does."""
    for curve in curves:
        print(f"{curve.of}: memory {curve.memory}", file=sys.stderr)
        print(f"{curve.of}: time {curve.time}", file=sys.stderr)
    return all(curve.memory.holds and curve.time.holds for curve in curves)


def main() -> int:
    """Measure, write, draw, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=None)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--quick", action="store_true", help="few small sizes")
    args = parser.parse_args()
    num_labels = QUICK_NUM_LABELS if args.quick else NUM_LABELS
    curves = measure(
        lambda axis, size: measure_apart(axis, size, num_labels=num_labels, model=args.model),
        QUICK_SIZES if args.quick else SIZES,
    )
    records = [curve.to_record() for curve in curves]
    text = json.dumps(
        {"cpu_count": os.cpu_count(), "load": os.getloadavg()[0], "curves": records}, ensure_ascii=False, indent=1
    )
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    if args.plot:
        args.plot.write_text(draw(curves), encoding="utf-8")
    return 0 if report_verdicts(curves) else 1


if __name__ == "__main__":
    sys.exit(main())
