"""Opinion words and small phrase grammars: the vocabulary of sentiment that a small labelled set does not show.

Written for this recipe. `phrases` combines the words with frames, negation included; `teacher` uses them as features.
"""

import random
from functools import lru_cache
from pathlib import Path

import tomllib


@lru_cache(maxsize=1)
def load_words() -> dict[str, list[str]]:
    """The word lists by name: en_positive, en_negative, zh_positive, zh_negative."""
    with Path(__file__).with_suffix(".toml").open("rb") as file:
        return {name: words.split() for name, words in tomllib.load(file).items()}


_EN_FRAMES = (
    "{w}",
    "a {w} film",
    "a {w} movie",
    "{w} and {v}",
    "so {w}",
    "very {w}",
    "it 's {w}",
    "it is {w}",
    "this is {w}",
    "really {w}",
    "a {w} , {v} story",
    "the acting is {w}",
    "the movie is {w} and {v}",
    "the plot is {w}",
    "{w} performances",
    "a {w} ride",
    "a {w} , {v} piece of work",
    "the product is {w}",
    "the service was {w}",
    "{w} from start to finish",
    "the food was {w}",
    "an exercise in {w}",
    "it feels {w}",
    "the result is {w}",
    "{w} characters",
    "the script is {w} , the direction {v}",
)
_EN_NEGATED = (
    "not {w}",
    "isn't {w}",
    "it 's not {w}",
    "never {w}",
    "far from {w}",
    "neither {w} nor {v}",
    "not {w} at all",
    "lacks anything {w}",
)
_ZH_FRAMES = (
    "{w}",
    "真{w}",
    "感觉{w}",
    "这个东西{w}",
    "{w}，{v}",
    "质量{w}",
    "服务{w}",
    "整体{w}",
    "用起来{w}",
    "总之{w}",
    "有点{w}",
    "非常{w}",
)


def phrases(rng: random.Random, count: int, language: str = "en") -> list[tuple[str, str]]:
    """Short phrases with "pos" or "neg"."""
    found: list[tuple[str, str]] = []
    words = load_words()
    positive, negative = words[f"{language}_positive"], words[f"{language}_negative"]
    for _ in range(count):
        label = rng.choice(("pos", "neg"))
        chosen = positive if label == "pos" else negative
        frame = rng.choice(_EN_FRAMES if language == "en" else _ZH_FRAMES)
        if language == "en" and rng.random() < 0.15:
            frame = rng.choice(_EN_NEGATED)
            chosen = positive[:60] if label == "neg" else negative[:12]
        text = frame.format(w=rng.choice(chosen), v=rng.choice(chosen))
        if language == "en" and rng.random() < 0.3:
            text = text.replace(" 's", "'s").capitalize() + rng.choice([".", "!", " ."])
        found.append((text, label))
    return found
