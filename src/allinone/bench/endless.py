"""A tokenizer under which replies never end by themselves, so that decoding is timed over as many tokens as is wanted.

Everything else is the model's own tokenizer. Below: `models/tokenizer.py`; above: `runner.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from allinone.models.tokenizer import Tokenizer


class EndlessTokenizer:
    """A model's tokenizer without its stop ids (`Tokenizer`).

    The engine needs one stop id. It gets a control token that begins a turn rather than ends one; where there is none
    (base models), the model's own stop ids stay.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        others = sorted(tokenizer.control_ids - tokenizer.stop_ids)
        self._stop_ids = frozenset(others[:1]) or tokenizer.stop_ids

    @property
    def vocab_size(self) -> int:
        """See `Tokenizer.vocab_size`."""
        return self._tokenizer.vocab_size

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """See `Tokenizer.control_tokens`."""
        return self._tokenizer.control_tokens

    @property
    def control_ids(self) -> frozenset[int]:
        """See `Tokenizer.control_ids`."""
        return self._tokenizer.control_ids

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end a reply: those that never come."""
        return self._stop_ids

    def tokenize(self, text: str, *, control: bool) -> list[int]:
        """See `Tokenizer.tokenize`."""
        return self._tokenizer.tokenize(text, control=control)

    def detokenize(self, ids: Iterable[int]) -> str:
        """See `Tokenizer.detokenize`."""
        return self._tokenizer.detokenize(ids)

    def token_bytes(self, token_id: int) -> bytes:
        """See `Tokenizer.token_bytes`."""
        return self._tokenizer.token_bytes(token_id)

    def save(self, folder: Path) -> None:
        """See `Tokenizer.save`; writes the model's own tokenizer."""
        self._tokenizer.save(folder)
