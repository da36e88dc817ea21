"""Readers of the training and evaluation data: one function per question asked of the data folder.

Knows the folder layout (`train/`, `public/`, `eval_text_sha1.txt.xz`) and nothing about prompts or tokens.
Above: `corpus`, `tokenizer`, `evaluate`.
"""

import hashlib
import json
import lzma
import random
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

Record = dict[str, Any]
CJK = re.compile(r"[\u4e00-\u9fff]")


def require_data(data: Path) -> Path:
    """The data folder, or a clear end of the program when it is not there."""
    if not (data / "train").is_dir():
        raise SystemExit(
            f"No training data in '{data}': expected a folder with train/, public/ and eval_text_sha1.txt.xz. "
            "Point --data at it (see training/README.md)."
        )
    return data


def read_jsonl(path: Path) -> Iterator[Record]:
    """Records of one xz-compressed JSON Lines file, in order."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


@lru_cache(maxsize=64)
def _load(path: Path, limit: int) -> tuple[Record, ...]:
    records = read_jsonl(path)
    return tuple(record for record, _ in zip(records, range(limit), strict=False))


def load_train(data: Path, name: str, limit: int = 10**9) -> list[Record]:
    """Records of `train/NAME.*.jsonl.xz` (the first `limit`)."""
    matches = sorted((data / "train").glob(f"{name}.*.jsonl.xz"))
    if not matches:
        raise SystemExit(f"No file train/{name}.*.jsonl.xz under '{data}'.")
    return list(_load(matches[0], limit))


def load_public(data: Path, name: str) -> list[Record]:
    """Records of one development set, `public/NAME.jsonl.xz`."""
    return list(_load(data / "public" / f"{name}.jsonl.xz", 10**9))


def normalise(text: str) -> str:
    """NFKC, lower case, letters and digits only: the form in which texts are compared with the evaluation sets."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).lower() if c.isalnum())


class EvaluationTexts:
    """Membership test for texts that occur in an evaluation set and must not be trained on."""

    def __init__(self, data: Path) -> None:
        with lzma.open(data / "eval_text_sha1.txt.xz", "rt") as lines:
            self._digests = {bytes.fromhex(line.strip()) for line in lines if line.strip()}

    def __contains__(self, text: str) -> bool:
        return hashlib.sha1(normalise(text).encode()).digest() in self._digests


def is_chinese(text: str) -> bool:
    """True when at least a fifth of the characters are Chinese."""
    return len(CJK.findall(text)) * 5 >= max(1, len(text))


def split_sentences(text: str) -> list[str]:
    """Sentences of a Chinese or English text, end marks kept."""
    parts = re.split(r"(?<=[。！？!?；])|(?<=[.!?])\s+(?=[A-Z\"'])|\n+", text)
    return [part.strip() for part in parts if part and part.strip()]


def clean(text: str) -> str:
    """One line, single spaces, no byte-order marks."""
    return re.sub(r"[ \t\u3000]+", " ", text.replace("\ufeff", "").replace("\r", "")).strip()


def plain_texts(data: Path, rng: random.Random, scale: float = 1.0) -> Iterator[str]:
    """Running text for the language-model part: reviews, posts, dialogues, articles. Shuffled inside each source."""
    budgets = {  # characters taken from each source at scale 1
        "zh_online_shopping_10_cats": 1_600_000,
        "zh_book_review": 500_000,
        "zh_ewect_usual": 600_000,
        "zh_covid_weibo_7": 150_000,
        "zh_nus_sms": 120_000,
        "zh_lccc_toy": 250_000,
        "zh_plexpt_questions": 700_000,
        "smilechat": 2_500_000,
        "zh_lctt_articles": 500_000,
        "zh_classical_modern_target": 400_000,
        "tatoeba_cmn_eng": 900_000,
        "en_sst2": 700_000,
        "en_goemotions_ekman": 1_800_000,
        "en_tweeteval_emotion": 200_000,
        "topical_chat": 1_500_000,
        "wikitext2": 800_000,
        "counsel_chat": 600_000,
        "t0_reviews": 900_000,
        "csl_summary_zip": 600_000,
        "gpteacher_roleplay": 300_000,
        "sgd": 900_000,
        "t0_train_50k": 1_500_000,
        "gsm8k": 300_000,
        "emollm_ALL": 300_000,
        "oasst_sft_zh": 200_000,
        "zh_kdconv": 100_000,
        "zh_crosswoz": 100_000,
    }
    for name, budget in budgets.items():
        if name == "t0_reviews":
            texts = [text for text, _ in t0_reviews(data)]
        else:
            limit = 40_000 if name in ("smilechat", "zh_lctt_articles", "zh_classical_modern_target") else 10**9
            texts = [plain_form(r) for r in load_train(data, name, limit)]
        rng.shuffle(texts)
        used = 0
        for text in texts:
            text = clean(text)[:2400]
            used += len(text)
            yield text
            if used > budget * scale:
                break


