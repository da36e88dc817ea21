"""The decoder in plain numpy FP32, one layer at a time: what int8 is measured against while a model is compiled.

Owns the reference arithmetic. Needs each layer only once and for a moment, so a model is checked in little memory and
without torch. Knows no quantisation and no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from allinone.backends.onnx.attention_grid import RotaryTable
from allinone.backends.onnx.layer_weights import FloatLayer
from allinone.models.weights import ModelConfig

FloatArray: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerInputs:
    """What the matrices of one layer read, float32 (tokens, inputs): after each norm, before `o`, before `down`."""

    input_norm: FloatArray
    attended: FloatArray
    post_norm: FloatArray
    product: FloatArray


class ReferenceRun:
    """All texts at once, packed; `hidden` (tokens, hidden_size) is the state after the layers so far."""

    def __init__(self, config: ModelConfig, lengths: Sequence[int], hidden: FloatArray) -> None:
        self._config = config
        self._stops = np.cumsum(lengths)
        self.hidden = hidden
        positions = np.concatenate([np.arange(length) for length in lengths])
        self._cos, self._sin = RotaryTable(config).rows(positions)

    def step(self, layer: FloatLayer) -> LayerInputs:
        """Compute one layer; `hidden` moves on."""
        first = self._norm(self.hidden, layer.input_norm)
        attended = self._attention(first, layer)
        self.hidden = self.hidden + attended @ layer.o.T
        second = self._norm(self.hidden, layer.post_norm)
        gate = second @ layer.gate.T
        product = gate / (1 + np.exp(-gate)) * (second @ layer.up.T)
        self.hidden = self.hidden + product @ layer.down.T
        return LayerInputs(input_norm=first, attended=attended, post_norm=second, product=product)

    def all_hidden(self, norm: FloatArray) -> FloatArray:
        """Float32 (tokens, hidden_size), after the final norm."""
        return self._norm(self.hidden, norm)

    def last_hidden(self, norm: FloatArray) -> FloatArray:
        """Float32 (texts, hidden_size): the last token of each text, after the final norm."""
        return self._norm(self.hidden[self._stops - 1], norm)

    def _norm(self, values: FloatArray, weight: FloatArray) -> FloatArray:
        mean_square = np.mean(values * values, axis=-1, keepdims=True, dtype=np.float32)
        normed = values / np.sqrt(mean_square + np.float32(self._config.rms_norm_eps)) * weight
        return normed.astype(np.float32, copy=False)

    def _attention(self, normed: FloatArray, layer: FloatLayer) -> FloatArray:
        config = self._config
        heads, key_heads, dim = config.num_heads, config.num_kv_heads, config.head_dim
        joined = normed @ layer.qkv.T
        if layer.qkv_bias is not None:
            joined = joined + layer.qkv_bias
        joined = joined.reshape(-1, heads + 2 * key_heads, dim)
        query, key, value = np.split(joined, [heads, heads + key_heads], axis=1)
        if layer.q_norm is not None and layer.k_norm is not None:
            query, key = self._norm(query, layer.q_norm), self._norm(key, layer.k_norm)
        query, key = self._rotate(query), self._rotate(key)
        attended = np.empty((len(normed), heads, dim), np.float32)
        start = 0
        for stop in self._stops:
            attended[start:stop] = _attend(query[start:stop], key[start:stop], value[start:stop])
            start = stop
        return attended.reshape(-1, heads * dim)

    def _rotate(self, values: FloatArray) -> FloatArray:
        half = values.shape[-1] // 2
        left, right = values[..., :half], values[..., half:]
        cos, sin = self._cos[:, None], self._sin[:, None]
        return np.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1, dtype=np.float32)


def _attend(query: FloatArray, key: FloatArray, value: FloatArray) -> FloatArray:
    """Causal attention within one text: (tokens, heads, dim); the scale is already in the queries."""
    repeat = query.shape[1] // key.shape[1]
    key, value = np.repeat(key, repeat, axis=1), np.repeat(value, repeat, axis=1)
    scores = query.transpose(1, 0, 2) @ key.transpose(1, 2, 0)
    scores = scores + np.triu(np.full(scores.shape[-2:], -np.inf, np.float32), 1)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return (weights @ value.transpose(1, 0, 2)).transpose(1, 0, 2)
