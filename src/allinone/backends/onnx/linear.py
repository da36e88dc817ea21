"""How one linear layer is written into the graph, for each way its matrix can be stored.

Owns the arithmetic of a product: which nodes turn activations (tokens, inputs) into (tokens, outputs). `quantize.py`
makes the matrices, `graph.py` says which layer reads what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from allinone.backends.onnx.graph_builder import MICROSOFT, GraphBuilder

ACTIVATION_LIMIT = 127
ACTIVATION_ZERO = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatLinear:
    """`weight` float32 (inputs, outputs), `bias` float32 (outputs,) or None."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Block:
    """Some inputs of a matrix: `weight` int8, or uint8 with zero point 128, (inputs, outputs); `scale` (outputs,)."""

    weight: NDArray[Any]
    scale: NDArray[np.float32]

    @property
    def num_inputs(self) -> int:
        """Rows of `weight`."""
        return self.weight.shape[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Linear:
    """One block for all inputs; or several, each with scales of its own on weights *and* activations, where one scale
    for the whole row would lose too much. `bias` float32 (outputs,) or None.
    """

    blocks: tuple[Int8Block, ...]
    bias: NDArray[np.float32] | None = None


Linear: TypeAlias = FloatLinear | Int8Linear


class Activation:
    """Float activations (tokens, inputs), quantised to uint8 with one scale per token when a layer first asks.

    Args:
        builder: the graph being written.
        values: name of the float32 value.
        num_inputs: its width.
        zeros: name of a uint8 input (tokens, 1) filled with 128, the zero point of each token.
        factor: name of a float32 value (tokens, 1) that `values` still has to be multiplied with; None for 1.
    """

    def __init__(
        self, builder: GraphBuilder, values: str, num_inputs: int, zeros: str, *, factor: str | None = None
    ) -> None:
        self.builder, self.values, self._num_inputs = builder, values, num_inputs
        self._zeros, self._factor = zeros, factor
        self._quantized: tuple[str, str] | None = None
        self._parts: dict[tuple[int, ...], list[Activation]] = {}

    def quantized(self) -> tuple[str, str]:
        """uint8 (tokens, inputs) and float32 scale (tokens, 1)."""
        if self._quantized is None:
            builder = self.builder
            last_axis = builder.constant("last_axis", [-1], np.int64)
            peak = builder.op("ReduceMax", builder.op("Abs", self.values), last_axis, keepdims=1)
            scale = builder.op("Mul", peak, builder.constant("one_step", 1 / ACTIVATION_LIMIT))
            # one block as wide as the row: the same numbers as a scale per row along axis 0, faster
            operands = self.values, scale, self._zeros
            integers = builder.op("QuantizeLinear", *operands, axis=1, block_size=self._num_inputs)
            self._quantized = integers, builder.op("Mul", scale, self._factor) if self._factor else scale
        return self._quantized

    def split(self, sizes: Sequence[int]) -> list[Activation]:
        """Blocks of inputs, each quantised with a scale of its own."""
        key = tuple(sizes)
        if len(key) == 1:
            return [self]
        if key not in self._parts:
            builder = self.builder
            names = builder.constant(f"sizes_{'_'.join(map(str, key))}", key, np.int64)
            parts = builder.ops("Split", self.values, names, outputs=len(key), axis=-1)
            self._parts[key] = [
                Activation(builder, part, size, self._zeros, factor=self._factor)
                for part, size in zip(parts, key, strict=True)
            ]
        return self._parts[key]

    def select(self, rows: str) -> SelectedActivation:
        """Some rows of it, possibly none."""
        return SelectedActivation(self, rows)


class SelectedActivation(Activation):
    """Rows of an activation, picked after quantisation: ONNX Runtime cannot reduce over no rows, but can pick none."""

    def __init__(self, whole: Activation, rows: str) -> None:
        self._whole, self._rows, self.builder = whole, rows, whole.builder
        self._picked: dict[str, str] = {}

    def split(self, sizes: Sequence[int]) -> list[Activation]:
        """The same rows of each block."""
        return [SelectedActivation(part, self._rows) for part in self._whole.split(sizes)]

    @property
    def values(self) -> str:
        """Name of the float32 rows."""
        return self._pick(self._whole.values)

    def quantized(self) -> tuple[str, str]:
        """uint8 (rows, inputs) and float32 scale (rows, 1)."""
        integers, scale = self._whole.quantized()
        return self._pick(integers), self._pick(scale)

    def _pick(self, value: str) -> str:
        if value not in self._picked:
            self._picked[value] = self.builder.op("Gather", value, self._rows)
        return self._picked[value]


def add_linear(x: Activation, linear: Linear, name: str) -> str:
    """Write `x @ weight + bias`; returns the name of the result (tokens, outputs)."""
    builder = x.builder
    bias = None if linear.bias is None else builder.constant(f"{name}.bias", linear.bias)
    product, factor = add_unscaled_product(x, linear, name)
    if factor is not None:
        product = builder.op("Mul", product, factor)
    return product if bias is None else builder.op("Add", product, bias)


def add_unscaled_product(x: Activation, linear: Linear, name: str) -> tuple[str, str | None]:
    """Write `x @ weight` without what is the same for a whole token.

    Returns:
        Name of the product (tokens, outputs), and of the factor (tokens, 1) it lacks; None if it lacks none.
    """
    builder = x.builder
    if isinstance(linear, FloatLinear):
        return builder.op("MatMul", x.values, builder.matrix(f"{name}.weight", linear.weight)), None
    operands = [
        (builder.matrix(f"{name}.{index}.weight", block.weight), builder.constant(f"{name}.{index}.scale", block.scale))
        for index, block in enumerate(linear.blocks)
    ]
    return add_int8_product(x, [block.num_inputs for block in linear.blocks], operands, linear.blocks[0].weight.dtype)


def add_int8_product(
    x: Activation, sizes: Sequence[int], operands: Sequence[tuple[str, str]], dtype: np.dtype[Any]
) -> tuple[str, str | None]:
    """Write exact integer products over blocks of inputs, scaled per output, and their sum.

    Args:
        x: activations (tokens, inputs).
        sizes: inputs of each block.
        operands: names of weight (inputs of the block, outputs) and scale (outputs,) of each block.
        dtype: of the weights; uint8 ones have zero point 128.

    Returns:
        As `add_unscaled_product`: several blocks have several scales per token, so their sum lacks none.
    """
    builder = x.builder
    is_signed = dtype == np.int8
    weight_zero = builder.constant(*("signed_zero", 0, np.int8) if is_signed else ("unsigned_zero", 128, np.uint8))
    activation_zero = builder.constant("activation_zero", ACTIVATION_ZERO, np.uint8)
    one = builder.constant("one", 1.0)
    products: list[tuple[str, str]] = []
    for block, (weight, scale) in zip(x.split(sizes), operands, strict=True):
        integers, token_scale = block.quantized()
        inputs = (integers, weight, one, scale, activation_zero, weight_zero)
        products.append((builder.op("MatMulIntegerToFloat", *inputs, domain=MICROSOFT), token_scale))
    if len(products) == 1:
        return products[0]
    return builder.op("Sum", *(builder.op("Mul", product, scale) for product, scale in products)), None