def plain_form(record: Record) -> str:
    """The text of any record, without markers."""
    if "messages" in record:
        return "\n".join(m["content"] for m in record["messages"])
    if "en" in record:
        return f"{record['en']}\n{record['zh']}"
    return record.get("text") or record.get("tgt") or ""


T0_POSITIVE = {"yes", "positive", "good", "flattering", "satisfied", "increase", "they loved it", "definitely"}
T0_NEGATIVE = {
    "no",
    "negative",
    "bad",
    "unflattering",
    "dissatisfied",
    "decrease",
    "they didn't like it!",
    "not at all",
}


@lru_cache(maxsize=2)
def t0_reviews(data: Path) -> tuple[tuple[str, str], ...]:
    """(review, "pos" | "neg") found inside the T0 prompts; reviews of an evaluation set are left out."""
    held_out = EvaluationTexts(data)
    frames = [  # what surrounds the review in the templates
        r"^Is this product review (?:positive)\?\n",
        r"\nIs (?:the review|this product review) (?:positive|negative).*$",
        r"^Here is a review left.*?dissatisfied\?\n",
        r"^Based on this review.*?===\n",
        r"^You are considering.*?\n",
        r"^Is there a negative or positive tone.*?===\n",
        r"\nDoes this product review.*$",
        r"\nWould you say this review.*$",
        r"^(?:Review )?[Tt]itle: ",
        r"\n(?:Product )?[Rr]eview(?: text)?: ?",
        r"^(?:Product )?[Rr]eview(?: text)?: ?",
        r"\nAnswer:\s*$",
        r"^The following movie review expresses what sentiment\? ",
        r" ?(?:The sentiment expressed for the movie is|How does the (?:re)?viewer feel about the movie\?|"
        r"Did the reviewer (?:enjoy|find) .*"
        r"|What (?:is the )?sentiment .*|\s*Is this review positive or negative\?)\s*$",
        r"\n===\nBased on that, my rating is\s*$",
        r"\n\nReview (?:rating|score.*):\s*$",
        r"\n\nStars:\s*$",
        r"\nOn a scale of 1 to 5.*$",
        r"\nSo I would like to give it\s*$",
        r" My rating for this place is\s*$",
    ]
    found: dict[str, str] = {}
    for record in load_train(data, "t0_train_50k"):
        template = record["template"]
        if not re.match(r"amazon_polarity|imdb|rotten|yelp", template) or "Negation" in template:
            continue
        answer = record["messages"][1]["content"].strip().lower().rstrip(".")
        if template == "amazon_polarity_Is_this_review_negative":
            answer = {"yes": "no", "no": "yes"}.get(answer, answer)
        stars = re.match(r"(\d)", answer)
        if stars:
            label = {"1": "neg", "2": "neg", "4": "pos", "5": "pos"}.get(stars.group(1))
        else:
            label = "pos" if answer in T0_POSITIVE else "neg" if answer in T0_NEGATIVE else None
        text = record["messages"][0]["content"].strip()
        text = re.sub(r"^(?:Based on|Is there)[^=]*===\s*", "", text)
        for frame in frames:
            text = re.sub(frame, " ", text, flags=re.DOTALL if frame.startswith("^Here") else 0).strip()
        text = clean(text.replace("<br /><br />", " ").replace("\\n", " ").replace('\\""', '"'))
        usable = label and len(text) > 15 and text not in held_out
        if usable and found.setdefault(text, label) != label:
            found[text] = "mixed"
    return tuple((t, y) for t, y in found.items() if y != "mixed")
