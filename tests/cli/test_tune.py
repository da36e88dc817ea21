"""`allinone models tune` with figures made up here: table, JSON, and what it remembers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from allinone.backends.choice import find_choice
from allinone.errors import RunError
from allinone.models.locate import locate_model
from allinone.models.random_weights import RandomWeights
from allinone.tuning import candidates as candidates_module
from allinone.tuning import tune as tune_module
from allinone.tuning.candidates import Candidate
from allinone.tuning.measure import Measurement
from gguf_files import write_gguf

from .conftest import Cli


@pytest.fixture(autouse=True)
def _made_up_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Onnx and llama.cpp are here; int8 is the faster one and bfloat16 does not exist."""

    def measure(candidate: Candidate, *, num_threads: int | None, seconds: float) -> Measurement:
        if candidate.backend == "llamacpp":
            raise RunError(f"{candidate.name} crashed (signal 11).")
        speed = 1.0 if candidate.is_reference else 2.5
        return Measurement(
            load_s=0.1,
            label_ms=10 / speed,
            labels_per_s=100 * speed,
            decode_tokens_per_s=40 * speed,
            peak_bytes=150_000_000,
            added_bytes=90_000_000,
            label_logits=[[1.0, 0.0, -1.0 - 0.01 * speed]],
        )

    monkeypatch.setattr(candidates_module, "_is_installed", lambda package: package == "llama_cpp")
    monkeypatch.setattr(tune_module, "_compile", lambda candidate: None)
    monkeypatch.setattr(tune_module, "measure_apart", measure)
    monkeypatch.setattr(tune_module, "_is_busy", lambda: True)


def _choice() -> Any:
    return find_choice(locate_model("bundled"))


def test_tune_prints_a_table_and_remembers_the_best(cli: Cli) -> None:
    """Progress and warnings on stderr, what was found on stdout; the failure and the gap are both named."""
    outcome = cli("models", "tune", "bundled")
    assert outcome.exit_code == 0, outcome.stderr
    lines = outcome.stdout.splitlines()
    (int8,) = [line for line in lines if "onnx int8" in line and "Remembered" not in line]
    for needle in ("4.0 ms", "250", "100 tok/s", "150.0 MB", "90.0 MB", "100.0%", "best"):
        assert needle in int8
    assert any("onnx float32" in line and "reference" in line for line in lines)
    assert "Agreement is with FP32 (onnx float32)." in lines
    assert any("signal 11" in line for line in lines) and any("transformers: not measured" in line for line in lines)
    assert "Remembered" in lines[-1] and "busy" in outcome.stderr and "Measuring" in outcome.stderr
    assert (_choice().backend, _choice().weights) == ("onnx", "int8")


def test_tune_as_json(cli: Cli) -> None:
    """For programs: the same, as values."""
    found = json.loads(cli("models", "tune", "bundled", "--json").stdout)
    assert found["best"]["weights"] == "int8" and found["was_busy"] is True
    assert [one["backend"] for one in found["candidates"]] == ["onnx", "onnx", "llamacpp"]
    assert found["candidates"][1]["labels_per_s"] == 250.0 and found["candidates"][1]["agrees"] is True
    assert "signal 11" in found["candidates"][2]["error"]
    assert (found["reference"]["weights"], found["reference"]["form"]) == ("float32", "FP32")
    assert found["remembered"].endswith(".json") and found["skipped"][0]["backend"] == "transformers"


def test_tune_says_that_the_reference_is_the_file_as_it_is(
    cli: Cli, tiny_weights: RandomWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that only llama.cpp knows: measured and remembered, and nobody reads FP32 where there is none."""
    file = write_gguf(tiny_weights, tmp_path / "llama.gguf", architecture="llama")
    found = Measurement(
        load_s=0.1,
        label_ms=5.0,
        labels_per_s=300.0,
        decode_tokens_per_s=90.0,
        peak_bytes=0,
        added_bytes=0,
        label_logits=[[1.0, 0.0]],
    )
    monkeypatch.setattr(tune_module, "measure_apart", lambda candidate, **options: found)
    outcome = cli("models", "tune", str(file))
    assert outcome.exit_code == 0, outcome.stderr
    said = " ".join(outcome.stdout.split())
    assert "Agreement is with llama.gguf as it is (llamacpp f32)." in said and "FP32" not in said
    assert "onnx: not measured" in said and "architecture 'llama'" in said and "llamacpp f32 runs this model" in said
    choice = find_choice(locate_model(file))
    assert choice is not None and (choice.backend, choice.weights) == ("llamacpp", "f32")
    record = json.loads(cli("models", "tune", str(file), "--json").stdout)
    assert record["reference"] == record["best"] | {"form": "llama.gguf as it is"}
    assert [one["backend"] for one in record["skipped"]] == ["onnx", "transformers"]


def test_tune_can_remember_nothing_and_forget(cli: Cli) -> None:
    """Looking is free, and a choice can be taken back."""
    assert cli("models", "tune", "bundled", "--no-remember").exit_code == 0
    assert _choice() is None
    cli("models", "tune", "bundled")
    assert _choice() is not None
    assert "Forgotten" in cli("models", "tune", "bundled", "--forget").stdout
    assert _choice() is None
    assert "Nothing was remembered" in cli("models", "tune", "bundled", "--forget").stdout
    assert cli("models", "tune", "bundled", "--forget", "--no-remember").exit_code == 2


def test_doctor_says_what_chose_the_backend(cli: Cli) -> None:
    """Who wonders why another engine runs than yesterday looks here."""
    assert json.loads(cli("doctor", "--json").stdout)["model"]["chosen_by"] == "default"
    cli("models", "tune", "bundled")
    assert json.loads(cli("doctor", "--json").stdout)["model"]["chosen_by"] == "allinone models tune"
    assert json.loads(cli("doctor", "--json", "--backend", "onnx").stdout)["model"]["chosen_by"] == "--backend"
