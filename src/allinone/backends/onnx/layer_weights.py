"""One layer's tensors, read from a weight source and brought into the form the graph multiplies with.

Owns which Hugging Face tensors make up a layer. Above: `compile.py`; below: `quantize.py` (numbers), `models` (files).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from allinone.backends.onnx.graph import LayerWeights
from allinone.backends.onnx.quantize import WeightType, make_linear
from allinone.models.weights import ModelConfig, WeightSource

FloatArray: TypeAlias = NDArray[np.float32]


@dataclass(slots=True, kw_only=True)
class FloatLayer:
    """One decoder layer in float32; matrices (outputs, inputs), as PyTorch keeps them.

    `qk` and `qk_bias` are the query rows, then the key rows. The attention scale head_dim**-0.5 is already in the query
    part (qwen2) or in `q_norm` (qwen3).
    """

    input_norm: FloatArray
    qk: FloatArray
    qk_bias: FloatArray | None
    v: FloatArray
    v_bias: FloatArray | None
    q_norm: FloatArray | None
    k_norm: FloatArray | None
    o: FloatArray
    post_norm: FloatArray
    gate: FloatArray
    up: FloatArray
    down: FloatArray


def load_layer(source: WeightSource, index: int) -> FloatLayer:
    """Read layer `index`.

    Raises:
        WeightsMismatch: a tensor is missing or damaged.
    """
    config = source.config
    scale = np.float32(config.head_dim**-0.5)

    def load(name: str) -> FloatArray:
        return source.load(f"model.layers.{index}.{name}")

    q, k = load("self_attn.q_proj.weight"), load("self_attn.k_proj.weight")
    qk_bias = v_bias = q_norm = k_norm = None
    if config.architecture == "qwen2":
        q = q * scale
        qk_bias = np.concatenate([load("self_attn.q_proj.bias") * scale, load("self_attn.k_proj.bias")])
        v_bias = load("self_attn.v_proj.bias")
    else:
        q_norm, k_norm = load("self_attn.q_norm.weight") * scale, load("self_attn.k_norm.weight")
    return FloatLayer(
        input_norm=load("input_layernorm.weight"),
        qk=np.concatenate([q, k]),
        qk_bias=qk_bias,
        v=load("self_attn.v_proj.weight"),
        v_bias=v_bias,
        q_norm=q_norm,
        k_norm=k_norm,
        o=load("self_attn.o_proj.weight"),
        post_norm=load("post_attention_layernorm.weight"),
        gate=load("mlp.gate_proj.weight"),
        up=load("mlp.up_proj.weight"),
        down=load("mlp.down_proj.weight"),
    )


def load_head_rows(source: WeightSource, config: ModelConfig) -> FloatArray:
    """Rows of the language-model head (vocab_size, hidden_size); the embedding's when they are tied."""
    return source.load("model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight")


def quantize_layer(layer: FloatLayer, weight_type: WeightType) -> LayerWeights:
    """The layer in the form the graph multiplies with."""
    return LayerWeights(
        input_norm=layer.input_norm,
        qk=make_linear(layer.qk, layer.qk_bias, weight_type),
        v=make_linear(layer.v, layer.v_bias, weight_type),
        q_norm=layer.q_norm,
        k_norm=layer.k_norm,
        o=make_linear(layer.o, None, weight_type),
        post_norm=layer.post_norm,
        gate=make_linear(layer.gate, None, weight_type),
        up=make_linear(layer.up, None, weight_type),
        down=make_linear(layer.down, None, weight_type),
    )
