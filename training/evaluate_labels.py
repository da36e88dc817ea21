"""The label rows of the evaluation: sentiment, emotion, intent, their calibration, and how stable the answers are."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

import numpy as np

from training.evaluate_bench import BINARY, Bench, Figure
from training.evaluate_metrics import (
    accuracy,
    calibration_error,
    confidence_bins,
    confusion_counts,
    flip_share,
    macro_f1,
)
from training.sources import Record, load_public

CHNSENTICORP, WAIMAI, SST2 = "sent_zh_chnsenticorp_dev", "sent_zh_waimai_public_2k", "sent_en_sst2_dev"
EWECT, GOEMOTIONS, CLINC = "emo_zh_ewect_usual_dev", "emo_en_goemotions_dev", "intent_en_clinc_val"
EMOTIONS = ("happy", "sad", "angry", "fear", "surprise", "neutral")
THREE = ("positive", "negative", "neutral")
_EWECT_POLARITY = {
    "happy": "positive", "sad": "negative", "angry": "negative", "fear": "negative", "neutral": "neutral",
}  # fmt: skip
THREE_CLASS_SETS: Mapping[str, Mapping[str, str]] = {  # emotions with a clear polarity count as it; surprise has none
    "sent_en_tweeteval_val": {name: name for name in THREE},
    EWECT: _EWECT_POLARITY,
    "emo_zh_ewect_virus_dev": _EWECT_POLARITY,
    GOEMOTIONS: {
        "joy": "positive", "anger": "negative", "sadness": "negative", "fear": "negative", "disgust": "negative",
        "neutral": "neutral",
    },
}  # fmt: skip
Asked: TypeAlias = Mapping[str, tuple[str, ...]]
"""Name of a public set -> the labels to choose from, by their English names."""
NUM_CANDIDATES = 10
NUM_FLIP_CASES = 300


def binary_gold(bench: Bench, dataset: str) -> list[int]:
    """0 for positive, 1 for negative."""
    return [BINARY.index({"pos": "positive", "neg": "negative"}[r["label"]]) for r in bench.records(dataset)]


def binary_accuracy(bench: Bench, dataset: str, task: str = "sentiment") -> Figure:
    """Accuracy of the product's prompt, the arg-max over positive and negative."""
    gold = binary_gold(bench, dataset)
    return Figure(value=accuracy(gold, bench.answers(task, dataset, BINARY).argmax(1).tolist()), cases=len(gold))


def accuracy_of_unseen_wordings(bench: Bench, dataset: str) -> Figure:
    """Mean accuracy over the wordings that were kept out of training."""
    found = {task: binary_accuracy(bench, dataset, task) for task in bench.wordings("sentiment")}
    if not found:
        return Figure(value=None, note="training/unseen_wordings.yaml has no wordings")
    values = {task: figure.value or 0.0 for task, figure in found.items()}
    cases = sum(figure.cases for figure in found.values())
    return Figure(value=float(np.mean(list(values.values()))), cases=cases, details=values)


def binary_calibration(bench: Bench, dataset: str) -> Figure:
    """Expected calibration error of the same answers, at the temperature that the model brings."""
    gold, probs = binary_gold(bench, dataset), bench.answers("sentiment", dataset, BINARY)
    temperature = bench.ai.model.calibration.temperature_of("sentiment")
    bins = [asdict(found) for found in confidence_bins(probs, gold)]
    details = {"temperature": temperature, "bins": bins}
    return Figure(value=calibration_error(probs, gold), cases=len(gold), details=details)


def three_class_f1(bench: Bench, dataset: str) -> Figure:
    """Macro-F1 with all three labels; cases without a clear polarity are left out."""
    names = THREE_CLASS_SETS[dataset]
    probs = bench.answers("sentiment", dataset, THREE)
    kept = [(THREE.index(names[r["label"]]), p) for r, p in zip(bench.records(dataset), probs, strict=True)
            if r["label"] in names]  # fmt: skip
    gold, guess = [case[0] for case in kept], [int(case[1].argmax()) for case in kept]
    shares = {name: round(guess.count(i) / len(guess), 3) for i, name in enumerate(THREE)}
    details = {"answered": shares, **class_details(gold, guess, THREE)}
    return Figure(value=macro_f1(gold, guess, 3), cases=len(gold), details=details)


