"""Endless streams of packed rows, and the mixture of them that a step trains on."""

import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.packing import PAD_GROUP
from training.settings import Schedule

PATTERNS = {
    "tasks": "shard-??.npz",
    "plain": "plain.npz",
    "copy": "copy-??.npz",
    "long": "long-??.npz",
    "tail": "tail-??.npz",
    "chat": "chat-??.npz",
    "remarks": "remarks-??.npz",
    "reviews": "reviews-??.npz",
    "typos": "typos-??.npz",
}


def joined(rows: dict[str, np.ndarray], width: int) -> dict[str, np.ndarray]:
    """Rows laid side by side until they are `width` long, so that every step has one shape; groups stay apart.

    Raises:
        ValueError: the rows do not fit, or have more groups than can be told apart.
    """
    length = rows["ids"].shape[1]
    each, rest = divmod(width, length)
    if each < 1 or rest:
        raise ValueError(f"rows of {length} places do not make up one of {width}")
    if each == 1:
        return rows
    count = len(rows["ids"]) // each
    cut = {name: values[: count * each] for name, values in rows.items()}
    group = cut["group"].reshape(count, each, length)
    step = PAD_GROUP // each
    if int(group[group != PAD_GROUP].max()) >= step:
        raise ValueError(f"a row of {length} places has more than {step} groups")
    shifted = group + (np.arange(each, dtype=np.uint8) * np.uint8(step))[None, :, None]
    cut["group"] = np.where(group == PAD_GROUP, PAD_GROUP, shifted).astype(np.uint8)
    return {name: values.reshape(count, width) for name, values in cut.items()}


class Rows:
    """An endless shuffled stream of packed rows, one shard a pass; shards that appear meanwhile are taken up."""

    def __init__(self, folder: Path, pattern: str, width: int, seed: int, passes: int = 0) -> None:
        """Reads the files of `folder` that match `pattern`, beginning with number `passes` of them, when asked.

        A `width` of 0 leaves rows as long as they were packed.
        """
        self.folder, self.pattern, self.width = folder, pattern, width
        self.rng, self.passes = np.random.default_rng(seed), passes
        self.rows: dict[str, np.ndarray] = {}

    def _load(self) -> None:
        paths = sorted(self.folder.glob(self.pattern))
        if not paths:
            raise SystemExit(
                f"No '{self.pattern}' in '{self.folder}': run training.tokenizer and training.corpus first."
            )
        rows = dict(np.load(paths[self.passes % len(paths)]))
        self.rows = joined(rows, self.width) if self.width else rows
        self.order = self.rng.permutation(len(self.rows["ids"]))
        self.at = 0

    def take(self, places: int) -> dict[str, Tensor]:
        """The next rows, `places` tokens together, as int64 tensors."""
        if not self.rows:
            self._load()
        count = max(1, places // self.rows["ids"].shape[1])
        if self.at + count > len(self.order):
            self.passes += 1
            self._load()
        chosen = self.order[np.arange(self.at, self.at + count) % len(self.order)]
        self.at += count
        return {key: torch.from_numpy(self.rows[key][chosen].astype(np.int64)) for key in self.rows}


class Mixture:
    """Chooses what the next step trains on: plain text and copying early, the best labelled texts at the end."""

    def __init__(self, folder: Path, schedule: Schedule, *, seed: int, passes: int) -> None:
        """Opens the shards of a run; `passes` of the task shards were read before."""
        self.schedule, self.draw = schedule, random.Random(seed)
        self.streams = {
            kind: Rows(folder, pattern, schedule.width, 1 + number + seed, passes if kind == "tasks" else 0)
            for number, (kind, pattern) in enumerate(PATTERNS.items())
        }

    def shares(self, done: float) -> dict[str, float]:
        """Probability of every kind but `tasks`, at a share of the time."""
        s = self.schedule
        return {
            "plain": s.plain_share * max(0.0, 1 - done / s.plain_until),
            "copy": s.copy_share * max(0.0, 1 - done / s.copy_until),
            "long": s.long_share if done > 1 / 3 else 0.0,
            "chat": s.chat_share if done > s.chat_from else 0.0,
            "typos": s.typo_share if done > s.typo_from else 0.0,
            "remarks": s.remark_share if done > s.remark_from else 0.0,
            "reviews": s.review_share if done > s.review_from else 0.0,
            "tail": s.tail_share if done > s.tail_from else 0.0,
        }

    def take(self, done: float) -> tuple[str, dict[str, Tensor]]:
        """(kind, rows) of about `batch_tokens` places, at a share of the time."""
        draw, kind = self.draw.random(), "tasks"
        for name, share in self.shares(done).items():
            if draw < share:
                kind = name
                break
            draw -= share
        return kind, self.streams[kind].take(self.schedule.batch_tokens)
