"""From float matrices to what the graph multiplies with: int8 per output row, smoothing, joined and scaled matrices.

Owns the numbers of quantisation. Knows no graph nodes (`linear.py`) and no files (`compile.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from allinone.backends.onnx.linear import FloatLinear, Int8Block, Int8Linear, Linear

FloatArray: TypeAlias = NDArray[np.float32]
WeightType: TypeAlias = Literal["int8", "uint8", "float32"]
"""How matrices are stored; which of the two integer types depends on the CPU (`kernels.py`)."""

WEIGHT_LIMIT = 127
UNSIGNED_ZERO = 128
MAX_BLOCKS = 4
BLOCK_MULTIPLE = 16
_ELEMENTS_AT_ONCE = 1 << 17


def quantize_rows(rows: FloatArray, weight_type: Literal["int8", "uint8"]) -> tuple[NDArray[np.integer], FloatArray]:
    """Int8 rows with one scale each.

    Args:
        rows: float32 (outputs, inputs).
        weight_type: "int8", or "uint8" for the same values plus 128.

    Returns:
        Integers (outputs, inputs) and scale float32 (outputs,); a row of zeros has scale 0.
    """
    integers, scale = np.empty(rows.shape, np.int8), np.empty(len(rows), np.float32)
    for some in _row_slices(*rows.shape):
        part = rows[some]
        scale[some] = np.abs(part).max(axis=1) / np.float32(WEIGHT_LIMIT)
        inverse = np.divide(np.float32(1), scale[some], out=np.zeros(len(part), np.float32), where=scale[some] > 0)
        scaled = part * inverse[:, None]
        np.rint(scaled, out=scaled)
        integers[some] = scaled
    return (integers if weight_type == "int8" else to_unsigned(integers)), scale


def _row_slices(num_rows: int, num_columns: int) -> Iterator[slice]:
    """Some rows at a time, so few that what is computed of them stays in the CPU's caches: twice as fast."""
    step = max(1, _ELEMENTS_AT_ONCE // max(1, num_columns))
    return (slice(start, min(start + step, num_rows)) for start in range(0, num_rows, step))


def to_unsigned(integers: NDArray[np.int8]) -> NDArray[np.uint8]:
    """The same values with zero point 128."""
    return (integers.view(np.uint8)) ^ np.uint8(UNSIGNED_ZERO)


def block_sizes(num_inputs: int, *, in_blocks: bool) -> list[int]:
    """How the inputs of a matrix are divided: not at all, or into at most 4 blocks of a multiple of 16 inputs."""
    if not in_blocks:
        return [num_inputs]
    size = -(-num_inputs // (MAX_BLOCKS * BLOCK_MULTIPLE)) * BLOCK_MULTIPLE
    return [min(size, num_inputs - start) for start in range(0, num_inputs, size)]


def make_linear(
    rows: FloatArray, bias: FloatArray | None, weight_type: WeightType, *, in_blocks: bool = False
) -> Linear:
    """A matrix (outputs, inputs), as PyTorch keeps it, in the form and orientation that the graph multiplies with."""
    if weight_type == "float32":
        return FloatLinear(weight=np.ascontiguousarray(rows.T), bias=bias)
    return _quantize_matrix(rows, None, bias, weight_type, in_blocks=in_blocks)


def smoothing_scales(activation_peaks: FloatArray, weight_peaks: FloatArray, strength: float) -> FloatArray:
    """What to divide each input channel of the activations by, and multiply the weights with.

    Args:
        activation_peaks: largest magnitude of each input channel, float32 (inputs,).
        weight_peaks: the same of the weights that read it.
        strength: 0 leaves all range to the activations, 1 moves all of it into the weights.

    Returns:
        float32 (inputs,), geometric mean 1; 1 where a channel is never used.

    Source: Xiao et al., SmoothQuant, 2022.
    """
    used = (activation_peaks > 0) & (weight_peaks > 0)
    if not used.any():
        return np.ones_like(activation_peaks)
    logs = strength * np.log(activation_peaks[used]) - (1 - strength) * np.log(weight_peaks[used])
    scales = np.ones_like(activation_peaks)
    scales[used] = np.exp(logs - logs.mean())
    return scales


def output_error(inputs: FloatArray, rows: FloatArray) -> float:
    """What quantisation costs one matrix: relative error (Frobenius) of its output on these inputs.

    Args:
        inputs: float32 (tokens, inputs).
        rows: float32 (outputs, inputs).
    """
    exact = inputs @ rows.T
    integers, scale = quantize_rows(rows, "int8")
    activations, token_scale = quantize_rows(inputs, "int8")
    approximate = (activations.astype(np.float32) @ integers.astype(np.float32).T) * token_scale[:, None] * scale
    norm = float(np.linalg.norm(exact))
    return float(np.linalg.norm(exact - approximate)) / norm if norm else 0.0


def quantize_head(rows: NDArray[Any], scales: FloatArray | None, weight_type: WeightType, *, in_blocks: bool) -> Linear:
    """The head (vocab_size, hidden_size), exactly as its label rows are quantised on demand."""
    if weight_type == "float32":
        return FloatLinear(weight=np.ascontiguousarray(np.asarray(rows, np.float32).T))
    return _quantize_matrix(rows, scales, None, weight_type, in_blocks=in_blocks)


def _quantize_matrix(
    rows: NDArray[Any],
    scales: FloatArray | None,
    bias: FloatArray | None,
    weight_type: Literal["int8", "uint8"],
    *,
    in_blocks: bool,
) -> Int8Linear:
    """A matrix (outputs, inputs) of floats, its input channels multiplied with `scales`: quantised and transposed."""
    sizes = block_sizes(rows.shape[1], in_blocks=in_blocks)
    weights = [np.empty((size, len(rows)), np.dtype(weight_type)) for size in sizes]
    row_scales = [np.empty(len(rows), np.float32) for _ in sizes]
    for some in _row_slices(*rows.shape):
        part = np.asarray(rows[some], np.float32)
        part = part if scales is None else part * scales
        first = 0
        for size, weight, row_scale in zip(sizes, weights, row_scales, strict=True):
            integers, row_scale[some] = quantize_rows(part[:, first : first + size], weight_type)
            weight[:, some] = integers.T
            first += size
    blocks = (Int8Block(weight=weight, scale=scale) for weight, scale in zip(weights, row_scales, strict=True))
    return Int8Linear(blocks=tuple(blocks), bias=bias)
