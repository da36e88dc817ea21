"""Pictures of the documentation: the same bytes every time, small, readable on light and dark pages."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.training,
    pytest.mark.skipif(sys.version_info < (3, 11), reason="the recipe needs Python 3.11 (tomllib)"),
]
BINS = [{"cases": 40, "confidence": 0.6, "accuracy": 0.5}, {"cases": 160, "confidence": 0.95, "accuracy": 0.9}]
REPORT: dict[str, Any] = {
    "rows": [
        {"key": "size", "title": "file size, MB", "value": 15.0, "details": {}},
        {
            "key": "ewect",
            "title": "EWECT",
            "value": 0.5,
            "details": {"labels": ["happy", "sad"], "confusion": [[30, 2], [5, 0]]},
        },
        {"key": "ece-sst2", "title": "calibration error: sst2", "value": 0.03, "details": {"bins": BINS}},
    ]
}
SCORES = [
    {"step": step, "tokens": step * 8192, "min": step / 20, "rows": {"sst2": 0.7 + step / 1e4, "ewect": 0.5}}
    for step in (100, 200, 300)
]


def log(num_records: int) -> list[dict[str, Any]]:
    return [
        {"step": 10 * i, "tokens": 81_920 * i, "min": i / 3, "label": 2 / (i + 1), "answer": 3 / (i + 1), "edit": 9.0}
        for i in range(num_records)
    ]


def test_pictures_are_small_reproducible_and_follow_the_page() -> None:
    """No date, no chance, no fixed text colour but the one of the page; Chinese is text in the reader's fonts."""
    from training.plots import svg_files

    files = svg_files(log(400), SCORES, REPORT)
    assert set(files) == {"losses", "scores", "confusion-ewect", "calibration"}
    assert svg_files(log(400), SCORES, REPORT) == files
    for text in files.values():
        ET.fromstring(text)
        assert len(text.encode()) < 60_000
        assert "prefers-color-scheme:dark" in text and "currentColor" in text
        assert "<image" not in text and "<dc:date>" not in text
        assert text.count("font-family") == 1, "a font of ours would win over the reader's"
    assert "快乐 happy" in files["confusion-ewect"] and ">30<" in files["confusion-ewect"]


def test_only_what_there_is_to_draw_is_drawn() -> None:
    from training.plots import svg_files

    assert svg_files([], [], None) == {}
    assert set(svg_files([], SCORES[:1], {"rows": REPORT["rows"][:1]})) == {"scores"}


def test_a_log_that_was_resumed_counts_once() -> None:
    """After a stop the training goes back to its checkpoint; a fresh start throws away what was there."""
    from training.plots import last_run, thin

    steps = [1, 10, 20, 30, 25, 35]
    assert [r["step"] for r in last_run([{"step": step} for step in steps])] == [1, 10, 20, 25, 35]
    assert [r["step"] for r in last_run([{"step": step} for step in [*steps, 1, 10]])] == [1, 10]
    thinned = thin(log(1001), 200)
    assert len(thinned) <= 200 and thinned[-1]["step"] == 10_000
    assert thin([]) == [] and len(thin(log(3))) == 3


def test_plots_as_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other lines of a log are no records; each input may be left out."""
    from training import plots

    (tmp_path / "train.log").write_text(
        "13.77 M parameters; fresh\n" + "\n".join(map(json.dumps, log(5))) + "\ndone\n", encoding="utf-8"
    )
    out = tmp_path / "pictures"
    monkeypatch.setattr(sys, "argv", ["plots", "--log", str(tmp_path / "train.log"), "--out", str(out)])
    plots.main()
    assert [path.name for path in out.iterdir()] == ["losses.svg"]


def test_phases_of_a_training_are_drawn_one_after_the_other(tmp_path: Path) -> None:
    from training.plots import read_phases

    files = [tmp_path / "one.log", tmp_path / "two.log"]
    files[0].write_text('fresh\n{"step": 1, "tokens": 10}\n{"step": 5, "tokens": 50}\n')
    files[1].write_text('{"step": 2, "tokens": 20, "label": 0.5}\n')
    assert read_phases(files)[1:] == [{"step": 5, "tokens": 50}, {"step": 7, "tokens": 70, "label": 0.5}]
    assert read_phases([]) == []
