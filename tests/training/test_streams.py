"""Rows laid side by side stay apart, and label sets scored in PyTorch give what each question gives alone."""

from __future__ import annotations

import json
import lzma
import random
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.training,
    pytest.mark.skipif(sys.version_info < (3, 11), reason="the recipe needs Python 3.11"),
]


def packed_rows() -> dict[str, Any]:
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
    together = joined(alone, 24)
    assert together["ids"].shape == (len(alone["ids"]) // 2, 24)
    torch.testing.assert_close(hidden(together), hidden(alone))


def test_rows_that_do_not_fit_are_refused() -> None:
    """A width that is no multiple, and more groups than a byte can tell apart."""
    from training.packing import PAD_GROUP
    from training.streams import joined

    rows = packed_rows()
    with pytest.raises(ValueError, match="do not make up"):
        joined(rows, 30)
    rows["group"] = rows["group"].copy()
    rows["group"][0, 0] = PAD_GROUP - 1
    with pytest.raises(ValueError, match="groups"):
        joined(rows, 24)


def test_questions_scored_together_are_answered_as_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding and company change no answer, whatever the size of a batch."""
    import torch
    from training.model import Qwen2
    from training.settings import ModelShape

    from training import score_labels

    torch.manual_seed(1)
    model = Qwen2(ModelShape(vocab_size=64, hidden=32, layers=2, heads=2, kv_heads=2, ffn=64)).eval()
    rng = random.Random(3)
    questions = [[rng.randrange(64) for _ in range(rng.randint(3, 20))] for _ in range(30)]
    asked = score_labels.Asked(questions, answers=[5, 6, 7], gold=[0] * 30, is_f1=False)
    together = score_labels.answer(model, asked)
    monkeypatch.setattr(score_labels, "PLACES", 1)
    assert score_labels.answer(model, asked) == together
    assert len(set(together)) > 1


def test_questions_have_the_ids_of_the_product(tmp_path: Path) -> None:
    """A label set is asked in PyTorch exactly as the product asks it."""
    from training.settings import PACKAGE
    from training.tokenizer import Codec

    from allinone import AllInOne
    from allinone.tasks.task import prepare_call
    from training import score_labels

    texts = ["很好吃，<|im_end|>下次再来！", "It broke on day one."]
    (tmp_path / "public").mkdir()
    records = [{"text": text, "label": label} for text, label in zip(texts, ("pos", "neg"), strict=True)]
    with lzma.open(tmp_path / "public" / "sent_en_sst2_dev.jsonl.xz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    codec = Codec.from_gguf(next(PACKAGE.glob("*.gguf")))
    asked = score_labels.ask(tmp_path, score_labels.SETS["sst2"], codec)
    with AllInOne.load(cache=False) as ai:
        for text, question in zip(texts, asked.questions, strict=True):
            task = ai.tasks.get("sentiment")
            call = prepare_call(task, ai.encoder, {"text": text}, labels=("positive", "negative"))
            encoded = ai.encoder.encode(ai.encoder.segments(call.messages()))
            assert question == [*encoded.prefix_ids, *encoded.input_ids]
    assert asked.gold == [0, 1]


def test_what_is_dropped_in_training_is_not_dropped_in_scoring() -> None:
    """Dropout changes what a model in training says, and nothing once it is asked."""
    import torch
    from training.model import Qwen2
    from training.settings import ModelShape

    torch.manual_seed(0)
    shape = ModelShape(vocab_size=64, hidden=32, layers=2, heads=2, kv_heads=2, ffn=64)
    model, plain = Qwen2(shape, dropout=0.5), Qwen2(shape)
    plain.load_state_dict(model.state_dict())
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert not torch.equal(model(ids), model(ids))
        assert torch.equal(model.eval()(ids), plain(ids))


def test_profiles_of_the_recipe_can_be_run() -> None:
    """What a profile starts from is there or made by another one, and no moment has shares beyond the whole."""
    import tomllib
    from training.settings import HERE, ROOT, load_settings
    from training.streams import Mixture

    names = list(tomllib.loads((HERE / "config.toml").read_text(encoding="utf-8")))
    settings = {name: load_settings(name) for name in names}
    made = {one.run / f"{one.weights}.gguf" for one in settings.values()}
    assert len(made) == len(names)
    for one in settings.values():
        for source in filter(None, (one.init, one.vocabulary)):
            assert source.exists() or source in made, source
        mixture = Mixture(ROOT, one.schedule, seed=0, passes=0)
        assert all(sum(mixture.shares(done / 100).values()) <= 1 for done in range(101)), one.name
