"""Examples of the correction tasks: wrong characters in Chinese, grammar, and plain copying, which both need.

Errors are put into clean sentences; the correction sets add real ones. Neighbours: `tasks_text`, whose `ask` it uses.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from training.prompts import Part, Prompt, chat_body
from training.smalltalk import sample_turn
from training.sources import clean, is_chinese, split_sentences
from training.tasks_chat import reply_parts
from training.tasks_text import ask, short_chinese
from training.trainable import load_trainable
from training.typos import typist

Parts = list[Part]
REPEAT = (
    ("原样重复下面的文字，一字不改。", "{{text}}"),
    ("Repeat the text exactly.", "{{text}}"),
    ("You are a helpful assistant", "重复：{{text}}"),
)


def edited(source: str, target: str) -> tuple[tuple[int, int], ...]:
    """Where the target differs from a source of the same length, as (start, end) in characters."""
    if len(source) != len(target):
        return ()
    return tuple((i, i + 1) for i, (a, b) in enumerate(zip(source, target, strict=True)) if a != b)


def ask_typo(prompts: dict[str, Prompt], source: str, target: str, rng: random.Random) -> Parts:
    """A typo example whose changed characters are marked as edits: they weigh more than what is only copied."""
    parts = ask(prompts, "typo", source, target, rng)
    return [*parts[:-2], replace(parts[-2], edits=edited(source, target)), parts[-1]]


@lru_cache(maxsize=1)
def clean_chinese(data: Path) -> tuple[str, ...]:
    """Well-written Chinese text of 6 to 140 characters: replies, essays, example sentences, abstracts."""
    texts = [r["zh"] for r in load_trainable(data, "tatoeba_cmn_eng")]
    texts += [r["tgt"] for name in ("sighan1X", "ecspell_ALL") for r in load_trainable(data, name)] * 2
    for record in load_trainable(data, "smilechat", 20_000):
        for message in record["messages"][:6]:
            sentences = split_sentences(clean(message["content"]))
            texts += sentences[:2]
            texts += ["".join(sentences[1:3]), "".join(sentences[:5])]
    for name, limit in (("csl_summary_zip", 5_000), ("zh_lctt_articles", 4_000), ("zh_classical_modern_target", 8_000)):
        for record in load_trainable(data, name, limit):
            sentences = [s for s in split_sentences(clean(record["text"]))[:4] if "http" not in s]
            texts += [*sentences[:3], "".join(sentences[1:4])]
    return tuple(t for t in texts if 6 <= len(t) <= 140 and is_chinese(t))


def typo_examples(data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float) -> Iterator[Parts]:
    """Wrong characters put into clean sentences, and the correction sets; some sentences are already right."""
    yield from gold_typo_examples(data, prompts, rng, scale)
    texts = clean_chinese(data)
    for sentence in rng.sample(texts, min(len(texts), int(52_000 * scale))):
        wanted = rng.choices((0, 1, 2, 3), weights=(10, 56, 26, 8))[0]
        yield ask_typo(prompts, typist(data).misspell(sentence, rng, wanted), sentence, rng)


def gold_typo_examples(data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float) -> Iterator[Parts]:
    """The pairs of the correction sets; a tenth of them shown already corrected."""
    for name in ("sighan1X", "ecspell_ALL"):
        records = [r for r in load_trainable(data, name) if len(r["src"]) == len(r["tgt"]) < 160]
        for record in rng.sample(records, int(len(records) * min(scale, 1.0))):
            source = record["tgt"] if rng.random() < 0.1 else record["src"]
            yield ask_typo(prompts, source, record["tgt"], rng)


def random_text(texts: Sequence[str], english: Sequence[str], characters: str, rng: random.Random) -> str:
    """Text that no language model can guess: random characters, pieces of sentences, words, digits."""
    kind = rng.random()
    if kind < 0.4:
        return "".join(rng.choices(characters, k=rng.randint(4, 40)))
    if kind < 0.75:
        pieces = []
        for _ in range(rng.randint(2, 8)):
            text = rng.choice(texts)
            start = rng.randrange(len(text) - 3)
            pieces.append(text[start : start + rng.randint(2, 7)])
        return "".join(pieces)
    if kind < 0.92:
        return " ".join(rng.choice(rng.choice(english).split()) for _ in range(rng.randint(3, 14)))
    return "".join(rng.choices("0123456789", k=rng.randint(4, 12)))


def copy_examples(data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float) -> Iterator[Parts]:
    """Text to be repeated as it is, a third of it under the typo prompt: copying comes before correcting."""
    texts = clean_chinese(data)
    english = [r["en"] for r in load_trainable(data, "tatoeba_cmn_eng")]
    characters = "".join(c for c, _ in typist(data).common.most_common(3000))
    for _ in range(int(12_000 * scale)):
        text = random_text(texts, english, characters, rng) if rng.random() < 0.7 else rng.choice(texts)
        prompt = prompts["typo"] if rng.random() < 0.34 else Prompt("repeat", chat_body(*rng.choice(REPEAT)))
        yield prompt.render({"text": text}) + reply_parts(text)


GRAMMAR_ERRORS = (
    (r"\b(he|she|it|He|She|It) (\w+?)(?:es|s)\b", r"\1 \2"),
    (r"\bis\b", "are"),
    (r"\bare\b", "is"),
    (r"\bhas\b", "have"),
    (r"\bwas\b", "were"),
    (r"\bwere\b", "was"),
    (r"\bdoesn't\b", "don't"),
    (r"\bdoes\b", "do"),
    (r"\b(the|a|an) ", ""),
    (r"\bwent\b", "goed"),
    (r"\bwent\b", "go"),
    (r"\bdidn't (\w+)\b", r"didn't \1ed"),
    (r"\b(\w{3,})ing\b", r"\1"),
    (r"\bto (\w+)\b", r"to \1s"),
    (r"\bin\b", "on"),
    (r"\bat\b", "in"),
    (r"\ban\b", "a"),
    (r"\b(\w{3,})s\b", r"\1"),
    (r"\b(\w{3,})ed\b", r"\1"),
    (r"\bmuch\b", "many"),
    (r"\bmany\b", "much"),
    (r"\bme\b", "I"),
    (r"\bthan\b", "then"),
    (r"\btheir\b", "there"),
    (r"\bI am\b", "I is"),
    (r"\bbetter\b", "more better"),
    (r"^(\w)", lambda m: m.group(1).lower()),
)


def grammar_examples(data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float) -> Iterator[Parts]:
    """Errors put into clean English sentences, and doubled or dropped words in Chinese ones."""
    english = [r["en"] for r in load_trainable(data, "tatoeba_cmn_eng") if len(r["en"]) < 80]
    for _ in range(1500):
        english.append(sample_turn(rng, language="en").reply)
    for sentence in rng.sample(english, min(len(english), int(5_000 * scale))):
        broken = sentence
        errors = list(GRAMMAR_ERRORS)
        rng.shuffle(errors)
        wanted = rng.choices((0, 1, 2), weights=(10, 60, 30))[0]
        for pattern, replacement in errors:
            if wanted and re.search(pattern, broken):
                broken = re.sub(pattern, replacement, broken, count=1)
                wanted -= 1
        if rng.random() < 0.15:
            broken = broken.rstrip(".")
        yield ask(prompts, "grammar", broken, sentence, rng)
    for sentence in short_chinese(data, rng, int(1_500 * scale)):
        at = rng.randrange(1, len(sentence) - 1)
        broken = (
            sentence[:at] + sentence[at - 1] + sentence[at:] if rng.random() < 0.4 else sentence.replace("的", "", 1)
        )
        yield ask(prompts, "grammar", broken, sentence, rng)
