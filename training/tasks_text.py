"""Examples of the tasks that answer with text: keywords, title, summary, translation, polish, rewrite.

A model of this size copies with effort, so sources are short. Neighbours: `tasks_correction`, `tasks_label`,
`tasks_chat`.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from training.prompts import Part, Prompt
from training.smalltalk import sample_turn
from training.sources import clean, is_chinese, split_sentences
from training.tasks_chat import reply_parts
from training.trainable import load_trainable
from training.wordings import text_wording

Parts = list[Part]


def ask(prompts: dict[str, Prompt], task: str, text: str, reply: str, rng: random.Random, **values: str) -> Parts:
    """An example of a text task: the product's prompt, or in a third of the cases another wording."""
    prompt = text_wording(task, text, rng) if rng.random() < 0.35 else prompts[task]
    return prompt.render({"text": text, **values}) + reply_parts(reply)


def short_chinese(data: Path, rng: random.Random, count: int) -> list[str]:
    """Clean short Chinese sentences from many registers."""
    texts = [r["zh"] for r in load_trainable(data, "tatoeba_cmn_eng")]
    texts += [sample_turn(rng, language="zh").reply for _ in range(1500)]
    for name, limit in (("csl_summary_zip", 3000), ("zh_online_shopping_10_cats", 10_000), ("smilechat", 4000)):
        for record in load_trainable(data, name)[:limit]:
            body = record["messages"][0]["content"] if "messages" in record else record["text"]
            texts += [s for s in split_sentences(clean(body))[:2] if 6 < len(s) < 40]
    texts = [t for t in texts if 5 < len(t) < 40]
    return rng.sample(texts, min(count, len(texts)))


STOP = set("的了是在和与对中及等为有一种基于研究分析方法应用进行提出采用本文通过下以其并或上不这那我你他们个从到被")


def chinese_keywords(text: str, title: str) -> list[str]:
    """Longest strings that title and text share, without function characters."""
    found: list[str] = []
    for size in (7, 6, 5, 4, 3, 2):
        for i in range(len(title) - size + 1):
            piece = title[i : i + size]
            if not re.fullmatch(r"[\u4e00-\u9fffA-Za-z0-9-]+", piece) or set(piece) & STOP or piece not in text:
                continue
            if not any(piece in f or f in piece for f in found):
                found.append(piece)
    return sorted(found, key=title.index)[:5]


def english_keywords(text: str) -> list[str]:
    """Capitalised or repeated longer words, in order of first use."""
    words = re.findall(r"[A-Za-z][A-Za-z-]{4,}", text)
    counts = Counter(w.lower() for w in words)
    ranked = sorted(counts, key=lambda w: (-counts[w], -len(w)))[:5]
    return sorted(ranked, key=lambda w: text.lower().index(w))[:4]


def keyword_examples(data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float) -> Iterator[Parts]:
    """Compact JSON with words of the text."""
    csl = load_trainable(data, "csl_summary_zip")
    for record in rng.sample(csl, int(1_300 * scale)):
        sentences = split_sentences(clean(record["text"]))
        text = "".join(sentences[: rng.randint(1, 3)])[:200]
        words = chinese_keywords(text, clean(record["summary"]))
        if len(words) >= 2:
            yield ask(
                prompts,
                "keywords",
                text,
                json.dumps({"keywords": words}, ensure_ascii=False, separators=(",", ":")),
                rng,
            )
    for record in rng.sample(load_trainable(data, "wikitext2"), int(500 * scale)):
        text = clean(" ".join(split_sentences(record["text"].replace("<unk>", ""))[:2]))[:300].replace(" @-@ ", "-")
        words = english_keywords(text)
        if len(words) >= 3:
            yield ask(
                prompts,
                "keywords",
                text,
                json.dumps({"keywords": words}, ensure_ascii=False, separators=(",", ":")),
                rng,
            )


def t0_pairs(data: Path, pattern: str, after: str, limit: int) -> list[tuple[str, str]]:
    """(document, answer) of T0 templates, the instruction removed as far as a pattern can."""
    found = []
    for record in load_trainable(data, "t0_train_50k"):
        if re.fullmatch(pattern, record["template"]):
            text = re.sub(after, "", record["messages"][0]["content"], flags=re.DOTALL).strip()
            if 30 < len(text) < limit:
                found.append((clean(text).replace("\n", " "), clean(record["messages"][1]["content"])))
    return found


