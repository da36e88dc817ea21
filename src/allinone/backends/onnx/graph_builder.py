"""Nodes and constants of an ONNX graph, collected while the weights stream past.

Owns how a graph is written down: node names, small constants inside `graph.onnx`, matrices in an external file that
ONNX Runtime maps. Knows no architecture (`graph.py` does) and decides nothing about quantisation (`quantize.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

MICROSOFT = "com.microsoft"
OPSET = 21
WEIGHTS_FILE = "weights.bin"

StoreMatrix: TypeAlias = Callable[[str, NDArray[Any]], int]
"""Writes one matrix to the weights file and returns its byte offset there."""


class GraphBuilder:
    """Collects nodes, constants, inputs and outputs in order of use."""

    def __init__(self, store_matrix: StoreMatrix) -> None:
        self._store_matrix = store_matrix
        self._nodes: list[onnx.NodeProto] = []
        self._num_nodes = 0
        self._constants: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, dtype: type[np.generic], shape: Sequence[int | str]) -> str:
        """Declare a graph input; strings are symbolic sizes."""
        self._inputs.append(_value_info(name, dtype, shape))
        return name

    def output(self, name: str, dtype: type[np.generic], shape: Sequence[int | str]) -> None:
        """Declare the node output called `name` as a graph output."""
        self._outputs.append(_value_info(name, dtype, shape))

    def constant(self, name: str, values: Any, dtype: type[np.generic] = np.float32) -> str:
        """A small constant inside the graph file; the same name is written once."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.array(values, dtype, order="C"), name)
        return name

    def matrix(self, name: str, values: NDArray[Any]) -> str:
        """A large constant in the external weights file."""
        tensor = TensorProto()
        tensor.name = name
        tensor.data_type = helper.np_dtype_to_tensor_dtype(values.dtype)
        tensor.dims.extend(values.shape)
        tensor.data_location = TensorProto.EXTERNAL
        offset = self._store_matrix(name, values)
        for key, value in (("location", WEIGHTS_FILE), ("offset", str(offset)), ("length", str(values.nbytes))):
            tensor.external_data.add(key=key, value=value)
        self._constants[name] = tensor
        return name

    def op(self, kind: str, *inputs: str, output: str | None = None, domain: str = "", **attributes: Any) -> str:
        """Append a node with one output; returns that output's name (`output`, if given)."""
        name = output or f"{kind}_{self._num_nodes}"
        self._append(helper.make_node(kind, list(inputs), [name], domain=domain, **attributes))
        return name

    def ops(self, kind: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any) -> list[str]:
        """Append a node with several outputs; returns their names."""
        names = [f"{kind}_{self._num_nodes}_{index}" for index in range(outputs)]
        self._append(helper.make_node(kind, list(inputs), names, domain=domain, **attributes))
        return names

    def choose(self, condition: str, then: Callable[[], str], otherwise: Callable[[], str]) -> str:
        """Append a node that computes one of two float branches; both may read everything that came before.

        Args:
            condition: a scalar bool.
            then: appends the nodes of its branch and returns the name of its result.
            otherwise: the same where the condition is False.
        """
        return self.op("If", condition, then_branch=self._collect(then), else_branch=self._collect(otherwise))

    def _collect(self, branch: Callable[[], str]) -> onnx.GraphProto:
        around, self._nodes = self._nodes, []
        result = _value_info(branch(), np.float32, None)
        nodes, self._nodes = self._nodes, around
        return helper.make_graph(nodes, f"branch_{self._num_nodes}", [], [result])

    def _append(self, node: onnx.NodeProto) -> None:
        self._nodes.append(node)
        self._num_nodes += 1

    def model(self, name: str) -> onnx.ModelProto:
        """The finished model. Constants that live in the weights file are references."""
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, list(self._constants.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="qwen-allinone")


def _value_info(name: str, dtype: type[np.generic], shape: Sequence[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
