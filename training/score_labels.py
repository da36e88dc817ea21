"""Scores a model on the label sets with PyTorch alone, on any device: seconds on a GPU, so a training draws its curve.

The product's own prompts, the same texts and the same arg-max as `training.evaluate`, but neither an export nor the
engine between; the card's figures come from `training.evaluate`. Below: `train` asks it now and then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from training.evaluate_metrics import accuracy, macro_f1
from training.model import Qwen2
from training.packing import encode_example
from training.polarity import POLARITIES, SIGN
from training.prompts import BUILTIN, load_prompts
from training.sources import load_public
from training.tasks_label import EWECT
from training.tokenizer import Codec
from training.wordings import product_form

MAX_TOKENS = 512  # of a text, as the tasks take them
PLACES = 1 << 16  # of one batch


@dataclass(frozen=True, slots=True)
class LabelSet:
    """A public set: the task and labels it is asked with, and how its own labels are called there."""

    dataset: str
    task: str
    names: Mapping[str, str]
    is_f1: bool = False


SETS = {
    "chnsenticorp": LabelSet("sent_zh_chnsenticorp_dev", "sentiment", SIGN),
    "waimai": LabelSet("sent_zh_waimai_public_2k", "sentiment", SIGN),
    "sst2": LabelSet("sent_en_sst2_dev", "sentiment", SIGN),
    "three-tweeteval": LabelSet("sent_en_tweeteval_val", "sentiment", SIGN | {"neutral": "中性"}, is_f1=True),
    "ewect": LabelSet("emo_zh_ewect_usual_dev", "emotion", EWECT, is_f1=True),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A set as token ids: the questions, the ids of the possible answers, and which of them is right."""

    questions: list[list[int]]
    answers: list[int]
    gold: list[int]
    is_f1: bool


def ask(data: Path, which: LabelSet, codec: Codec) -> Asked:
    """Renders and tokenises a set once."""
    prompts = load_prompts(BUILTIN)
    keys = list(EWECT.values()) if which.task == "emotion" else list(POLARITIES)
    form = product_form(prompts[which.task], keys, range(len(keys)))  # all of its labels, as the product shows them
    answers = [key for key in keys if key in which.names.values()]
    questions: list[list[int]] = []
    gold: list[int] = []
    for record in load_public(data, which.dataset):
        if record["label"] not in which.names:
            continue
        ids = codec.encode(record["text"], control=False)[:MAX_TOKENS]
        text = record["text"] if len(ids) < MAX_TOKENS else codec.decode(ids)
        encoded = encode_example(form.prompt.render({"text": text}, labels=list(form.labels.values())), codec)
        questions.append([*encoded.prefix, *encoded.ids])
        gold.append(answers.index(which.names[record["label"]]))
    first = [codec.encode(form.labels[key][0], control=False)[0] for key in answers]
    return Asked(questions, first, gold, which.is_f1)


@torch.inference_mode()
def answer(model: Qwen2, asked: Asked) -> list[int]:
    """Index of the likeliest label of each question; questions of similar length are computed together."""
    device = model.cos.device
    order = sorted(range(len(asked.questions)), key=lambda i: len(asked.questions[i]), reverse=True)
    answers = torch.tensor(asked.answers, device=device)
    found = [0] * len(order)
    at = 0
    while at < len(order):
        width = len(asked.questions[order[at]])
        chunk = order[at : at + max(1, PLACES // width)]
        at += len(chunk)
        rows = [asked.questions[i] for i in chunk]
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
        ends = torch.tensor([len(row) - 1 for row in rows], device=device)
        best = scores(model, ids, ends)[:, answers].argmax(1)
        for i, label in zip(chunk, best.tolist(), strict=True):
            found[i] = label
    return found


def scores(model: Qwen2, ids: Tensor, ends: Tensor) -> Tensor:
    """Logits (batch, vocabulary) at the last place of each row of `ids` (batch, length)."""
    count, width = ids.shape
    positions = torch.arange(width, device=ids.device).expand(count, width)
    mask = torch.ones(width, width, dtype=torch.bool, device=ids.device).tril().expand(count, 1, width, width)
    with torch.autocast(ids.device.type, torch.bfloat16):
        hidden = model.hidden(ids, positions, mask, torch.bfloat16)
    return model.logits(hidden[torch.arange(count, device=ids.device), ends]).float()


def score(model: Qwen2, sets: Mapping[str, Asked]) -> dict[str, float]:
    """Accuracy of two labels, macro-F1 of more, by name of the set."""
    found: dict[str, float] = {}
    for name, asked in sets.items():
        guess: Sequence[int] = answer(model, asked)
        value = macro_f1(asked.gold, guess, len(asked.answers)) if asked.is_f1 else accuracy(asked.gold, guess)
        found[name] = round(value, 4)
    return found


def load_sets(data: Path, codec: Codec) -> dict[str, Asked]:
    """All sets, tokenised."""
    return {name: ask(data, which, codec) for name, which in SETS.items()}
