"""Label temperatures: stored with the model, carried through every form of it, applied where probabilities are made."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from make_files import write_folder, write_gguf

from allinone import AllInOne
from allinone.engine.requests import LabelScores
from allinone.errors import ModelError, WeightsMismatch
from allinone.loading import import_model, load_model
from allinone.models.calibration import Calibration, read_gguf_calibration
from allinone.models.files import open_model
from allinone.models.locate import locate_model
from allinone.types import Timings, Usage

LOGPROBS = {"正面": math.log(0.7), "负面": math.log(0.2), "中性": math.log(0.1), "无": -math.inf}


def scores() -> LabelScores:
    return LabelScores(logprobs=LOGPROBS, usage=Usage(), timings=Timings())


def test_temperature_of_falls_back_to_the_task_and_then_to_one() -> None:
    calibration = Calibration(temperatures={"sentiment": 1.5, "emotion.en": 2.0})
    assert calibration.temperature_of("sentiment") == calibration.temperature_of("sentiment.en") == 1.5
    assert calibration.temperature_of("emotion.en") == 2.0
    assert calibration.temperature_of("emotion") == calibration.temperature_of("intent") == 1.0


def test_probs_at_temperature_one_are_the_models_own_bit_for_bit() -> None:
    assert scores().probs(1.0) == scores().probs() == {label: math.exp(value) for label, value in LOGPROBS.items()}


@pytest.mark.parametrize("temperature", [0.05, 0.5, 0.999, 1.7, 30.0])
def test_probs_sum_to_one_and_keep_their_order_at_any_temperature(temperature: float) -> None:
    probs = scores().probs(temperature)
    assert math.fsum(probs.values()) == pytest.approx(1, abs=1e-12)
    assert list(probs) == list(LOGPROBS) and probs["无"] == 0
    assert probs["正面"] > probs["负面"] > probs["中性"]
    assert math.log(probs["正面"] / probs["负面"]) == pytest.approx(math.log(3.5) / temperature)


def test_label_stays_and_probs_follow_the_temperature() -> None:
    """The same model with and without: another confidence, never another answer."""
    texts = ["今天真好", "还行吧", "What a day", "bad"]
    with AllInOne.load(backend="fake", cache=False) as plain:
        expected = list(plain.map("sentiment", texts))
        plain.model = dataclasses.replace(plain.model, calibration=Calibration(temperatures={"sentiment": 3.0}))
        softened = list(plain.map("sentiment", texts))
        mood = plain.reply(texts[0]).mood
    assert mood.probs == softened[0].probs
    for before, after in zip(expected, softened, strict=True):
        assert before.probs and after.probs and before.label == after.label
        weights = {label: value ** (1 / 3) for label, value in before.probs.items()}
        assert after.probs == pytest.approx({label: w / sum(weights.values()) for label, w in weights.items()})
        assert after.p_max == after.probs[str(after.label)]


def test_calibration_survives_gguf_import_and_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GGUF metadata -> `open_model` -> compiled folder -> loaded model; and the first use imports by itself."""
    metadata = {"allinone.temperature.sentiment": 1.375, "allinone.temperature.emotion": 0.75}
    write_gguf(tmp_path / "tiny.gguf", metadata=metadata)
    wanted = Calibration(temperatures={"sentiment": 1.375, "emotion": 0.75})
    assert open_model(tmp_path / "tiny.gguf").calibration == wanted
    import_model(locate_model(tmp_path / "tiny.gguf"), tmp_path / "compiled", quantization="float32")
    monkeypatch.setenv("ALLINONE_CACHE", str(tmp_path / "cache"))
    for path in (tmp_path / "compiled", tmp_path / "tiny.gguf"):
        model = load_model(path, quantization="float32", num_threads=1)
        model.backend.close()
        assert model.calibration == wanted


def test_folder_brings_its_calibration_along(tmp_path: Path) -> None:
    """Safetensors have no metadata of ours: the file lies beside them."""
    write_folder(tmp_path / "Tiny")
    assert open_model(tmp_path / "Tiny").calibration == Calibration()
    Calibration(temperatures={"intent": 2.0}).save(tmp_path / "Tiny")
    assert open_model(tmp_path / "Tiny").calibration.temperature_of("intent") == 2.0


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, "1.5", True, None])
def test_impossible_temperatures_are_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(WeightsMismatch, match=r"allinone\.temperature\.sentiment"):
        read_gguf_calibration({"allinone.temperature.sentiment": value}, file="x.gguf")
    (tmp_path / "calibration.json").write_text(json.dumps({"temperatures": {"sentiment": value}}))
    with pytest.raises(ModelError, match="damaged"):
        Calibration.load(tmp_path)
