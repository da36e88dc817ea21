"""What is measured, how it is compared and what is chosen; candidates with figures made up here, and one real one."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from allinone.errors import RunError, StoreError, UsageError, WeightsMismatch
from allinone.loading import import_model
from allinone.models.locate import locate_model
from allinone.models.random_weights import RandomWeights
from allinone.tuning import candidates as candidates_module
from allinone.tuning import tune as tune_module
from allinone.tuning.candidates import Candidate, find_candidates
from allinone.tuning.measure import Measurement, measure_apart, measure_here
from allinone.tuning.tune import Outcome, choose, tune_model
from gguf_files import write_gguf

FP32 = [[2.0, 0.0, -1.0], [0.0, 1.5, -1.0], [0.2, 0.1, 0.0]]


def figures(**changes: Any) -> Measurement:
    """A candidate that says what FP32 says."""
    fields: dict[str, Any] = {
        "load_s": 0.5, "label_ms": 10.0, "labels_per_s": 100.0, "decode_tokens_per_s": 50.0,
        "peak_bytes": 200_000_000, "added_bytes": 100_000_000, "label_logits": FP32,
    }  # fmt: skip
    return Measurement(**(fields | changes))


@pytest.fixture
def folder(tiny_weights: RandomWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model in two quantisations, another model beside it, and every backend installed, or so it seems."""
    monkeypatch.setenv("ALLINONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(candidates_module, "_is_installed", lambda package: True)
    monkeypatch.setattr(tune_module, "_compile", lambda candidate: None)
    folder = tmp_path / "models"
    folder.mkdir()
    write_gguf(tiny_weights, folder / "tiny-f32.gguf")
    write_gguf(tiny_weights, folder / "tiny-q8.gguf", kind="Q8_0")
    write_gguf(RandomWeights(tiny_weights.config, name="somebody else"), folder / "other.gguf", kind="Q4_0")
    (folder / "broken.gguf").write_bytes(b"GGUF and nothing more than a few bytes")
    return folder


def test_candidates_are_backends_times_weights(folder: Path) -> None:
    """The FP32 reference first; llama.cpp with each quantisation of this model, and of no other one."""
    found, skipped = find_candidates(locate_model(folder / "tiny-q8.gguf"))
    assert [(one.name, one.path.name) for one in found] == [
        ("onnx float32", "tiny-q8.gguf"),
        ("onnx int8", "tiny-q8.gguf"),
        ("llamacpp f32", "tiny-f32.gguf"),
        ("llamacpp q8_0", "tiny-q8.gguf"),
        ("transformers float32", "tiny-q8.gguf"),
        ("transformers bfloat16", "tiny-q8.gguf"),
    ]
    assert not skipped and found[0].is_reference


def test_what_is_not_installed_is_named_with_its_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of a machine that lacks an engine says how to get it."""
    monkeypatch.setattr(candidates_module, "_is_installed", lambda package: False)
    found, skipped = find_candidates(locate_model(folder / "tiny-f32.gguf"))
    assert [one.backend for one in found] == ["onnx", "onnx"]
    assert [one.name for one in skipped] == ["llamacpp", "transformers"]
    assert "make llamacpp" in skipped[0].reason and "[transformers]" in skipped[1].reason


@pytest.fixture
def llama(tiny_weights: RandomWeights, folder: Path) -> Path:
    """A folder with a model that only llama.cpp knows, in two quantisations."""
    folder = folder / "llama"
    folder.mkdir()
    write_gguf(tiny_weights, folder / "llama-f16.gguf", kind="F16", architecture="llama")
    write_gguf(tiny_weights, folder / "llama-q8.gguf", kind="Q8_0", architecture="llama")
    return folder


def test_model_that_only_llamacpp_knows_is_compared_with_its_most_precise_file(llama: Path) -> None:
    """There is no FP32 of it; the other engines are named with the reason, as if they were not installed."""
    found, skipped = find_candidates(locate_model(llama / "llama-q8.gguf"))
    assert [(one.name, one.is_reference) for one in found] == [("llamacpp f16", True), ("llamacpp q8_0", False)]
    assert found[0].form == "llama-f16.gguf as it is"
    assert [one.name for one in skipped] == ["onnx", "transformers"]
    assert all("architecture 'llama', which is not supported" in one.reason for one in skipped)


def test_one_file_that_only_llamacpp_knows_is_its_own_reference(llama: Path) -> None:
    """Nothing to compare with but itself, and it is chosen."""
    (llama / "llama-f16.gguf").unlink()
    location = locate_model(llama / "llama-q8.gguf")
    report = tune_model(location, measure=lambda candidate: figures())
    assert report.reference == report.best and report.reference.form == "llama-q8.gguf as it is"
    assert (report.to_choice().backend, report.to_choice().weights) == ("llamacpp", "q8_0")


def test_model_that_nothing_here_knows_is_an_error(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason, and the engine that may help."""
    monkeypatch.setattr(candidates_module, "_is_installed", lambda package: package != "llama_cpp")
    with pytest.raises(WeightsMismatch, match="architecture 'llama'") as caught:
        find_candidates(locate_model(llama / "llama-q8.gguf"))
    assert caught.value.hint is not None and "make llamacpp" in caught.value.hint


@pytest.mark.llamacpp
def test_model_that_only_llamacpp_knows_is_measured(llama: Path) -> None:
    """With the real engine: two quantisations of a tiny llama, one beside the other."""
    report = tune_model(locate_model(llama / "llama-q8.gguf"), num_threads=1, seconds=0.05)
    assert [outcome.failed for outcome in report.outcomes] == [None, None]
    precise, q8 = (outcome.agreement for outcome in report.outcomes)
    assert precise is not None and precise.max_logprob_error == 0.0
    assert q8 is not None and 0.0 < q8.mean_logprob_error < 0.2


def test_compiled_folder_leaves_nothing_to_choose(folder: Path, tmp_path: Path) -> None:
    """It has its weights in one form only."""
    import_model(locate_model(folder / "tiny-f32.gguf"), tmp_path / "compiled", quantization="float32")
    with pytest.raises(UsageError, match="nothing is left to choose"):
        find_candidates(locate_model(tmp_path / "compiled"))


def test_fastest_of_those_that_agree_is_chosen(folder: Path) -> None:
    """Wrong answers are no answers, however quick; a failure of one candidate does not end the rest."""
    flipped = [FP32[0], [1.5, 0.0, -1.0], FP32[2]]

    def measure(candidate: Candidate) -> Measurement:
        if candidate.name == "llamacpp f32":
            raise RunError("llamacpp f32 crashed (signal 11).")
        return {
            "onnx float32": figures(),
            "onnx int8": figures(label_ms=4.0, labels_per_s=300.0),
            "llamacpp q8_0": figures(label_ms=1.0, labels_per_s=900.0, label_logits=flipped),
            "transformers float32": figures(label_ms=100.0),
            "transformers bfloat16": figures(label_ms=50.0),
        }[candidate.name]

    steps: list[tuple[str, int, int]] = []
    location = locate_model(folder / "tiny-q8.gguf")
    report = tune_model(location, measure=measure, on_progress=lambda *step: steps.append(step))
    assert report.best.name == "onnx int8"
    by_name = {outcome.candidate.name: outcome for outcome in report.outcomes}
    assert by_name["llamacpp f32"].failed == "llamacpp f32 crashed (signal 11)."
    q8 = by_name["llamacpp q8_0"].agreement
    assert q8 is not None and not q8.holds and q8.label_agreement == pytest.approx(2 / 3)
    assert steps[-1] == ("done", 6, 6) and ("onnx int8", 1, 6) in steps
    choice = report.to_choice()
    assert (choice.backend, choice.weights, choice.path) == ("onnx", "int8", location.path)
    assert choice.cache_key == location.cache_key
    record = by_name["llamacpp q8_0"].to_record()
    assert record["agrees"] is False and record["labels_per_s"] == 900.0 and "label_logits" not in record


def test_speed_is_all_three_together() -> None:
    """Twice as quick in one thing and ten times slower in another is not faster."""
    agreed = tune_module._compare(figures(), figures())

    def outcome(weights: str, found: Measurement) -> Outcome:
        candidate = Candidate(backend="onnx", weights=weights, path=Path("m"))
        return Outcome(candidate=candidate, measurement=found, agreement=agreed)

    even, lopsided = figures(), figures(label_ms=5.0, decode_tokens_per_s=5.0)
    assert choose([outcome("even", even), outcome("lopsided", lopsided)]).weights == "even"
    quicker = replace(lopsided, decode_tokens_per_s=30.0)
    assert choose([outcome("even", even), outcome("quicker", quicker)]).weights == "quicker"


def test_without_a_reference_nothing_is_chosen(folder: Path) -> None:
    """Agreement with FP32 cannot be known when FP32 cannot run."""

    def measure(candidate: Candidate) -> Measurement:
        raise RunError(f"{candidate.name} failed: no memory")

    with pytest.raises(RunError, match="onnx float32 failed"):
        tune_model(locate_model(folder / "tiny-q8.gguf"), measure=measure)


def test_import_that_fails_is_that_candidates_failure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full when int8 is compiled does not lose what was measured; without FP32 there is nothing."""
    location = locate_model(folder / "tiny-q8.gguf")

    def tune_without(weights: str) -> list[str | None]:
        def fail(candidate: Candidate) -> None:
            if (candidate.backend, candidate.weights) == ("onnx", weights):
                raise StoreError("the disk is full")

        monkeypatch.setattr(tune_module, "_compile", fail)
        return [outcome.failed for outcome in tune_model(location, measure=lambda candidate: figures()).outcomes]

    assert tune_without("int8") == [None, "the disk is full", None, None, None, None]
    with pytest.raises(StoreError, match="the disk is full"):
        tune_without("float32")


def test_process_that_crashes_is_an_error_with_its_signal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that is built wrongly must not take the comparison with it."""
    run = subprocess.run

    def run_and_die(command: list[str], **options: Any) -> Any:
        return run([command[0], "-c", f"import os; os.kill(os.getpid(), {signal.SIGSEGV:d})"], **options)

    monkeypatch.setattr(subprocess, "run", run_and_die)
    candidate = Candidate(backend="llamacpp", weights="f32", path=folder / "tiny-f32.gguf")
    with pytest.raises(RunError, match="signal 11") as caught:
        measure_apart(candidate, num_threads=1, seconds=0.1)
    assert caught.value.hint == "build it again: make llamacpp"


def test_process_that_fails_says_why(tmp_path: Path) -> None:
    """The child's one line is the parent's message."""
    candidate = Candidate(backend="onnx", weights="int8", path=tmp_path / "none.gguf")
    with pytest.raises(RunError, match=r"onnx int8 failed: .*none\.gguf"):
        measure_apart(candidate, num_threads=1, seconds=0.1)


def test_bundled_model_is_measured_in_a_process_of_its_own() -> None:
    """One real candidate: figures that can be, the same answers here and there, memory without this process's."""
    candidate = Candidate(backend="onnx", weights="int8", path=locate_model("bundled").path)
    order = {**asdict(candidate), "path": str(candidate.path), "num_threads": 1, "seconds": 0.05}
    here = measure_here(order)
    ballast = bytearray(os.urandom(1024)) * 300_000  # this process is larger than the other one by this
    found = measure_apart(candidate, num_threads=1, seconds=0.05)
    assert found.label_logits == here.label_logits and len(found.label_logits) == 40
    assert found.label_ms > 0 and found.labels_per_s > 0 and found.decode_tokens_per_s > 0
    if found.peak_bytes:
        assert 20_000_000 < found.added_bytes < found.peak_bytes < len(ballast)
