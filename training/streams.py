"""Endless streams of packed rows, and the mixture of them that a step trains on."""

import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.settings import Schedule


class Rows:
    """An endless shuffled stream of packed rows, one shard a pass; shards that appear meanwhile are taken up."""

    def __init__(self, folder: Path, pattern: str, seed: int, passes: int = 0) -> None:
        """Reads the files of `folder` that match `pattern`, beginning with number `passes` of them, when asked."""
        self.folder, self.pattern = folder, pattern
        self.rng, self.passes = np.random.default_rng(seed), passes
        self.rows: dict[str, np.ndarray] = {}

    def _load(self) -> None:
        paths = sorted(self.folder.glob(self.pattern))
        if not paths:
            raise SystemExit(
                f"No '{self.pattern}' in '{self.folder}': run training.tokenizer and training.corpus first."
            )
        self.rows = dict(np.load(paths[self.passes % len(paths)]))
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
            "tasks": Rows(folder, "shard-??.npz", 1 + seed, passes),
            "plain": Rows(folder, "plain.npz", 2 + seed),
            "copy": Rows(folder, "copy-??.npz", 3 + seed),
            "long": Rows(folder, "long-??.npz", 4 + seed),
            "tail": Rows(folder, "tail-??.npz", 5 + seed),
            "chat": Rows(folder, "chat-??.npz", 6 + seed),
            "remarks": Rows(folder, "remarks-??.npz", 7 + seed),
            "reviews": Rows(folder, "reviews-??.npz", 8 + seed),
        }

    def shares(self, done: float) -> dict[str, float]:
        """Probability of every kind but `tasks`, at a share of the time."""
        s = self.schedule
        return {
            "plain": s.plain_share * max(0.0, 1 - done / s.plain_until),
            "copy": s.copy_share * max(0.0, 1 - done / s.copy_until),
            "long": s.long_share if done > 1 / 3 else 0.0,
            "chat": s.chat_share if done > s.chat_from else 0.0,
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
