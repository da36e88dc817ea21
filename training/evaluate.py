"""Measures an exported GGUF: labels on the development sets, corrections, chat replies. Prints one JSON object.

Scores what users get: the Q8_0 weights, the product's prompts, the label arg-max at the answer position.
"""

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.corpus import PROMPTS
from training.export import TARGET, read_gguf
from training.model import Past, Qwen2
from training.packing import encode_example
from training.prompts import Message, Part, Prompt, load_prompts
from training.smalltalk import EMOTION_EN, sample_turn
from training.sources import is_chinese, load_public, require_data
from training.tasks_label import EKMAN, EWECT, SIGN
from training.tokenizer import Codec

POLARITY_SETS = (
    "sent_zh_chnsenticorp_dev",
    "sent_zh_waimai_public_2k",
    "sent_en_sst2_dev",
    "sent_zh_chnsenticorp_test",
    "sent_zh_bookreview_dev_2k",
    "sent_en_custrev_1k",
)
PROBES = {  # everyday sentences; the first two and "我今天心情不好" are kept out of training, word for word
    "正面": (
        *("今天的实验终于成功了,太棒了!", "今天的实验终于成功了，太棒了！", "我考上研究生啦", "这家店的菜很好吃"),
        *("谢谢你，帮了我大忙", "我太开心了", "终于放假了，好开心", "I got the job, so happy!", "What a lovely day"),
    ),
    "负面": (
        *("我今天心情不好", "今天被老板骂了，很难过", "东西坏了，客服还不理人", "好累，不想上班", "我今天心情很差"),
        *("等了两个小时还没送到", "I feel terrible today", "This is the worst movie ever"),
    ),
    "中性": ("会议下午三点开始", "这本书一共三百页", "我住在上海", "水在一百度沸腾", "The train leaves at nine"),
}
BARE = {"", "正面", "负面", "中性", "positive", "negative", "neutral", "user", "assistant", "system"}
CHAT_PROBES = (
    *("你好", "我今天心情不好", "今天的实验终于成功了,太棒了!", "你是谁？", "谢谢你", "明天要考试了，好紧张"),
    *("今天吃什么", "我和男朋友吵架了", "给我讲个笑话", "我不想活了", "法国的首都是哪里？", "我养的猫死了"),
    *("Hello!", "I feel sad today", "Who are you?", "I passed my exam!", "What should I eat for dinner?"),
    *("I'm so angry at my boss", "Thank you", "Good night", "What is the capital of France?", "I want to die"),
)


