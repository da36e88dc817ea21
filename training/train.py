"""Trains the model of a profile by its own clock: stops by itself, resumes from its last checkpoint.

Muon (orthogonalised momentum) for the matrices of the layers, AdamW for embedding, norms and biases; BF16 compute,
FP32 weights; an exponential moving average of the weights is what gets exported. Reads the shards of `corpus`.
"""

import argparse
import copy
import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from training.export import read_gguf
from training.model import Qwen2
from training.muon import Muon
from training.packing import attention_mask
from training.prompts import ANSWER, EDIT, INPUT, LABEL
from training.score_labels import Asked, load_sets, score
from training.settings import Schedule, Settings, load_settings
from training.sources import require_data
from training.streams import Mixture
from training.tokenizer import Codec

ROLES = {"label": LABEL, "answer": ANSWER, "edit": EDIT, "input": INPUT}


def learning_rate(done: float, schedule: Schedule) -> float:
    """Share of the peak rate at a share of the time: warm-up, plateau, then linear to almost nothing."""
    if done < schedule.warmup:
        return max(0.02, done / schedule.warmup)
    if done < schedule.decay_from:
        return 1.0
    return max(0.02, (1 - done) / (1 - schedule.decay_from))


def mean_by_role(losses: Tensor, roles: Tensor) -> dict[str, float]:
    """The mean loss of the scored places of each role that occurs."""
    return {name: float(losses[roles == code].mean()) for name, code in ROLES.items() if bool((roles == code).any())}


