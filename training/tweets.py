"""A small grammar of tweets: announcements and questions without a feeling, praise, complaints (`tweets.toml`).

What happens, when and where is neutral even when the event is a nice one. Above: `tasks_english`.
"""

import random
import re
from functools import lru_cache
from pathlib import Path

import tomllib

NAMES = {"正面": "positive", "负面": "negative", "中性": "neutral"}
TAGS = ("#monday", "#news", "#music", "#football", "#weekend", "#tech", "#tv", "#win", "#travel")
TAILS = ("tomorrow", "tonight", "on Sunday", "at 8pm", "this weekend", "on Friday", "next week", "today")


@lru_cache(maxsize=1)
def _grammar() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    with Path(__file__).with_suffix(".toml").open("rb") as file:
        found = tomllib.load(file)
    return found["patterns"], {name: words.split("|") for name, words in found["slots"].items()}


def sample_tweet(label: str, rng: random.Random) -> str:
    """One tweet of the class 正面, 负面 or 中性."""
    patterns, slots = _grammar()
    text = re.sub(r"\{(\w+)\}", lambda m: rng.choice(slots[m[1]]), rng.choice(patterns[NAMES[label]]))
    text = re.sub(r"\b([Aa]) (?=[aeio])", r"\1n ", text.replace("the the ", "the "))
    return text[0].upper() + text[1:] if rng.random() < 0.8 else text


def tweet_like(text: str, rng: random.Random, tails: bool = True) -> str:
    """The text with what tweets have: mentions, tags, a time (unless not wanted), loose case."""
    if rng.random() < 0.3:
        text = "@user " * rng.choice((1, 1, 2)) + text
    if tails and rng.random() < 0.2:
        text = text.rstrip(".") + " " + rng.choice(TAILS)
    if rng.random() < 0.2:
        text += " " + rng.choice(TAGS)
    return text.lower() if rng.random() < 0.15 else text
