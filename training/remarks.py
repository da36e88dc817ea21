"""Everyday remarks from a grammar: what went well, what went wrong, and plain facts, often without a word of praise.

The patterns live in `remarks/LANGUAGE*.toml`, by topic; `[a|b|]` chooses one alternative (see `smalltalk`). Neighbours:
`polarity` names the labels, `tasks_sentiment` asks here.
"""

import random
from functools import lru_cache
from pathlib import Path

import tomllib

from training.polarity import Case
from training.smalltalk import expand, vary

LABELS = {"good": "正面", "bad": "负面", "plain": "中性"}
SHARES = {"good": 0.4, "bad": 0.4, "plain": 0.2}


@lru_cache(maxsize=2)
def load_patterns(language: str) -> dict[str, list[str]]:
    """Patterns of a language by kind (the keys of LABELS), all topics together."""
    files = sorted((Path(__file__).parent / "remarks").glob(f"{language}*.toml"))
    topics = [topic for file in files for topic in tomllib.loads(file.read_text(encoding="utf-8"))["topic"]]
    return {kind: [p for topic in topics for p in topic[kind]] for kind in LABELS}


def remark_cases(rng: random.Random, count: int, language: str) -> list[Case]:
    """`count` remarks with their polarity."""
    found: list[Case] = []
    for kind in rng.choices(list(LABELS), weights=list(SHARES.values()), k=count):
        text = expand(rng.choice(load_patterns(language)[kind]), rng).strip()
        found.append((vary(text, language, rng), LABELS[kind]))
    return found
