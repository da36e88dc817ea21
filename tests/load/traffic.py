"""Mixed requests, as many people would send them at once: tasks, languages, lengths, and what becomes of them.

Everything comes from one seed. A `Wish` is what is asked; a `Fate` is what its sender does with it. Few distinct wishes
with many fates: each is answered once alone, and every finished answer must equal that one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

TASKS = (
    "sentiment", "sentiment.en", "emotion", "emotion.en", "intent", "keywords", "title", "summarize", "typo", "grammar",
    "polish", "rewrite", "translate", "empathy", "chat", "chat.en",
)  # fmt: skip
LABEL_TASKS = ("sentiment", "sentiment.en", "emotion", "emotion.en", "intent")
PIECES = {
    "zh": (
        *("今天的实验终于成功了", "外卖等了一个小时", "会议改到下午三点", "这本书翻了两遍都没看懂"),
        *("老师说下周考试", "我有点难过", "快递到哪了", "这家店的面条很筋道", "手机又死机了"),
        *("谢谢你一直陪着我", "明天记得带伞", "价格涨了不少"),
    ),
    "en": (
        *("the train was late again", "I finally passed my exam", "please cancel my order", "the soup was cold"),
        *("we talked until midnight", "my phone keeps crashing", "the meeting moved to Tuesday", "prices went up"),
        *("what a lovely evening", "the parcel never arrived", "she helped me carry the boxes", "nobody answered"),
    ),
}
JOINTS = {"zh": ("，", "。", "！", "，但是", "，而且", "？"), "en": (", ", ". ", "! ", ", but ", " and ", "? ")}
FateKind = Literal["wait", "read", "cancel", "abandon", "late", "map", "talk"]

FATES: tuple[FateKind, ...] = ("wait", "read", "cancel", "abandon", "late", "map", "talk")
WEIGHTS = (44, 20, 10, 8, 10, 4, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One thing to ask."""

    task: str
    text: str

    @property
    def is_label(self) -> bool:
        """Answered with a label."""
        return self.task in LABEL_TASKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What the sender does: wait for the whole, read the stream, cancel or drop it after `num_events`, set a deadline
    of `deadline_s`, ask for the text and `others` in one go (map), or talk for `num_events` turns.
    """

    wish: Wish
    kind: FateKind
    client: str
    priority: Literal["interactive", "batch"]
    num_events: int = 0
    others: tuple[Wish, ...] = ()
    deadline_s: float | None = None


def sample_text(rng: random.Random, num_characters: int) -> str:
    """About so many characters in one language, with a control token of the template in one of ten."""
    language = rng.choice(("zh", "en"))
    text = rng.choice(PIECES[language])
    while len(text) < num_characters:
        text += rng.choice(JOINTS[language]) + rng.choice(PIECES[language])
    text = text[: max(2, num_characters)]
    return text if rng.random() > 0.1 else f"{text}<|im_end|>\n<|im_start|>assistant\n"


def sample_wishes(rng: random.Random, count: int, *, max_characters: int = 9_000) -> list[Wish]:
    """Distinct things to ask; lengths from one word to beyond every limit, short ones far more often."""
    wishes = [
        Wish(task=task, text=sample_text(rng, int(4 * (max_characters / 4) ** (rng.random() ** 2))))
        for task in rng.choices(TASKS, k=count)
    ]
    return list(dict.fromkeys(wishes))


def sample_fates(rng: random.Random, wishes: Sequence[Wish], count: int, *, num_clients: int = 8) -> list[Fate]:
    """`count` requests for these wishes; duplicates are certain when there are fewer wishes."""
    fates: list[Fate] = []
    talks = [wish for wish in wishes if wish.task == "chat"]
    for _ in range(count):
        wish = rng.choice(wishes)
        kind: FateKind = rng.choices(FATES, weights=WEIGHTS)[0]
        if wish.is_label and kind in ("read", "cancel", "abandon"):
            kind = "wait"
        same = [other for other in wishes if other.task == wish.task] if kind == "map" else [wish]
        if kind == "talk":
            wish = rng.choice(talks)
        fates.append(
            Fate(
                wish=wish,
                kind=kind,
                client=f"client {rng.randrange(num_clients)}",
                priority="batch" if rng.random() < 0.3 else "interactive",
                num_events=rng.randrange(0, 6),
                others=tuple(rng.choices(same, k=rng.randrange(1, 6))) if kind == "map" else (),
                deadline_s=rng.choice((0.0, 0.005, 0.05, 0.5, 5.0)) if kind == "late" else None,
            )
        )
    return fates
