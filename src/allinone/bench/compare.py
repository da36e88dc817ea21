"""Two reports side by side: which figures moved by more than they vary, and what makes the two hard to compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from allinone.bench.figures import FIGURES
from allinone.bench.report import BenchReport
from allinone.bench.statistics import Change, compare


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What changed from one report to the next.

    Attributes:
        warnings: differences that are not the program's.
        changes: figure -> change, for figures that both reports have.
        missing: figures that only one of them has.
    """

    warnings: tuple[str, ...]
    changes: Mapping[str, Change]
    missing: tuple[str, ...]

    def to_document(self) -> dict[str, Any]:
        """The comparison as JSON carries it."""
        return asdict(self)


def compare_reports(before: BenchReport, after: BenchReport) -> Comparison:
    """Compare two runs, figure by figure."""
    shared = [name for name in FIGURES if name in before.figures and name in after.figures]
    changes = {
        name: compare(
            before.figures[name].by_round(),
            after.figures[name].by_round(),
            FIGURES[name].quantile,
            better=FIGURES[name].better,
        )
        for name in shared
    }
    return Comparison(
        warnings=tuple(_find_differences(before, after)),
        changes=changes,
        missing=tuple(sorted(before.figures.keys() ^ after.figures.keys())),
    )


def _find_differences(before: BenchReport, after: BenchReport) -> list[str]:
    """What should be equal in both and is not, for people."""
    found = [
        f"another {what}: {old} before, {new} now"
        for what, old, new in (
            ("model", before.model, after.model),
            ("backend", before.backend, after.backend),
            ("machine", before.machine.cpu, after.machine.cpu),
            ("number of cores", before.machine.cores, after.machine.cores),
            ("number of threads", before.machine.threads, after.machine.threads),
        )
        if old != new
    ]
    if before.workload.digest != after.workload.digest and before.model == after.model:
        found.append("other texts or prompts were measured")
    found += [
        f"the machine was busy {when}: {report.busy_reason}"
        for when, report in (("before", before), ("now", after))
        if report.busy
    ]
    return found
