"""The numbers of quantisation: what is exact is exact, what is lost is bounded, what is equivalent stays so."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import VARIANTS

from allinone.backends.onnx.agreement import compare_labels
from allinone.backends.onnx.layer_weights import layer_from_arrays, layer_to_arrays, load_layer, quantize_layer
from allinone.backends.onnx.linear import Int8Linear
from allinone.backends.onnx.quantize import (
    block_sizes,
    make_linear,
    output_error,
    quantize_rows,
    smoothing_scales,
)
from allinone.backends.onnx.reference import ReferenceRun
from allinone.backends.onnx.smoothing import choose_scales, smooth_layer
from allinone.models.random_weights import OutlierWeights, RandomWeights


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def test_quantized_rows_are_within_half_a_step() -> None:
    """Symmetric, 127 steps, one scale per row; -128 never occurs (it has no positive twin)."""
    rows = normal(40, 100) * np.logspace(-6, 6, 40, dtype=np.float32)[:, None]
    integers, scale = quantize_rows(rows, "int8")
    assert integers.dtype == np.int8
    assert int(integers.min()) >= -127
    assert (np.abs(integers).max(axis=1) == 127).all()
    assert (np.abs(integers * scale[:, None] - rows) <= 0.501 * scale[:, None]).all()


def test_row_of_zeros_stays_zero() -> None:
    """Padding rows of a vocabulary are zeros; they must not become NaN."""
    integers, scale = quantize_rows(np.zeros((2, 8), np.float32), "int8")
    assert not integers.any()
    assert not scale.any()


def test_unsigned_rows_hold_the_same_values() -> None:
    """Zero point 128."""
    rows = normal(5, 30)
    signed, unsigned = quantize_rows(rows, "int8")[0], quantize_rows(rows, "uint8")[0]
    assert unsigned.dtype == np.uint8
    assert np.array_equal(unsigned.astype(int) - 128, signed.astype(int))


@pytest.mark.parametrize("num_inputs", [16, 64, 100, 384, 896, 1024, 2816, 4864])
def test_block_sizes_cover_all_inputs(num_inputs: int) -> None:
    """At most four blocks, whole, in multiples of 16 but for the last."""
    sizes = block_sizes(num_inputs, in_blocks=True)
    assert sum(sizes) == num_inputs
    assert len(sizes) <= 4
    assert all(size % 16 == 0 for size in sizes[:-1])
    assert block_sizes(num_inputs, in_blocks=False) == [num_inputs]


def test_blocks_keep_an_outlier_to_themselves() -> None:
    """One channel 500 times larger: with one scale per token the others drown; in blocks only its own block does."""
    inputs, rows = normal(50, 128), normal(30, 128, seed=1)
    inputs[:, 3] *= 500
    rows[:, 3] /= 500
    rest = np.delete(inputs, 3, axis=1)
    blocks = np.split(np.arange(128), np.cumsum(block_sizes(128, in_blocks=True))[:-1])
    in_blocks = sum(
        output_error(inputs[:, block], rows[:, block]) * np.linalg.norm(inputs[:, block] @ rows[:, block].T)
        for block in blocks
    )
    assert output_error(inputs, rows) > 1.5 * in_blocks / np.linalg.norm(inputs @ rows.T)
    assert output_error(rest, np.delete(rows, 3, axis=1)) < 0.02


def test_linear_in_blocks_is_the_matrix_in_parts() -> None:
    """Every block dequantises to its columns."""
    rows = normal(20, 100)
    linear = make_linear(rows, None, "int8", in_blocks=True)
    assert isinstance(linear, Int8Linear)
    back = np.concatenate([block.weight * block.scale for block in linear.blocks]).T
    assert float(np.abs(back - rows).max()) < 0.02


def test_smoothing_scales_leave_unused_channels_alone() -> None:
    """A channel that is always zero, on either side, has nothing to balance."""
    scales = smoothing_scales(np.array([0, 4, 1], np.float32), np.array([1, 1, 0], np.float32), 0.5)
    assert np.array_equal(scales, [1, 1, 1])
    scales = smoothing_scales(np.array([100, 1], np.float32), np.array([0.01, 1], np.float32), 0.5)
    assert scales[0] / scales[1] == pytest.approx(100, rel=1e-5)


def test_smoothing_is_not_done_without_gain() -> None:
    """Even channels: moving range around only costs."""
    scales, errors = choose_scales(np.sign(normal(64, 32)), [("o", np.sign(normal(16, 32, seed=1)))])
    assert scales is None
    assert set(errors) == {"o"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_smoothed_layer_computes_the_same(variant: str) -> None:
    """Scales are folded into what comes before: in FP32 nothing changes, whatever the heads share."""
    source = OutlierWeights(RandomWeights(VARIANTS[variant]), factor=50)
    config = source.config
    hidden = normal(30, config.hidden_size)
    layer = load_layer(source, 1)
    plain = ReferenceRun(config, [10, 20], hidden)
    inputs = plain.step(layer)
    scales, error = smooth_layer(config, layer, inputs)
    smoothed = ReferenceRun(config, [10, 20], hidden)
    smoothed.step(layer)
    assert {"input_norm", "post_norm"} <= set(scales)
    assert set(error) == {"qkv", "o", "gate", "up", "down"}
    assert float(np.abs(plain.hidden - smoothed.hidden).max()) < 1e-3


@pytest.mark.parametrize("in_blocks", [(), ("down", "qkv")])
@pytest.mark.parametrize("variant", ["qwen2_grouped_tied", "qwen3"])
def test_layer_survives_the_way_to_arrays_and_back(variant: str, in_blocks: tuple[str, ...]) -> None:
    """What a restart reads is what was written."""
    layer = quantize_layer(load_layer(RandomWeights(VARIANTS[variant]), 0), "int8", in_blocks)
    matrices, vectors = layer_to_arrays(layer, 0)
    back = layer_from_arrays({**matrices, **vectors}, 0)
    again = layer_to_arrays(back, 0)
    for first, second in zip((matrices, vectors), again, strict=True):
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[name], second[name]) for name in first)


def test_compare_labels_counts_decided_texts_apart() -> None:
    """A flip at a margin below 0.3 nats is not held against int8; one above is."""
    expected = [np.array([2.0, 0.0], np.float32), np.array([0.1, 0.0], np.float32)]
    flipped = [np.array([2.0, 0.0], np.float32), np.array([0.0, 0.1], np.float32)]
    report = compare_labels(expected, flipped, 0.2)
    assert (report.label_agreement, report.decided_agreement, report.holds) == (0.5, 1.0, True)
    report = compare_labels(expected, [flipped[0][::-1], expected[1]], 10.0)
    assert (report.label_agreement, report.decided_agreement, report.holds) == (0.5, 0.0, False)
    assert report.max_logprob_error == pytest.approx(2.0)
