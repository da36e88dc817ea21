"""Two runs side by side: verdict by figure, and warnings about everything that is not the program's doing."""

from __future__ import annotations

from typing import Any

import pytest

from allinone.bench.compare import compare_reports
from allinone.bench.report import Workload

from .reports import MACHINE, STEADY, make_report


def _times(factor: float) -> list[list[float]]:
    return [[factor * sample for sample in samples] for samples in STEADY]


def test_each_figure_gets_its_verdict() -> None:
    """A slower label is worse, a faster decode better, the rest noise."""
    before = make_report({"label_p50_s": STEADY, "decode_tokens_per_s_1": STEADY, "cold_start_s": STEADY})
    after = make_report({"label_p50_s": _times(1.5), "decode_tokens_per_s_1": _times(1.5), "cold_start_s": STEADY})
    comparison = compare_reports(before, after)
    assert {name: change.verdict for name, change in comparison.changes.items()} == {
        "label_p50_s": "worse",
        "decode_tokens_per_s_1": "better",
        "cold_start_s": "noise",
    }
    assert comparison.changes["label_p50_s"].change == pytest.approx(0.5)
    assert comparison.warnings == () and comparison.missing == ()


def test_figures_of_one_side_only_are_named() -> None:
    """Memory is not measured everywhere."""
    before = make_report({"label_p50_s": STEADY, "memory_peak_bytes": STEADY})
    assert compare_reports(before, make_report()).missing == ("memory_peak_bytes",)


@pytest.mark.parametrize(
    ("change", "needle"),
    [
        ({"model": "other/int8"}, "another model: bundled-1/int8 before, other/int8 now"),
        ({"backend": "transformers"}, "another backend"),
        ({"machine": MACHINE.model_copy(update={"cpu": "Another"})}, "another machine"),
        ({"machine": MACHINE.model_copy(update={"cores": 8})}, "another number of cores: 2 before, 8 now"),
        ({"machine": MACHINE.model_copy(update={"threads": 1})}, "another number of threads"),
        (
            {"workload": Workload(digest="b", prefix_tokens=1, label_tokens=1, history_tokens=None)},
            "other texts or prompts",
        ),
        ({"busy": True, "busy_reason": "the load was 9.0"}, "the machine was busy now: the load was 9.0"),
    ],
)
def test_what_is_not_comparable_is_said(change: dict[str, Any], needle: str) -> None:
    """One warning for one difference."""
    (warning,) = compare_reports(make_report(), make_report(**change)).warnings
    assert needle in warning


def test_unknown_load_is_no_warning() -> None:
    """Where the system does not say, there is nothing to say."""
    assert compare_reports(make_report(busy=None), make_report(busy=None)).warnings == ()


def test_document_is_plain() -> None:
    """As --json prints it."""
    document = compare_reports(make_report(), make_report()).to_document()
    assert document["changes"]["label_p50_s"]["verdict"] == "noise"
    assert set(document) == {"warnings", "changes", "missing"}
