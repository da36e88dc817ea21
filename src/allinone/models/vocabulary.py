"""The vocabulary of a byte-level BPE tokenizer, read from the files it may come in.

Owns the readers: `tokenizer.json`, or `vocab.json` + `merges.txt` + `tokenizer_config.json`, or the metadata of a GGUF;
and the rule which tokens are control tokens. Knows no encoding: `tokenizer.py` does that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeGuard

from allinone.errors import TokenizerMismatch, WeightsNotFound
from allinone.models.tokenizer_files import (
    AddedToken,
    GenerationConfig,
    TokenizerConfig,
    TokenizerFile,
    read_file,
    read_tokenizer_config,
)

# The pre-tokenizer of every Qwen since Qwen1.5: a GGUF only names it ("qwen2"), and so does vocab.json + merges.txt.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_PRE_TOKENIZER: Mapping[str, Any] = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": QWEN2_PATTERN}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
    ],
}
_MAX_IDS = 1 << 24  # a hundred times Qwen's
_STOP_NAMES = ("<|im_end|>", "<|endoftext|>")
_CONTROL_SHAPE = re.compile(r"<\|[^<>|\s]+\|>")
_PADDING_SHAPE = re.compile(r"\[PAD\d+\]")
_GGUF_NORMAL, _GGUF_UNKNOWN, _GGUF_CONTROL, _GGUF_USER_DEFINED, _GGUF_UNUSED = 1, 2, 3, 4, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What a byte-level BPE tokenizer is made of.

    Attributes:
        file: where it was read, for messages.
        tokens: byte-level spelling -> id, control tokens left out: no text of a user can reach one.
        merges: pairs in order of priority.
        control_tokens: text -> id of everything that is matched as a whole in trusted text.
        hidden: those of them that are never shown in an output (`<|im_end|>`; not `<think>`).
        pre_tokenizer: in the form of `tokenizer.json`.
        normalization: what the model's own tokenizer does to text first; applied to trusted text only.
        stop_ids: ids that end a reply.
        vocab_size: number of ids the source lists, padding included.
        repaired: control tokens that the source did not flag as such.
    """

    file: str = field(compare=False)
    tokens: Mapping[str, int]
    merges: Sequence[tuple[str, str]]
    control_tokens: Mapping[str, int]
    hidden: frozenset[str]
    pre_tokenizer: Mapping[str, Any]
    normalization: Literal["NFC"] | None
    stop_ids: frozenset[int]
    vocab_size: int
    repaired: tuple[str, ...] = ()


def read_vocabulary_folder(folder: Path) -> Vocabulary:
    """The vocabulary of a Hugging Face model folder, or of a compiled one.

    Raises:
        WeightsNotFound: neither `tokenizer.json` nor `vocab.json` and `merges.txt` are there.
        TokenizerMismatch: not a byte-level BPE, or something the product would have to guess.
    """
    config = read_tokenizer_config(folder)
    pre_tokenizer, normalization = QWEN2_PRE_TOKENIZER, "NFC"
    added = list(config.added_tokens_decoder.items())
    if (folder / "tokenizer.json").is_file():
        file = folder / "tokenizer.json"
        document = read_file(TokenizerFile, file)
        if document.model.type != "BPE":
            raise TokenizerMismatch(
                f"{file}: model {document.model.type!r} is not supported. Supported: BPE (byte-level)"
            )
        tokens, merges = document.model.vocab, _merge_pairs(document.model.merges, file)
        pre_tokenizer, normalization = document.pre_tokenizer, _normalization(document.normalizer, file)
        added += [(token.id, token) for token in document.added_tokens]
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        file = folder / "vocab.json"
        tokens = read_file(dict[str, int], file)
        lines = (folder / "merges.txt").read_bytes().decode("utf-8", errors="replace").split("\n")
        merges = _merge_pairs(
            [line for line in lines if line and not line.startswith("#version")], folder / "merges.txt"
        )
        if (folder / "added_tokens.json").is_file():
            older = read_file(dict[str, int], folder / "added_tokens.json")
            added += [(token_id, AddedToken(content=text, special=True)) for text, token_id in older.items()]
    else:
        raise WeightsNotFound(
            f"{folder} has no tokenizer: neither tokenizer.json nor vocab.json and merges.txt",
            hint="download the model's tokenizer files into the same folder",
        )
    return _assemble(
        tokens=tokens,
        merges=merges,
        flagged=_added_tokens(added, file),
        pre_tokenizer=pre_tokenizer,
        normalization=normalization,
        stop_ids=_stop_ids_of_folder(folder, config),
        stop_names=[config.text_of("eos_token")],
        vocab_size=config.vocab_size,
        file=str(file),
    )


