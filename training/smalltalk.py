"""Small talk from a grammar: utterances with their mood, and several good short replies for each.

The sentences live in `smalltalk_data/LANGUAGE/*.toml`; `[a|b|]` chooses one alternative. Replies never repeat a slot
of the utterance: a model this small copies the wrong one. Neighbours: `corpus` asks here, `tokenizer` learns from a
sample.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import tomllib

from training.sources import normalise

ALTERNATIVES = re.compile(r"\[([^\[\]]*)\]")
HELD_OUT = {normalise(t) for t in ("今天的实验终于成功了,太棒了!", "我今天心情不好")}
MOOD_EN = {"正面": "positive", "负面": "negative", "中性": "neutral"}
EMOTION_EN = {"快乐": "happy", "悲伤": "sad", "愤怒": "angry", "恐惧": "fear", "惊讶": "surprise", "平静": "neutral"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """One kind of thing that people say, and how to answer it."""

    name: str
    language: str
    mood: str
    emotion: str
    user: tuple[str, ...]
    reply: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One utterance of the grammar with a reply."""

    situation: str
    language: str
    text: str
    reply: str
    mood: str
    emotion: str


@lru_cache(maxsize=1)
def load_situations() -> tuple[Situation, ...]:
    """All situations of both languages."""
    found: list[Situation] = []
    for path in sorted((Path(__file__).parent / "smalltalk_data").glob("*/*.toml")):
        with path.open("rb") as file:
            for entry in tomllib.load(file)["situation"]:
                found.append(
                    Situation(
                        name=entry["name"],
                        language=path.parent.name,
                        mood=entry["mood"],
                        emotion=entry["emotion"],
                        user=tuple(entry["user"]),
                        reply=tuple(entry["reply"]),
                    )
                )
    return tuple(found)


def expand(pattern: str, rng: random.Random) -> str:
    """One sentence of a pattern."""
    return ALTERNATIVES.sub(lambda m: rng.choice(m.group(1).split("|")), pattern)


def vary(text: str, language: str, rng: random.Random) -> str:
    """Small surface changes that people make: particles, punctuation, case."""
    if language == "zh":
        text = text.replace("啊？", rng.choice(["", "啊", "呀", "！"]))
        if rng.random() < 0.35 and not re.search(r"[？?！!。]$", text):
            text += rng.choice(["。", "！", "…", "啊", "。。。", "，", "～", "!", "呢"]).replace("，", "")
        if rng.random() < 0.15:
            text = text.replace("，", ",")
        if rng.random() < 0.08:
            text = text.replace("，", " ")
        return text
    text = text.replace(" 'm", "'m").replace("  ", " ").strip()
    if rng.random() < 0.4 and not re.search(r"[?!.]$", text):
        text += rng.choice([".", "!", "..."])
    return text.lower() if rng.random() < 0.2 else text


def weight(situation: Situation) -> float:
    """How often a situation is drawn: by how many ways it can be said; a crisis more often, it must not be missed."""
    return len(situation.user) ** 0.7 * (2 if situation.name == "crisis" else 1)


def sample_turn(rng: random.Random, *, language: str | None = None, mood: str | None = None) -> Turn:
    """One random turn, situations weighted by `weight`."""
    pool = [
        s
        for s in load_situations()
        if (language is None or s.language == language) and (mood is None or s.mood == mood)
    ]
    while True:
        situation = rng.choices(pool, weights=[weight(s) for s in pool])[0]
        text = vary(expand(rng.choice(situation.user), rng), situation.language, rng)
        if normalise(text) not in HELD_OUT:
            return Turn(
                situation=situation.name,
                language=situation.language,
                text=text,
                reply=expand(rng.choice(situation.reply), rng),
                mood=situation.mood,
                emotion=situation.emotion,
            )


def sample_texts(rng: random.Random, count: int) -> Iterator[str]:
    """Utterances and replies as running text."""
    for _ in range(count):
        turn = sample_turn(rng)
        yield f"{turn.text}\n{turn.reply}"