def emotion_f1(bench: Bench) -> Figure:
    """Macro-F1 of six emotions on everyday Weibo posts."""
    gold = [EMOTIONS.index(record["label"]) for record in bench.records(EWECT)]
    guess = bench.answers("emotion", EWECT, EMOTIONS).argmax(1).tolist()
    details = class_details(gold, guess, EMOTIONS)
    return Figure(value=macro_f1(gold, guess, 6), cases=len(gold), details=details)


def class_details(gold: Sequence[int], guess: Sequence[int], labels: Sequence[str]) -> dict[str, Any]:
    """What stands beside an F1: accuracy, and what was taken for what (rows: right label, columns: answer)."""
    return {
        "accuracy": accuracy(gold, guess),
        "labels": list(labels),
        "confusion": confusion_counts(gold, guess, len(labels)),
    }


def intent_cases(bench: Bench) -> list[tuple[Record, list[str]]]:
    """CLINC150 requests, each with ten candidate intents, its own among them: the same draw every time."""
    names = sorted({record["label"] for record in load_public(bench.data, CLINC)} - {"oos"})
    rng = random.Random(150)
    cases: list[tuple[Record, list[str]]] = []
    for record in bench.records(CLINC):
        if record["label"] == "oos":
            continue
        shown = [record["label"], *rng.sample([n for n in names if n != record["label"]], NUM_CANDIDATES - 1)]
        rng.shuffle(shown)
        cases.append((record, shown))
    return cases


def intent_accuracy(bench: Bench) -> Figure:
    """Accuracy among ten candidates."""
    cases = intent_cases(bench)
    results = bench.run_each("intent", [(record["text"], shown) for record, shown in cases], f"{CLINC} · intent")
    right = [result.label == record["label"] for (record, _), result in zip(cases, results, strict=True)]
    return Figure(value=float(np.mean(right)), cases=len(cases))


def flips_by_order(bench: Bench, task: str, datasets: Asked) -> Figure:
    """Share of answers that change when the labels stand in another order in the prompt."""
    return _flips(bench, task, bench.orders(task), datasets)


def flips_by_wording(bench: Bench, task: str, datasets: Asked) -> Figure:
    """Share of answers that change when the task is asked in a wording that was kept out of training."""
    return _flips(bench, task, bench.wordings(task), datasets)


def _flips(bench: Bench, task: str, forms: list[str], datasets: Asked) -> Figure:
    if not forms:
        return Figure(value=None, note="training/unseen_wordings.yaml has no wordings")
    shares: dict[str, float] = {}
    cases = 0
    for dataset, labels in datasets.items():
        reference = bench.answers(task, dataset, labels, NUM_FLIP_CASES).argmax(1)
        for form in forms:
            answers = bench.answers(form, dataset, labels, NUM_FLIP_CASES).argmax(1)
            shares[f"{dataset} · {form}"] = flip_share(reference.tolist(), answers.tolist())
            cases += len(answers)
    return Figure(value=float(np.mean(list(shares.values()))), cases=cases, details=shares)


def flips_of_intent_order(bench: Bench) -> Figure:
    """Share of answers that change when the ten candidates are turned round."""
    cases = intent_cases(bench)[:NUM_FLIP_CASES]
    texts = [(record["text"], shown) for record, shown in cases]
    turned = [(text, shown[::-1]) for text, shown in texts]
    before, after = ([r.label for r in bench.run_each("intent", asked, "intent order")] for asked in (texts, turned))
    return Figure(value=flip_share(before, after), cases=len(cases))


def flips_of_intent_wording(bench: Bench) -> Figure:
    """Share of answers that change in wordings kept out of training, the ten candidates in the same order."""
    cases = [(record["text"], shown) for record, shown in intent_cases(bench)[:NUM_FLIP_CASES]]
    forms = bench.wordings("intent")
    if not forms:
        return Figure(value=None, note="training/unseen_wordings.yaml has no wordings")
    before = [result.label for result in bench.run_each("intent", cases, "intent")]
    shares = {
        form: flip_share(before, [result.label for result in bench.run_each(form, cases, form)]) for form in forms
    }
    return Figure(value=float(np.mean(list(shares.values()))), cases=len(cases) * len(forms), details=shares)
