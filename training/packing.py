"""Packs examples into rows of one length; examples with the same prefix share it inside a row.

A row holds groups. A group is one prefix (document 0) and several suffixes (documents 1, 2, …): a suffix sees the
prefix and itself, positions continue from the prefix, so the computation equals running every example alone, while
the boilerplate of a prompt is paid once per group. Stored as flat uint arrays, one `.npz` per shard.
"""

import random
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.prompts import EDIT, INPUT, NONE, Part
from training.tokenizer import Codec

PAD_GROUP = 255
LOOK_AHEAD = 60  # examples that are tried for the rest of a row


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
        piece, spans = codec.encode_with_spans(part.text, control=part.control)
        ids += piece
        roles += [EDIT if touches(span, part.edits) else part.role for span in spans]
    return Encoded(prefix, ids, roles)


def touches(span: tuple[int, int], edits: Iterable[tuple[int, int]]) -> bool:
    """True when a token's characters overlap one of the edits."""
    return any(span[0] < end and start < span[1] for start, end in edits)


Bundle = tuple[tuple[int, ...], list[Encoded]]


def bundles(examples: Iterable[Encoded], row: int, rng: random.Random) -> Iterator[Bundle]:
    """Groups examples by prefix, as many as fit into a row together; what is too long is left out."""
    by_prefix: dict[tuple[int, ...], list[Encoded]] = defaultdict(list)
    for example in examples:
        if 0 < len(example.prefix) + len(example.ids) <= row:
            by_prefix[example.prefix].append(example)
    for prefix, members in by_prefix.items():
        rng.shuffle(members)
        waiting = deque(members)
        while waiting:
            bundle = [waiting.popleft()]
            free = row - len(prefix) - len(bundle[0].ids)
            for _ in range(min(len(waiting), LOOK_AHEAD if prefix else 0)):
                if len(waiting[0].ids) <= free and len(bundle) < PAD_GROUP - 1:
                    bundle.append(waiting.popleft())
                    free -= len(bundle[-1].ids)
                else:
                    waiting.rotate(-1)
            yield prefix, bundle


def fill_rows(todo: list[Bundle], row: int) -> list[list[Bundle]]:
    """Puts bundles into as few rows as it can: the largest first, each into the fullest row that has room."""
    sized = sorted(((len(b[0]) + sum(len(e.ids) for e in b[1]), i) for i, b in enumerate(todo)), reverse=True)
    rows: list[list[Bundle]] = []
    by_free: list[list[int]] = [[] for _ in range(row + 1)]
    for size, index in sized:
        free = next((f for f in range(size, row) if by_free[f]), row)
        if free == row:
            rows.append([])
            chosen = len(rows) - 1
        else:
            chosen = by_free[free].pop()
        rows[chosen].append(todo[index])
        by_free[free - size].append(chosen)
    return rows


def pack(examples: Iterable[Encoded], row: int, rng: random.Random) -> dict[str, np.ndarray]:
    """Rows (n, row) as arrays `ids`, `pos`, `group`, `doc`, `role`, in random order."""
    todo = list(bundles(examples, row, rng))
    rng.shuffle(todo)
    rows = fill_rows(todo, row)
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
    causal = torch.ones(group.shape[1], group.shape[1], dtype=torch.bool, device=group.device).tril()
    return (same_group & visible & causal)[:, None]
