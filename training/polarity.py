"""What the sentiment tasks share: label names, how the labels of the sets map to them, cutting and drawing of cases.

Above: `tasks_sentiment`, `tasks_english`, `tasks_label`.
"""

import random
from pathlib import Path
from typing import TypeVar

from training.sources import clean
from training.trainable import load_trainable

Case = tuple[str, str]  # text, label (正面 负面 中性)
T = TypeVar("T")
POLARITIES = ("正面", "负面", "中性")
SIGN = {"pos": "正面", "neg": "负面", "positive": "正面", "negative": "负面"}
EWECT_POLARITY = {"happy": "正面", "sad": "负面", "angry": "负面", "fear": "负面", "neutral": "中性"}
EKMAN_POLARITY = {
    "joy": "正面",
    "sadness": "负面",
    "anger": "负面",
    "disgust": "负面",
    "fear": "负面",
    "neutral": "中性",
}
TWEET_POLARITY = {"joy": "正面", "optimism": "正面", "anger": "负面", "sadness": "负面"}
WEIBO_POLARITY = {
    "optimism": "正面",
    "gratitude": "正面",
    "anger": "负面",
    "disgust": "负面",
    "sadness": "负面",
    "fear": "负面",
}


def shorten(text: str, limit: int = 240) -> str:
    """Head and tail of a long text: opinions sit at both ends."""
    text = clean(text).replace("\n", " ")
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[-limit // 2 :]}"


def thinned(items: list[T], scale: float) -> list[T]:
    """All items, or every n-th where a small corpus is made: teachers need not know more than five times as much."""
    return items[:: max(1, int(0.2 / scale))]


def some(cases: list[Case], count: float, rng: random.Random) -> list[Case]:
    """At most `count` of the cases, without repetition."""
    return rng.sample(cases, min(len(cases), int(count)))


def mapped(data: Path, name: str, labels: dict[str, str]) -> list[Case]:
    """The cases of a set whose label has a polarity."""
    return [(r["text"], labels[r["label"]]) for r in load_trainable(data, name) if r["label"] in labels]
