"""`allinone doctor`: facts, measured speed, and findings that end in the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from allinone.backends.fake import FakeBackend
from allinone.cli.checkup import Report, measure_speed

from .conftest import Cli


def test_doctor_reports_every_section(fake: Cli) -> None:
    """Versions, system, CPU with its kernels and self-check, memory, folders, tasks, model, speed."""
    outcome = fake("doctor", "--json")
    report = json.loads(outcome.stdout)
    assert outcome.exit_code == 0, outcome.output
    assert report["healthy"] is True
    assert report["versions"]["allinone"] and report["versions"]["onnxruntime"]
    assert report["cpu"]["kernel"] and report["cpu"]["int8_self_check"] == "exact"
    assert report["folders"]["cache"]["writable"] is True
    assert "sentiment" in report["tasks"]["names"]
    assert report["model"]["prefill_tokens_per_s"] > 0 and report["model"]["decode_tokens_per_s"] > 0


def test_doctor_for_people_shows_the_same(fake: Cli) -> None:
    """And ends with a verdict."""
    outcome = fake("doctor")
    assert outcome.exit_code == 0
    for needle in ("onnxruntime", "self-check: exact", " free\n", "tokens/s", "Everything works."):
        assert needle in outcome.stdout
    assert "{" not in outcome.stdout


def test_doctor_goes_on_after_a_problem(cli: Cli) -> None:
    """A missing model is a finding with a hint; the rest is still examined; exit 1."""
    outcome = cli("doctor", "--json", "--model", "no/such/model.gguf")
    report = json.loads(outcome.stdout)
    assert outcome.exit_code == 1
    assert report["healthy"] is False
    (problem,) = [finding for finding in report["findings"] if finding["level"] == "problem"]
    assert "no/such/model.gguf" in problem["message"] and problem["hint"]
    assert report["cpu"]["kernel"]


def test_doctor_finds_a_folder_that_cannot_be_written(fake: Cli, tmp_path: Path) -> None:
    """With the variable that names another one."""
    (tmp_path / "file").write_text("")
    outcome = fake("doctor", env={"ALLINONE_CACHE": str(tmp_path / "file" / "cache")})
    assert outcome.exit_code == 1
    assert "✗ The cache folder" in outcome.stdout and "set ALLINONE_CACHE" in outcome.stdout


def test_speed_uses_one_stream_and_gives_it_back(fake_backend: FakeBackend) -> None:
    """Measuring leaves nothing behind."""
    speed = measure_speed(fake_backend)
    assert set(speed) == {"prefill_tokens_per_s", "decode_tokens_per_s"}
    assert fake_backend.num_sequences() == 0


@pytest.mark.parametrize(("level", "is_healthy"), [("problem", False), ("advise", True)])
def test_only_problems_make_it_unhealthy(level: str, is_healthy: bool) -> None:
    """Advice is not an error."""
    report = Report()
    getattr(report, level)("x")
    assert report.is_healthy is is_healthy
