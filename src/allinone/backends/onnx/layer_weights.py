"""One layer's tensors, read from a weight source and brought into the form the graph multiplies with.

Owns which Hugging Face tensors make up a layer. Above: `compile.py`; below: `quantize.py` (numbers), `models` (files).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from allinone.backends.onnx.graph import LayerWeights
from allinone.backends.onnx.linear import FloatLinear, Int8Block, Int8Linear, Linear
from allinone.backends.onnx.quantize import WeightType, make_linear
from allinone.models.weights import WeightSource

FloatArray: TypeAlias = NDArray[np.float32]


@dataclass(slots=True, kw_only=True)
class FloatLayer:
    """One decoder layer in float32; matrices (outputs, inputs), as PyTorch keeps them.

    `qkv` and `qkv_bias` are the query rows, the key rows, then the value rows. The attention scale head_dim**-0.5 is
    already in the query part (qwen2) or in `q_norm` (qwen3).
    """

    input_norm: FloatArray
    qkv: FloatArray
    qkv_bias: FloatArray | None
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

    q, k, v = (load(f"self_attn.{name}_proj.weight") for name in "qkv")
    qkv_bias = q_norm = k_norm = None
    if config.architecture == "qwen2":
        q = q * scale
        q_bias, k_bias, v_bias = (load(f"self_attn.{name}_proj.bias") for name in "qkv")
        qkv_bias = np.concatenate([q_bias * scale, k_bias, v_bias])
    else:
        q_norm, k_norm = load("self_attn.q_norm.weight") * scale, load("self_attn.k_norm.weight")
    return FloatLayer(
        input_norm=load("input_layernorm.weight"),
        qkv=np.concatenate([q, k, v]),
        qkv_bias=qkv_bias,
        q_norm=q_norm,
        k_norm=k_norm,
        o=load("self_attn.o_proj.weight"),
        post_norm=load("post_attention_layernorm.weight"),
        gate=load("mlp.gate_proj.weight"),
        up=load("mlp.up_proj.weight"),
        down=load("mlp.down_proj.weight"),
    )


MATRICES = ("qkv", "o", "gate", "up", "down")
_VECTORS = ("input_norm", "post_norm", "q_norm", "k_norm")


def quantize_layer(
    layer: FloatLayer,
    weight_type: WeightType,
    in_blocks: Collection[str] = (),
    *,
    already: Mapping[str, Linear] | None = None,
) -> LayerWeights:
    """The layer in the form the graph multiplies with.

    Args:
        layer: float weights.
        weight_type: of the matrices.
        in_blocks: names of matrices that get finer blocks.
        already: matrices that were made before, by name.
    """
    known = already or {}

    def make(name: str) -> Linear:
        rows, bias = getattr(layer, name), getattr(layer, f"{name}_bias", None)
        return known.get(name) or make_linear(rows, bias, weight_type, in_blocks=name in in_blocks)

    with ThreadPoolExecutor() as pool:  # numpy releases the lock, so the five matrices share the cores
        made = dict(zip(MATRICES, pool.map(make, MATRICES), strict=True))
    return LayerWeights(**made, **{name: getattr(layer, name) for name in _VECTORS})


def layer_to_arrays(weights: LayerWeights, index: int) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Matrices and vectors of a layer by the names that the graph gives them; `layer_from_arrays` is the inverse."""
    matrices: dict[str, NDArray[Any]] = {}
    vectors: dict[str, NDArray[Any]] = {}
    for name in _VECTORS:
        if (values := getattr(weights, name)) is not None:
            vectors[f"{index}.{name}"] = values
    for name in MATRICES:
        linear_matrices, linear_vectors = linear_to_arrays(getattr(weights, name), f"{index}.{name}")
        matrices |= linear_matrices
        vectors |= linear_vectors
    return matrices, vectors


def layer_from_arrays(arrays: Mapping[str, NDArray[Any]], index: int) -> LayerWeights:
    """The layer whose arrays these are."""
    vectors = {name: arrays.get(f"{index}.{name}") for name in _VECTORS}
    linears = {name: linear_from_arrays(arrays, f"{index}.{name}") for name in MATRICES}
    return LayerWeights(**linears, **vectors)  # pyright: ignore[reportArgumentType] - norms are always there


def linear_to_arrays(linear: Linear, name: str) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Matrices and vectors of one linear layer."""
    vectors: dict[str, NDArray[Any]] = {} if linear.bias is None else {f"{name}.bias": linear.bias}
    if isinstance(linear, FloatLinear):
        return {f"{name}.weight": linear.weight}, vectors
    blocks = list(enumerate(linear.blocks))
    vectors |= {f"{name}.{index}.scale": block.scale for index, block in blocks}
    return {f"{name}.{index}.weight": block.weight for index, block in blocks}, vectors


def linear_from_arrays(arrays: Mapping[str, NDArray[Any]], name: str) -> Linear:
    """The linear layer whose arrays these are."""
    bias = arrays.get(f"{name}.bias")
    if f"{name}.weight" in arrays:
        return FloatLinear(weight=arrays[f"{name}.weight"], bias=bias)
    blocks: list[Int8Block] = []
    while (weight := arrays.get(f"{name}.{len(blocks)}.weight")) is not None:
        blocks.append(Int8Block(weight=weight, scale=arrays[f"{name}.{len(blocks)}.scale"]))
    return Int8Linear(blocks=tuple(blocks), bias=bias)
