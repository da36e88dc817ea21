"""Examples of the correction tasks: wrong characters in Chinese, grammar in English and Chinese.

Errors are put into clean sentences; the correction sets add real ones. Neighbours: `tasks_text`, whose `ask` it uses.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from training.prompts import Part, Prompt
from training.smalltalk import sample_turn
from training.sources import load_train
from training.tasks_text import ask, short_chinese

Parts = list[Part]
COMMON_CONFUSIONS = {
    "的": "得地",
    "得": "的",
    "地": "的",
    "在": "再",
    "再": "在",
    "做": "作",
    "作": "做",
    "他": "她",
    "那": "哪",
    "哪": "那",
    "己": "已",
    "已": "以",
    "坐": "座",
    "座": "坐",
    "们": "门",
    "园": "圆",
    "账": "帐",
    "像": "象",
    "带": "戴",
    "到": "道",
    "知": "只",
    "道": "到",
    "是": "事",
    "事": "是",
    "以": "已",
    "因": "应",
    "应": "因",
    "经": "今",
    "今": "金",
    "天": "添",
    "气": "汽",
    "很": "狠",
    "请": "清",
    "情": "请",
    "清": "青",
    "和": "合",
    "高": "搞",
    "兴": "性",
    "学": "雪",
    "生": "声",
    "明": "名",
    "名": "明",
    "觉": "决",
    "决": "绝",
    "题": "提",
    "提": "题",
    "受": "授",
    "近": "进",
}


def confusions(data: Path) -> dict[str, list[str]]:
    """Right character → wrong ones, from the correction sets and the common ones above."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for name in ("sighan1X", "ecspell_ALL"):
        for record in load_train(data, name):
            if len(record["src"]) == len(record["tgt"]):
                for wrong, right in zip(record["src"], record["tgt"], strict=True):
                    if wrong != right:
                        seen[right][wrong] += 1
    found = {right: list(wrong.elements()) for right, wrong in seen.items()}
    for right, wrong in COMMON_CONFUSIONS.items():
        found.setdefault(right, []).extend(wrong * 3)
    return found


def typo_examples(data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float) -> Iterator[Parts]:
    """Wrong characters put into clean sentences, and the correction sets; some sentences are already right."""
    wrong = confusions(data)
    for name, count in (("sighan1X", 2_500), ("ecspell_ALL", 2_000)):
        records = [r for r in load_train(data, name) if len(r["src"]) < 60]
        for record in rng.sample(records, min(len(records), int(count * scale))):
            yield ask(prompts, "typo", record["src"], record["tgt"], rng)
    for sentence in short_chinese(data, rng, int(7_000 * scale)):
        characters = list(sentence)
        places = [i for i, c in enumerate(characters) if c in wrong]
        rng.shuffle(places)
        for place in places[: rng.choices((0, 1, 2), weights=(12, 65, 23))[0]]:
            characters[place] = rng.choice(wrong[characters[place]])
        yield ask(prompts, "typo", "".join(characters), sentence, rng)


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
    english = [r["en"] for r in load_train(data, "tatoeba_cmn_eng") if len(r["en"]) < 80]
    for _ in range(1500):
        english.append(sample_turn(rng, language="en").reply)
    for sentence in rng.sample(english, min(len(english), int(6_000 * scale))):
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
