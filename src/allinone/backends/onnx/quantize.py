"""From float matrices to what the graph multiplies with: int8 per output row, smoothing, joined and scaled matrices.

Owns the numbers of quantisation. Knows no graph nodes (`linear.py`) and no files (`compile.py`).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from allinone.backends.onnx.linear import FloatLinear, Int8Linear, Linear

FloatArray: TypeAlias = NDArray[np.float32]
WeightType: TypeAlias = Literal["int8", "uint8", "float32"]
"""How matrices are stored; which of the two integer types depends on the CPU (`kernels.py`)."""

WEIGHT_LIMIT = 127
UNSIGNED_ZERO = 128


def quantize_rows(rows: FloatArray, weight_type: Literal["int8", "uint8"]) -> tuple[NDArray[np.integer], FloatArray]:
    """Int8 rows with one scale each.

    Args:
        rows: float32 (outputs, inputs).
        weight_type: "int8", or "uint8" for the same values plus 128.

    Returns:
        Integers (outputs, inputs) and scale float32 (outputs,); a row of zeros has scale 0.
    """
    scale = np.abs(rows).max(axis=1) / np.float32(WEIGHT_LIMIT)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
    scaled = rows * inverse[:, None]
    np.rint(scaled, out=scaled)
    integers = scaled.astype(np.int8)
    return (integers if weight_type == "int8" else to_unsigned(integers)), scale


def to_unsigned(integers: NDArray[np.int8]) -> NDArray[np.uint8]:
    """The same values with zero point 128."""
    return (integers.view(np.uint8)) ^ np.uint8(UNSIGNED_ZERO)


def make_linear(rows: FloatArray, bias: FloatArray | None, weight_type: WeightType) -> Linear:
    """A matrix (outputs, inputs), as PyTorch keeps it, in the form and orientation that the graph multiplies with."""
    if weight_type == "float32":
        return FloatLinear(weight=np.ascontiguousarray(rows.T), bias=bias)
    integers, scale = quantize_rows(rows, weight_type)
    return Int8Linear(weight=np.ascontiguousarray(integers.T), scale=scale, bias=bias)
