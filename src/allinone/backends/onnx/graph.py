"""The decoder graph of the Qwen2 and Qwen3 family, written layer by layer.

One file for one architecture family: Qwen1.5, Qwen2 and Qwen2.5 (bias on q/k/v) and Qwen3 (norms on q and k). Grouped
query heads, tied and untied heads are all here. Knows nothing of files (`compile.py`), of how a matrix was quantised
(`quantize.py`) or of sequences (`backend.py`, which feeds the graph).

Shapes. Linear layers see the T new tokens of all sequences, *packed*. Attention sees a grid of G groups x M members x
S new tokens; the members of a group share one frozen prefix of P tokens, each has O tokens of its own past (PM is M,
or 1 in a draft, whose M tokens are of one sequence: docs/decisions/0014-prompt-lookup.md). Heads are written H query
heads = K key heads x R, of D dimensions. The last layer computes only the W wanted tokens after its attention. Padding
is never visible: padded keys get a mask of -1e9, whose softmax weight is exactly 0.

Invariant: a token's numbers do not depend on its neighbours, bit for bit. Activations carry one scale per token;
integer products are exact; P and O are multiples of 16 so that each softmax lane adds the same terms in the same order.
Source: docs/decisions/0002-onnx-graph.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from allinone.backends.onnx.graph_builder import MICROSOFT, GraphBuilder
from allinone.backends.onnx.linear import (
    Activation,
    Int8Linear,
    Linear,
    add_int8_product,
    add_linear,
    add_unscaled_product,
)
from allinone.models.weights import ModelConfig

FloatVector: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """One decoder layer. `qkv` computes all query heads, then all key heads, then all value heads, in one product; its
    query part already holds the attention scale D**-0.5 (for Qwen3 the scale is in `q_norm`, which comes after).
    """

    input_norm: FloatVector
    qkv: Linear
    q_norm: FloatVector | None
    k_norm: FloatVector | None
    o: Linear
    post_norm: FloatVector
    gate: Linear
    up: Linear
    down: Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadWeights:
    """The final norm and the language-model head. `unsmooth`: what `last_hidden` is multiplied by when the norm's
    weights were divided by the head's smoothing scales; None without smoothing.
    """

    norm: FloatVector
    head: Linear
    unsmooth: FloatVector | None = None


class DecoderGraph:
    """Builds the graph while the weights stream past: `add_layer` for each layer in order, then `finish`."""

    def __init__(self, config: ModelConfig, builder: GraphBuilder) -> None:
        self._config, self._builder = config, builder
        self._num_layers_added = 0
        self._declare_inputs()
        self._residual, self._branch = "embeddings", ""

    def _declare_inputs(self) -> None:
        declare, config = self._builder.input, self._config
        heads, key_heads, half = config.num_heads, config.num_kv_heads, config.head_dim // 2
        declare("embeddings", np.float32, ["T", config.hidden_size])
        declare("token_zeros", np.uint8, ["T", 1])
        declare("token_index", np.int64, [1, "T"])
        declare("cos", np.float32, ["T", half])
        declare("sin", np.float32, ["T", half])
        declare("query_rows", np.int64, ["G", key_heads, "M", "RS"])
        declare("key_rows", np.int64, ["G", key_heads, "M", "S"])
        declare("value_rows", np.int64, ["G", key_heads, "M", "S"])
        declare("attended_rows", np.int64, ["T", heads])
        declare("mask", np.float32, ["G", 1, "M", "RS", "A"])
        declare("part_widths", np.int64, [3])
        declare("is_draft", np.bool_, [])
        declare("draft_places", np.int64, ["DG", "DK", "DM", 1, 4])
        declare("wanted", np.int64, ["W"])
        declare("wanted_attended_rows", np.int64, ["W", heads])
        declare("wanted_zeros", np.uint8, ["W", 1])

    def add_layer(self, weights: LayerWeights) -> None:
        """Append the next layer; after the last one only the wanted tokens are left."""
        index = self._num_layers_added
        is_last = index == self._config.num_layers - 1
        builder, config = self._builder, self._config
        hidden_size, attended_size = config.hidden_size, config.num_heads * config.head_dim
        normed = Activation(builder, self._norm(weights.input_norm, f"{index}.input_norm"), hidden_size, "token_zeros")
        attended = self._attention(index, normed, weights, rows="wanted_attended_rows" if is_last else "attended_rows")
        zeros = "wanted_zeros" if is_last else "token_zeros"
        if is_last:
            self._residual = builder.op("Gather", self._residual, "wanted")
        self._branch = add_linear(Activation(builder, attended, attended_size, zeros), weights.o, f"{index}.o")
        normed = Activation(builder, self._norm(weights.post_norm, f"{index}.post_norm"), hidden_size, zeros)
        self._branch = self._mlp(index, normed, weights, zeros)
        self._num_layers_added += 1

    def _norm(self, weight: FloatVector, name: str) -> str:
        """RMSNorm of residual + branch; the sum becomes the new residual. (The fused operator is not vectorised.)"""
        builder = self._builder
        if self._branch:
            self._residual = builder.op("Add", self._residual, self._branch)
        scale = builder.constant(f"{name}.weight", weight)
        return self._normalize(self._residual, scale)

    def _normalize(self, values: str, scale: str) -> str:
        """RMSNorm over the last axis."""
        epsilon = self._config.rms_norm_eps
        kind = "SimplifiedLayerNormalization"
        return self._builder.op(kind, values, scale, axis=-1, epsilon=epsilon, stash_type=1)

    def _attention(self, index: int, normed: Activation, weights: LayerWeights, *, rows: str) -> str:
        """Attention over prefix, own past and the new tokens; returns (T or W, H * D)."""
        builder, dim = self._builder, self._config.head_dim
        by_head = builder.constant("by_head", [-1, dim], np.int64)
        joined = self._queries_keys_values(index, normed, weights)
        rotated = builder.op("Reshape", self._rotated(joined), by_head)
        query = builder.op("Gather", rotated, "query_rows")
        key = builder.op("Gather", rotated, "key_rows", output=f"new_key.{index}")
        unrotated = builder.op("Reshape", joined, by_head)
        value = builder.op("Gather", unrotated, "value_rows", output=f"new_value.{index}")
        self._declare_cache(index)

        attended = builder.choose(
            "is_draft",
            lambda: self._attend(index, query, (key, value), past=self._past_with_drafts(index, (key, value))),
            lambda: self._attend(index, query, (key, value), past=(f"past_key.{index}", f"past_value.{index}")),
        )
        attended = builder.op("Gather", builder.op("Reshape", attended, by_head), rows)
        whole = builder.constant("heads_joined", [-1, self._config.num_heads * dim], np.int64)
        return builder.op("Reshape", attended, whole)

    def _attend(self, index: int, query: str, new: tuple[str, str], *, past: tuple[str, str]) -> str:
        """Softmax over prefix, past and new keys; the sum of their values: (G, K, M, R * S, D)."""
        builder = self._builder
        keys = (f"prefix_key.{index}", past[0], new[0])
        scores = builder.op("Concat", *(_matmul(builder, query, part, transpose=True) for part in keys), axis=-1)
        probs = builder.op("Softmax", builder.op("Add", scores, "mask"), axis=-1)
        parts = builder.ops("Split", probs, "part_widths", outputs=3, axis=-1)
        values = (f"prefix_value.{index}", past[1], new[1])
        attended, *others = (_matmul(builder, *part) for part in zip(parts, values, strict=True))
        for other in others:
            attended = builder.op("Add", attended, other)
        return attended

    def _past_with_drafts(self, index: int, new: tuple[str, str]) -> tuple[str, str]:
        """A copy of the past in which a drafted token finds the ones before it, where single steps would put them."""
        key, value = (
            self._builder.op("ScatterND", f"past_{part}.{index}", "draft_places", one)
            for part, one in zip(("key", "value"), new, strict=True)
        )
        return key, value

    def _queries_keys_values(self, index: int, normed: Activation, weights: LayerWeights) -> str:
        """Queries, keys and values of all tokens, side by side: (T, (H + 2 K) * D); for Qwen3 with their norms."""
        builder, config = self._builder, self._config
        dim, heads, key_heads = config.head_dim, config.num_heads, config.num_kv_heads
        joined = add_linear(normed, weights.qkv, f"{index}.qkv")
        if weights.q_norm is None or weights.k_norm is None:
            return joined
        sizes = builder.constant("query_key_value_sizes", [heads * dim, key_heads * dim, key_heads * dim], np.int64)
        query, key, value = builder.ops("Split", joined, sizes, outputs=3, axis=-1)
        normed_parts: list[str] = []
        for part, name, weight, num_heads in (
            (query, "q_norm", weights.q_norm, heads),
            (key, "k_norm", weights.k_norm, key_heads),
        ):
            by_token_and_head = builder.constant(f"{name}.shape", [-1, num_heads, dim], np.int64)
            by_token = builder.constant(f"{name}.flat_shape", [-1, num_heads * dim], np.int64)
            heads_apart = builder.op("Reshape", part, by_token_and_head)
            scaled = self._normalize(heads_apart, builder.constant(f"{index}.{name}.weight", weight))
            normed_parts.append(builder.op("Reshape", scaled, by_token))
        return builder.op("Concat", *normed_parts, value, axis=-1)

    def _rotated(self, joined: str) -> str:
        """Every head rotated to its token's position: (1, T, (H + 2 K) * D). Nobody reads the values in it: rotating
        them too is cheaper than taking the heads apart.
        """
        builder, config = self._builder, self._config
        width = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
        one_batch = builder.op("Reshape", joined, builder.constant("one_batch", [1, -1, width], np.int64))
        return builder.op("RotaryEmbedding", one_batch, "token_index", "cos", "sin", domain=MICROSOFT)

    def _declare_cache(self, index: int) -> None:
        builder, heads, dim = self._builder, self._config.num_kv_heads, self._config.head_dim
        for part in ("key", "value"):
            builder.input(f"prefix_{part}.{index}", np.float32, ["G", heads, 1, "P", dim])
            builder.input(f"past_{part}.{index}", np.float32, ["G", heads, "PM", "O", dim])
            builder.output(f"new_{part}.{index}", np.float32, ["G", heads, "M", "S", dim])

    def _mlp(self, index: int, normed: Activation, weights: LayerWeights, zeros: str) -> str:
        builder = self._builder
        gate = add_linear(normed, weights.gate, f"{index}.gate")
        gate = builder.op("QuickGelu", gate, domain=MICROSOFT, alpha=1.0)  # x * sigmoid(x): SiLU
        # `up` without its token scale: the quantisation of the product absorbs any factor of a row
        up, factor = add_unscaled_product(normed, weights.up, f"{index}.up")
        size = self._config.intermediate_size
        product = Activation(builder, builder.op("Mul", gate, up), size, zeros, factor=factor)
        return add_linear(product, weights.down, f"{index}.down")

    def finish(self, weights: HeadWeights) -> onnx.ModelProto:
        """Final norm, then three ways to read it: whole logits, logits of given ids, the hidden state itself."""
        builder, config = self._builder, self._config
        normed = self._norm(weights.norm, "final_norm")
        if weights.unsmooth is None:
            builder.op("Identity", normed, output="hidden")
        else:
            builder.op("Mul", normed, builder.constant("unsmooth", weights.unsmooth), output="hidden")
        builder.output("hidden", np.float32, ["W", config.hidden_size])
        hidden = Activation(builder, normed, config.hidden_size, "wanted_zeros")
        builder.input("logits_rows", np.int64, ["L"])
        logits = add_linear(hidden.select("logits_rows"), weights.head, "head")
        builder.op("Identity", logits, output="logits")
        builder.output("logits", np.float32, ["L", config.vocab_size])
        if isinstance(weights.head, Int8Linear):
            self._add_token_logits(hidden, weights.head)
        return builder.model("decoder")

    def _add_token_logits(self, hidden: Activation, head: Int8Linear) -> None:
        """Logits of C given ids only.

        The integer products are exact, so they equal the same columns of `logits`; a float head has no such output,
        because a float product depends on its shape.
        """
        builder = self._builder
        builder.input("token_logits_rows", np.int64, ["N"])
        dtype = head.blocks[0].weight.dtype
        sizes = [block.num_inputs for block in head.blocks]
        operands = [
            (
                builder.input(f"token_weight.{index}", dtype.type, [size, "C"]),
                builder.input(f"token_scale.{index}", np.float32, ["C"]),
            )
            for index, size in enumerate(sizes)
        ]
        product, factor = add_int8_product(hidden.select("token_logits_rows"), sizes, operands, dtype)
        if factor is None:
            builder.op("Identity", product, output="token_logits")
        else:
            builder.op("Mul", product, factor, output="token_logits")
        builder.output("token_logits", np.float32, ["N", "C"])


def _matmul(builder: GraphBuilder, left: str, right: str, *, transpose: bool = False) -> str:
    """Left @ right, or left @ right^T over the last two axes."""
    if transpose:
        return builder.op("FusedMatMul", left, right, domain=MICROSOFT, transB=1, alpha=1.0)
    return builder.op("MatMul", left, right)
