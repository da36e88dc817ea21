"""ONNX Runtime, kept at arm's length: open a graph, run it on numpy arrays without copying them.

Owns the session and its options. Knows only names and arrays.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from allinone.errors import ModelError, WeightsMismatch

_ELEMENT = {np.dtype(kind): kind for kind in (np.float32, np.int64, np.uint8, np.int8, np.bool_)}


class GraphRunner:
    """One graph, opened."""

    def __init__(self, graph: Path, *, num_threads: int) -> None:
        """Open a graph; its weights are mapped and packed here.

        Raises:
            WeightsMismatch: the graph or its weights are damaged.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        # threads wait actively between two operators (tens of microseconds), not for the next call
        options.add_session_config_entry("session.intra_op.spin_duration_us", "100")
        options.log_severity_level = 3
        # ONNX Runtime's plans for memory cost more than they gain on this graph: a plan for every shape ever seen, and
        # half a second at start to look for buffers to reuse (quadratic in the nodes); the arena reuses them anyway
        options.enable_mem_pattern = False
        options.enable_mem_reuse = False
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            hint = "import the model again: `allinone models import`"
            raise WeightsMismatch(f"{graph} cannot be opened: {error}", hint=hint) from error
        self._binding = self._session.io_binding()
        self._bound: dict[str, weakref.ref[NDArray[Any]]] = {}

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[np.float32]]) -> None:
        """Compute; results are written into the arrays of `outputs`, whose shapes must fit.

        Raises:
            ModelError: ONNX Runtime failed (out of memory, for one).
        """
        for name, values in inputs.items():
            if self._is_new(name, values):
                self._binding.bind_input(name, "cpu", 0, _ELEMENT[values.dtype], values.shape, values.ctypes.data)
        for name, values in outputs.items():
            if self._is_new(name, values):
                self._binding.bind_output(name, "cpu", 0, np.float32, values.shape, values.ctypes.data)
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise ModelError(f"ONNX Runtime failed: {error}") from error

    def _is_new(self, name: str, values: NDArray[Any]) -> bool:
        """Whether another array was bound before. Binding costs microseconds, and caches stay the same for long."""
        bound = self._bound.get(name)
        if bound is not None and bound() is values:
            return False
        self._bound[name] = weakref.ref(values)
        return True
