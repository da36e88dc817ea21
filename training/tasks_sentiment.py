"""Examples of the sentiment task: reviews, posts, clauses labelled by a teacher, tweets, plain facts.

Neighbours: `tasks_label` (emotion), `tasks_intent`; the wordings come from `wordings`.
"""

import random
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from training.lexicon import phrases
from training.prompts import Part, Prompt
from training.smalltalk import sample_turn
from training.sources import clean, split_sentences
from training.teacher import Teacher, chinese_features, english_features
from training.trainable import load_trainable, trainable_reviews
from training.wordings import FormPool

Case = tuple[str, str]  # text, label (正面 负面 中性)
Parts = list[Part]
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


@lru_cache(maxsize=2)
def english_teacher(data: Path, scale: float) -> Teacher:
    """A teacher of English opinions, fitted on SST-2, the reviews inside the T0 prompts and opinion phrases."""
    cases = [(r["text"], float(r["label"] == "pos"), 1.0) for r in thinned(load_trainable(data, "en_sst2"), scale)]
    cases += [(t, float(y == "pos"), 0.5) for t, y in [*trainable_reviews(data), *phrases(random.Random(0), 8000)]]
    return Teacher(cases, english_features)


def chinese_clauses(data: Path, rng: random.Random, count: int, scale: float) -> Iterator[Case]:
    """Clauses of reviews on which the teacher is sure and agrees with the review's label; as many good as bad ones."""
    records = load_trainable(data, "zh_online_shopping_10_cats") + load_trainable(data, "zh_book_review")
    found: list[tuple[str, str]] = []
    for record in rng.sample(records, min(len(records), count * 3)):
        clauses = [c.strip() for c in re.split(r"(?<=[，。！？!?,；;~])\s*|\s+", clean(record["text"]))]
        start = rng.randrange(len(clauses))
        text = "".join(clauses[start : start + rng.choice((1, 1, 2))]).rstrip("，,")
        if 2 <= len(text) <= 36:
            found.append((text, record["label"]))
    sure = [
        (t, y)
        for (t, y), p in zip(found, chinese_teacher(data, scale).predict([t for t, _ in found]), strict=True)
        if (p if y == "pos" else 1 - p) > 0.85
    ]
    for wanted in ("pos", "neg"):
        for text, y in [c for c in sure if c[1] == wanted][: count // 2]:
            yield text, SIGN[y]


def english_spans(data: Path, rng: random.Random, count: int, scale: float) -> Iterator[Case]:
    """Spans and sentences of English opinion texts, labelled by the teacher where it is sure."""
    sources = [r["text"] for r in load_trainable(data, "en_sst2")]
    sources += [s for text, _ in trainable_reviews(data) for s in split_sentences(text)]
    spans: list[str] = []
    for _ in range(count * 3):
        words = rng.choice(sources).split()
        size = rng.choice((3, 4, 5, 6, 8, 10, 12, 14, 18, 22))
        start = rng.randint(0, max(0, len(words) - size))
        spans.append(" ".join(words[start : start + size]))
    predicted = english_teacher(data, scale).predict(spans)
    sure = [(s, p) for s, p in zip(spans, predicted, strict=True) if abs(p - 0.5) > 0.3 and len(s) > 8]
    for span, p in sure[:count]:
        yield span, "正面" if p > 0.5 else "负面"


TAGS = ("#monday", "#news", "#music", "#football", "#weekend", "#tech", "#tv", "#win", "#travel")
TAILS = ("tomorrow", "tonight", "on Sunday", "at 8pm", "this weekend", "on Friday", "next week", "today")


def tweet_like(text: str, rng: random.Random) -> str:
    """The text with what tweets have: mentions, tags, a time, loose case."""
    if rng.random() < 0.3:
        text = "@user " * rng.choice((1, 1, 2)) + text
    if rng.random() < 0.2:
        text = text.rstrip(".") + " " + rng.choice(TAILS)
    if rng.random() < 0.2:
        text += " " + rng.choice(TAGS)
    return text.lower() if rng.random() < 0.15 else text


@lru_cache(maxsize=2)
def english_posts(data: Path, scale: float) -> dict[str, list[str]]:
    """Polarity → English posts, remarks and headlines; a rule lexicon (VADER) must agree with the label or give it."""
    score = SentimentIntensityAnalyzer().polarity_scores
    found: dict[str, list[str]] = {p: [] for p in POLARITIES}
    for record in thinned(load_trainable(data, "en_goemotions_ekman"), scale):
        label = EKMAN_POLARITY.get(record["label"])
        compound = score(record["text"])["compound"]
        agrees = {"正面": compound > 0.0, "负面": compound < 0.2, "中性": abs(compound) < 0.35}
        if label and agrees[label]:
            found[label].append(record["text"])
    remarks = [m["content"] for r in thinned(load_trainable(data, "topical_chat"), scale) for m in r["messages"]]
    texts = [s for remark in remarks for s in split_sentences(remark)]
    for record in thinned(load_trainable(data, "t0_train_50k"), scale):
        if re.match(r"gigaword_first|xsum_DOC_how|ag_news_classify$", record["template"]):
            body = re.sub(r"^First sentence of the article:|#\S*", "", record["messages"][0]["content"]).strip()
            texts.append(split_sentences(body)[0] if body else "")
        if record["template"].startswith("xsum"):
            texts.append(record["messages"][1]["content"])
    for text in texts:
        if 20 < len(text) < 160:
            compound = score(text)["compound"]
            if compound > 0.55:
                found["正面"].append(text)
            elif compound < -0.5:
                found["负面"].append(text)
            elif abs(compound) < 0.05:
                found["中性"].append(text)
    return found


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


def some(cases: list[Case], count: float, rng: random.Random) -> list[Case]:
    """At most `count` of the cases, without repetition."""
    return rng.sample(cases, min(len(cases), int(count)))


def mapped(data: Path, name: str, labels: dict[str, str]) -> list[Case]:
    """The cases of a set whose label has a polarity."""
    return [(r["text"], labels[r["label"]]) for r in load_trainable(data, name) if r["label"] in labels]


def chinese_cases(data: Path, rng: random.Random, scale: float) -> Iterator[Case]:
    """Reviews, posts, clauses and phrases."""
    yield from some(mapped(data, "zh_online_shopping_10_cats", SIGN), 42_000 * scale, rng)
    yield from some(mapped(data, "zh_book_review", SIGN), 10_000 * scale, rng)
    yield from some(mapped(data, "zh_conversation_sentiment", SIGN), 4_000 * scale, rng)
    yield from some(mapped(data, "zh_ewect_usual", EWECT_POLARITY), 8_000 * scale, rng)
    yield from some(mapped(data, "zh_covid_weibo_7", WEIBO_POLARITY), 2_500 * scale, rng)
    yield from chinese_clauses(data, rng, int(16_000 * scale), scale)
    yield from [(t, SIGN[y]) for t, y in phrases(rng, int(1_000 * scale), "zh")]


def english_cases(data: Path, rng: random.Random, scale: float) -> Iterator[Case]:
    """Movie sentences, spans of them, reviews, posts of three classes, phrases."""
    yield from some(mapped(data, "en_sst2", SIGN), 6_902 * scale, rng)
    reviews = [(t, SIGN[y]) for t, y in trainable_reviews(data)]
    yield from some(reviews, 900 * scale, rng)
    yield from [(shorten(t, 160), y) for t, y in some(reviews, 900 * scale, rng)]
    yield from english_spans(data, rng, int(24_000 * scale), scale)
    for label, texts in english_posts(data, scale).items():
        for text, _ in some([(t, label) for t in texts], 6_000 * scale, rng):
            yield tweet_like(text, rng), label
    yield from [(t, SIGN[y]) for t, y in phrases(rng, int(4_000 * scale))]


def sentiment_cases(data: Path, rng: random.Random, scale: float) -> Iterator[Case]:
    """Texts with 正面, 负面 or 中性 in both languages, small talk and plain facts among them."""
    yield from chinese_cases(data, rng, scale)
    yield from english_cases(data, rng, scale)
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


def gold_sentiment_examples(
    data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float
) -> Iterator[Parts]:
    """Only texts that people labelled, and small talk: for the end of the training."""
    pool = FormPool(prompts, "sentiment", POLARITIES, rng)
    cases = some(mapped(data, "zh_online_shopping_10_cats", SIGN), 26_000 * scale, rng)
    cases += some(mapped(data, "zh_book_review", SIGN), 7_000 * scale, rng)
    cases += some(mapped(data, "zh_ewect_usual", EWECT_POLARITY), 4_000 * scale, rng)
    cases += some(mapped(data, "en_sst2", SIGN), 6_902 * scale, rng)
    cases += list(chinese_clauses(data, rng, int(6_000 * scale), scale))
    cases += list(english_spans(data, rng, int(8_000 * scale), scale))
    for label, texts in english_posts(data, scale).items():
        cases += [(tweet_like(t, rng), y) for t, y in some([(t, label) for t in texts], 2_500 * scale, rng)]
    cases += [(turn.text, turn.mood) for turn in (sample_turn(rng) for _ in range(int(4_000 * scale)))]
    for text, label in cases:
        yield pool.example(shorten(text), label, rng)
