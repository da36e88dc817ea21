"""llama.cpp as a `Backend`, on its low-level API: any GGUF architecture and quantisation that it knows.

All sequences live in one unified KV cache. A fork costs nothing (`sequences.py`); a batch of many sequences is one
`llama_decode`, and only positions that somebody wants go through the output head. The cache starts small and grows.
Above: the engine. Below: `library.py`. Source: docs/decisions/0011-llamacpp-backend.md
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from allinone.backends.base import BackendInfo, Chunk, FloatArray, SequenceId, check_batch
from allinone.backends.cpu import detect_cpu
from allinone.backends.llamacpp.context import MAX_STEP_TOKENS, Context, ContextSizes
from allinone.backends.llamacpp.library import load_model, metadata_number, require_llama_cpp
from allinone.backends.llamacpp.sequences import CellSequence, SequencePool
from allinone.backends.llamacpp.token_batch import Row
from allinone.errors import CacheFull, ModelError, UsageError

MAX_SEQUENCES = 256
"""As many sequence ids as llama.cpp was built with; a fork takes one only when it is extended."""
_KV_BYTES = 2
"""Keys and values are kept as float16."""


class LlamaCppBackend:
    """A GGUF file, run by llama.cpp. Use `load`.

    Args:
        library: the module `llama_cpp`.
        model: a handle of its weights; freed by `close`.
        name: of the model.
        quantization: of its weights, as results name it.
        num_threads: of every product.
    """

    def __init__(self, library: Any, model: Any, *, name: str, quantization: str, num_threads: int) -> None:
        self._library, self._model = library, model
        num_slots = min(MAX_SEQUENCES, library.llama_max_parallel_sequences())
        self._info = info = _describe(
            library, model, name=name, quantization=quantization, num_threads=num_threads, max_sequences=num_slots
        )
        sizes = ContextSizes(
            vocab_size=info.vocab_size,
            hidden_size=info.hidden_size,
            kv_bytes_per_token=info.kv_bytes_per_token,
            num_slots=num_slots,
            num_threads=num_threads,
        )
        self._context = Context(library, model, sizes)
        self._pool = SequencePool(self._context, num_slots=num_slots)
        self._sequences: dict[SequenceId, CellSequence] = {}
        self._next_id = 0

    @classmethod
    def load(
        cls, path: str | Path, *, name: str | None = None, quantization: str = "gguf", num_threads: int | None = None
    ) -> LlamaCppBackend:
        """From a GGUF file.

        Args:
            path: the file.
            name: of the model; the file's where None.
            quantization: what its weights are called.
            num_threads: the physical cores where None.

        Raises:
            WeightsNotFound: there is no such file.
            WeightsMismatch: llama.cpp cannot read it.
            ModelError: llama_cpp is not installed, or the model is of another kind.
            CacheFull: there is no memory for a KV cache.
        """
        library, file = require_llama_cpp(), Path(path)
        model = load_model(library, file)
        threads = num_threads or detect_cpu().default_threads
        try:
            return cls(library, model, name=name or file.stem, quantization=quantization, num_threads=threads)
        except CacheFull:
            library.llama_model_free(model)
            raise

    @property
    def info(self) -> BackendInfo:
        """Static description."""
        return self._info

    def extend(self, batch: Sequence[Chunk]) -> list[FloatArray | None]:
        """See `Backend.extend`.

        Raises:
            CacheFull: there is no memory, or no sequence id, for so much at a time. Nothing is changed then.
            ModelError: llama.cpp failed. Nothing is changed then.
        """
        check_batch(batch, self._info, self.num_cached_tokens)
        sequences = [self._sequences[chunk.sequence] for chunk in batch]
        self._pool.require_slots(sequences)
        try:
            outputs = self._run(batch, sequences)
        except (CacheFull, ModelError):
            for sequence in sequences:
                self._context.cut(_slot(sequence), sequence.num_tokens)
            raise
        for chunk, sequence in zip(batch, sequences, strict=True):
            sequence.num_tokens += len(chunk.input_ids)
        return outputs

    def fork(self, source: SequenceId | None = None) -> SequenceId:
        """See `Backend.fork`."""
        sequence = SequenceId(self._next_id)
        self._next_id += 1
        self._sequences[sequence] = self._pool.fork(None if source is None else self._require(source))
        return sequence

    def trim(self, sequence: SequenceId, num_tokens: int) -> None:
        """See `Backend.trim`."""
        held = self._require(sequence)
        if not 0 <= num_tokens <= held.num_tokens:
            raise UsageError(f"Cannot trim sequence {sequence} to {num_tokens} tokens: it holds {held.num_tokens}.")
        if num_tokens < held.num_tokens:
            self._pool.trim(held, num_tokens)

    def free(self, sequence: SequenceId) -> None:
        """See `Backend.free`."""
        self._pool.free(self._require(sequence))
        del self._sequences[sequence]

    def num_cached_tokens(self, sequence: SequenceId) -> int:
        """See `Backend.num_cached_tokens`."""
        return self._require(sequence).num_tokens

    def num_sequences(self) -> int:
        """See `Backend.num_sequences`."""
        return len(self._sequences)

    def close(self) -> None:
        """See `Backend.close`."""
        self._sequences.clear()
        self._context.close()
        if self._model is not None:
            self._library.llama_model_free(self._model)
        self._model = None

    def _require(self, sequence: SequenceId) -> CellSequence:
        if sequence not in self._sequences:
            raise UsageError(f"Unknown sequence {sequence}: it was freed or never forked.")
        return self._sequences[sequence]

    def _run(self, batch: Sequence[Chunk], sequences: Sequence[CellSequence]) -> list[FloatArray | None]:
        """Feed all tokens. Those whose hidden state is wanted go last, in a pass of their own: in a context that
        gives hidden states, llama.cpp computes the output head of every token.
        """
        rows: list[Row] = []
        last_rows: list[Row] = []
        for place, (chunk, sequence) in enumerate(zip(batch, sequences, strict=True)):
            first_output = len(chunk.input_ids) - (chunk.num_rows if chunk.wanted != "nothing" else 0)
            made = [
                Row(token_id, sequence.num_tokens + number, _slot(sequence), place if number >= first_output else None)
                for number, token_id in enumerate(chunk.input_ids)
            ]
            if chunk.wanted == "last_hidden":
                last_rows.append(made.pop())
            rows += made
        found: list[list[FloatArray]] = [[] for _ in batch]
        self._feed(rows, batch, found)
        if last_rows:
            self._context.give_hidden(True)
            try:
                self._feed(last_rows, batch, found)
            finally:
                self._context.give_hidden(False)
        return [
            None if not arrays else np.stack(arrays) if chunk.wanted == "tail_logits" else arrays[0]
            for chunk, arrays in zip(batch, found, strict=True)
        ]

    def _feed(self, rows: Sequence[Row], batch: Sequence[Chunk], found: Sequence[list[FloatArray]]) -> None:
        """Decode rows, a step at a time, and read what is wanted of them into `found`."""
        for start in range(0, len(rows), MAX_STEP_TOKENS):
            step = rows[start : start + MAX_STEP_TOKENS]
            self._context.decode(step)
            for place, row in enumerate(step):
                if row.reader is not None:
                    found[row.reader].append(self._read(batch[row.reader], place))

    def _read(self, chunk: Chunk, place: int) -> FloatArray:
        """A copy of what a chunk wants of the token at `place` of the last step."""
        if chunk.wanted == "last_hidden":
            return self._context.hidden(place).copy()
        logits = self._context.logits(place)
        return logits[list(chunk.token_ids)] if chunk.wanted == "token_logits" else logits.copy()


def _slot(sequence: CellSequence) -> int:
    assert sequence.slot is not None, "require_slots came first"
    return sequence.slot


def _describe(
    library: Any, model: Any, *, name: str, quantization: str, num_threads: int, max_sequences: int
) -> BackendInfo:
    hidden_size = library.llama_model_n_embd(model)
    num_kv_heads = library.llama_model_n_head_kv(model)
    plain_head_dim = hidden_size // max(library.llama_model_n_head(model), 1)
    sizes = [
        metadata_number(library, model, f"{{arch}}.attention.{part}_length") or plain_head_dim
        for part in ("key", "value")
    ]
    return BackendInfo(
        name="llamacpp",
        model=name,
        quantization=quantization,
        vocab_size=library.llama_vocab_n_tokens(library.llama_model_get_vocab(model)),
        hidden_size=hidden_size,
        max_context_tokens=library.llama_model_n_ctx_train(model),
        kv_bytes_per_token=library.llama_model_n_layer(model) * num_kv_heads * sum(sizes) * _KV_BYTES,
        num_threads=num_threads,
        max_sequences=max_sequences,
    )
