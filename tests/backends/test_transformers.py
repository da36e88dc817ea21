from __future__ import annotations

import builtins
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allinone.backends.base import Chunk, FloatArray
from allinone.backends.transformers import TransformersBackend
from allinone.errors import ModelError, WeightsNotFound
from allinone.models.random_weights import RandomWeights
from allinone.models.weights import ModelConfig

IDS = tuple(range(3, 40))


def config(**changes: Any) -> ModelConfig:
    numbers: dict[str, Any] = {
        "architecture": "qwen2", "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_layers": 2,
        "num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-6, "rope_theta": 1e4,
        "max_context_tokens": 256, "tie_word_embeddings": False,
    }  # fmt: skip
    return ModelConfig(**(numbers | changes))


def all_logits(backend: TransformersBackend) -> FloatArray:
    sequence = backend.fork()
    logits = backend.extend([Chunk(sequence=sequence, input_ids=IDS, wanted="tail_logits", num_rows=len(IDS))])[0]
    backend.free(sequence)
    assert logits is not None
    return logits


@pytest.mark.real_model
@pytest.mark.parametrize(
    "model",
    [config(), config(tie_word_embeddings=True, num_kv_heads=4), config(architecture="qwen3", head_dim=32)],
    ids=["qwen2-grouped", "qwen2-tied", "qwen3"],
)
def test_backend_equals_the_library_it_wraps(model: ModelConfig, tmp_path: Path) -> None:
    """The reference is transformers itself: saved by it, loaded by it, run whole without any cache of ours."""
    transformers, torch = importlib.import_module("transformers"), importlib.import_module("torch")
    built = TransformersBackend.from_source(RandomWeights(model))
    built._model.save_pretrained(tmp_path)
    original = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = original(torch.tensor([IDS])).logits[0].numpy()
    np.testing.assert_allclose(all_logits(built), expected, atol=1e-5)
    loaded = TransformersBackend.load(tmp_path)
    np.testing.assert_allclose(all_logits(loaded), expected, atol=1e-5)
    assert loaded.info.kv_bytes_per_token == 2 * 2 * model.num_kv_heads * model.head_dim * 4
    assert loaded.info.max_context_tokens == 256


@pytest.mark.real_model
def test_bfloat16_is_near_float32() -> None:
    """Another option of the same model; outputs are float32 all the same."""
    source = RandomWeights(config())
    exact, rough = (TransformersBackend.from_source(source, dtype=dtype) for dtype in ("float32", "bfloat16"))
    left, right = all_logits(exact), all_logits(rough)
    assert right.dtype == np.float32 and rough.info.quantization == "bfloat16"
    assert 0 < np.abs(left - right).max() < 0.2


def test_missing_torch_is_a_model_error_with_the_command_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named; nobody sees an ImportError."""
    real_import = builtins.__import__

    def without_torch(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(importlib, "import_module", lambda name: without_torch(name))
    with pytest.raises(ModelError, match="needs torch") as caught:
        TransformersBackend.from_source(RandomWeights(config()))
    assert caught.value.hint == "pip install 'qwen-allinone[transformers]'"


@pytest.mark.real_model
def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    """Before anything is loaded."""
    with pytest.raises(WeightsNotFound, match=r"config\.json"):
        TransformersBackend.load(tmp_path)
