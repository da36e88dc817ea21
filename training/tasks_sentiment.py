"""Examples of the sentiment task: Chinese reviews, posts and clauses labelled by a teacher, small talk, plain facts.

The English cases come from `tasks_english`. Neighbours: `tasks_label` (emotion), `tasks_intent`; the wordings come from
`wordings`.
"""

import random
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from training.lexicon import phrases
from training.polarity import EWECT_POLARITY, POLARITIES, SIGN, WEIBO_POLARITY, Case, mapped, shorten, some, thinned
from training.prompts import Part, Prompt
from training.remarks import remark_cases
from training.smalltalk import sample_turn
from training.sources import clean, split_sentences
from training.tasks_english import FULL, english_cases, english_spans, parallel_cases, post_cases
from training.teacher import Teacher, chinese_features
from training.trainable import load_trainable
from training.wordings import FormPool

Parts = list[Part]


@lru_cache(maxsize=2)
def chinese_teacher(data: Path, scale: float) -> Teacher:
    """A teacher of Chinese opinions, fitted on the review sets."""
    cases = [
        (shorten(r["text"]), float(r["label"] == "pos"), 1.0)
        for name in ("zh_online_shopping_10_cats", "zh_book_review")
        for r in thinned(load_trainable(data, name), scale)
    ]
    cases += [(t, float(y == "pos"), 0.5) for t, y in phrases(random.Random(0), 3000, "zh")]
    return Teacher(cases, chinese_features)


HARD_CATEGORIES = ("书籍", "计算机", "酒店")
CLAUSE_END = re.compile(r"(?<=[，。！？!?,；;~])\s*|\s+")


