"""Reports made up for tests: the shape of a real one, figures as a test wants them."""

from __future__ import annotations

from typing import Any

from allinone.bench.report import BenchReport, Machine, Workload, measurement
from allinone.bench.statistics import Rounds

MACHINE = Machine(
    cpu="A CPU <of> tests & such",
    cores=2,
    threads=2,
    features=("avx2",),
    kernel="AVX2",
    load=0.1,
    system="Linux",
    versions={"allinone": "0.1.0"},
)
STEADY: Rounds = ((0.100, 0.101), (0.099, 0.100), (0.100, 0.102))


def make_report(rounds: dict[str, Rounds] | None = None, **changes: Any) -> BenchReport:
    """A report of these figures on a quiet machine."""
    fields: dict[str, Any] = {
        "model": "bundled-1/int8",
        "backend": "onnx",
        "quick": True,
        "machine": MACHINE,
        "workload": Workload(digest="a", prefix_tokens=53, label_tokens=28, history_tokens=1455),
        "busy": False,
        "busy_reason": "others used 1% of the processors, 0% was stolen",
        "figures": {name: measurement(name, found) for name, found in (rounds or {"label_p50_s": STEADY}).items()},
        "seconds": 20.0,
    }
    return BenchReport(**(fields | changes))