class Clock:
    """The time that training takes: not the first step, which compiles; one far longer than the others was paused."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.typical_s: float | None = None
        self.has_begun = False

    def step(self) -> float:
        """Seconds to count for the step that ends now: none for the first, then at most ten usual ones."""
        now = time.monotonic()
        lasted, self.last = now - self.last, now
        if not self.has_begun:
            self.has_begun = True
            return 0.0
        if self.typical_s is None or lasted < 10 * self.typical_s:
            self.typical_s = lasted if self.typical_s is None else 0.8 * self.typical_s + 0.2 * lasted
            return lasted
        return self.typical_s


class Run:
    """Everything that a checkpoint holds, and the loop over it."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.schedule = settings, settings.schedule
        torch.manual_seed(0)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = Qwen2(settings.model, self.schedule.dropout)
        if settings.init:
            self.start_from_gguf()
        self.model.to(self.device)
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

    def start_from_gguf(self) -> None:
        """Takes the weights of the profile's `init` file instead of random ones."""
        path = self.settings.init
        if path is None or not path.exists():
            raise SystemExit(f"'{path}' (init in config.toml) is not there: name another GGUF, or none to start anew.")
        shape, weights = read_gguf(path)
        if shape != self.settings.model:
            raise SystemExit(f"'{path}' has another shape than the profile: {shape}")
        self.model.load_state_dict(weights)

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
        state = torch.load(path, weights_only=True, map_location="cpu")
        self.model.load_state_dict(state["model"])
        self.ema = state["ema"]
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.elapsed_s, self.step, self.tokens = state["elapsed_s"], state["step"], state["tokens"]
        self.passes = state["passes"]
        self.ema = {name: tensor.to(self.device) for name, tensor in self.ema.items()}
        return True

    def token_weights(self, rows: dict[str, Tensor], input_weight: float, edit_weight: float) -> Tensor:
        """What each place but the first of a row weighs in the loss, flat (batch * (length - 1),)."""
        role, schedule = rows["role"][:, 1:], self.schedule
        # The target follows its predecessor in the same document; the first suffix token follows the prefix's end,
        # which is its neighbour only for the first document, so it is never asked for.
        same = (rows["group"][:, 1:] == rows["group"][:, :-1]) & (rows["doc"][:, 1:] == rows["doc"][:, :-1])
        weight = torch.zeros(role.shape, device=role.device)
        weight[role == ANSWER] = 1.0
        weight[role == LABEL] = schedule.label_weight
        weight[role == EDIT] = edit_weight
        weight[role == INPUT] = input_weight
        return (weight * same).flatten()

    def loss(
        self, rows: dict[str, Tensor], input_weight: float, edit_weight: float, *, plain: bool
    ) -> tuple[Tensor, dict[str, float]]:
        """Weighted cross-entropy of the next token; scores are computed only where the loss looks."""
        rows = {name: values.to(self.device) for name, values in rows.items()}
        mask = attention_mask(rows["group"], rows["doc"])
        positions = rows["pos"]
        model = self.model
        cos, sin = model.cos[positions][:, None].bfloat16(), model.sin[positions][:, None].bfloat16()
        embedded = model.model.embed_tokens(rows["ids"])
        with torch.autocast(self.device.type, torch.bfloat16):
            hidden = self.body(embedded.bfloat16(), cos, sin, mask)
        weight = self.token_weights(rows, input_weight, edit_weight)
        # A fixed number of positions is scored: the heaviest first, equal ones by lot. Varying shapes would make
        # oneDNN compile and keep a kernel for each (slow, and it leaks gigabytes).
        budget = self.schedule.scored_plain if plain else self.schedule.scored_tasks
        weights, where = (weight + (weight > 0) * torch.rand_like(weight) * 1e-3).topk(budget)
        states = hidden[:, :-1].reshape(-1, hidden.shape[-1])[where]
        targets = rows["ids"][:, 1:].flatten()[where]
        losses = F.cross_entropy(model.logits(states).float(), targets, reduction="none")
        roles = torch.where(weights > 0, rows["role"][:, 1:].flatten()[where], 0)
        parts = mean_by_role(losses.detach(), roles) if self.step % self.schedule.parts_every == 0 else {}
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

    def score(self, sets: dict[str, Asked]) -> None:
        """Appends what the averaged weights reach on the label sets to the run folder's curve.jsonl."""
        average = copy.deepcopy(self.model).eval()
        average.load_state_dict(self.ema)
        record = {"step": self.step, "min": round(self.elapsed_s / 60, 2), "tokens": self.tokens}
        line = json.dumps(record | {"rows": score(average, sets)})
        with (self.settings.run / "curve.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        tqdm.write(line)

    def train(self, sets: dict[str, Asked] | None = None) -> int:
        """Runs until the time of the schedule is used up, or until Ctrl-C or SIGTERM; saves at the end and in between.

        Args:
            sets: label sets to be scored `curve_points` times on the way.

        Returns:
            The signal that stopped it, or 0.
        """
        schedule, total_s = self.schedule, self.schedule.minutes * 60
        mixture = Mixture(self.settings.run, schedule, seed=self.step, passes=self.passes)
        stopping: list[int] = []
        for asked in (signal.SIGTERM, signal.SIGINT):
            signal.signal(asked, lambda number, _: stopping.append(number))
        clock, saved, logged = Clock(), self.elapsed_s, self.elapsed_s
        scored = self.elapsed_s
        smooth: dict[str, float] = {}
        with tqdm(total=round(total_s), initial=round(self.elapsed_s), unit="s", disable=None) as bar:
            while self.elapsed_s < total_s and not stopping:
                self.train_step(mixture, smooth)
                self.elapsed_s += clock.step()
                bar.update(round(self.elapsed_s) - bar.n)
                bar.set_postfix(self.figures(smooth), refresh=False)
                if self.elapsed_s - logged > 20 or self.step in (1, 10):
                    logged = self.elapsed_s
                    self.log(smooth)
                if self.elapsed_s - saved > schedule.checkpoint_minutes * 60:
                    saved = self.elapsed_s
                    self.save()
                if sets and self.elapsed_s - scored > total_s / schedule.curve_points:
                    scored = self.elapsed_s
                    self.score(sets)
        self.save()
        self.log(smooth)
        if sets and not stopping:
            self.score(sets)
        print("stopped: the same command goes on from here" if stopping else "done", flush=True)
        return stopping[0] if stopping else 0

    def train_step(self, mixture: Mixture, smooth: dict[str, float]) -> None:
        """One batch; `smooth` holds the running averages of the losses."""
        done = self.elapsed_s / (self.schedule.minutes * 60)
        kind, rows = mixture.take(done)
        is_plain = kind == "plain"
        schedule = self.schedule
        input_weight = 1.0 if is_plain else schedule.input_weight * max(0.0, 1 - done / schedule.input_until)
        edit_weight = schedule.edit_weight + (schedule.edit_weight_end - schedule.edit_weight) * done
        loss, parts = self.loss(rows, input_weight, edit_weight, plain=is_plain)
        self.update(loss, done)
        self.step, self.passes = self.step + 1, mixture.streams["tasks"].passes
        self.tokens += rows["ids"].numel()
        for name, value in parts.items():
            key = f"{kind} {name}" if kind in ("plain", "copy") else name
            kept = 0.95**schedule.parts_every
            smooth[key] = value if key not in smooth else kept * smooth[key] + (1 - kept) * value
        for ended in (name for name in ("plain", "copy") if not mixture.shares(done)[name]):
            for key in [key for key in smooth if key.startswith(f"{ended} ")]:
                del smooth[key]

    def figures(self, losses: dict[str, float]) -> dict[str, float]:
        """Speed and smoothed losses (nats per token)."""
        return {
            "tokens_per_s": round(self.tokens / max(self.elapsed_s, 1e-9)),
            **{name: round(value, 4) for name, value in losses.items()},
        }

    def log(self, losses: dict[str, float]) -> None:
        """One JSON line: where we are, how fast, how good; and the time left in minutes."""
        record = {
            "step": self.step,
            "min": round(self.elapsed_s / 60, 2),
            "left": round(self.schedule.minutes - self.elapsed_s / 60, 1),
            "tokens": self.tokens,
            "passes": self.passes,
        }
        tqdm.write(json.dumps(record | self.figures(losses)))
        sys.stdout.flush()


def main() -> None:
    """Trains a profile, or continues it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--fresh", action="store_true", help="ignore an existing checkpoint")
    parser.add_argument("--data", type=Path, help="the data folder, for a curve of its label sets (curve_points)")
    parser.add_argument("--minutes", type=float, help="instead of the profile's length; the schedule is stretched")
    args = parser.parse_args()
    settings = load_settings(args.profile)
    if args.minutes:
        settings = replace(settings, schedule=replace(settings.schedule, minutes=args.minutes))
    run = Run(settings)
    resumed = not args.fresh and run.resume()
    if resumed and run.elapsed_s >= settings.schedule.minutes * 60:
        print(f"'{settings.run}' is trained already; --fresh begins anew.")
        return
    count = sum(p.numel() for p in run.model.parameters())
    print(
        f"{count / 1e6:.2f} M parameters; {'resumed' if resumed else 'fresh'}; {torch.get_num_threads()} threads",
        flush=True,
    )
    sets = None
    if args.data and settings.schedule.curve_points:
        sets = load_sets(require_data(args.data), Codec.load(settings.run / "tokenizer.json"))
    if number := run.train(sets):
        sys.exit(128 + number)


if __name__ == "__main__":
    main()
