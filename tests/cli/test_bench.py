"""`allinone bench`: what is refused before anything runs, what is printed, how two runs are shown side by side."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from allinone.bench import measure, runner, shapes
from allinone.bench.measure import Plan
from allinone.bench.shapes import SHAPES

from .conftest import Cli

FIGURE_FIELDS = {"value", "unit", "better", "low", "high", "samples", "rounds"}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rounds of next to nothing, and no child processes: tests/bench has those."""
    for name in ("QUICK", "FULL"):
        monkeypatch.setattr(measure, name, Plan(num_rounds=2, max_s=60, slice_s=0.001))
    monkeypatch.setattr(runner, "HISTORY_TURNS", 3)
    monkeypatch.setattr(measure, "measure_cold_start", lambda target, text: 0.5)
    memory = {"memory_peak_bytes": 2e8, "memory_after_bytes": 1e8}
    monkeypatch.setattr(measure, "measure_footprint", lambda target: memory)
    monkeypatch.setattr(measure, "can_measure_memory", lambda: True)


@pytest.fixture
def saved(fake: Cli, tmp_path: Path) -> Path:
    """A run that was saved before."""
    outcome = fake("bench", "--quick", "--json")
    assert outcome.exit_code == 0, outcome.output
    path = tmp_path / "before.json"
    path.write_text(outcome.stdout, encoding="utf-8")
    return path


def _change(path: Path, **fields: Any) -> Path:
    """The report with other top-level fields."""
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document | fields), encoding="utf-8")
    return path


def test_json_is_one_object_on_stdout(saved: Path) -> None:
    """With every figure; progress and warnings are on stderr."""
    document = json.loads(saved.read_text(encoding="utf-8"))
    assert document["bench"] == 1 and document["model"] == "fake/float32" and document["quick"] is True
    assert len(document["figures"]) == 16
    for name, figure in document["figures"].items():
        assert set(figure) == FIGURE_FIELDS, name
        assert figure["low"] <= figure["value"] <= figure["high"], name
        assert sum(figure["rounds"]) == len(figure["samples"]), name
    assert {"cpu", "cores", "threads", "features", "load", "versions"} <= set(document["machine"])
    assert document["busy"] in (True, False, None) and document["busy_reason"]


def test_table_is_for_people(fake: Cli) -> None:
    """Each figure on a line with its unit and interval, then a word on the machine."""
    outcome = fake("bench")
    assert outcome.exit_code == 0, outcome.output
    for needle in ("fake/float32 on ", "500 ms", "labels/s", "tokens/s", "200 MB", "95 % interval", "50th chat turn"):
        assert needle in outcome.stdout
    assert "he machine was" in outcome.stdout or "unknown" in outcome.stdout
    assert "{" not in outcome.stdout
    assert "Measuring …" in outcome.stderr


@pytest.mark.parametrize(
    ("cpu_times", "needle"),
    [((0, 100), "✗ The machine was busy: other processes used 100%"), ((0, 0), "unknown")],
)
def test_busy_machine_is_said(
    fake: Cli, monkeypatch: pytest.MonkeyPatch, cpu_times: tuple[float, float], needle: str
) -> None:
    """From readings of the test's own."""
    from allinone.bench import machine

    readings = iter(machine.CpuTimes(total_s=at, busy_s=at, stolen_s=0, own_s=0) for at in cpu_times)
    watch = machine.BusyWatch(lambda: next(readings), load=0.0, num_cores=2)
    monkeypatch.setattr(measure, "BusyWatch", lambda **_: watch)
    assert needle in fake("bench").stdout


def test_comparison_shows_change_interval_and_verdict(fake: Cli, saved: Path) -> None:
    """The cold start of this test takes 0.5 s; before, it took twice as long."""
    document = json.loads(saved.read_text(encoding="utf-8"))
    slow = document["figures"]["cold_start_s"]
    slow |= {"value": 1.0, "low": 1.0, "high": 1.0, "samples": [1.0, 1.0, 1.0], "rounds": [1, 1, 1]}
    _change(saved, figures=document["figures"], model="other/int8")
    outcome = fake("bench", "--compare", saved)
    assert outcome.exit_code == 0, outcome.output
    (line,) = [line for line in outcome.stdout.splitlines() if "cold start" in line and "-50.0%" in line]
    assert "1.00 s" in line and "500 ms" in line
    assert "too few samples" in line  # two rounds make two cold starts
    assert "another model: other/int8 before, fake/float32 now" in outcome.stdout
    assert "verdict" in outcome.stdout


