"""Text ↔ token ids. What the user wrote can never become a control token, by construction.

`BpeTokenizer` holds one encoder that knows no control tokens at all; trusted text is cut at its control tokens first
and the pieces in between go through the same encoder. Values are never normalised: their bytes come back as they came.
Above: `tasks/encoder.py` and the engine. Below: `vocabulary.py`, and Hugging Face `tokenizers` for the byte-level BPE.

Source: docs/decisions/0004-tokenizer-and-template.md
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from allinone.errors import InvalidInput, TokenizerMismatch
from allinone.models.vocabulary import Vocabulary, read_vocabulary_folder, read_vocabulary_gguf

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Encoder

# Every kind of character that a pre-tokenizer could swallow or change.
_PROBE = "A\tb  c\r\n\n 1２3 I'll…\u00a0你好，\u200b世界！e\u0301é 😶‍🌫️ \u202eab <|im_start|> [PAD1] \x00\x7f "


@runtime_checkable
class Tokenizer(Protocol):
    """The seam to a model's tokenizer. Every method is a pure function, safe to call from any thread."""

    @property
    def vocab_size(self) -> int:
        """Number of ids, padding rows included."""
        ...

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """Control token -> id."""
        ...

    @property
    def control_ids(self) -> frozenset[int]:
        """Ids that no value may ever yield."""
        ...

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end a reply."""
        ...

    def tokenize(self, text: str, *, control: bool) -> list[int]:
        """Ids of `text`. With `control`, control tokens in it are real; without, they stay plain text.

        Raises:
            InvalidInput: the text holds a lone surrogate.

        Invariant: `detokenize(tokenize(text, control=False)) == text`.
        """
        ...

    def detokenize(self, ids: Iterable[int]) -> str:
        """Text of the ids; control tokens are left out, invalid bytes become U+FFFD."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes one id stands for; none for a control token or a padding row."""
        ...

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into a folder."""
        ...


class BpeTokenizer:
    """A byte-level BPE tokenizer (`Tokenizer`), as all Qwen models have.

    Args:
        vocabulary: what was read from the model.
        vocab_size: rows of the model's embedding, where it has more of them than the vocabulary has ids (padding).

    Raises:
        TokenizerMismatch: the vocabulary cannot spell every byte, changes text, or does not fit the model.
    """

    def __init__(self, vocabulary: Vocabulary, *, vocab_size: int | None = None) -> None:
        self.vocabulary = vocabulary
        self._vocab_size = vocabulary.vocab_size if vocab_size is None else vocab_size
        if self._vocab_size < vocabulary.vocab_size:
            raise TokenizerMismatch(
                f"{vocabulary.file}: the tokenizer has {vocabulary.vocab_size:,} ids, "
                f"the model only {self._vocab_size:,} rows",
                hint="tokenizer and weights belong to different models",
            )
        self._encoder = _build_encoder(vocabulary)
        self._control_ids = frozenset(vocabulary.control_tokens.values())
        self._shown = {
            token_id: text.encode("utf-8")
            for text, token_id in vocabulary.control_tokens.items()
            if text not in vocabulary.hidden
        }
        longest_first = sorted(vocabulary.control_tokens, key=len, reverse=True)
        self._control_pattern = re.compile(f"({'|'.join(map(re.escape, longest_first))})") if longest_first else None
        if self.detokenize(self.tokenize(_PROBE, control=False)) != _PROBE:
            raise TokenizerMismatch(f"{vocabulary.file}: the tokenizer changes text: what goes in does not come back")

    @classmethod
    def load(cls, folder: Path, *, vocab_size: int | None = None) -> BpeTokenizer:
        """From a Hugging Face model folder, or from what `save` wrote."""
        return cls(read_vocabulary_folder(folder), vocab_size=vocab_size)

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], *, file: str, vocab_size: int | None = None) -> BpeTokenizer:
        """From the vocabulary inside a GGUF (`read_gguf_header(path).metadata`)."""
        return cls(read_vocabulary_gguf(metadata, file=file), vocab_size=vocab_size)

    @property
    def vocab_size(self) -> int:
        """See `Tokenizer.vocab_size`."""
        return self._vocab_size

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """See `Tokenizer.control_tokens`; tokens such as `<think>` count, though their text is shown."""
        return self.vocabulary.control_tokens

    @property
    def control_ids(self) -> frozenset[int]:
        """See `Tokenizer.control_ids`."""
        return self._control_ids

    @property
    def stop_ids(self) -> frozenset[int]:
        """See `Tokenizer.stop_ids`."""
        return self.vocabulary.stop_ids

    def tokenize(self, text: str, *, control: bool) -> list[int]:
        """See `Tokenizer.tokenize`. Trusted text is normalised as the model's own tokenizer does it (NFC for Qwen)."""
        if not control:
            return self._spell(text)
        ids: list[int] = []
        for piece in self._control_pattern.split(text) if self._control_pattern else [text]:
            token_id = self.vocabulary.control_tokens.get(piece)
            if token_id is not None:
                ids.append(token_id)
            elif piece:
                ids += self._spell(self._normalize(piece))
        return ids

    def detokenize(self, ids: Iterable[int]) -> str:
        """See `Tokenizer.detokenize`."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """See `Tokenizer.token_bytes`.

        Raises:
            IndexError: outside the vocabulary.
        """
        if not 0 <= token_id < self._vocab_size:
            raise IndexError(f"Token id {token_id} is outside the vocabulary of {self._vocab_size}")
        if token_id in self._control_ids:
            return self._shown.get(token_id, b"")
        spelling = self._encoder.id_to_token(token_id)
        return b"" if spelling is None else spelling.translate(_BYTE_OF_CHARACTER).encode("latin-1")

    def to_json(self) -> str:
        """The whole tokenizer as a `tokenizer.json`, control tokens and normaliser included."""
        document = json.loads(self._encoder.to_str())
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        by_id = sorted(self.control_tokens.items(), key=lambda entry: entry[1])
        document["added_tokens"] = [
            {"id": token_id, "content": text, **flags, "special": text in self.vocabulary.hidden}
            for text, token_id in by_id
        ]
        document["normalizer"] = {"type": self.vocabulary.normalization} if self.vocabulary.normalization else None
        return json.dumps(document, ensure_ascii=False)

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`: other tools open them too."""
        config = {
            "tokenizer_class": "Qwen2Tokenizer",
            "stop_token_ids": sorted(self.stop_ids),
            "vocab_size": self._vocab_size,
        }
        (folder / "tokenizer.json").write_text(self.to_json(), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def _normalize(self, text: str) -> str:
        return unicodedata.normalize("NFC", text) if self.vocabulary.normalization == "NFC" else text

    def _spell(self, text: str) -> list[int]:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"The text holds half a character (U+{ord(text[error.start]):04X}) at position {error.start}",
                hint="the input was cut or decoded wrongly; UTF-8 text never holds a lone surrogate",
            ) from error
        return self._encoder.encode(text, add_special_tokens=False).ids


