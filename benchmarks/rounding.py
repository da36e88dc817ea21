"""How far fewer bits move the labels of the bundled model: `python -m benchmarks.rounding`.

Rounds every matrix as llama.cpp's legacy types do (blocks of 32 inputs, the largest value kept exactly), computes in
FP32, and compares label log-probabilities on the built-in texts with those of the weights as they are. No speed is
measured.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allinone.backends.onnx.agreement import AgreementCase, builtin_cases, compare_labels, score_cases
from allinone.backends.onnx.backend import OnnxBackend
from allinone.backends.onnx.compile import MAX_LABEL_LOGPROB_ERROR, compile_weights
from allinone.models.files import open_model
from allinone.models.locate import locate_model

BLOCK = 32
FloatArray = NDArray[np.float32]


class RoundedWeights:
    """A weight source whose matrices have so many bits a weight; the embeddings stay as they are."""

    def __init__(self, source: Any, bits: int) -> None:
        self._source, self._bits = source, bits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def load(self, name: str) -> FloatArray:
        """One tensor, rounded if it is a matrix that a product reads."""
        values: FloatArray = self._source.load(name)
        return round_matrix(values, self._bits) if values.ndim == 2 and "embed" not in name else values


def round_matrix(values: FloatArray, bits: int) -> FloatArray:
    """Values (outputs, inputs) at the nearest of 2**bits steps of their block."""
    num_outputs, num_inputs = values.shape
    blocks = np.pad(values, ((0, 0), (0, -num_inputs % BLOCK))).reshape(num_outputs, -1, BLOCK)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), -1)
    lowest = -(2 ** (bits - 1))
    step = np.where(largest == 0, 1, largest / lowest)
    rounded = np.clip(np.round(blocks / step), lowest, -lowest - 1) * step
    return rounded.reshape(num_outputs, -1)[:, :num_inputs].astype(np.float32)


def score(source: Any, cases: list[AgreementCase]) -> list[FloatArray]:
    """Label logits of every case, in FP32."""
    with tempfile.TemporaryDirectory() as name:
        compile_weights(source, Path(name), quantization="float32")
        backend = OnnxBackend.load(Path(name))
        try:
            return score_cases(backend, cases)
        finally:
            backend.close()


def main() -> None:
    """Print one line for each number of bits."""
    files = open_model(locate_model("bundled").path)
    cases = builtin_cases(files.tokenizer, files.template)
    exact = score(files.weights, cases)
    print(f"bits  mean |difference| of label log-probabilities (bar {MAX_LABEL_LOGPROB_ERROR})  largest  same label")
    for bits in (4, 5, 6, 8):
        found = compare_labels(exact, score(RoundedWeights(files.weights, bits), cases), MAX_LABEL_LOGPROB_ERROR)
        print(f"{bits:4}  {found.mean_logprob_error:.4f}  {found.max_logprob_error:.3f}  {found.label_agreement:.1%}")


if __name__ == "__main__":
    main()
