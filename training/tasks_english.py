"""English cases of the sentiment task: film sentences, spans and recombinations, remarks, posts of three classes.

Full corpora ask the `encoder_teacher`, small ones the n-gram `teacher` and VADER. Below: `polarity`, `tweets`; above:
`tasks_sentiment`.
"""

import random
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from training.encoder_teacher import load_encoder_teacher
from training.lexicon import phrases
from training.polarity import EKMAN_POLARITY, POLARITIES, SIGN, TWEET_POLARITY, Case, mapped, shorten, some, thinned
from training.sources import clean, split_sentences
from training.teacher import Teacher, english_features
from training.trainable import load_trainable, trainable_reviews
from training.tweets import sample_tweet, tweet_like

FULL = 0.2  # from this scale on the encoder labels
Clause = tuple[str, float]  # text, probability of positive
AND_JOINTS = (" , ", " and ", " , and ", " -- ", " ; ")
BUT_JOINTS = (" but ", " , but ", " , yet ", " , though ", " -- but ")
_EDGE = "and|or|but|of|to|in|on|at|with|by|for|from|as|that|which|who|is|are|was|than"
LOOSE = re.compile(rf"^(?:(?:{_EDGE}|[,.;:])\s+)+|(?:\s+(?:{_EDGE}|the|a|an|[,;:]))+$", re.IGNORECASE)


@lru_cache(maxsize=2)
def english_teacher(data: Path, scale: float) -> Teacher:
    """An n-gram teacher, fitted on SST-2, the reviews inside the T0 prompts and opinion phrases."""
    cases = [(r["text"], float(r["label"] == "pos"), 1.0) for r in thinned(load_trainable(data, "en_sst2"), scale)]
    cases += [(t, float(y == "pos"), 0.5) for t, y in [*trainable_reviews(data), *phrases(random.Random(0), 8000)]]
    return Teacher(cases, english_features)


def opinion_sources(data: Path) -> list[str]:
    """Sentences of films and of reviews."""
    sources = [r["text"] for r in load_trainable(data, "en_sst2")]
    return sources + [s for text, _ in trainable_reviews(data) for s in split_sentences(text)]


def random_spans(sources: list[str], rng: random.Random, count: int, sizes: tuple[int, ...]) -> list[str]:
    """Runs of words out of random sentences."""
    spans: list[str] = []
    for _ in range(count):
        words = rng.choice(sources).split()
        size = rng.choice(sizes)
        start = rng.randint(0, max(0, len(words) - size))
        spans.append(" ".join(words[start : start + size]))
    return [s for s in spans if len(s) > 8]


def trimmed(span: str) -> str:
    """The span without the loose ends of its neighbours."""
    return LOOSE.sub("", span)


