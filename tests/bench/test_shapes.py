"""Random weights of a shape: made once, imported as any model is, and ready to answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from allinone.bench.runner import LABEL_TASK, Runner, Target
from allinone.bench.shapes import SHAPES, make_model, require_shape
from allinone.errors import ConfigError
from allinone.models.random_weights import decoder_tensor_shapes


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [("qwen1.5-0.5b", 463_987_712), ("qwen2.5-0.5b", 494_032_768), ("qwen3-0.6b", 596_049_920)],
)
def test_shapes_are_those_of_the_models(name: str, num_parameters: int) -> None:
    """Parameter counts of the published checkpoints, to the last one."""
    total = 0
    for shape in decoder_tensor_shapes(SHAPES[name]).values():
        size = 1
        for side in shape:
            size *= side
        total += size
    assert total == num_parameters


def test_unknown_shape_is_refused_with_the_choices() -> None:
    """Before a gigabyte is made."""
    with pytest.raises(ConfigError, match=r"Did you mean 'qwen2\.5-0\.5b'\?"):
        require_shape("qwen2.5-0.5")


def test_model_of_a_shape_is_made_once_and_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the bundled tokenizer, whose vocabulary is padded to the shape's."""
    monkeypatch.setenv("ALLINONE_CACHE", str(tmp_path))
    steps: list[str] = []
    config = replace(
        SHAPES["qwen1.5-0.5b"],
        vocab_size=8_448,
        hidden_size=64,
        intermediate_size=96,
        num_layers=2,
        num_heads=4,
        num_kv_heads=4,
        head_dim=16,
        max_context_tokens=2_048,
    )
    folder = make_model("tiny", config, on_progress=lambda step, done, total: steps.append(step))
    assert folder.is_relative_to(tmp_path) and steps
    written = (folder / "manifest.json").stat().st_mtime_ns
    assert make_model("tiny", config) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == written
    with Runner.open(Target(model=str(folder), threads=1)) as runner:
        assert runner.ai.model.full_name == "random-tiny/int8"
        assert runner.ai.run(LABEL_TASK, runner.texts[0]).label in ("正面", "负面")
        assert runner.time_decode(2, 8) > 0
