"""What the `encoder_teacher` is fitted on: opinions, posts and plain facts, and the tenth that it is measured on.

Below: `trainable`, `lexicon`.
"""

import random
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from training.lexicon import phrases
from training.sources import EvaluationTexts, normalise, split_sentences
from training.trainable import load_trainable, trainable_reviews

CLASSES = ("正面", "负面", "中性")
EMOTIONS = {"joy": 0, "optimism": 0, "sadness": 1, "anger": 1, "disgust": 1, "fear": 1, "neutral": 2}
NONE = -1


@dataclass(frozen=True, slots=True)
class Case:
    """A text with what is known of it: `polarity` 1.0 good, 0.0 bad; `three` an index of CLASSES; NONE is unknown."""

    text: str
    polarity: float = NONE
    three: int = NONE


def is_aside(text: str) -> bool:
    """One text in ten, by hash: never fitted on, to measure the teacher."""
    return sha256(normalise(text).encode()).digest()[9] % 10 == 0


def plain_english(data: Path, rng: random.Random) -> list[str]:
    """Facts, headlines and requests: neutral."""
    facts = [s for r in load_trainable(data, "wikitext2") for s in split_sentences(r["text"])]
    texts = rng.sample([s for s in facts if 30 < len(s) < 160 and "<unk>" not in s], 800)
    for record in load_trainable(data, "t0_train_50k"):
        if record["template"].startswith(("gigaword_first", "gigaword_make", "ag_news_classify")):
            body = record["messages"][0]["content"].removeprefix("First sentence of the article:").strip()
            texts.append((split_sentences(body) or [""])[0])
    texts += [r["text"] for r in rng.sample(load_trainable(data, "snips"), 500)]
    return [t for t in texts if 10 < len(t) < 220]


def gather(data: Path) -> tuple[list[Case], list[Case], list[Case]]:
    """(opinions, posts, cases kept aside); texts of the evaluation sets are left out."""
    rng = random.Random(0)
    opinions = [
        Case(r["text"], float(r["label"] == "pos"), int(r["label"] == "neg")) for r in load_trainable(data, "en_sst2")
    ]
    opinions += [Case(t, float(y == "pos")) for t, y in trainable_reviews(data)]
    aside = [c for c in opinions if c.three != NONE and is_aside(c.text)]
    opinions += [Case(t, float(y == "pos"), int(y == "neg")) for t, y in phrases(rng, 600)]
    posts: list[Case] = []
    emotions = [r for r in load_trainable(data, "en_goemotions_ekman") if r["label"] in EMOTIONS]
    for wanted in range(len(CLASSES)):
        texts = [r["text"] for r in emotions if EMOTIONS[r["label"]] == wanted]
        posts += [Case(t, three=wanted) for t in rng.sample(texts, 5_500)]
    aside += [c for c in posts if is_aside(c.text)]
    posts += [Case(r["text"], three=EMOTIONS[r["label"]]) for r in load_trainable(data, "en_tweeteval_emotion")]
    posts += [Case(t, three=2) for t in plain_english(data, rng)]
    banned = EvaluationTexts(data)
    kept, others = ([c for c in cases if not is_aside(c.text) and c.text not in banned] for cases in (opinions, posts))
    return kept, others, aside