def _build_encoder(vocabulary: Vocabulary) -> Encoder:
    """A `tokenizers.Tokenizer` without control tokens and without a normaliser."""
    from tokenizers import Tokenizer as Encoder
    from tokenizers.models import BPE

    missing = _ALPHABET - vocabulary.tokens.keys()
    if missing:
        raise TokenizerMismatch(f"{vocabulary.file} lacks {len(missing)} of the 256 bytes: text would be lost")
    strange = set("".join(vocabulary.tokens)) - _ALPHABET
    if strange:
        raise TokenizerMismatch(f"{vocabulary.file} is not byte-level: it has characters such as {min(strange)!r}")
    skeleton = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": vocabulary.pre_tokenizer,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    try:
        encoder = Encoder.from_str(json.dumps(skeleton))
        encoder.model = BPE(vocab=dict(vocabulary.tokens), merges=list(vocabulary.merges))
    except Exception as error:  # `tokenizers` raises plain Exception
        raise TokenizerMismatch(f"{vocabulary.file} is inconsistent: {error}") from error
    return encoder


def _byte_characters() -> dict[str, int]:
    """GPT-2's reversible spelling of bytes as printable characters: character -> byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTE_OF_CHARACTER = {ord(character): byte for character, byte in _byte_characters().items()}
_ALPHABET = frozenset(_byte_characters())
