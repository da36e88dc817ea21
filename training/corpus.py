"""Mixes the examples of all tasks into shards of packed rows: what `train` reads.

Shard N differs from shard M in its random choices (texts, wordings, small talk), so that later shards are fresh.
Training picks up new shards while it runs.
"""

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from training.packing import Encoded, encode_example, pack, pack_plain
from training.prompts import Part, Prompt, load_prompts
from training.settings import ROOT, load_settings
from training.smalltalk import sample_turn
from training.sources import EvaluationTexts, plain_texts, require_data
from training.tasks_chat import chat_examples, empathy_examples, small_talk_conversation
from training.tasks_correction import grammar_examples, typo_examples
from training.tasks_label import emotion_examples, intent_examples, sentiment_cases, sentiment_example
from training.tasks_text import (
    keyword_examples,
    polish_rewrite_examples,
    title_summary_examples,
    translate_examples,
)
from training.tokenizer import Codec

PROMPTS = ROOT / "src" / "allinone" / "prompts" / "builtin"
Source = Callable[[Path, dict[str, Prompt], random.Random, float], Iterator[list[Part]]]


def sentiment_examples(
    data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float
) -> Iterator[list[Part]]:
    """Every polarity text in one random wording."""
    for text, label in sentiment_cases(data, rng, scale):
        yield sentiment_example(prompts, text, label, rng)


def focus_examples(data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float) -> Iterator[list[Part]]:
    """What first-time users type: small talk, with its reply and with its mood, and nothing else."""
    del data
    for _ in range(int(40_000 * scale)):
        yield small_talk_conversation(prompts, rng)
    for _ in range(int(14_000 * scale)):
        turn = sample_turn(rng)
        if turn.situation not in ("joke", "encourage"):
            yield sentiment_example(prompts, turn.text, turn.mood, rng)


SOURCES: dict[str, Source] = {
    "sentiment": sentiment_examples,
    "emotion": emotion_examples,
    "intent": intent_examples,
    "chat": chat_examples,
    "empathy": empathy_examples,
    "typo": typo_examples,
    "grammar": grammar_examples,
    "keywords": keyword_examples,
    "title and summary": title_summary_examples,
    "translate": translate_examples,
    "polish and rewrite": polish_rewrite_examples,
}


FOCUS: dict[str, Source] = {"small talk": focus_examples}


def build_shard(
    data: Path, codec: Codec, sources: dict[str, Source], seed: int, row: int, scale: float
) -> dict[str, np.ndarray]:
    """One shard of task rows; examples whose text is in an evaluation set are dropped and counted."""
    rng = random.Random(seed)
    prompts = load_prompts(PROMPTS)
    held_out = EvaluationTexts(data)
    encoded: list[Encoded] = []
    dropped: Counter[str] = Counter()
    for name, source in sources.items():
        started, count, tokens = time.monotonic(), 0, 0
        for parts in source(data, prompts, rng, scale):
            if any(not p.control and len(p.text) > 6 and p.text in held_out for p in parts):
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


def main() -> None:
    """Builds the shards of a profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", type=int, help="build only this shard (-1: the focus shard)")
    args = parser.parse_args()
    settings = load_settings(args.profile)
    data, schedule = require_data(args.data), settings.schedule
    codec = Codec.load(settings.run / "tokenizer.json")
    scale = schedule.corpus_scale
    plain = settings.run / "plain.npz"
    if not plain.exists():
        texts = list(plain_texts(data, random.Random(1), 0.7 * scale))
        random.Random(2).shuffle(texts)
        np.savez(plain, **pack_plain(texts, codec, schedule.row))
        print(f"plain text: {np.load(plain)['ids'].size / 1e6:.1f} M tokens", flush=True)
    if args.only is None or args.only == -1:
        focus = build_shard(data, codec, FOCUS, 99, schedule.row, scale)
        np.savez(settings.run / "focus-00.npz", **focus)
        print(f"focus-00.npz: {focus['ids'].size / 1e6:.2f} M tokens", flush=True)
    if args.only == -1:
        return
    for seed in [args.only] if args.only is not None else range(schedule.shards):
        long = seed % 4 == 3
        shard = build_shard(data, codec, SOURCES, 100 + seed, schedule.row * 2 if long else schedule.row, scale)
        target = settings.run / f"{'long' if long else 'shard'}-{seed:02}.npz"
        partial = target.with_suffix(".tmp.npz")
        np.savez(partial, **shard)
        partial.rename(target)
        used = float((shard["group"] != 255).mean())
        print(f"{target.name}: {shard['ids'].size / 1e6:.2f} M tokens, {used:.1%} of the places used", flush=True)


if __name__ == "__main__":
    main()