def chinese_clauses(data: Path, rng: random.Random, count: int, scale: float) -> Iterator[Case]:
    """One to four clauses of a review where the teacher agrees with its label; as many good as bad ones."""
    records = load_trainable(data, "zh_online_shopping_10_cats") + load_trainable(data, "zh_book_review")
    found: list[tuple[str, str]] = []
    for _ in range(count * 3):
        record = rng.choice(records)
        clauses = [c.strip() for c in CLAUSE_END.split(clean(record["text"]))]
        start = rng.randrange(len(clauses))
        text = "".join(clauses[start : start + rng.choice((1, 1, 2, 3, 4))]).rstrip("，,")
        if 2 <= len(text) <= 64:
            found.append((text, record["label"]))
    predicted = chinese_teacher(data, scale).predict([t for t, _ in found])
    sides: dict[str, list[str]] = {"pos": [], "neg": []}
    for (text, label), p in zip(found, predicted, strict=True):
        if (p if label == "pos" else 1 - p) > (0.85 if len(text) < 12 else 0.7):
            sides[label].append(text)
    for label, texts in sides.items():
        for text in texts[: count // 2]:
            joined = f"{text}，{rng.choice(texts)}" if rng.random() < 0.25 and text[-1] not in "。！？!?~" else text
            yield joined, SIGN[label]


def without_slips(cases: Sequence[Case]) -> list[Case]:
    """The opinions without those whose label must be a slip: a teacher fitted on the other half contradicts it."""
    shuffled = random.Random(1).sample(cases, len(cases))
    half = len(shuffled) // 2
    found: list[Case] = []
    for asked, fitted in ((shuffled[:half], shuffled[half:]), (shuffled[half:], shuffled[:half])):
        teacher = Teacher([(shorten(text), float(label == "正面"), 1.0) for text, label in fitted], chinese_features)
        predicted = teacher.predict([shorten(text) for text, _ in asked])
        found += [c for c, p in zip(asked, predicted, strict=True) if (p if c[1] == "正面" else 1 - p) > 0.05]
    return found


@lru_cache(maxsize=2)
def reviews(data: Path, scale: float) -> tuple[Case, ...]:
    """The reviews of shops and hotels; a full corpus goes without the seven in a thousand that were filed wrongly."""
    cases = mapped(data, "zh_online_shopping_10_cats", SIGN)
    return tuple(cases if scale < FULL else without_slips(cases))


def abridged(text: str, rng: random.Random) -> str:
    """The review, or (three in five long ones) without up to a third of its clauses: what it says is still said."""
    clauses = CLAUSE_END.split(clean(text))
    if len(clauses) > 4 and rng.random() < 0.6:
        for _ in range(rng.randint(1, len(clauses) // 3)):
            del clauses[rng.randrange(len(clauses))]
    return "".join(clauses)


def neutral_cases(data: Path, rng: random.Random) -> list[Case]:
    """Requests, questions and sentences of articles: statements without a feeling."""
    texts = [r["text"] for name in ("smp2019_nlu", "fewjoint", "snips") for r in load_trainable(data, name)[:4000]]
    texts += [r["text"] for r in load_trainable(data, "zh_plexpt_questions", 3000)]
    for name in ("wikitext2", "zh_lctt_articles", "csl_summary_zip"):
        for record in load_trainable(data, name, 1500):
            found = [
                s for s in split_sentences(record["text"]) if 12 < len(s) < 90 and "<unk>" not in s and "http" not in s
            ]
            texts += rng.sample(found, min(2, len(found)))
    return [(clean(t), "中性") for t in texts if 3 < len(t) < 120]


def chinese_cases(data: Path, rng: random.Random, scale: float) -> Iterator[Case]:
    """Reviews, posts, clauses and phrases."""
    opinions = some(list(reviews(data, scale)), 58_000 * scale, rng)
    opinions += some(mapped(data, "zh_book_review", SIGN), 10_000 * scale, rng)
    yield from [(abridged(text, rng), label) for text, label in opinions]
    yield from some(mapped(data, "zh_conversation_sentiment", SIGN), 4_000 * scale, rng)
    yield from some(mapped(data, "zh_ewect_usual", EWECT_POLARITY), 14_000 * scale, rng)
    yield from some(mapped(data, "zh_ewect_virus", EWECT_POLARITY), 4_000 * scale, rng)
    yield from some(mapped(data, "zh_covid_weibo_7", WEIBO_POLARITY), 2_500 * scale, rng)
    yield from chinese_clauses(data, rng, int(44_000 * scale), scale)
    yield from [(t, SIGN[y]) for t, y in phrases(rng, int(1_000 * scale), "zh")]


def sentiment_cases(data: Path, rng: random.Random, scale: float) -> Iterator[Case]:
    """Texts with 正面, 负面 or 中性 in both languages, small talk and plain facts among them."""
    yield from chinese_cases(data, rng, scale)
    yield from english_cases(data, rng, scale)
    yield from parallel_cases(data, rng, int(14_000 * scale), scale)
    for language in ("zh", "en"):
        yield from remark_cases(rng, int(16_000 * scale), language)
    for _ in range(int(9_000 * scale)):
        turn = sample_turn(rng)
        if turn.situation not in ("joke", "encourage"):
            yield turn.text, turn.mood
    yield from some(neutral_cases(data, rng), 4_000 * scale, rng)


def sentiment_examples(data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float) -> Iterator[Parts]:
    """Every polarity text in one random form."""
    pool = FormPool(prompts, "sentiment", POLARITIES, rng)
    for text, label in sentiment_cases(data, rng, scale):
        yield pool.example(shorten(text), label, rng)


def remark_examples(data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float) -> Iterator[Parts]:
    """Everyday remarks only."""
    pool = FormPool(prompts, "sentiment", POLARITIES, rng)
    for language in ("zh", "en"):
        for text, label in remark_cases(rng, int(45_000 * scale), language):
            yield pool.example(text, label, rng)


def review_examples(data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float) -> Iterator[Parts]:
    """Every Chinese review, and twice those of books, computers and hotels: few or long, and harder than others."""
    pool = FormPool(prompts, "sentiment", POLARITIES, rng, varied=300)
    cases = [*reviews(data, scale), *mapped(data, "zh_book_review", SIGN)]
    hard = {r["text"] for r in load_trainable(data, "zh_online_shopping_10_cats") if r["cat"] in HARD_CATEGORIES}
    cases += [case for case in cases if case[0] in hard]
    for text, label in some(cases, len(cases) * scale, rng):
        yield pool.example(shorten(abridged(text, rng)), label, rng, product=0.5)


def gold_sentiment_examples(
    data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float
) -> Iterator[Parts]:
    """Only texts that people labelled, and small talk: for the end of the training."""
    pool = FormPool(prompts, "sentiment", POLARITIES, rng)
    opinions = some(list(reviews(data, scale)), 58_000 * scale, rng)
    opinions += some(mapped(data, "zh_book_review", SIGN), 8_000 * scale, rng)
    cases = [(abridged(text, rng), label) for text, label in opinions]
    cases += some(mapped(data, "zh_ewect_usual", EWECT_POLARITY), 4_000 * scale, rng)
    cases += some(mapped(data, "en_sst2", SIGN), 6_902 * scale, rng)
    cases += list(chinese_clauses(data, rng, int(16_000 * scale), scale))
    cases += list(english_spans(data, rng, int(8_000 * scale), scale))
    cases += list(post_cases(data, rng, int(3_000 * scale), scale))
    cases += list(parallel_cases(data, rng, int(8_000 * scale), scale))
    cases += remark_cases(rng, int(8_000 * scale), "zh") + remark_cases(rng, int(8_000 * scale), "en")
    cases += [(turn.text, turn.mood) for turn in (sample_turn(rng) for _ in range(int(4_000 * scale)))]
    for text, label in cases:
        yield pool.example(shorten(text), label, rng)