def read_vocabulary_gguf(metadata: Mapping[str, Any], *, file: str) -> Vocabulary:
    """The vocabulary inside a GGUF.

    Raises:
        TokenizerMismatch: no vocabulary, another kind of tokenizer, or a pre-tokenizer that is not Qwen's.
    """
    kind, tokens = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.tokens")
    if kind != "gpt2" or not _is_text_list(tokens):
        raise TokenizerMismatch(f"{file}: tokenizer {kind!r} is not supported. Supported: gpt2 (byte-level BPE)")
    # Files converted before May 2024, the official Qwen1.5 ones among them, do not name their pre-tokenizer.
    if (pre := metadata.get("tokenizer.ggml.pre", "qwen2")) != "qwen2":
        raise TokenizerMismatch(f"{file}: pre-tokenizer {pre!r} is not supported. Supported: qwen2")
    types = metadata.get("tokenizer.ggml.token_type", [_GGUF_NORMAL] * len(tokens))
    merges = metadata.get("tokenizer.ggml.merges")
    if not _is_text_list(merges):
        raise TokenizerMismatch(f"{file} has no merges; a byte-level BPE needs them")
    if not isinstance(types, list) or len(types) != len(tokens):
        raise TokenizerMismatch(f"{file}: the list of token types does not fit its {len(tokens)} tokens")
    spelled: dict[str, int] = {}
    flagged: dict[str, tuple[int, bool]] = {}
    for token_id, (text, token_type) in enumerate(zip(tokens, types, strict=True)):
        if token_type == _GGUF_UNUSED or (token_type == _GGUF_USER_DEFINED and _PADDING_SHAPE.fullmatch(text)):
            continue  # rows that only fill up the matrix
        if token_type in (_GGUF_CONTROL, _GGUF_UNKNOWN, _GGUF_USER_DEFINED):
            flagged[text] = (token_id, token_type != _GGUF_USER_DEFINED)
        elif spelled.setdefault(text, token_id) != token_id:
            raise TokenizerMismatch(f"{file}: tokens {spelled[text]} and {token_id} are both {text!r}")
    stop_keys = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
    return _assemble(
        tokens=spelled,
        merges=_merge_pairs(merges, file),
        flagged=flagged,
        pre_tokenizer=QWEN2_PRE_TOKENIZER,
        normalization="NFC",
        stop_ids=[metadata[key] for key in stop_keys if key in metadata],
        stop_names=[],
        vocab_size=len(tokens),
        file=file,
    )


def _assemble(
    *,
    tokens: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    flagged: Mapping[str, tuple[int, bool]],
    pre_tokenizer: Mapping[str, Any] | None,
    normalization: Literal["NFC"] | None,
    stop_ids: Iterable[Any],
    stop_names: Iterable[str],
    vocab_size: int | None,
    file: str,
) -> Vocabulary:
    """Separate control tokens from spelled ones.

    A `<|…|>` that no merge can spell is a control token, flagged or not: as an ordinary token it could never be
    reached, and every prompt would silently spell its markers out.
    """
    suspects = {text for text in tokens if text not in flagged and _CONTROL_SHAPE.fullmatch(text)}
    if suspects:
        suspects -= {left + right for left, right in merges}
    control = {text: token_id for text, (token_id, _) in flagged.items()} | {text: tokens[text] for text in suspects}
    spelled = {text: token_id for text, token_id in tokens.items() if text not in control}
    taken = set(spelled.values())
    for text, token_id in control.items():
        if token_id in taken:
            raise TokenizerMismatch(f"{file}: control token {text!r} shares its id {token_id} with another token")
    ids = taken.union(control.values())
    num_ids = max(ids, default=-1) + 1
    if min(ids, default=0) < 0 or num_ids > _MAX_IDS:
        raise TokenizerMismatch(f"{file} is damaged: its token ids go from {min(ids)} to {max(ids)}")
    stops = [*stop_ids, *(control[name] for name in (*_STOP_NAMES, *stop_names) if name in control)]
    if not stops or not all(isinstance(token_id, int) and 0 <= token_id < num_ids for token_id in stops):
        raise TokenizerMismatch(f"{file}: no usable end token: {stops or 'none'} with {num_ids} tokens")
    if pre_tokenizer is None:
        raise TokenizerMismatch(f"{file} has no pre-tokenizer; a byte-level BPE needs one")
    return Vocabulary(
        file=file,
        tokens=spelled,
        merges=merges,
        control_tokens=control,
        hidden=frozenset({text for text, (_, is_hidden) in flagged.items() if is_hidden} | suspects),
        pre_tokenizer=pre_tokenizer,
        normalization=normalization,
        stop_ids=frozenset(stops),
        vocab_size=max(num_ids, vocab_size or 0),
        repaired=tuple(sorted(suspects)),
    )


def _added_tokens(added: Iterable[tuple[int, AddedToken]], file: Path) -> dict[str, tuple[int, bool]]:
    """Text -> (id, hidden) of the added tokens; refuses those that would swallow the text around them."""
    flagged: dict[str, tuple[int, bool]] = {}
    for token_id, token in added:
        text = token.content
        for option in ("lstrip", "rstrip", "single_word"):
            if getattr(token, option):
                raise TokenizerMismatch(f"{file}: control token {text!r} has {option}, which is not supported")
        if flagged.get(text, (token_id,))[0] != token_id:
            raise TokenizerMismatch(f"{file}: control token {text!r} has two ids, {flagged[text][0]} and {token_id}")
        flagged[text] = (token_id, token.special)
    return flagged


def _stop_ids_of_folder(folder: Path, config: TokenizerConfig) -> list[int]:
    if config.stop_token_ids is not None:  # written by BpeTokenizer.save
        return config.stop_token_ids
    if not (folder / "generation_config.json").is_file():
        return []
    eos = read_file(GenerationConfig, folder / "generation_config.json").eos_token_id
    return eos if isinstance(eos, list) else [] if eos is None else [eos]


def _normalization(normalizer: Mapping[str, Any] | None, file: Path) -> Literal["NFC"] | None:
    if normalizer is None:
        return None
    if normalizer.get("type") == "NFC":
        return "NFC"
    raise TokenizerMismatch(f"{file}: normaliser {normalizer.get('type')!r} is not supported. Supported: NFC, none")


def _merge_pairs(merges: Sequence[str] | Sequence[tuple[str, str]], file: Path | str) -> list[tuple[str, str]]:
    """Merges as pairs; older files write them as one text with a space."""
    pairs: list[tuple[str, str]] = []
    for merge in merges:
        parts = tuple(merge.split(" ")) if isinstance(merge, str) else merge
        if len(parts) != 2:
            raise TokenizerMismatch(f"{file}: {merge!r} is not a merge of two tokens")
        pairs.append(parts)
    return pairs


def _is_text_list(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)