def title_summary_examples(data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float) -> Iterator[Parts]:
    """Titles of abstracts and headlines; summaries of short dialogues, first sentences of longer texts."""
    for record in rng.sample(load_trainable(data, "csl_summary_zip"), int(1_300 * scale)):
        text, title = clean(record["text"])[:230], clean(record["summary"])
        yield ask(prompts, "title", text, title, rng)
        if rng.random() < 0.25:
            yield ask(prompts, "summarize", text, title + "。", rng)
    headlines = t0_pairs(
        data,
        r"gigaword_(?:TLDR|make_a_title|first_sentence_title|write_a_title.*)",
        r"^(?:First sentence of the article:|Make a title for this article:|Write a title for this sentence:)"
        r"|\n*(?:Title:|TLDR:|===).*$",
        400,
    )
    for text, title in rng.sample(headlines, min(len(headlines), int(700 * scale))):
        yield ask(prompts, "title", text, title, rng)
    talks = t0_pairs(
        data,
        r"samsum_(?:Summarize_|To_sum.*|Sum_up.*)",
        r"^(?:Summarize(?: this dialogue)?:|Sum up the following dialogue:?)"
        r"|\n*(?:To sum up this dialog:?|Summary:).*$",
        600,
    )
    for text, summary in rng.sample(talks, min(len(talks), int(500 * scale))):
        yield ask(prompts, "summarize", text, summary, rng)
    texts = [
        r["text"]
        for name in ("zh_lctt_articles", "wikitext2", "zh_classical_modern_target")
        for r in load_trainable(data, name, 4000)
    ]
    made = 0
    for text in rng.sample(texts, len(texts)):
        sentences = [s for s in split_sentences(clean(text).replace("<unk> ", "")) if "http" not in s and len(s) > 8]
        if len(sentences) > 2 and len(sentences[0]) < 70 and made < 900 * scale:
            made += 1
            gap = "" if is_chinese(text) else " "
            yield ask(prompts, "summarize", gap.join(sentences[:4])[:300], sentences[0], rng)


def translate_examples(data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float) -> Iterator[Parts]:
    """Short sentence pairs in both directions."""
    pairs = [(r["en"], r["zh"]) for r in load_trainable(data, "tatoeba_cmn_eng") if len(r["en"]) < 70]
    for english, chinese in rng.sample(pairs, min(len(pairs), int(5_000 * scale))):
        source, target = (english, chinese) if rng.random() < 0.5 else (chinese, english)
        yield ask(prompts, "translate", source, target, rng)


FORMAL = {
    "我们": "我方",
    "你": "您",
    "咱们": "我们",
    "帮我": "请协助",
    "啥": "什么",
    "咋": "怎么",
    "弄": "处理",
    "挺": "十分",
    "特别": "非常",
    "好多": "许多",
    "谢谢": "感谢",
    "可以": "能够",
    "告诉": "告知",
    "现在": "目前",
    "马上": "立即",
    "买": "购买",
    "给": "提供给",
    "看看": "查看",
    "知道": "了解",
    "快": "尽快",
}
FRIENDLY = {
    "您": "你",
    "非常": "特别",
    "许多": "好多",
    "目前": "现在",
    "立即": "马上",
    "购买": "买",
    "感谢": "谢谢",
    "了解": "知道",
}
FILLERS = ("那个，", "就是说，", "然后呢，", "嗯，", "其实吧，", "反正就是，")


def polish_rewrite_examples(
    data: Path, prompts: dict[str, Prompt], rng: random.Random, scale: float
) -> Iterator[Parts]:
    """Polishing removes fillers and doubled words; rewriting exchanges words by style. Rules, not taste."""
    for sentence in short_chinese(data, rng, int(1_500 * scale)):
        rough = rng.choice(FILLERS) + sentence.replace("非常", "很很").replace(
            "。", "吧。" if rng.random() < 0.3 else "。"
        )
        yield ask(prompts, "polish", rough, sentence, rng)
    english = [r["en"] for r in load_trainable(data, "tatoeba_cmn_eng") if 15 < len(r["en"]) < 70]
    for sentence in rng.sample(english, int(1_000 * scale)):
        yield ask(
            prompts,
            "polish",
            rng.choice(("well, ", "so like, ", "um, ")) + sentence[0].lower() + sentence[1:],
            sentence,
            rng,
        )
    for sentence in short_chinese(data, rng, int(2_000 * scale)):
        table, style = rng.choice(((FORMAL, "正式"), (FORMAL, "正式"), (FRIENDLY, "亲切"), (FRIENDLY, "口语")))
        changed = sentence
        for old, new in table.items():
            changed = changed.replace(old, new)
        if changed != sentence:
            yield ask(prompts, "rewrite", sentence, changed, rng, style=style)