def test_comparison_is_part_of_the_json(fake: Cli, saved: Path) -> None:
    """And a report with a comparison in it can be compared again."""
    outcome = fake("bench", "--compare", saved, "--json")
    document = json.loads(outcome.stdout)
    assert set(document["comparison"]["changes"]) == set(document["figures"])
    assert all(
        {"change", "low", "high", "verdict"} == set(change) for change in document["comparison"]["changes"].values()
    )
    saved.write_text(outcome.stdout, encoding="utf-8")
    assert fake("bench", "--compare", saved).exit_code == 0


def test_plot_writes_a_picture(fake: Cli, tmp_path: Path) -> None:
    """Well-formed, and nothing else is left in the folder."""
    path = tmp_path / "speed.svg"
    path.write_text("an older one", encoding="utf-8")
    assert fake("bench", "--plot", path).exit_code == 0
    assert ElementTree.fromstring(path.read_text(encoding="utf-8")).tag.endswith("svg")
    assert list(tmp_path.iterdir()) == [path]


def test_shape_is_made_and_measured(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under its own name, which says that the weights are random."""
    small = replace(
        SHAPES["qwen1.5-0.5b"], vocab_size=8_448, hidden_size=64, intermediate_size=96, num_layers=2, num_heads=4,
        num_kv_heads=4, head_dim=16, max_context_tokens=2_048,
    )  # fmt: skip
    monkeypatch.setattr(shapes, "SHAPES", {"qwen1.5-0.5b": small})
    outcome = cli("bench", "--shape", "qwen1.5-0.5b", "--json", "--threads", "1")
    assert outcome.exit_code == 0, outcome.output
    assert "Making random weights of the shape qwen1.5-0.5b (once) …" in outcome.stderr
    document = json.loads(outcome.stdout)
    assert document["model"] == "random-qwen1.5-0.5b/int8" and document["machine"]["threads"] == 1


@pytest.mark.parametrize(
    ("arguments", "needle"),
    [
        (("--shape", "qwen9"), "Unknown shape 'qwen9'"),
        (("--shape", "qwen3-0.6b", "--model", "bundled"), "--shape and --model are both given"),
        (("--shape", "qwen3-0.6b", "--backend", "fake"), "--shape makes a model for the backend 'onnx'"),
        (("--plot", "speed.png"), "does not end in .svg"),
        (("--plot", "no/such/folder/speed.svg"), "There is no folder"),
        (("--backend", "onx"), "Unknown backend 'onx'"),
        (("--threads", "0"), "threads"),
        (("--model", "no-such-model"), "Unknown model 'no-such-model'"),
    ],
)
def test_wrong_usage_exits_2_before_anything_is_measured(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], needle: str
) -> None:
    """A typing error must not cost minutes."""
    monkeypatch.setattr(measure, "collect", lambda *_, **__: pytest.fail("something was measured"))
    outcome = cli("bench", *arguments)
    assert outcome.exit_code == 2, outcome.output
    assert needle in outcome.stderr and outcome.stdout == ""


@pytest.mark.parametrize(
    ("text", "needle", "code"),
    [
        ('{"bench": 0}', "has format 0", 2),
        ("label,0.3", "is no report of a benchmark", 2),
        ('{"bench": 1}', "is damaged", 2),
        (None, "There is no file", 2),
    ],
)
def test_unusable_report_is_refused_before_anything_is_measured(
    fake: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, needle: str, code: int
) -> None:
    """Named by file, with what to do."""
    monkeypatch.setattr(measure, "run_bench", lambda *_, **__: pytest.fail("something was measured"))
    path = tmp_path / "before.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    outcome = fake("bench", "--compare", path)
    assert outcome.exit_code == code
    assert needle in outcome.stderr and "before.json" in outcome.stderr


def test_ctrl_c_stops_with_a_word(fake: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of measuring; nothing half-done on stdout."""

    def interrupt(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "measure_cold_start", interrupt)
    outcome = fake("bench", "--json")
    assert outcome.exit_code == 130
    assert outcome.stdout == "" and outcome.stderr.endswith("Stopped.\n")