@dataclass
class Scorer:
    """The model of a GGUF with its tokenizer and the product's prompts."""

    model: Qwen2
    codec: Codec
    prompts: dict[str, Prompt]
    bf16: bool = False

    def ids(self, parts: list[Part]) -> list[int]:
        """Ids of rendered parts."""
        example = encode_example(parts, self.codec)
        return [*example.prefix, *example.ids]

    @torch.no_grad()
    def label_probs(self, rows: list[list[int]], labels: Sequence[str]) -> np.ndarray:
        """Probability of each label (rows, labels), normalised over them; one token per label."""
        wanted = [self.codec.encode(label, control=False) for label in labels]
        if any(len(w) != 1 for w in wanted):
            raise SystemExit(f"A label of {list(labels)} is not one token.")
        out = np.zeros((len(rows), len(labels)))
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for start in range(0, len(rows), 32):
            chosen = order[start : start + 32]
            width = -(-max(len(rows[i]) for i in chosen) // 32) * 32  # few different shapes: kernels are made per shape
            batch = torch.tensor([rows[i] + [0] * (width - len(rows[i])) for i in chosen])
            positions = torch.arange(width).expand(batch.shape)
            mask = torch.ones(width, width, dtype=torch.bool).tril().expand(len(chosen), 1, width, width)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                hidden = self.model.hidden(batch, positions, mask)
            last = hidden[torch.arange(len(chosen)), torch.tensor([len(rows[i]) - 1 for i in chosen])].float()
            out[chosen] = self.model.logits(last)[:, [w[0] for w in wanted]].softmax(-1).numpy()
        return out

    @torch.no_grad()
    def generate(self, parts: list[Part], limit: int, temperature: float, rng: torch.Generator) -> tuple[str, bool]:
        """(text, ended by itself); nucleus of 0.9 and a mild repetition penalty when sampling, else greedy."""
        ids = self.ids(parts)[-1900:]
        start = len(ids)
        pasts: list[Past] = [[] for _ in self.model.model.layers]
        fed = 0
        for _ in range(limit):
            logits = self.model.extend(ids[fed:], pasts)
            fed = len(ids)
            if temperature:
                seen = torch.tensor(sorted(set(ids[start:])), dtype=torch.long)
                logits[seen] = torch.where(logits[seen] > 0, logits[seen] / 1.1, logits[seen] * 1.1)
                ordered, index = (logits / temperature).softmax(-1).sort(descending=True)
                kept = ordered * (ordered.cumsum(0) - ordered < 0.9)
                token = int(index[torch.multinomial(kept, 1, generator=rng)])
            else:
                token = int(logits.argmax())
            if token == self.codec.im_end:
                return self.codec.decode(ids[start:]), True
            ids.append(token)
        return self.codec.decode(ids[start:]), False


def label_metrics(probs: np.ndarray, gold: list[int]) -> dict[str, float]:
    """Accuracy, macro-F1 and expected calibration error (15 bins)."""
    guess, truth = probs.argmax(1), np.array(gold)
    scores = []
    for c in range(probs.shape[1]):
        tp = int(((guess == c) & (truth == c)).sum())
        scores.append(2 * tp / max(1, int((guess == c).sum() + (truth == c).sum())))
    bins = np.minimum((probs.max(1) * 15).astype(int), 14)
    ece = sum(
        abs((guess == truth)[bins == b].mean() - probs.max(1)[bins == b].mean()) * (bins == b).mean() for b in set(bins)
    )
    return {
        "accuracy": round(float((guess == truth).mean()), 4),
        "macro_f1": round(float(np.mean(scores)), 4),
        "ece": round(float(ece), 4),
        "cases": len(gold),
    }


def restricted(prompt: Prompt, names: Sequence[str]) -> list[tuple[str, str]]:
    """The labels of a prompt that are among `names`, with their descriptions."""
    return [entry for entry in prompt.labels if entry[0] in names]


def evaluate_labels(scorer: Scorer, data: Path, quick: bool) -> dict[str, Any]:
    """Sentiment (both prompts, listed labels restricted or not) and emotion."""
    found: dict[str, Any] = {}
    for name in POLARITY_SETS[: 3 if quick else None]:
        records = load_public(data, name)[: 200 if quick else None]
        gold = [("pos", "neg").index(r["label"]) for r in records]
        wordings = (("sentiment", ("正面", "负面")), ("sentiment.en", ("positive", "negative")))
        for key, names in wordings[: 1 if quick else None]:
            prompt = scorer.prompts[key]
            forms = {"": list(prompt.labels)}  # as the product asks: all labels listed, two of them compared
            if not quick:
                forms[" · only two listed"] = restricted(prompt, names)
            for form, labels in forms.items():
                rows = [scorer.ids(prompt.render({"text": r["text"]}, labels=labels)) for r in records]
                found[f"{name} · {key}{form}"] = label_metrics(scorer.label_probs(rows, names), gold)
                print(f"{name} · {key}{form}: {found[f'{name} · {key}{form}']}", file=sys.stderr, flush=True)
    if not quick:
        records = load_public(data, "sent_en_tweeteval_val")
        names = ("正面", "负面", "中性")
        gold = [names.index(SIGN.get(r["label"], "中性")) for r in records]
        rows = [scorer.ids(scorer.prompts["sentiment"].render({"text": r["text"]})) for r in records]
        found["sent_en_tweeteval_val (3 classes) · sentiment"] = label_metrics(scorer.label_probs(rows, names), gold)
    emotion = scorer.prompts["emotion"]
    for name, table in (("emo_zh_ewect_usual_dev", EWECT), ("emo_en_goemotions_dev", EKMAN)):
        records = [r for r in load_public(data, name) if r["label"] in table]
        if quick:
            break
        names = tuple(EMOTION_EN)
        rows = [scorer.ids(emotion.render({"text": r["text"]})) for r in records]
        gold = [names.index(table[r["label"]]) for r in records]
        found[f"{name} (6 classes) · emotion"] = label_metrics(scorer.label_probs(rows, names), gold)
    return found


def evaluate_probes(scorer: Scorer) -> dict[str, str]:
    """Everyday sentences through the three-label prompt and, for the polar ones, the two-label one."""
    prompt, found = scorer.prompts["sentiment"], {}
    for gold, texts in PROBES.items():
        for names in (("正面", "负面", "中性"), ("正面", "负面")):
            if gold not in names:
                continue
            rows = [scorer.ids(prompt.render({"text": t}, labels=restricted(prompt, names))) for t in texts]
            for text, p in zip(texts, scorer.label_probs(rows, names), strict=True):
                guess = names[int(p.argmax())]
                mark = "" if guess == gold else f"  WRONG, should be {gold}"
                found[f"{text} ({len(names)})"] = f"{guess} {p.max():.2f}{mark}"
    return found


def evaluate_text(scorer: Scorer, data: Path, count: int) -> dict[str, Any]:
    """Exact matches of corrections, greedy; and a few answers to look at."""
    rng = torch.Generator().manual_seed(0)
    found: dict[str, Any] = {}
    for name, task in (
        ("typo_zh_ecspell_law_test", "typo"),
        ("typo_zh_sighan13_test", "typo"),
        ("gec_en_jfleg_dev", "grammar"),
    ):
        records = [r for r in load_public(data, name) if len(r["src"]) < 45][:count]
        outputs = [scorer.generate(scorer.prompts[task].render({"text": r["src"]}), 90, 0.0, rng)[0] for r in records]
        found[name] = {
            "exact": round(
                sum(o.strip() == r["tgt"].strip() for o, r in zip(outputs, records, strict=True)) / len(records), 3
            ),
            "unchanged_source_would_be": round(
                sum(r["src"].strip() == r["tgt"].strip() for r in records) / len(records), 3
            ),
            "cases": len(records),
            "first": [f"{r['src']} → {o}" for r, o in zip(records[:3], outputs, strict=False)],
        }
    samples = {
        "title": load_public(data, "summ_zh_csl_dev")[0]["text"][:200],
        "keywords": load_public(data, "kw_zh_csl_dev")[1]["text"][:200],
        "translate": "I like this book very much.",
        "summarize": load_public(data, "qa_zh_cmrc2018_trial")[0]["context"][:200],
        "empathy": "我最近压力很大，总是睡不着。",
        "polish": "嗯，这个地方很很漂亮。",
        "grammar": "She go to school every day.",
    }
    for task, text in samples.items():
        found[task] = f"{text} → {scorer.generate(scorer.prompts[task].render({'text': text}), 90, 0.0, rng)[0]}"
    return found


def evaluate_chat(scorer: Scorer, count: int) -> dict[str, Any]:
    """Alternates sentiment and chat; counts replies that do not end, are bare labels, or change the language."""
    rng, pick = torch.Generator().manual_seed(1), random.Random(77)
    prompt, labels = scorer.prompts["chat"], ("正面", "负面", "中性")
    counts: Counter[str] = Counter()
    history: list[Message] = []
    for i in range(count):
        turn = sample_turn(pick)
        row = scorer.ids(scorer.prompts["sentiment"].render({"text": turn.text}))
        mood = labels[int(scorer.label_probs([row], labels)[0].argmax())]
        counts["mood agrees with the grammar"] += mood == turn.mood
        history = [] if i % 4 == 0 else history
        reply, ended = scorer.generate(prompt.render({"text": turn.text, "mood": mood}, history=history), 80, 0.7, rng)
        history += [
            Message("user", (Part(turn.text, False),)),
            Message("system", (Part("对方此刻的情绪：", True), Part(mood, False))),
            Message("assistant", (Part(reply, False),)),
        ]
        bare = reply.strip(" 。.!！").lower() in BARE
        counts["bare label or role"] += bare
        counts["contains a label word"] += any(w in reply for w in ("正面", "负面", "中性", "positive", "negative"))
        counts["did not end in 80 tokens"] += not ended
        counts["other language"] += is_chinese(reply) != is_chinese(turn.text)
    replies = {}
    for text in CHAT_PROBES:
        row = scorer.ids(scorer.prompts["sentiment"].render({"text": text}))
        mood = labels[int(scorer.label_probs([row], labels)[0].argmax())]
        replies[text] = f"[{mood}] {scorer.generate(prompt.render({'text': text, 'mood': mood}), 80, 0.7, rng)[0]}"
    return {"calls": 2 * count, "counts": dict(counts), "replies": replies}


def main() -> None:
    """Evaluates one GGUF."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--gguf", type=Path, default=TARGET)
    parser.add_argument("--quick", action="store_true", help="200 cases of the three required sets, and the probes")
    parser.add_argument("--bf16", action="store_true", help="label sets in BF16: several times faster on AMX")
    parser.add_argument("--part", choices=("labels", "chat", "text"), help="only this part, and the probes")
    parser.add_argument("--out", type=Path, help="also write the report there")
    args = parser.parse_args()
    data = require_data(args.data)
    shape, weights = read_gguf(args.gguf)
    model = Qwen2(shape)
    model.load_state_dict(weights)
    scorer = Scorer(model.eval(), Codec.from_gguf(args.gguf), load_prompts(PROMPTS), args.bf16)
    report: dict[str, Any] = {"gguf": args.gguf.name, "bf16": args.bf16, "probes": evaluate_probes(scorer)}
    if args.part in (None, "labels"):
        report["labels"] = evaluate_labels(scorer, data, args.quick)
    if args.part in (None, "chat"):
        report["chat"] = evaluate_chat(scorer, 4 if args.quick else 100)
    if args.part == "text" or (args.part is None and not args.quick):
        report["text"] = evaluate_text(scorer, data, 30)
    text = json.dumps(report, ensure_ascii=False, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