def balanced(cases: Iterable[Case], count: int, rng: random.Random) -> list[Case]:
    """At most `count` distinct cases, as many positive as negative ones."""
    distinct = sorted(set(cases))
    sides = [[c for c in distinct if c[1] == label] for label in POLARITIES[:2]]
    each = min(count // 2, *map(len, sides))
    return [c for side in sides for c in rng.sample(side, each)]


def labelled(data: Path, texts: list[str], margin: float = 0.3) -> list[Case]:
    """The texts on which the encoder is sure."""
    predicted = load_encoder_teacher(data).polarity(texts)
    return [(t, "正面" if p > 0.5 else "负面") for t, p in zip(texts, predicted, strict=True) if abs(p - 0.5) > margin]


def film_like(text: str) -> str:
    """The text as SST-2 writes: lower case, marks and clitics set off."""
    text = re.sub(r"\s*([.,!?;:()\"])\s*", r" \1 ", text.lower())
    text = re.sub(r"(\w)(n't|'(?:s|re|ve|ll|d|m))\b", r"\1 \2", text)
    return clean(text).removesuffix(" .")


@lru_cache(maxsize=2)
def clauses(data: Path) -> tuple[tuple[Clause, ...], tuple[Clause, ...]]:
    """Clauses that begin and that end SST-2 sentences, with the encoder's polarity where it is sure."""
    first: set[str] = set()
    last: set[str] = set()
    for record in load_trainable(data, "en_sst2"):
        parts = [p.strip() for p in re.split(r" , (?:but |and )?| but | and | -- | ; ", record["text"])]
        if len(parts) > 1:
            first.add(parts[0])
            last.update(parts[1:])
    teacher = load_encoder_teacher(data)
    sides = [sorted(t for t in side if 3 <= len(t.split()) <= 16) for side in (first, last)]
    scored = (zip(side, teacher.polarity(side), strict=True) for side in sides)
    head, tail = (tuple((t, p) for t, p in side if abs(p - 0.5) > 0.3) for side in scored)
    return head, tail


def recombined(data: Path, rng: random.Random, count: int) -> list[str]:
    """Two clauses of different film sentences; "and" joins those of one mind, "but" the others."""
    head, tail = clauses(data)
    texts: list[str] = []
    while len(texts) < count:
        (a, p), (b, q) = rng.choice(head), rng.choice(tail)
        agree = (p > 0.5) == (q > 0.5)
        if 8 <= len(a.split()) + len(b.split()) <= 25 and (agree or rng.random() < 0.4):
            texts.append(a + rng.choice(AND_JOINTS if agree else BUT_JOINTS) + b)
    return texts


@lru_cache(maxsize=2)
def review_sentences(data: Path) -> tuple[Case, ...]:
    """Whole sentences of reviews on which the encoder is sure, or at least agrees with the review."""
    pairs = {s: SIGN[y] for t, y in trainable_reviews(data) for s in split_sentences(t) if 5 <= len(s.split()) <= 30}
    very = set(labelled(data, list(pairs), 0.45))
    return tuple(c for c in labelled(data, list(pairs), 0.3) if c in very or pairs[c[0]] == c[1])


@lru_cache(maxsize=2)
def sure_remarks(data: Path) -> tuple[Case, ...]:
    """Sentences of small talk and of people asking for advice that both heads find clearly good or bad."""
    rng = random.Random(0)
    texts: list[str] = []
    for name, count in (("topical_chat", 14_000), ("counsel_chat", 7_000)):
        found = {s for r in load_trainable(data, name) for m in r["messages"] for s in split_sentences(m["content"])}
        texts += rng.sample(fit := sorted(s for s in found if 5 <= len(s.split()) <= 25), min(count, len(fit)))
    sure = labelled(data, texts, 0.45)
    three = load_encoder_teacher(data).three([t for t, _ in sure])
    return tuple(c for c, p in zip(sure, three, strict=True) if p[POLARITIES.index(c[1])] > 0.7)


def english_spans(data: Path, rng: random.Random, count: int, scale: float) -> Iterator[Case]:
    """Spans, whole sentences and recombined ones of English opinion texts, labelled by a teacher where it is sure."""
    sources = opinion_sources(data)
    if scale < FULL:
        spans = random_spans(sources, rng, count * 3, (3, 4, 5, 6, 8, 10, 12, 14, 18, 22))
        predicted = english_teacher(data, scale).predict(spans)
        sure = [(s, p) for s, p in zip(spans, predicted, strict=True) if abs(p - 0.5) > 0.3]
        yield from [(span, "正面" if p > 0.5 else "负面") for span, p in sure[:count]]
        return
    found = balanced(
        [(film_like(t) if rng.random() < 0.5 else t, y) for t, y in review_sentences(data)], count // 7, rng
    )
    found += balanced(sure_remarks(data), count // 8, rng)
    for sizes, share, margin in (((3, 4, 5), 0.22, 0.44), ((6, 8, 10, 12, 14, 18, 22), 0.16, 0.38)):
        spans = [trimmed(s) for s in random_spans(sources, rng, int(count * share * 4), sizes)]
        found += balanced(labelled(data, [s for s in spans if len(s) > 8], margin), int(count * share), rng)
    missing = count - len(found)
    found += balanced(labelled(data, recombined(data, rng, int(missing * 1.9)), 0.4), missing, rng)
    yield from found


def post_candidates(data: Path, scale: float) -> tuple[list[Case], list[str]]:
    """(posts with the label people gave, remarks and headlines without one)."""
    posts = [
        (r["text"], EKMAN_POLARITY[r["label"]])
        for r in thinned(load_trainable(data, "en_goemotions_ekman"), scale)
        if r["label"] in EKMAN_POLARITY
    ]
    remarks = [m["content"] for r in thinned(load_trainable(data, "topical_chat"), scale) for m in r["messages"]]
    texts = [s for remark in remarks for s in split_sentences(remark)]
    for record in thinned(load_trainable(data, "t0_train_50k"), scale):
        if re.match(r"gigaword_first|xsum_DOC_how|ag_news_classify$", record["template"]):
            body = re.sub(r"^First sentence of the article:|#\S*", "", record["messages"][0]["content"]).strip()
            texts.append(split_sentences(body)[0] if body else "")
        if record["template"].startswith("xsum"):
            texts.append(record["messages"][1]["content"])
    return posts, [t for t in texts if 20 < len(t) < 160]


@lru_cache(maxsize=2)
def english_posts(data: Path, scale: float) -> dict[str, list[str]]:
    """Polarity → English posts, remarks and headlines on whose class a teacher is sure; people's labels must agree."""
    posts, texts = post_candidates(data, scale)
    found: dict[str, list[str]] = {p: [] for p in POLARITIES}
    if scale < FULL:
        score = SentimentIntensityAnalyzer().polarity_scores
        for text, label in posts:
            compound = score(text)["compound"]
            if {"正面": compound > 0.0, "负面": compound < 0.2, "中性": abs(compound) < 0.35}[label]:
                found[label].append(text)
        for text in texts:
            compound = score(text)["compound"]
            if compound > 0.55 or compound < -0.5 or abs(compound) < 0.05:
                found["正面" if compound > 0.55 else "负面" if compound < -0.5 else "中性"].append(text)
        return found
    rng = random.Random(0)
    posts += mapped(data, "en_tweeteval_emotion", TWEET_POLARITY)
    posts += [(t, "") for t in rng.sample(texts, min(len(texts), 16_000))]
    for (text, label), p in zip(posts, load_encoder_teacher(data).three([t for t, _ in posts]), strict=True):
        if p.max() > 0.7 and label in ("", POLARITIES[p.argmax()]):
            found[POLARITIES[p.argmax()]].append(text)
    return found


def post_cases(data: Path, rng: random.Random, count: int, scale: float) -> Iterator[Case]:
    """About `count` posts of each opinion and more without one, as people post; one in five from the grammar."""
    for label, texts in english_posts(data, scale).items():
        wanted = count * (1.6 if label == "中性" else 1.0)
        for text, _ in some([(t, label) for t in texts], wanted * 0.8, rng):
            yield tweet_like(text, rng), label
        for _ in range(int(wanted / 5)):
            yield tweet_like(sample_tweet(label, rng), rng, tails=False), label


@lru_cache(maxsize=1)
def sure_pairs(data: Path) -> dict[str, list[tuple[str, str]]]:
    """Polarity → (English, Chinese) everyday sentences that mean the same; the encoder is sure of the English one."""
    pairs = sorted({(r["en"], r["zh"]) for r in load_trainable(data, "tatoeba_cmn_eng")})
    teacher, texts = load_encoder_teacher(data), [en for en, _ in pairs]
    found: dict[str, list[tuple[str, str]]] = {p: [] for p in POLARITIES}
    for pair, p, three in zip(pairs, teacher.polarity(texts), teacher.three(texts), strict=True):
        label = POLARITIES[three.argmax()]
        if three.max() > 0.7 and {"正面": p > 0.8, "负面": p < 0.2, "中性": three.max() > 0.95}[label]:
            found[label].append(pair)
    return found


def parallel_cases(data: Path, rng: random.Random, count: int, scale: float) -> Iterator[Case]:
    """About `count` everyday sentences in Chinese (two of three) and English; none in small corpora.

    What the English teacher knows reaches Chinese through their translations.
    """
    if scale < FULL:
        return
    shares = {"正面": 0.38, "负面": 0.38, "中性": 0.24}
    for label, pairs in sure_pairs(data).items():
        for english, chinese in some(pairs, count * shares[label], rng):
            yield (chinese if rng.random() < 2 / 3 else english), label


def english_cases(data: Path, rng: random.Random, scale: float) -> Iterator[Case]:
    """Film sentences, spans and recombinations of them, reviews, posts of three classes, phrases."""
    yield from some(mapped(data, "en_sst2", SIGN), 6_902 * scale, rng)
    reviews = [(t, SIGN[y]) for t, y in trainable_reviews(data)]
    yield from some(reviews, 900 * scale, rng)
    yield from [(shorten(t, 160), y) for t, y in some(reviews, 900 * scale, rng)]
    yield from english_spans(data, rng, int(30_000 * scale), scale)
    yield from post_cases(data, rng, int(7_000 * scale), scale)
    yield from [(t, SIGN[y]) for t, y in phrases(rng, int(4_000 * scale))]
