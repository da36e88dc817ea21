"""A `llama_batch` whose arrays are numpy's: filled at once, not token by token through ctypes.

Owns the memory that llama.cpp reads during one `llama_decode`. Knows no sequences and no outputs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Row(NamedTuple):
    """One token to feed.

    Attributes:
        token_id: what.
        position: where in its sequence.
        slot: llama.cpp's id of the sequence.
        reader: number of the chunk that wants an output here; None where nobody does.
    """

    token_id: int
    position: int
    slot: int
    reader: int | None


class TokenBatch:
    """Room for `max_tokens` tokens, each of one sequence; used again for every step."""

    def __init__(self, library: Any, *, max_tokens: int) -> None:
        self._ids = np.zeros(max_tokens, np.int32)
        self._positions = np.zeros(max_tokens, np.int32)
        self._slots = np.zeros(max_tokens, np.int32)
        self._is_output = np.zeros(max_tokens, np.int8)
        self._num_slots = np.ones(max_tokens, np.int32)
        self._slot_pointers = self._slots.ctypes.data + self._slots.itemsize * np.arange(max_tokens, dtype=np.uintp)
        int32, int8 = ctypes.POINTER(ctypes.c_int32), ctypes.POINTER(ctypes.c_int8)
        self._batch = library.llama_batch(
            n_tokens=0,
            token=self._ids.ctypes.data_as(int32),
            embd=None,
            pos=self._positions.ctypes.data_as(int32),
            n_seq_id=self._num_slots.ctypes.data_as(int32),
            seq_id=self._slot_pointers.ctypes.data_as(ctypes.POINTER(int32)),
            logits=self._is_output.ctypes.data_as(int8),
        )

    def fill(self, rows: Sequence[Row]) -> Any:
        """The batch of these rows; valid until the next call."""
        num_rows = len(rows)
        self._ids[:num_rows] = [row.token_id for row in rows]
        self._positions[:num_rows] = [row.position for row in rows]
        self._slots[:num_rows] = [row.slot for row in rows]
        self._is_output[:num_rows] = [row.reader is not None for row in rows]
        self._batch.n_tokens = num_rows
        return self._batch
