"""Trains the model of a profile by wall-clock time: stops by itself, resumes from its last checkpoint.

Muon (orthogonalised momentum) for the matrices of the layers, AdamW for embedding, norms and biases; BF16 compute,
FP32 weights; an exponential moving average of the weights is what gets exported. Reads the shards of `corpus`.
"""

import argparse
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.model import Qwen2
from training.packing import attention_mask
from training.prompts import ANSWER, INPUT, LABEL
from training.settings import Schedule, Settings, load_settings


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Newton–Schulz iteration: the nearest orthogonal matrix, roughly, of each (…, rows, columns).

    Source: Muon, Keller Jordan et al. 2024.
    """
    x = matrix.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.mT if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised, for matrices; equal shapes are processed together."""

    def __init__(self, parameters: list[torch.nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for shape, members in by_shape.items():
                pending = []
                for p in members:
                    buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    buffer.lerp_(p.grad, 1 - group["momentum"])
                    pending.append(p.grad.lerp(buffer, group["momentum"]))
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for p, update in zip(members, orthogonalise(torch.stack(pending)), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update, alpha=-group["lr"] * scale)


class Rows:
    """An endless shuffled stream of packed rows, one shard a pass; shards that appear meanwhile are taken up."""

    def __init__(self, folder: Path, pattern: str, seed: int, passes: int = 0) -> None:
        self.folder, self.pattern, self.rng = folder, pattern, np.random.default_rng(seed)
        self.passes = passes
        self._reload()

    def _reload(self) -> None:
        paths = sorted(self.folder.glob(self.pattern))
        self.rows = dict(np.load(paths[self.passes % len(paths)])) if paths else {}
        self.order = self.rng.permutation(len(self.rows["ids"])) if self.rows else np.zeros(0, int)
        self.at = 0

    def exists(self) -> bool:
        """True when there is a shard to read; looks again when there was none."""
        if not self.rows:
            self._reload()
        return bool(self.rows)

    def take(self, count: int) -> dict[str, Tensor]:
        """The next `count` rows as int64 tensors."""
        if self.at + count > len(self.order):
            self.passes += 1
            self._reload()
        chosen = self.order[self.at : self.at + count]
        self.at += count
        return {key: torch.from_numpy(self.rows[key][chosen].astype(np.int64)) for key in self.rows}


class Mixture:
    """Chooses what the next batch is made of: mostly tasks, plain text early, long rows and small talk later."""

    def __init__(self, folder: Path, schedule: Schedule, *, seed: int, passes: int) -> None:
        self.schedule, self.draw = schedule, random.Random(seed)
        self.streams = {
            "tasks": Rows(folder, "shard-??.npz", 1 + seed, passes),
            "plain": Rows(folder, "plain.npz", 2 + seed),
            "long": Rows(folder, "long-??.npz", 3 + seed),
            "focus": Rows(folder, "focus-??.npz", 4 + seed),
        }

    def take(self, done: float) -> tuple[str, dict[str, Tensor]]:
        """(kind, rows) of about `batch_tokens` places, at a share of the time."""
        schedule, kind = self.schedule, "tasks"
        plain_share = schedule.plain_share * max(0.0, 1 - done / schedule.plain_until)
        if plain_share > 0 and self.draw.random() < plain_share:
            kind = "plain"
        elif done > 0.3 and self.streams["long"].exists() and self.draw.random() < schedule.long_share:
            kind = "long"
        elif done > 0.6 and self.streams["focus"].exists() and self.draw.random() < schedule.focus_share:
            kind = "focus"
        stream = self.streams[kind]
        return kind, stream.take(max(1, schedule.batch_tokens // stream.rows["ids"].shape[1]))


def learning_rate(done: float, schedule: Schedule) -> float:
    """Share of the peak rate at a share of the time: warm-up, plateau, then linear to almost nothing."""
    if done < schedule.warmup:
        return max(0.02, done / schedule.warmup)
    if done < schedule.decay_from:
        return 1.0
    return max(0.02, (1 - done) / (1 - schedule.decay_from))


class Run:
    """Everything that a checkpoint holds, and the loop over it."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.schedule = settings, settings.schedule
        torch.manual_seed(0)
        self.model = Qwen2(settings.model)
        matrices = [p for n, p in self.model.named_parameters() if p.ndim == 2 and "embed" not in n]
        others = [p for n, p in self.model.named_parameters() if p.ndim != 2 or "embed" in n]
        self.optimisers = [
            Muon(matrices, self.schedule.muon_lr, self.schedule.weight_decay),
            torch.optim.AdamW(others, self.schedule.adam_lr, betas=(0.9, 0.97), weight_decay=0.0, fused=True),
        ]
        self.peaks = [self.schedule.muon_lr, self.schedule.adam_lr]
        self.ema = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        self.elapsed_s, self.step, self.tokens, self.passes = 0.0, 0, 0, 0
        self.body: Any = torch.compile(self.model.model) if self.schedule.compile else self.model.model

    def save(self) -> None:
        """Writes checkpoint and averaged weights, each atomically."""
        state = {
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimisers": [o.state_dict() for o in self.optimisers],
            "elapsed_s": self.elapsed_s,
            "step": self.step,
            "tokens": self.tokens,
            "passes": self.passes,
        }
        for name, content in (("checkpoint.pt", state), ("ema.pt", self.ema)):
            partial = self.settings.run / f"{name}.partial"
            torch.save(content, partial)
            os.replace(partial, self.settings.run / name)

    def resume(self) -> bool:
        """Continues from the checkpoint of the run folder, if there is one."""
        path = self.settings.run / "checkpoint.pt"
        if not path.exists():
            return False
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.ema = state["ema"]
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.elapsed_s, self.step, self.tokens = state["elapsed_s"], state["step"], state["tokens"]
        self.passes = state["passes"]
        return True

    def loss(self, rows: dict[str, Tensor], input_weight: float, *, plain: bool) -> tuple[Tensor, dict[str, float]]:
        """Weighted cross-entropy of the next token; scores are computed only where the loss looks."""
        mask = attention_mask(rows["group"], rows["doc"])
        positions = rows["pos"]
        model = self.model
        cos, sin = model.cos[positions][:, None].bfloat16(), model.sin[positions][:, None].bfloat16()
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self.body(model.model.embed_tokens(rows["ids"]).bfloat16(), cos, sin, mask)
        role = rows["role"][:, 1:]
        # The target follows its predecessor in the same document; the first suffix token follows the prefix's end,
        # which is its neighbour only for the first document, so it is never asked for.
        same = (rows["group"][:, 1:] == rows["group"][:, :-1]) & (rows["doc"][:, 1:] == rows["doc"][:, :-1])
        weight = torch.zeros(role.shape)
        weight[role == ANSWER] = 1.0
        weight[role == LABEL] = self.schedule.label_weight
        weight[role == INPUT] = input_weight
        weight = (weight * same).flatten()
        # A fixed number of positions is scored: the heaviest first, input tokens by lot. Varying shapes would make
        # oneDNN compile and keep a kernel for each (slow, and it leaks gigabytes).
        budget = self.schedule.scored_plain if plain else self.schedule.scored_tasks
        weights, where = (weight + (weight > 0) * torch.rand(weight.shape) * 1e-3).topk(budget)
        states = hidden[:, :-1].reshape(-1, hidden.shape[-1])[where]
        targets = rows["ids"][:, 1:].flatten()[where]
        losses = F.cross_entropy(model.logits(states).float(), targets, reduction="none")
        roles = torch.where(weights > 0, role.flatten()[where], 0)
        parts = {
            name: float(losses.detach()[roles == code].mean())
            for name, code in (("label", LABEL), ("answer", ANSWER), ("input", INPUT))
            if bool((roles == code).any())
        }
        return (losses * weights).sum() / weights.sum(), parts

    def update(self, loss: Tensor, done: float) -> None:
        """One step of both optimisers at the rate of this moment, then the average follows."""
        for optimiser, peak in zip(self.optimisers, self.peaks, strict=True):
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = peak * learning_rate(done, self.schedule)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        decay = min(self.schedule.ema, 1 - 1 / (self.step / 4 + 1))
        names, values = zip(*self.model.named_parameters(), strict=True)
        torch._foreach_lerp_([self.ema[n] for n in names], [v.detach() for v in values], 1 - decay)

    def train(self) -> None:
        """Runs until the time of the schedule is used up, or until SIGTERM; saves at the end and in between."""
        schedule, total_s = self.schedule, self.schedule.minutes * 60
        mixture = Mixture(self.settings.run, schedule, seed=self.step, passes=self.passes)
        stopping: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
        last, saved, logged = time.monotonic(), self.elapsed_s, self.elapsed_s
        smooth: dict[str, float] = {}
        while self.elapsed_s < total_s and not stopping:
            done = self.elapsed_s / total_s
            kind, rows = mixture.take(done)
            is_plain = kind == "plain"
            fade = max(0.0, 1 - done / schedule.input_until)
            loss, parts = self.loss(rows, 1.0 if is_plain else schedule.input_weight * fade, plain=is_plain)
            self.update(loss, done)
            self.step, self.passes = self.step + 1, mixture.streams["tasks"].passes
            self.tokens += rows["ids"].numel()
            for name, value in parts.items():
                key = f"plain {name}" if is_plain else name
                smooth[key] = value if key not in smooth else 0.95 * smooth[key] + 0.05 * value
            now = time.monotonic()
            self.elapsed_s, last = self.elapsed_s + now - last, now
            if self.elapsed_s - logged > 20 or self.step in (1, 10):
                logged = self.elapsed_s
                self.log(smooth)
            if self.elapsed_s - saved > schedule.checkpoint_minutes * 60:
                saved = self.elapsed_s
                self.save()
        self.save()
        self.log(smooth)
        print("stopped" if stopping else "done", flush=True)

    def log(self, losses: dict[str, float]) -> None:
        """One JSON line: where we are, and the smoothed losses in nats per token."""
        record = {
            "step": self.step,
            "min": round(self.elapsed_s / 60, 2),
            "tokens": self.tokens,
            "tokens_per_s": round(self.tokens / self.elapsed_s),
            "passes": self.passes,
        }
        print(json.dumps(record | {key: round(value, 4) for key, value in losses.items()}), flush=True)


def main() -> None:
    """Trains a profile, or continues it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--fresh", action="store_true", help="ignore an existing checkpoint")
    args = parser.parse_args()
    settings = load_settings(args.profile)
    if not list(settings.run.glob("shard-??.npz")):
        raise SystemExit(f"No shards in '{settings.run}': run training.tokenizer and training.corpus first.")
    run = Run(settings)
    resumed = not args.fresh and run.resume()
    count = sum(p.numel() for p in run.model.parameters())
    print(
        f"{count / 1e6:.2f} M parameters; {'resumed' if resumed else 'fresh'}; {torch.get_num_threads()} threads",
        flush=True,
    )
    run.train()


if __name__ == "__main__":
    main()
