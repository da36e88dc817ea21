"""Examples of the emotion task, and the names under which the sets know the six emotions.

Neighbours: `tasks_sentiment`, `tasks_intent`; the wordings come from `wordings`.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from training.polarity import SIGN, shorten
from training.prompts import Part, Prompt
from training.smalltalk import EMOTION_EN, sample_turn
from training.trainable import load_trainable
from training.wordings import FormPool

__all__ = ["EKMAN", "EWECT", "SIGN", "emotion_examples", "gold_emotion_examples"]

Case = tuple[str, str]  # text, one of the six emotions
Parts = list[Part]
EWECT = {"happy": "快乐", "sad": "悲伤", "angry": "愤怒", "fear": "恐惧", "surprise": "惊讶", "neutral": "平静"}
EKMAN = {"joy": "快乐", "sadness": "悲伤", "anger": "愤怒", "fear": "恐惧", "surprise": "惊讶", "neutral": "平静"}
WEIBO = {
    "optimism": "快乐",
    "gratitude": "快乐",
    "anger": "愤怒",
    "sadness": "悲伤",
    "fear": "恐惧",
    "surprise": "惊讶",
}


def cases_of(data: Path, name: str, labels: dict[str, str]) -> list[Case]:
    """The cases of a set whose label is one of the six."""
    return [(r["text"], labels[r["label"]]) for r in load_trainable(data, name) if r["label"] in labels]


def lifted(cases: list[Case], count: int, rng: random.Random, power: float = 0.7) -> list[Case]:
    """`count` cases, rare emotions drawn more often: in proportion to their number to the `power`."""
    by_label: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_label[case[1]].append(case)
    total = sum(len(members) ** power for members in by_label.values())
    found: list[Case] = []
    for members in by_label.values():
        wanted = int(count * len(members) ** power / total)
        whole, rest = divmod(wanted, len(members))
        found += members * whole + rng.sample(members, rest)
    return found


def chinese_posts(data: Path, rng: random.Random, scale: float) -> list[Case]:
    """EWECT's everyday and epidemic posts, and other Weibo posts."""
    cases = lifted(cases_of(data, "zh_ewect_usual", EWECT), int(30_000 * scale), rng)
    cases += lifted(cases_of(data, "zh_ewect_virus", EWECT), int(4_000 * scale), rng)
    return cases + lifted(cases_of(data, "zh_covid_weibo_7", WEIBO), int(2_500 * scale), rng)


def emotion_examples(data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float) -> Iterator[Parts]:
    """Six emotions, the Chinese and the English prompt, both languages of text."""
    cases = chinese_posts(data, rng, scale)
    cases += lifted(cases_of(data, "en_goemotions_ekman", EKMAN), int(7_000 * scale), rng, power=0.5)
    cases += lifted(cases_of(data, "en_tweeteval_emotion", EKMAN), int(1_200 * scale), rng)
    yield from asked(cases, prompts, rng, int(3_500 * scale))


def gold_emotion_examples(data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float) -> Iterator[Parts]:
    """Only EWECT, GoEmotions and small talk: for the end of the training."""
    cases = lifted(cases_of(data, "zh_ewect_usual", EWECT), int(26_000 * scale), rng)
    cases += lifted(cases_of(data, "en_goemotions_ekman", EKMAN), int(3_000 * scale), rng, power=0.5)
    yield from asked(cases, prompts, rng, int(1_500 * scale))


def asked(cases: list[Case], prompts: dict[str, Prompt], rng: random.Random, small_talk: int) -> Iterator[Parts]:
    """The cases and some small talk, each in a random form."""
    pool = FormPool(prompts, "emotion", list(EMOTION_EN), rng)
    turns = [sample_turn(rng) for _ in range(small_talk)]
    for text, label in cases + [(turn.text, turn.emotion) for turn in turns]:
        yield pool.example(shorten(text, 200), label, rng)
