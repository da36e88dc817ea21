"""The figures of the evaluation as plain functions of answers: knows no model, no file, no prompt."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
NUM_BINS = 15
LOOP_UNITS, LOOP_TIMES = 4, 3
_UNIT = re.compile(r"[\u3400-\u9fff]|[A-Za-z0-9']+|[^\s\w]")


def accuracy(gold: Sequence[int], guess: Sequence[int]) -> float:
    """Share of answers that are right."""
    return float(np.mean(np.asarray(gold) == np.asarray(guess)))


def macro_f1(gold: Sequence[int], guess: Sequence[int], num_classes: int) -> float:
    """Mean F1 of the classes, each counting the same; a class that is neither there nor guessed counts 0."""
    truth, answer = np.asarray(gold), np.asarray(guess)
    scores = [
        2 * np.sum((truth == c) & (answer == c)) / max(1, np.sum(truth == c) + np.sum(answer == c))
        for c in range(num_classes)
    ]
    return float(np.mean(scores))


def confusion_counts(gold: Sequence[int], guess: Sequence[int], num_classes: int) -> list[list[int]]:
    """Cases by right class (rows) and answered class (columns)."""
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(counts, (np.asarray(gold, dtype=np.int64), np.asarray(guess, dtype=np.int64)), 1)
    return counts.tolist()


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfidenceBin:
    """Answers of about the same confidence: how many, how sure on average, and the share that is right."""

    cases: int
    confidence: float
    accuracy: float


def confidence_bins(probs: FloatArray, gold: Sequence[int]) -> list[ConfidenceBin]:
    """The answers in 15 bins of equal width by their confidence; empty bins are left out.

    Args:
        probs: (num_cases, num_labels), rows sum to 1.
        gold: (num_cases,), indices of the right labels.
    """
    confidence, is_right = probs.max(1), probs.argmax(1) == np.asarray(gold)
    bins = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    return [
        ConfidenceBin(
            cases=int((bins == b).sum()),
            confidence=float(confidence[bins == b].mean()),
            accuracy=float(is_right[bins == b].mean()),
        )
        for b in np.unique(bins)
    ]


def calibration_error(probs: FloatArray, gold: Sequence[int]) -> float:
    """Expected calibration error: |accuracy - confidence| over the bins, weighted by their cases.

    Args:
        probs: (num_cases, num_labels), rows sum to 1.
        gold: (num_cases,), indices of the right labels.

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017
    """
    bins = confidence_bins(probs, gold)
    return sum(abs(b.accuracy - b.confidence) * b.cases for b in bins) / len(gold)


def flip_share(reference: Sequence[object], answers: Sequence[object]) -> float:
    """Share of answers that differ from those to the same texts asked in the reference form."""
    return sum(a != b for a, b in zip(reference, answers, strict=True)) / len(reference)


def correction_scores(sources: Sequence[str], targets: Sequence[str], outputs: Sequence[str]) -> dict[str, float]:
    """Sentence-level correction: a sentence counts when all of it is as the target has it.

    Precision over the sentences that were changed, recall over those that have a mistake, and their F1.
    """
    triples = [(s.strip(), t.strip(), o.strip()) for s, t, o in zip(sources, targets, outputs, strict=True)]
    num_right = sum(s != t and o == t for s, t, o in triples)
    num_changed = sum(o != s for s, _, o in triples)
    num_wrong = sum(s != t for s, t, _ in triples)
    precision, recall = num_right / max(1, num_changed), num_right / max(1, num_wrong)
    f1 = 2 * precision * recall / (precision + recall) if num_right else 0.0
    return {"f1": f1, "precision": precision, "recall": recall, "changed": num_changed, "wrong": num_wrong}


def has_loop(text: str) -> bool:
    """Four units in a row that occur three times; a unit is a Chinese character, a word, or a mark."""
    units = [unit.lower() for unit in _UNIT.findall(text)]
    grams = Counter(tuple(units[i : i + LOOP_UNITS]) for i in range(len(units) - LOOP_UNITS + 1))
    return any(count >= LOOP_TIMES for count in grams.values())


def fit_temperature(groups: Sequence[tuple[FloatArray, Sequence[int]]]) -> float:
    """T > 0 that minimises the negative log-likelihood of softmax(logprobs / T); every group counts the same.

    The likelihood is concave in 1 / T, so a golden-section search finds it.

    Args:
        groups: per data set, logprobs (num_cases, num_labels) and the indices of the right labels (num_cases,).
    """
    low, high = np.log(0.05), np.log(20.0)
    ratio = (np.sqrt(5) - 1) / 2
    while high - low > 1e-5:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if mean_nll(groups, float(np.exp(left))) < mean_nll(groups, float(np.exp(right))):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def mean_nll(groups: Sequence[tuple[FloatArray, Sequence[int]]], temperature: float) -> float:
    """Negative log-likelihood of the right labels, nats, averaged over the cases of a group and over the groups."""
    means: list[float] = []
    for logprobs, gold in groups:
        scaled = logprobs / temperature
        scaled = scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)
        means.append(-float(scaled[np.arange(len(gold)), np.asarray(gold)].mean()))
    return float(np.mean(means))
