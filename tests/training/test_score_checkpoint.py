"""Scores of a running training: one checkpoint, one line, read and measured as the product does."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BUNDLED = next((ROOT / "src" / "allinone" / "models" / "bundled").glob("*.gguf"))
pytestmark = [
    pytest.mark.training,
    pytest.mark.skipif(sys.version_info < (3, 11), reason="the recipe needs Python 3.11 (tomllib)"),
]


@pytest.fixture
def settings(tmp_path: Path) -> Any:
    """A run folder with a checkpoint of a tiny model that speaks the bundled model's tokens."""
    import torch
    from training.model import Qwen2
    from training.settings import ModelShape, Schedule, Settings
    from training.tokenizer import Codec

    torch.manual_seed(0)
    shape = ModelShape(hidden=64, layers=1, heads=1, kv_heads=1, ffn=64)
    ema = {name: values.detach() for name, values in Qwen2(shape).named_parameters()}
    state = {"ema": ema, "step": 300, "tokens": 2_457_600, "elapsed_s": 905.0}
    torch.save(state, tmp_path / "checkpoint.pt")
    Codec.from_gguf(BUNDLED).control.save(str(tmp_path / "tokenizer.json"))
    return Settings(name="tiny", run=tmp_path, model=shape, schedule=Schedule(minutes=1, batch_tokens=256))


def test_checkpoint_is_measured_through_the_product(settings: Any, tmp_path: Path) -> None:
    """Weights and counts are of the same moment; only the numbers stay."""
    from training.evaluate import Row
    from training.evaluate_bench import Bench, Figure
    from training.score_checkpoint import measure, read_checkpoint

    def total(bench: Bench) -> Figure:
        return Figure(value=float(bench.label_probs("sentiment", ["今天真好", "so bad"]).sum()))

    rows = [
        Row(key="sums", title="probabilities of two texts", measure=total),
        Row(key="none", title="cannot be measured", measure=lambda bench: Figure(value=None)),
    ]
    before = sorted(tmp_path.iterdir())
    record = measure(read_checkpoint(settings), settings, tmp_path, rows, 5)
    assert record == {"step": 300, "tokens": 2_457_600, "min": 15.08, "max_cases": 5, "rows": {"sums": 2.0}}
    assert sorted(tmp_path.iterdir()) == before


def test_same_checkpoint_is_scored_once(settings: Any) -> None:
    """A timer may call it more often than checkpoints are written."""
    from training.score_checkpoint import SCORES_FILE, is_scored, read_checkpoint

    scores, checkpoint = settings.run / SCORES_FILE, read_checkpoint(settings)
    assert not is_scored(scores, checkpoint)
    scores.write_text(json.dumps({"step": 200}) + "\n", encoding="utf-8")
    assert not is_scored(scores, checkpoint)
    scores.write_text(json.dumps({"step": 200}) + "\n" + json.dumps({"step": 300}) + "\n", encoding="utf-8")
    assert is_scored(scores, checkpoint)


def test_missing_checkpoints_and_unknown_rows_are_named(tmp_path: Path, settings: Any) -> None:
    """The default rows exist; a row is named exactly, so that `sst2` costs one row and not two."""
    from training.score_checkpoint import DEFAULT_ROWS, find_rows, read_checkpoint

    assert [row.key for row in find_rows(DEFAULT_ROWS)] == list(DEFAULT_ROWS)
    with pytest.raises(SystemExit, match="No row 'sst3'"):
        find_rows(["sst3"])
    (tmp_path / "checkpoint.pt").unlink()
    with pytest.raises(SystemExit, match="No checkpoint"):
        read_checkpoint(settings)
