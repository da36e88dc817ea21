"""Which layers to smooth, decided layer by layer from what they really read.

A layer's input channels with large activations make one scale per token coarse for all others. Dividing such channels
by a scale, and multiplying the weights that read them, costs nothing at run time: the division is folded into what
comes before (the norm, `v` before `o`, `up` before `down`). It is done where it lowers the measured error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from allinone.backends.onnx.layer_weights import FloatLayer
from allinone.backends.onnx.quantize import output_error, smoothing_scales
from allinone.backends.onnx.reference import LayerInputs
from allinone.models.weights import ModelConfig

FloatArray: TypeAlias = NDArray[np.float32]

STRENGTHS = (0.5, 0.75)
MIN_GAIN = 0.9
"""A layer is smoothed when that leaves at most this share of its error."""

MAX_SAMPLED_TOKENS = 192


@dataclass(frozen=True, slots=True, kw_only=True)
class _Site:
    """Values read by some matrices, and what they can be scaled in."""

    name: str
    inputs: Callable[[LayerInputs], FloatArray]
    readers: tuple[str, ...]


SITES = (
    _Site(name="input_norm", inputs=lambda inputs: inputs.input_norm, readers=("qkv",)),
    _Site(name="v", inputs=lambda inputs: inputs.attended, readers=("o",)),
    _Site(name="post_norm", inputs=lambda inputs: inputs.post_norm, readers=("gate", "up")),
    _Site(name="up", inputs=lambda inputs: inputs.product, readers=("down",)),
)


def smooth_layer(
    config: ModelConfig, layer: FloatLayer, inputs: LayerInputs
) -> tuple[dict[str, FloatArray], dict[str, float]]:
    """Smooth what gains by it, in place.

    Args:
        config: sizes of the model.
        layer: float weights; changed to an equivalent layer.
        inputs: what its matrices read on the built-in texts.

    Returns:
        The scales of each smoothed site, for `apply_scales`, and the relative error of each matrix with them.
    """
    done: dict[str, FloatArray] = {}
    error: dict[str, float] = {}
    for site in SITES:
        values = site.inputs(inputs)
        readers = [(reader, getattr(layer, reader)) for reader in site.readers]
        scales, error_of = choose_scales(values, readers, site_share(site.name, config))
        error |= error_of
        if scales is not None:
            apply_scales(config, layer, {site.name: scales})
            done[site.name] = scales
    return done, error


Fold: TypeAlias = Callable[[FloatArray], FloatArray]


def choose_scales(
    values: FloatArray, readers: list[tuple[str, FloatArray]], share: Fold | None = None
) -> tuple[FloatArray | None, dict[str, float]]:
    """The smoothing that lowers the error of these matrices most, or None.

    Args:
        values: what they read, float32 (tokens, inputs).
        readers: name and matrix (outputs, inputs) of each.
        share: makes scales equal within inputs that must share one; None when each input has its own.

    Returns:
        Scales (inputs,) to divide `values` by, and the relative error of each matrix with them.
    """
    sample = values[:: -(-len(values) // MAX_SAMPLED_TOKENS)]
    errors = {name: output_error(sample, rows) for name, rows in readers}
    best, best_scales, best_errors = MIN_GAIN * _total(errors), None, errors
    value_peaks = np.abs(values).max(axis=0)
    weight_peaks = np.max([np.abs(rows).max(axis=0) for _, rows in readers], axis=0)
    for strength in STRENGTHS:
        scales = smoothing_scales(value_peaks, weight_peaks, strength)
        scales = scales if share is None else share(scales)
        errors = {name: output_error(sample / scales, rows * scales) for name, rows in readers}
        if _total(errors) < best:
            best, best_scales, best_errors = _total(errors), scales, errors
    return best_scales, best_errors


def _total(errors: dict[str, float]) -> float:
    return float(np.sqrt(sum(error * error for error in errors.values())))


def site_widths(config: ModelConfig) -> dict[str, int]:
    """How many channels each site has."""
    norm = {"input_norm": config.hidden_size, "post_norm": config.hidden_size}
    return {**norm, "v": config.num_heads * config.head_dim, "up": config.intermediate_size}


def site_share(site: str, config: ModelConfig) -> Fold | None:
    """Makes scales equal where a site needs it: query heads that read the same value head share its scales."""
    repeat = config.num_heads // config.num_kv_heads
    if site != "v" or repeat == 1:
        return None
    shape = (config.num_kv_heads, repeat, config.head_dim)

    def share(scales: FloatArray) -> FloatArray:
        shared = scales.reshape(shape).max(axis=1, keepdims=True)
        return np.ascontiguousarray(np.broadcast_to(shared, shape)).reshape(-1)

    return share


def apply_scales(config: ModelConfig, layer: FloatLayer, scales: Mapping[str, FloatArray]) -> None:
    """Change a layer, in place, to the equivalent one with these scales of its sites."""
    for site in SITES:
        if site.name in scales:
            _apply(config, layer, site, scales[site.name])


def _apply(config: ModelConfig, layer: FloatLayer, site: _Site, scales: FloatArray) -> None:
    for reader in site.readers:
        setattr(layer, reader, getattr(layer, reader) * scales)
    if site.name in ("input_norm", "post_norm"):
        setattr(layer, site.name, getattr(layer, site.name) / scales)
    elif site.name == "up":
        layer.up = layer.up / scales[:, None]
    else:
        shape = (config.num_kv_heads, config.num_heads // config.num_kv_heads, config.head_dim)
        value_scales = scales.reshape(shape)[:, 0].reshape(-1)
        values = slice(-len(value_scales), None)
        layer.qkv[values] /= value_scales[:, None]
        if layer.qkv_bias is not None:
            layer.qkv_bias[values] /= value_scales
