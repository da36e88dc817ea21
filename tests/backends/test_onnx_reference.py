"""The float graph against the reference implementation, on the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import VARIANTS, compiled

from allinone.backends.base import Chunk
from allinone.backends.onnx.backend import OnnxBackend
from allinone.models.random_weights import RandomWeights
from allinone.models.weights import ModelConfig

pytestmark = pytest.mark.real_model
torch = pytest.importorskip("torch", reason="the reference implementation needs torch")
transformers = pytest.importorskip("transformers", reason="the reference implementation is transformers")


def reference_model(source: RandomWeights) -> Any:
    """A transformers model in FP32 with the same weights."""
    config: ModelConfig = source.config
    numbers: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "max_position_embeddings": config.max_context_tokens,
        "tie_word_embeddings": config.tie_word_embeddings,
    }
    if config.architecture == "qwen3":
        model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(head_dim=config.head_dim, **numbers))
    else:
        model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**numbers))
    state = {name: torch.from_numpy(source.load(name)) for name in source.tensor_names()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    model.tie_weights()
    return model.eval()


@pytest.mark.parametrize("variant", VARIANTS)
def test_float_graph_equals_transformers_on_every_variant(variant: str, tmp_path: Path) -> None:
    """Whole logits within 1e-3, over a prefix, an own past and new tokens, at positions far enough to see rotary."""
    source = RandomWeights(VARIANTS[variant], seed=1)
    model = reference_model(source)
    ids = np.random.default_rng(2).integers(0, source.config.vocab_size, 200)
    with torch.no_grad():
        expected = model(torch.from_numpy(ids)[None]).logits[0].numpy()
        hidden = model.model(torch.from_numpy(ids)[None]).last_hidden_state[0, -1].numpy()
    backend = OnnxBackend.load(compiled(tmp_path, source.config, "float32", seed=1), num_threads=2)

    whole = backend.fork()
    (at_once,) = backend.extend(
        [Chunk(sequence=whole, input_ids=ids.tolist(), wanted="tail_logits", num_rows=len(ids))]
    )
    assert at_once is not None
    assert float(np.abs(at_once - expected).max()) < 1e-3

    prefix = backend.fork()
    backend.extend([Chunk(sequence=prefix, input_ids=ids[:37].tolist())])
    fork = backend.fork(prefix)
    parts = [ids[37:80], ids[80:81], ids[81:199]]
    for part in parts:
        backend.extend([Chunk(sequence=fork, input_ids=part.tolist())])
    rest = backend.fork(fork)
    (in_parts,) = backend.extend([Chunk(sequence=fork, input_ids=ids[199:].tolist(), wanted="last_logits")])
    (last_hidden,) = backend.extend([Chunk(sequence=rest, input_ids=ids[199:].tolist(), wanted="last_hidden")])
    assert in_parts is not None
    assert last_hidden is not None
    assert float(np.abs(in_parts - expected[-1]).max()) < 1e-3
    assert float(np.abs(last_hidden - hidden).max()) < 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
def test_int8_graph_stays_near_transformers(variant: str, tmp_path: Path) -> None:
    """Int8 is close on random weights too (cosine of whole logits), so no scale is applied twice or forgotten."""
    source = RandomWeights(VARIANTS[variant], seed=3)
    model = reference_model(source)
    ids = np.random.default_rng(4).integers(0, source.config.vocab_size, 60)
    with torch.no_grad():
        expected = model(torch.from_numpy(ids)[None]).logits[0].numpy()
    backend = OnnxBackend.load(compiled(tmp_path, source.config, seed=3), num_threads=2)
    (logits,) = backend.extend(
        [Chunk(sequence=backend.fork(), input_ids=ids.tolist(), wanted="tail_logits", num_rows=len(ids))]
    )
    assert logits is not None
    cosine = (logits * expected).sum(1) / np.linalg.norm(logits, axis=1) / np.linalg.norm(expected, axis=1)
    assert float(cosine.min()) > 0.99
