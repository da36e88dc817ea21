"""Mixes the examples of all tasks into shards of packed rows: what `train` reads.

Shard N differs from shard M in its random choices (texts, wordings, small talk), so that later shards are fresh. Beside
them: plain text and copying for the beginning, long rows, and the best labelled texts for the end.
"""

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from training.heldout import is_heldout
from training.packing import PAD_GROUP, Encoded, encode_example, pack, pack_plain
from training.prompts import BUILTIN, Part, Prompt, load_prompts
from training.settings import Schedule, load_settings
from training.sources import EvaluationTexts, plain_texts, require_data
from training.tasks_chat import chat_examples, empathy_examples
from training.tasks_correction import copy_examples, gold_typo_examples, grammar_examples, typo_examples
from training.tasks_intent import intent_examples
from training.tasks_label import emotion_examples, gold_emotion_examples
from training.tasks_sentiment import gold_sentiment_examples, remark_examples, review_examples, sentiment_examples
from training.tasks_text import (
    keyword_examples,
    polish_rewrite_examples,
    title_summary_examples,
    translate_examples,
)
from training.tokenizer import Codec

Source = Callable[[Path, dict[str, Prompt], random.Random, float], Iterator[list[Part]]]


def scaled(source: Source, factor: float) -> Source:
    """The same source, asked for a fraction of its examples."""

    def examples(data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float) -> Iterator[list[Part]]:
        yield from source(data, prompts, rng, scale * factor)

    return examples


SOURCES: dict[str, Source] = {
    "sentiment": sentiment_examples,
    "emotion": emotion_examples,
    "intent": scaled(intent_examples, 2.0),
    "chat": chat_examples,
    "empathy": empathy_examples,
    "typo": scaled(typo_examples, 0.15),
    "copy": scaled(copy_examples, 0.25),
    "grammar": grammar_examples,
    "keywords": keyword_examples,
    "title and summary": title_summary_examples,
    "translate": translate_examples,
    "polish and rewrite": polish_rewrite_examples,
}
LONG = {name: scaled(source, 0.2) for name, source in SOURCES.items() if name != "copy"}
COPY: dict[str, Source] = {"copy": copy_examples}
CHAT: dict[str, Source] = {"chat": scaled(chat_examples, 2.0), "empathy": empathy_examples}
REMARKS: dict[str, Source] = {"remarks": remark_examples}
TYPOS: dict[str, Source] = {"typo": scaled(typo_examples, 3.0)}
REVIEWS: dict[str, Source] = {"reviews": review_examples}
TAIL: dict[str, Source] = {
    "sentiment": gold_sentiment_examples,
    "emotion": gold_emotion_examples,
    "intent": scaled(intent_examples, 0.7),
    "typo": scaled(gold_typo_examples, 0.5),
    "synthetic typo": scaled(typo_examples, 0.12),
    "chat": scaled(chat_examples, 0.3),
    "empathy": scaled(empathy_examples, 0.3),
    "grammar": scaled(grammar_examples, 0.3),
    "keywords": scaled(keyword_examples, 0.3),
    "title and summary": scaled(title_summary_examples, 0.3),
    "translate": scaled(translate_examples, 0.3),
    "polish and rewrite": scaled(polish_rewrite_examples, 0.3),
}


def build_shard(
    data: Path, codec: Codec, sources: dict[str, Source], seed: int, row: int, scale: float
) -> dict[str, np.ndarray]:
    """One shard of task rows; examples whose text is in an evaluation set are dropped and counted."""
    rng = random.Random(seed)
    prompts = load_prompts(BUILTIN)
    held_out = EvaluationTexts(data)
    encoded: list[Encoded] = []
    dropped: Counter[str] = Counter()
    for name, source in sources.items():
        started, count, tokens = time.monotonic(), 0, 0
        for parts in source(data, prompts, rng, scale):
            if any(not p.control and len(p.text) > 6 and (p.text in held_out or is_heldout(p.text)) for p in parts):
                dropped[name] += 1
                continue
            example = encode_example(parts, codec)
            encoded.append(example)
            count, tokens = count + 1, tokens + len(example.ids)
        print(
            f"  {name:20} {count:6} examples {tokens / 1e3:8.0f} k tokens {time.monotonic() - started:5.1f} s",
            flush=True,
        )
    print(f"  dropped as evaluation texts: {dict(dropped)}", flush=True)
    return pack(encoded, row, rng)


def write(target: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes a shard atomically and says how full it is."""
    partial = target.with_suffix(".tmp.npz")
    np.savez(partial, **arrays)
    partial.rename(target)
    used = float((arrays["group"] != PAD_GROUP).mean())
    print(f"{target.name}: {arrays['ids'].size / 1e6:.2f} M places, {used:.1%} of them used", flush=True)


def shards(schedule: Schedule) -> Iterator[tuple[str, dict[str, Source], int, int]]:
    """(file name, sources, seed, row length) of everything but the plain text."""
    if schedule.copy_share:
        yield "copy-00.npz", COPY, 98, schedule.row
    if schedule.chat_share:
        yield "chat-00.npz", CHAT, 96, schedule.row
    if schedule.remark_share:
        yield "remarks-00.npz", REMARKS, 95, schedule.row
    if schedule.review_share:
        yield "reviews-00.npz", REVIEWS, 94, schedule.row
    if schedule.typo_share:
        yield "typos-00.npz", TYPOS, 93, schedule.row
    yield "shard-00.npz", SOURCES, 100, schedule.row
    if schedule.tail_share:
        yield "tail-00.npz", TAIL, 99, schedule.row
    if schedule.long_share:
        yield "long-00.npz", LONG, 97, schedule.row * 2
    for number in range(1, schedule.shards):
        yield f"shard-{number:02}.npz", SOURCES, 100 + number, schedule.row


def main() -> None:
    """Builds the shards of a profile that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    settings = load_settings(args.profile)
    data, schedule = require_data(args.data), settings.schedule
    codec = Codec.load(settings.run / "tokenizer.json")
    plain = settings.run / "plain.npz"
    if schedule.plain_share and not plain.exists():
        held_out, rng = EvaluationTexts(data), random.Random(1 + schedule.seed)
        found = plain_texts(data, rng, schedule.plain_scale * schedule.corpus_scale)
        texts = [t for t in found if not is_heldout(t) and not any(line in held_out for line in t.splitlines())]
        rng.shuffle(texts)
        write(plain, pack_plain(texts, codec, schedule.width or schedule.row))
    for name, sources, seed, row in shards(schedule):
        if (settings.run / name).exists():
            print(f"{name} is there already")
            continue
        print(name, flush=True)
        write(settings.run / name, build_shard(data, codec, sources, seed + schedule.seed, row, schedule.corpus_scale))


if __name__ == "__main__":
    main()
