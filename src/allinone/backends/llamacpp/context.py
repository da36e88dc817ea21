"""One llama.cpp context: its unified KV cache, decoding, and reading what came out.

Owns the handle and lets the cache grow; tags and cuts cells for `sequences.py`. Knows slots (llama.cpp's sequence ids)
and rows, no sequences of ours. Above: `backend.py`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from allinone.backends.base import FloatArray
from allinone.backends.llamacpp.library import last_words
from allinone.backends.llamacpp.token_batch import Row, TokenBatch
from allinone.errors import CacheFull, ModelError

MAX_STEP_TOKENS = 512
_INITIAL_CELLS = 2048
_NO_ROOM = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextSizes:
    """What a context needs to know of its model and of the caller's wishes."""

    vocab_size: int
    hidden_size: int
    kv_bytes_per_token: int
    num_slots: int
    num_threads: int


class Context:
    """The state of one model in use (`CellMemory`). Starts with a small cache, which grows when it is full.

    Raises:
        CacheFull: there is no memory even for the small one.
    """

    def __init__(self, library: Any, model: Any, sizes: ContextSizes) -> None:
        self._library, self._model, self._sizes = library, model, sizes
        self._num_cells = _INITIAL_CELLS
        self._handle: Any = self._open(_INITIAL_CELLS)
        self._batch = TokenBatch(library, max_tokens=MAX_STEP_TOKENS)

    def decode(self, rows: Sequence[Row]) -> None:
        """Feed at most `MAX_STEP_TOKENS` tokens in one pass.

        Raises:
            CacheFull: the cache is full and there is no memory for a larger one.
            ModelError: llama.cpp failed.
        """
        batch = self._batch.fill(rows)
        status = self._library.llama_decode(self._handle, batch)
        while status == _NO_ROOM:
            self._grow(len(rows))
            status = self._library.llama_decode(self._handle, batch)
        if status:
            raise ModelError(f"llama.cpp failed with status {status}: {last_words()}")

    def give_hidden(self, is_wanted: bool) -> None:
        """Whether the next steps give hidden states. All of their tokens go through the output head then."""
        self._library.llama_set_embeddings(self._handle, is_wanted)

    def logits(self, place: int) -> FloatArray:
        """Float32 (vocab_size,) of the row at `place` of the last step: the library's memory, to be copied from."""
        return self._view(self._library.llama_get_logits_ith(self._handle, place), self._sizes.vocab_size)

    def hidden(self, place: int) -> FloatArray:
        """Float32 (hidden_size,), after the final norm; as `logits`."""
        return self._view(self._library.llama_get_embeddings_ith(self._handle, place), self._sizes.hidden_size)

    def copy(self, source: int, destination: int, num_tokens: int) -> None:
        """See `CellMemory.copy`: cells are tagged, nothing is copied."""
        self._library.llama_memory_seq_cp(self._memory(), source, destination, 0, num_tokens)

    def cut(self, slot: int, num_tokens: int) -> None:
        """See `CellMemory.cut`.

        Raises:
            ModelError: the architecture keeps one state for a whole sequence.
        """
        if not self._library.llama_memory_seq_rm(self._memory(), slot, num_tokens, -1):
            raise ModelError(
                "This model cannot take tokens back: its architecture keeps one state for a whole sequence.",
                hint="choose a model with ordinary attention",
            )

    def close(self) -> None:
        """Give the handle back. Idempotent."""
        if self._handle is not None:
            self._library.llama_free(self._handle)
        self._handle = None

    def _memory(self) -> Any:
        return self._library.llama_get_memory(self._handle)

    @staticmethod
    def _view(pointer: Any, size: int) -> FloatArray:
        if not pointer:
            raise ModelError(f"llama.cpp gave no output: {last_words()}")
        return np.ctypeslib.as_array(pointer, shape=(size,))

    def _open(self, num_cells: int) -> Any:
        params = self._library.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = num_cells, self._sizes.num_slots, True
        params.n_batch = params.n_ubatch = MAX_STEP_TOKENS
        params.n_threads = params.n_threads_batch = self._sizes.num_threads
        params.swa_full = True  # a sliding window would drop cells that a fork or a trim needs again
        params.no_perf = True
        handle = self._library.llama_init_from_model(self._model, params)
        if not handle:
            size = num_cells * self._sizes.kv_bytes_per_token / 1e6
            raise CacheFull(
                f"llama.cpp has no room for {num_cells:,} cached tokens ({size:,.0f} MB): {last_words()}",
                hint="Have fewer or shorter requests and conversations at a time.",
            )
        return handle

    def _grow(self, num_tokens: int) -> None:
        """A cache half as large again, with the same cells in it, still shared."""
        library = self._library
        num_cells = -(-max(self._num_cells * 3 // 2, self._num_cells + num_tokens) // 256) * 256
        state = np.empty(library.llama_state_get_size(self._handle), np.uint8)
        pointer = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        num_bytes = library.llama_state_get_data(self._handle, pointer, state.size)
        larger = self._open(num_cells)
        if library.llama_state_set_data(larger, pointer, num_bytes) != num_bytes:
            library.llama_free(larger)
            raise ModelError(f"llama.cpp cannot move its KV cache to a larger one: {last_words()}")
        library.llama_free(self._handle)
        self._handle, self._num_cells = larger, num_cells
