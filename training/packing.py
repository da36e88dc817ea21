"""Packs examples into rows of one length; examples with the same prefix share it inside a row.

A row holds groups. A group is one prefix (document 0) and several suffixes (documents 1, 2, …): a suffix sees the
prefix and itself, positions continue from the prefix, so the computation equals running every example alone, while
the boilerplate of a prompt is paid once per group. Stored as flat uint arrays, one `.npz` per shard.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.prompts import INPUT, NONE, Part
from training.tokenizer import Codec

PAD_GROUP = 255


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as ids: the shareable prefix, then the rest with the loss role of every token."""

    prefix: tuple[int, ...]
    ids: list[int]
    roles: list[int]


def encode_example(parts: Iterable[Part], codec: Codec) -> Encoded:
    """Ids of an example: adjacent operator text is merged and tokenised as one, values are tokenised alone."""
    merged: list[Part] = []
    for part in parts:
        if merged and part.control and merged[-1].control and part.role == merged[-1].role == NONE:
            merged[-1] = Part(merged[-1].text + part.text, True)
        else:
            merged.append(part)
    prefix = tuple(codec.encode(merged[0].text, control=True)) if merged[0].control else ()
    ids: list[int] = []
    roles: list[int] = []
    for part in merged[1:] if prefix else merged:
        piece = codec.encode(part.text, control=part.control)
        ids += piece
        roles += [part.role] * len(piece)
    return Encoded(prefix, ids, roles)


Bundle = tuple[tuple[int, ...], list[Encoded]]


def bundles(examples: Iterable[Encoded], row: int, rng: random.Random, most: int = 6) -> Iterator[Bundle]:
    """Groups examples by prefix, at most `most` of them and at most a row together; what is too long is left out."""
    by_prefix: dict[tuple[int, ...], list[Encoded]] = defaultdict(list)
    for example in examples:
        if 0 < len(example.prefix) + len(example.ids) <= row:
            by_prefix[example.prefix].append(example)
    for prefix, members in by_prefix.items():
        rng.shuffle(members)
        bundle: list[Encoded] = []
        used = len(prefix)
        for member in members:
            full = len(bundle) >= (most if prefix else 1)
            if bundle and (full or used + len(member.ids) > row):
                yield prefix, bundle
                bundle, used = [], len(prefix)
            bundle.append(member)
            used += len(member.ids)
        if bundle:
            yield prefix, bundle


def pack(examples: Iterable[Encoded], row: int, rng: random.Random) -> dict[str, np.ndarray]:
    """Rows (n, row) as arrays `ids`, `pos`, `group`, `doc`, `role`; first fit over a small window of open rows."""
    todo = list(bundles(examples, row, rng))
    rng.shuffle(todo)
    rows: list[list[Bundle]] = []
    open_rows: list[tuple[int, list[Bundle]]] = []
    for bundle in todo:
        size = len(bundle[0]) + sum(len(e.ids) for e in bundle[1])
        fit = next((i for i, (free, _) in enumerate(open_rows) if free >= size), None)
        if fit is None:
            open_rows.append((row - size, [bundle]))
            if len(open_rows) > 64:
                open_rows.sort(key=lambda r: r[0])
                rows.append(open_rows.pop(0)[1])
        else:
            free, members = open_rows[fit]
            members.append(bundle)
            open_rows[fit] = (free - size, members)
    rows += [members for _, members in open_rows]
    rng.shuffle(rows)
    shape = (len(rows), row)
    out = {
        "ids": np.zeros(shape, np.uint16),
        "pos": np.zeros(shape, np.uint16),
        "group": np.full(shape, PAD_GROUP, np.uint8),
        "doc": np.zeros(shape, np.uint8),
        "role": np.zeros(shape, np.uint8),
    }
    for r, members in enumerate(rows):
        at = 0
        for g, (prefix, bundle) in enumerate(members):
            documents = [(list(prefix), [NONE] * len(prefix)), *((e.ids, e.roles) for e in bundle)]
            for d, (ids, roles) in enumerate(documents):
                span = slice(at, at + len(ids))
                start = len(prefix) if d else 0
                out["ids"][r, span] = ids
                out["pos"][r, span] = range(start, start + len(ids))
                out["group"][r, span], out["doc"][r, span], out["role"][r, span] = g, d, roles
                at += len(ids)
    return out


def pack_plain(texts: Iterable[str], codec: Codec, row: int) -> dict[str, np.ndarray]:
    """Running text cut into full rows; every text starts a document of its own."""
    examples: list[Encoded] = []
    for text in texts:
        ids = [*codec.encode(text, control=False), codec.end_of_text]
        for start in range(0, len(ids), row):
            piece = ids[start : start + row]
            if len(piece) > 8:
                examples.append(Encoded((), piece, [INPUT] * len(piece)))
    return pack(examples, row, random.Random(0))


def attention_mask(group: Tensor, doc: Tensor) -> Tensor:
    """Boolean (batch, 1, length, length): causal, same group, and the key in the prefix or in the same document."""
    same_group = group[:, :, None] == group[:, None, :]
    visible = (doc[:, None, :] == 0) | (doc[:, :, None] == doc[:, None, :])
    causal = torch.ones(group.shape[1], group.shape[1], dtype=torch.bool).tril()
    return (same_group & visible & causal)[:, None]
