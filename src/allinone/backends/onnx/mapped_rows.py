"""Rows of the embedding and of the head, looked up in files mapped from disk.

Owns what is read from `embeddings.bin` and `head.bin`. The label rows of the head are quantised on demand exactly as
the whole head was when the model was compiled, so their logits equal those of the whole head.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allinone.backends.onnx.manifest import EMBEDDINGS_FILE, HEAD_FILE, Manifest
from allinone.backends.onnx.quantize import quantize_rows
from allinone.errors import WeightsMismatch

MAX_CACHED_COLUMNS = 64


def map_rows(folder: Path, name: str, manifest: Manifest) -> NDArray[Any]:
    """Map a (vocab_size, hidden_size) file read-only.

    Raises:
        WeightsMismatch: missing or of another size.
    """
    shape = manifest.shape.vocab_size, manifest.shape.hidden_size
    dtype = np.dtype(manifest.embedding_dtype)
    path, expected = folder / name, shape[0] * shape[1] * dtype.itemsize
    found = path.stat().st_size if path.is_file() else 0
    if found != expected:
        raise WeightsMismatch(
            f"{path}: {found} bytes instead of {expected}", hint="import the model again: `allinone models import`"
        )
    return np.memmap(path, dtype, mode="r", shape=shape)


class EmbeddingRows:
    """Token ids -> float32 rows."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._rows = map_rows(folder, EMBEDDINGS_FILE, manifest)

    def look_up(self, input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Float32 (len(input_ids), hidden_size)."""
        return np.asarray(self._rows[input_ids], np.float32)


class HeadColumns:
    """The columns of the int8 head that belong to given token ids; the last few sets are kept."""

    def __init__(self, folder: Path, manifest: Manifest, smoothing: NDArray[np.float32] | None) -> None:
        """Args:
        smoothing: what each input column was multiplied by before quantisation, (hidden_size,), or None.
        """
        name = EMBEDDINGS_FILE if manifest.shape.tie_word_embeddings else HEAD_FILE
        self._rows, self._weight_type, self._smoothing = (
            map_rows(folder, name, manifest),
            manifest.weight_type,
            smoothing,
        )
        self._cached: OrderedDict[tuple[int, ...], tuple[NDArray[Any], NDArray[np.float32]]] = OrderedDict()

    def columns(self, token_ids: Sequence[int]) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Weight (hidden_size, len(token_ids)) and scale (len(token_ids),)."""
        key = tuple(token_ids)
        if key in self._cached:
            self._cached.move_to_end(key)
            return self._cached[key]
        rows = np.asarray(self._rows[list(key)], np.float32)
        if self._smoothing is not None:
            rows = rows * self._smoothing
        assert self._weight_type != "float32", "a float head is read whole"
        integers, scale = quantize_rows(rows, self._weight_type)
        self._cached[key] = np.ascontiguousarray(integers.T), scale
        if len(self._cached) > MAX_CACHED_COLUMNS:
            self._cached.popitem(last=False)
        return self._cached[key]
