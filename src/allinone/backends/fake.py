"""A backend without weights: logits are a hash of the ids so far. Deterministic, instant, and it ships in the package.

It implements `Backend` exactly (forks, trims, frees, context limit), so everything above the seam can be tested, and
demonstrated, without a model. `ByteTokenizer` is the tokenizer that fits it: 256 bytes and three control tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from allinone.backends.base import BackendInfo, Chunk, FloatArray, SequenceId, check_batch
from allinone.errors import CacheFull, InvalidInput, UsageError

_MASK = (1 << 64) - 1
_SCRIPTED_LOGIT = np.float32(50.0)


@dataclass(frozen=True, slots=True)
class _Node:
    """The last token of some sequence, linked to what came before: a fork is a reference, a trim walks back."""

    parent: _Node | None
    token_id: int
    state: int
    length: int


_ROOT = _Node(None, -1, 0x9E3779B97F4A7C15, 0)


class FakeBackend:
    """A backend whose logits are uniform in [-4, 4) and depend on the whole sequence of ids, and on nothing else.

    Args:
        vocab_size: number of logits; the default fits `ByteTokenizer`.
        script: what to say: after ids that end with a key, the ids of its value become near certain, one by one. The
            longest key wins.
        hidden_size: width of "last_hidden".
        max_context_tokens: longest sequence.
        has_exact_drafts: whether streams may guess; the logits are the same either way.
    """

    def __init__(
        self,
        *,
        vocab_size: int = 259,
        script: Mapping[Sequence[int], Sequence[int]] | None = None,
        hidden_size: int = 16,
        max_context_tokens: int = 8192,
        max_sequences: int | None = None,
        has_exact_drafts: bool = False,
    ) -> None:
        self._info = BackendInfo(
            name="fake",
            model="fake",
            quantization="none",
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            max_context_tokens=max_context_tokens,
            kv_bytes_per_token=64,
            num_threads=1,
            max_sequences=max_sequences,
            has_exact_drafts=has_exact_drafts,
        )
        self._script = sorted(
            ((tuple(key), tuple(value)) for key, value in (script or {}).items()), key=lambda entry: -len(entry[0])
        )
        self._salt = np.arange(max(vocab_size, hidden_size), dtype=np.uint64) * np.uint64(0xD1342543DE82EF95)
        self._tips: dict[SequenceId, _Node] = {}
        self._next_id = 0

    @property
    def info(self) -> BackendInfo:
        """Static description."""
        return self._info

    def extend(self, batch: Sequence[Chunk]) -> list[FloatArray | None]:
        """See `Backend.extend`."""
        check_batch(batch, self._info, self.num_cached_tokens)
        holding = {sequence for sequence, node in self._tips.items() if node.length} | {one.sequence for one in batch}
        if self._info.max_sequences is not None and len(holding) > self._info.max_sequences:
            raise CacheFull(f"{len(holding)} sequences are more than {self._info.max_sequences}.")
        return [self._extend_one(chunk) for chunk in batch]

    def fork(self, source: SequenceId | None = None) -> SequenceId:
        """See `Backend.fork`."""
        sequence = SequenceId(self._next_id)
        self._next_id += 1
        self._tips[sequence] = _ROOT if source is None else self._tip(source)
        return sequence

    def trim(self, sequence: SequenceId, num_tokens: int) -> None:
        """See `Backend.trim`."""
        node = self._tip(sequence)
        if not 0 <= num_tokens <= node.length:
            raise UsageError(f"Cannot trim sequence {sequence} to {num_tokens} tokens: it holds {node.length}.")
        self._tips[sequence] = self._ancestor(node, num_tokens)

    def free(self, sequence: SequenceId) -> None:
        """See `Backend.free`."""
        self._tip(sequence)
        del self._tips[sequence]

    def num_cached_tokens(self, sequence: SequenceId) -> int:
        """See `Backend.num_cached_tokens`."""
        return self._tip(sequence).length

    def num_sequences(self) -> int:
        """See `Backend.num_sequences`."""
        return len(self._tips)

    def close(self) -> None:
        """See `Backend.close`."""
        self._tips.clear()

    def _tip(self, sequence: SequenceId) -> _Node:
        if sequence not in self._tips:
            raise UsageError(f"Unknown sequence {sequence}: it was freed or never forked.")
        return self._tips[sequence]

    def _extend_one(self, chunk: Chunk) -> FloatArray | None:
        node = self._tips[chunk.sequence]
        nodes = list[_Node]()
        for token_id in chunk.input_ids:
            node = _Node(node, token_id, _mix(node.state ^ (token_id + 1)), node.length + 1)
            nodes.append(node)
        self._tips[chunk.sequence] = node
        if chunk.wanted == "tail_logits":
            return np.stack([self._logits(node) for node in nodes[-chunk.num_rows :]])
        if chunk.wanted == "last_logits":
            return self._logits(node)
        if chunk.wanted == "token_logits":
            return self._logits(node)[list(chunk.token_ids)]
        if chunk.wanted == "last_hidden":
            return self._numbers(node, self._info.hidden_size)
        return None

    def _logits(self, node: _Node) -> FloatArray:
        logits = self._numbers(node, self._info.vocab_size)
        token_id = self._scripted(node)
        if token_id is not None:
            logits[token_id] = _SCRIPTED_LOGIT
        return logits

    def _numbers(self, node: _Node, count: int) -> FloatArray:
        """`count` float32 in [-4, 4): splitmix64 of the state and the index."""
        bits: NDArray[np.uint64] = self._salt[:count] ^ np.uint64(node.state)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return (bits >> np.uint64(41)).astype(np.float32) * np.float32(8 / 2**23) - np.float32(4)

    def _scripted(self, node: _Node) -> int | None:
        """The id the script wants next, if the ids so far end with a key and a part of its value."""
        if not self._script:
            return None
        longest = max(len(key) + len(value) for key, value in self._script)
        ids = _last_ids(node, longest)
        for key, value in self._script:
            for said in range(len(value)):
                ending = key + value[:said]
                if ids[len(ids) - len(ending) :] == ending:
                    return value[said]
        return None

    @staticmethod
    def _ancestor(node: _Node, length: int) -> _Node:
        while node.length > length and node.parent is not None:
            node = node.parent
        return node


def _mix(state: int) -> int:
    """One round of splitmix64 on a 64-bit integer."""
    state = (state + 0x9E3779B97F4A7C15) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)


def _last_ids(node: _Node, count: int) -> tuple[int, ...]:
    ids: list[int] = []
    while node.parent is not None and len(ids) < count:
        ids.append(node.token_id)
        node = node.parent
    return tuple(reversed(ids))


class ByteTokenizer:
    """One token per UTF-8 byte, and the three control tokens of ChatML: ids 256, 257, 258."""

    _CONTROL: ClassVar[Mapping[str, int]] = {"<|endoftext|>": 256, "<|im_start|>": 257, "<|im_end|>": 258}

    @property
    def vocab_size(self) -> int:
        """See `Tokenizer.vocab_size`."""
        return 256 + len(self._CONTROL)

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """Control token -> id."""
        return self._CONTROL

    @property
    def control_ids(self) -> frozenset[int]:
        """Ids that no value may ever yield."""
        return frozenset(self._CONTROL.values())

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end a reply."""
        return frozenset({self._CONTROL["<|endoftext|>"], self._CONTROL["<|im_end|>"]})

    def tokenize(self, text: str, *, control: bool) -> list[int]:
        """See `Tokenizer.tokenize`: the bytes of `text`; with `control`, control tokens in it become their ids."""
        ids: list[int] = []
        while control and (places := [(text.find(token), token) for token in self._CONTROL if token in text]):
            place, token = min(places)
            ids += [*_utf8(text[:place]), self._CONTROL[token]]
            text = text[place + len(token) :]
        return [*ids, *_utf8(text)]

    def detokenize(self, ids: Iterable[int]) -> str:
        """Text of the ids; control tokens are left out, invalid bytes become U+FFFD."""
        return b"".join(self.token_bytes(token_id) for token_id in ids).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one id; none for a control token."""
        return bytes([token_id]) if 0 <= token_id < 256 else b""

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json`; there is nothing to say but the name."""
        (folder / "tokenizer.json").write_text(
            json.dumps({"type": "byte", "control": dict(self._CONTROL)}), encoding="utf-8"
        )


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInput(f"The text holds half a character at position {error.start}: it is not UTF-8.") from error
