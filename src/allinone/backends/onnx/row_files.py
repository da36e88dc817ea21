"""Rows of the embedding and of the head, looked up in files on disk.

Owns what is read from `embeddings.bin` and `head.bin`. The label rows of the head are quantised on demand exactly as
the whole head was when the model was compiled, so their logits equal those of the whole head.
"""

from __future__ import annotations

import os
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from allinone.backends.onnx.linear import Int8Block, Int8Linear
from allinone.backends.onnx.manifest import EMBEDDINGS_FILE, HEAD_FILE, Manifest
from allinone.backends.onnx.quantize import WeightType, make_linear
from allinone.errors import WeightsMismatch

MAX_CACHED_SETS = 64


class RowFile:
    """A (vocab_size, hidden_size) file of which single rows are read.

    Plain reads, not a mapping: the rows of a text lie far apart, and the system maps many neighbours with each, until
    the whole file counts as memory of this process.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """Open a file.

        Raises:
            WeightsMismatch: missing or of another size.
        """
        self._dtype = np.dtype(manifest.embedding_dtype)
        self._width = manifest.shape.hidden_size
        expected = manifest.shape.vocab_size * self._width * self._dtype.itemsize
        found = path.stat().st_size if path.is_file() else 0
        if found != expected:
            raise WeightsMismatch(
                f"{path}: {found} bytes instead of {expected}", hint="import the model again: `allinone models import`"
            )
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.close = weakref.finalize(self, os.close, self._file)

    def look_up(self, ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Float32 (len(ids), hidden_size).

        Raises:
            WeightsMismatch: the file was shortened meanwhile.
        """
        num_bytes = self._width * self._dtype.itemsize
        parts: list[bytes] = []
        for token_id in ids:
            os.lseek(self._file, int(token_id) * num_bytes, os.SEEK_SET)
            parts.append(os.read(self._file, num_bytes))
        content = b"".join(parts)
        if len(content) != len(ids) * num_bytes:
            raise WeightsMismatch("The compiled model's rows were cut while in use", hint="import the model again")
        return np.frombuffer(content, self._dtype).reshape(len(ids), self._width).astype(np.float32)


class HeadColumns:
    """The columns of the int8 head that belong to given token ids; the last few sets are kept."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Map the head's rows: the embedding's when they are tied."""
        name = EMBEDDINGS_FILE if manifest.shape.tie_word_embeddings else HEAD_FILE
        self._rows = RowFile(folder / name, manifest)
        self._weight_type: WeightType = manifest.weight_type
        self._in_blocks = manifest.is_head_in_blocks
        self._smoothing = np.asarray(manifest.head_smoothing, np.float32) if manifest.head_smoothing else None
        self._cached: OrderedDict[tuple[int, ...], list[Int8Block]] = OrderedDict()

    def close(self) -> None:
        """Close the file."""
        self._rows.close()

    def blocks(self, token_ids: Sequence[int]) -> list[Int8Block]:
        """Weights and scales of these ids, one entry per block of inputs."""
        key = tuple(token_ids)
        if key not in self._cached:
            rows = self._rows.look_up(key)
            linear = make_linear(smoothed(rows, self._smoothing), None, self._weight_type, in_blocks=self._in_blocks)
            assert isinstance(linear, Int8Linear)
            self._cached[key] = list(linear.blocks)
            if len(self._cached) > MAX_CACHED_SETS:
                self._cached.popitem(last=False)
        self._cached.move_to_end(key)
        return self._cached[key]


def smoothed(rows: NDArray[np.float32], scales: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Rows with every input channel multiplied by its smoothing scale."""
    return rows if scales is None else rows * scales
