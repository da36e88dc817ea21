"""A report is saved and read without loss; what is none, damaged or of another format is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from allinone.bench.figures import FIGURES
from allinone.bench.report import BenchReport, measurement, read_report
from allinone.errors import InvalidInput, StoreError, UsageError

from .reports import STEADY, make_report


def _save(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_report_survives_the_file(tmp_path: Path) -> None:
    """Field by field, a comparison that was printed with it left out."""
    report = make_report()
    document = report.to_document()
    assert read_report(_save(tmp_path / "a.json", document)).to_document() == document
    again = read_report(_save(tmp_path / "b.json", {**document, "comparison": {"changes": {}}}))
    assert again.to_document() == document


def test_document_has_the_promised_fields() -> None:
    """Names are a contract."""
    document = make_report().to_document()
    assert set(document) == {
        "bench", "model", "backend", "quick", "machine", "workload", "busy", "busy_reason", "figures", "seconds",
    }  # fmt: skip
    assert document["bench"] == 1
    figure = document["figures"]["label_p50_s"]
    assert {"value", "unit", "better", "low", "high", "samples"} <= set(figure)
    assert figure["samples"] == [0.1, 0.101, 0.099, 0.1, 0.1, 0.102] and figure["rounds"] == [2, 2, 2]
    assert figure["unit"] == "s" and figure["better"] == "lower"


def test_measurement_keeps_its_rounds_and_its_own_percentile() -> None:
    """Rounds without samples (left out for lack of time) vanish; p90 is not the median."""
    found = measurement("label_p90_s", ([1.0, 2.0], [], [3.0]))
    assert found.by_round() == [[1.0, 2.0], [3.0]]
    assert found.value == pytest.approx(2.8)
    assert found.low <= found.value <= found.high


def test_names_carry_their_unit() -> None:
    """A reader of the JSON knows seconds from rates by the name."""
    for name, figure in FIGURES.items():
        ending = {"s": "_s", "bytes": "_bytes", "ratio": "_ratio"}.get(figure.unit)
        assert name.endswith(ending) if ending else figure.unit.replace("/", "_per_") in name


@pytest.mark.parametrize(
    ("text", "error", "needle"),
    [
        ("not json", UsageError, "is no report of a benchmark"),
        ('{"a": 1}', UsageError, "is no report of a benchmark"),
        ('[{"bench": 1}]', UsageError, "is no report of a benchmark"),
        ('{"bench": 2}', UsageError, "has format 2"),
        ('{"bench": "1"}', UsageError, "has format '1'"),
        ('{"bench": 1, "model": "m"}', InvalidInput, "is damaged"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, error: type[Exception], needle: str) -> None:
    """Each with the name of the file and a way on."""
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(error, match=needle) as caught:
        read_report(path)
    assert str(path) in str(caught.value) and "hint:" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "place"),
    [({"value": 0.0}, "value"), ({"samples": []}, "samples"), ({"unit": "hours"}, "unit"), ({"rounds": [9]}, "rounds")],
)
def test_damaged_figure_is_named(tmp_path: Path, change: dict[str, Any], place: str) -> None:
    """A value that would break the comparison later on is found when the file is read."""
    document = make_report().to_document()
    document["figures"]["label_p50_s"] |= change
    with pytest.raises(InvalidInput, match=rf"label_p50_s.*{place}"):
        read_report(_save(tmp_path / "x.json", document))


def test_missing_file_is_wrong_usage_and_a_folder_is_a_store_error(tmp_path: Path) -> None:
    """A mistyped name, as for `run --file`; what is there and cannot be read is another matter."""
    with pytest.raises(StoreError, match="cannot be read"):
        read_report(tmp_path)
    with pytest.raises(UsageError, match=r"There is no file '.*gone\.json'"):
        read_report(tmp_path / "gone.json")


def test_report_is_frozen_and_complete() -> None:
    """A field that is forgotten or misspelt is an error where it is made."""
    with pytest.raises(ValueError, match="sedconds"):
        make_report(sedconds=1.0)
    assert isinstance(make_report({"label_p50_s": STEADY}), BenchReport)
