"""Rows laid side by side stay apart, and label sets scored in PyTorch give what each question gives alone."""

from __future__ import annotations

import random

import pytest

pytestmark = pytest.mark.training


def packed_rows() -> dict[str, object]:
    """Four rows of 12 places with one to three groups each."""
    from training.packing import Encoded, pack

    examples = [Encoded((1, 2), [10 + i, 20 + i, 30 + i], [0, 0, 1]) for i in range(8)]
    examples += [Encoded((), [40 + i, 41, 42, 43], [3, 3, 3, 3]) for i in range(3)]
    rows = pack(examples, 12, random.Random(0))
    return {name: values[: len(values) // 2 * 2] for name, values in rows.items()}


def test_rows_laid_side_by_side_give_the_same_hidden_states() -> None:
    """A row of two sees in neither half what is in the other one."""
    import numpy as np
    import torch
    from training.model import Qwen2
    from training.packing import PAD_GROUP, attention_mask
    from training.settings import ModelShape
    from training.streams import joined

    torch.manual_seed(0)
    model = Qwen2(ModelShape(vocab_size=64, hidden=32, layers=2, heads=2, kv_heads=2, ffn=64)).eval()

    def hidden(rows: dict[str, np.ndarray]) -> torch.Tensor:
        tensors = {name: torch.from_numpy(values.astype("int64")) for name, values in rows.items()}
        with torch.no_grad():
            states = model.hidden(tensors["ids"], tensors["pos"], attention_mask(tensors["group"], tensors["doc"]))
        return states.reshape(-1, 12, 32)[torch.from_numpy(rows["group"].reshape(-1, 12) != PAD_GROUP)]

    alone = packed_rows()
    together = joined(alone, 24)  # type: ignore[arg-type]
    assert together["ids"].shape == (len(alone["ids"]) // 2, 24)  # type: ignore[arg-type]
    torch.testing.assert_close(hidden(together), hidden(alone))  # type: ignore[arg-type]


def test_rows_that_do_not_fit_are_refused() -> None:
    """A width that is no multiple, and more groups than a byte can tell apart."""
    from training.packing import PAD_GROUP
    from training.streams import joined

    rows = packed_rows()
    with pytest.raises(ValueError, match="do not make up"):
        joined(rows, 30)  # type: ignore[arg-type]
    rows["group"] = rows["group"].copy()  # type: ignore[attr-defined]
    rows["group"][0, 0] = PAD_GROUP - 1  # type: ignore[index]
    with pytest.raises(ValueError, match="groups"):
        joined(rows, 24)  # type: ignore[arg-type]


def test_questions_scored_together_are_answered_as_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding and company change no answer, whatever the size of a batch."""
    import torch
    from training import score_labels
    from training.model import Qwen2
    from training.settings import ModelShape

    torch.manual_seed(1)
    model = Qwen2(ModelShape(vocab_size=64, hidden=32, layers=2, heads=2, kv_heads=2, ffn=64)).eval()
    rng = random.Random(3)
    questions = [[rng.randrange(64) for _ in range(rng.randint(3, 20))] for _ in range(30)]
    asked = score_labels.Asked(questions, answers=[5, 6, 7], gold=[0] * 30, is_f1=False)
    together = score_labels.answer(model, asked)
    monkeypatch.setattr(score_labels, "PLACES", 1)
    assert score_labels.answer(model, asked) == together
    assert len(set(together)) > 1
