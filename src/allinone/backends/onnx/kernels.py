"""Whether the int8 kernels that this CPU gives have exact sums, and how weights must be stored for them.

On x86 without VNNI, unsigned x signed int8 products are added in pairs at 16 bits and *saturate*: wrong sums. Weights
are stored unsigned there, which takes an exact (slower) kernel. A self-check compares a product with exact sums.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from allinone.backends.cpu import IntegerType, detect_cpu
from allinone.errors import ModelError


def weight_signedness() -> Literal["signed", "unsigned"]:
    """How int8 weights must be stored on this machine; part of the name of a compiled folder."""
    return "signed" if detect_cpu().weight_type == "int8" else "unsigned"


def require_exact_int8(weight_type: IntegerType) -> None:
    """Start-up self-check: an int8 product with the largest possible values equals exact sums.

    Raises:
        ModelError: the product is wrong on this CPU (saturating kernel).
    """
    rng = np.random.default_rng(0)
    left = rng.integers(200, 256, (20, 256)).astype(np.uint8)
    values = np.where(rng.random((256, 64)) < 0.9, 127, -127).astype(np.int8)
    weight = values if weight_type == "int8" else (values.view(np.uint8) ^ np.uint8(128))
    expected = (left.astype(np.int64) - 128) @ values.astype(np.int64)
    for rows in (1, 20):
        if not np.array_equal(_int8_product(left[:rows], weight), expected[:rows]):
            raise ModelError(
                f"Int8 products with {weight_type} weights are wrong on this CPU ({detect_cpu().name})",
                hint="import the model again on this machine, or with --quantization float32",
            )


def _int8_product(left: np.ndarray, weight: np.ndarray) -> np.ndarray:
    weight_zero = np.array(0 if weight.dtype == np.int8 else 128, weight.dtype)
    node = helper.make_node("MatMulInteger", ["left", "weight", "left_zero", "weight_zero"], ["product"])
    graph = helper.make_graph(
        [node],
        "self_check",
        [helper.make_tensor_value_info("left", TensorProto.UINT8, ["M", left.shape[1]])],
        [helper.make_tensor_value_info("product", TensorProto.INT32, ["M", weight.shape[1]])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array(128, np.uint8), "left_zero"),
            numpy_helper.from_array(weight_zero, "weight_zero"),
        ],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"left": left})[0])
