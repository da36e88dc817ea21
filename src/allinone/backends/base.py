"""The seam: one model behind five methods. Ids in, numbers out.

Everything clever (prefix sharing, scheduling, scoring, sampling, stopping) is written once above this line, in
`engine/`, and proved on every backend by one contract suite (`tests/contracts/test_backend.py`). A backend knows no
text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NewType, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from allinone.errors import ContextLengthExceeded, InvalidInput

FloatArray: TypeAlias = NDArray[np.float32]
SequenceId = NewType("SequenceId", int)
Wanted = Literal["nothing", "last_logits", "token_logits", "tail_logits", "last_hidden"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """New tokens for one sequence, and what is wanted of them.

    Attributes:
        sequence: whose cache they extend; a sequence occurs once in a batch.
        input_ids: one or more token ids.
        wanted: "nothing" -> None; "last_logits" -> float32 (vocab_size,); "token_logits" -> float32 (len(token_ids),)
            at the last position; "tail_logits" -> float32 (num_rows, vocab_size), at the last `num_rows` positions;
            "last_hidden" -> float32 (hidden_size,), after the final norm.
        token_ids: for "token_logits" only.
        num_rows: for "tail_logits" only; at most one for each of `input_ids`.
        is_draft: the ids after the first are guesses that may be trimmed again: each id is computed as if it had come
            in a chunk of its own, bit for bit where `BackendInfo.has_exact_drafts`.
    """

    sequence: SequenceId
    input_ids: Sequence[int]
    wanted: Wanted = "nothing"
    token_ids: tuple[int, ...] = ()
    num_rows: int = 1
    is_draft: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendInfo:
    """What a backend runs: `name` "onnx", `model` "bundled-1", `quantization` "int8", and its sizes.

    `max_sequences`: most sequences that can hold tokens at a time; None where only memory limits them.
    `has_exact_drafts`: drafted tokens get the bits that they would get one by one (`Chunk.is_draft`).
    """

    name: str
    model: str
    quantization: str
    vocab_size: int
    hidden_size: int
    max_context_tokens: int
    kv_bytes_per_token: int
    num_threads: int
    max_sequences: int | None = None
    has_exact_drafts: bool = False


@runtime_checkable
class Backend(Protocol):
    """One model with forkable sequences. Not thread-safe: one engine thread owns it.

    Invariant: a sequence's outputs depend on its own ids only, never on its neighbours in a batch. On `onnx`
    batched = single and cold = warm hold bit for bit; elsewhere within floating-point tolerance.
    """

    @property
    def info(self) -> BackendInfo:
        """Static description."""
        ...

    def extend(self, batch: Sequence[Chunk]) -> list[FloatArray | None]:
        """Append each chunk's ids to its sequence in one pass over the weights; outputs in the order of the batch.

        Raises:
            ContextLengthExceeded: a sequence would grow beyond `max_context_tokens`. Nothing is changed then.
            InvalidInput: a chunk that means nothing (`check_batch`). Nothing is changed then.
        """
        ...

    def fork(self, source: SequenceId | None = None) -> SequenceId:
        """A new sequence that shares what `source` holds, exactly; empty without a source. Later changes (extend,
        trim, free) of either do not touch the other. Forking a sequence that was prefilled from nothing costs nothing.
        """
        ...

    def trim(self, sequence: SequenceId, num_tokens: int) -> None:
        """Forget all but the first `num_tokens` tokens of a sequence."""
        ...

    def free(self, sequence: SequenceId) -> None:
        """Give a sequence back; memory that nobody else shares is released."""
        ...

    def num_cached_tokens(self, sequence: SequenceId) -> int:
        """Number of tokens the sequence holds."""
        ...

    def num_sequences(self) -> int:
        """Number of live sequences (for leak checks and metrics)."""
        ...

    def close(self) -> None:
        """Release the model. Idempotent."""
        ...


def check_batch(batch: Sequence[Chunk], info: BackendInfo, num_cached_tokens: Callable[[SequenceId], int]) -> None:
    """Refuse a whole batch before anything is changed: what every backend does first in `extend`.

    Args:
        batch: what `extend` was given.
        info: of the backend.
        num_cached_tokens: of a sequence; raises for one that does not exist.

    Raises:
        InvalidInput: a sequence given twice, no ids, ids outside the vocabulary, or rows that are not there.
        ContextLengthExceeded: a sequence would grow beyond the model's context.
    """
    if len({chunk.sequence for chunk in batch}) != len(batch):
        raise InvalidInput("A sequence occurs twice in one batch.")
    for chunk in batch:
        num_cached, num_new = num_cached_tokens(chunk.sequence), len(chunk.input_ids)
        if not num_new:
            raise InvalidInput(f"A chunk of sequence {chunk.sequence} has no ids.")
        ids = (*chunk.input_ids, *chunk.token_ids)
        for token_id in (min(ids), max(ids)):
            if not 0 <= token_id < info.vocab_size:
                raise InvalidInput(f"Token id {token_id} is outside the vocabulary of {info.vocab_size}.")
        if chunk.wanted == "token_logits" and not chunk.token_ids:
            raise InvalidInput(f"Sequence {chunk.sequence}: token_logits of no token_ids.")
        if not 1 <= chunk.num_rows <= (num_new if chunk.wanted == "tail_logits" else 1):
            raise InvalidInput(f"Sequence {chunk.sequence}: {chunk.num_rows} rows of {chunk.wanted} for {num_new} ids.")
        if num_cached + num_new > info.max_context_tokens:
            raise ContextLengthExceeded(
                f"{num_cached} cached + {num_new} new tokens exceed the context of {info.max_context_tokens} tokens "
                f"of model {info.model}.",
                hint="Shorten the text or the history.",
            )
