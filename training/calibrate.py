"""Fits one temperature for each label task on texts kept out of training, and writes them into the GGUF.

    python -m training.calibrate FILE.gguf --data DATA

The texts are those of the labelled training sets that `heldout.is_calibration_text` keeps out of the corpus. They are
asked through the product: sentiment with its two clear labels, intents among ten candidates. Three-label sentiment is
shown but not fitted: its sets label emotions, and what is neutral there depends on who labelled them. The metadata key
is `allinone.temperature.TASK`; all else in the file stays.
"""

import argparse
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata

from allinone.models.calibration import METADATA_PREFIX
from training.evaluate_bench import BINARY, Bench
from training.evaluate_labels import EMOTIONS, EWECT, GOEMOTIONS, NUM_CANDIDATES, THREE, THREE_CLASS_SETS
from training.evaluate_metrics import FloatArray, calibration_error, fit_temperature, mean_nll
from training.heldout import is_calibration_text
from training.sources import load_train, require_data

MAX_CASES = 1000
_SIGN = {"pos": "positive", "neg": "negative"}
_EWECT = {label: label for label in EMOTIONS}
_EKMAN = _EWECT | {"joy": "happy", "sadness": "sad", "anger": "angry"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Answers to one source: log-probabilities at T = 1 (num_cases, num_labels), and the right labels' indices."""

    dataset: str
    logprobs: FloatArray
    gold: list[int]
    is_fitted: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Held-out texts of one training set as one task asks them.

    Attributes:
        dataset: name of the set.
        labels: the labels to choose from, by their English names.
        names: label of the set -> one of `labels`; records with other labels are left out.
        is_fitted: False shows what a temperature does to it and does not let it vote.
    """

    dataset: str
    labels: tuple[str, ...]
    names: Mapping[str, str]
    is_fitted: bool = True


SOURCES: Mapping[str, Sequence[Source]] = {
    "sentiment": [
        *(Source(dataset=name, labels=BINARY, names=_SIGN)
          for name in ("zh_online_shopping_10_cats", "zh_book_review", "en_sst2")),
        Source(dataset="zh_ewect_usual", labels=THREE, names=THREE_CLASS_SETS[EWECT], is_fitted=False),
        Source(dataset="en_goemotions_ekman", labels=THREE, names=THREE_CLASS_SETS[GOEMOTIONS],
               is_fitted=False),
    ],
    "emotion": [
        *(Source(dataset=name, labels=EMOTIONS, names=_EWECT)
          for name in ("zh_ewect_usual", "zh_ewect_virus")),
        *(Source(dataset=name, labels=EMOTIONS, names=_EKMAN)
          for name in ("en_goemotions_ekman", "en_tweeteval_emotion")),
    ],
}  # fmt: skip
INTENT_SETS = ("clinc150", "banking77", "hwu64_fold1", "smp2019_nlu")


def heldout_cases(data: Path, dataset: str, limit: int) -> list[tuple[str, str]]:
    """(text, label) of a training set's held-out texts, a fixed draw of at most `limit`.

    Raises:
        SystemExit: there is none; a temperature fitted on nothing would be worth nothing.
    """
    found = [(r["text"], r["label"]) for r in load_train(data, dataset) if is_calibration_text(r["text"])]
    if not found:
        raise SystemExit(f"No held-out text in {dataset}.")
    return random.Random(0).sample(found, min(limit, len(found)))


def label_groups(bench: Bench, task: str, limit: int) -> Iterator[Group]:
    """The answers of a task to its sources."""
    for source in SOURCES[task]:
        cases = [case for case in heldout_cases(bench.data, source.dataset, limit) if case[1] in source.names]
        probs = bench.label_probs(task, [text for text, _ in cases], source.labels, f"{source.dataset} · {task}")
        yield Group(
            dataset=source.dataset,
            logprobs=undo_temperature(bench, task, probs),
            gold=[source.labels.index(source.names[label]) for _, label in cases],
            is_fitted=source.is_fitted,
        )


def intent_groups(bench: Bench, limit: int) -> Iterator[Group]:
    """The same for requests among ten candidate intents."""
    rng = random.Random(0)
    for dataset in INTENT_SETS:
        names = sorted({record["label"] for record in load_train(bench.data, dataset)} - {"oos"})
        cases = [case for case in heldout_cases(bench.data, dataset, limit) if case[1] in names]
        asked: list[tuple[str, list[str]]] = []
        for text, label in cases:
            shown = [label, *rng.sample([n for n in names if n != label], min(len(names), NUM_CANDIDATES) - 1)]
            asked.append((text, rng.sample(shown, len(shown))))
        results = bench.run_each("intent", asked, f"{dataset} · intent")
        probs = np.array([list((result.probs or {}).values()) for result in results])
        gold = [shown.index(label) for (_, shown), (_, label) in zip(asked, cases, strict=True)]
        yield Group(dataset=dataset, logprobs=undo_temperature(bench, "intent", probs), gold=gold)


def undo_temperature(bench: Bench, task: str, probs: FloatArray) -> FloatArray:
    """Log-probabilities at T = 1, up to a constant per row, whatever the file brings already."""
    return np.log(np.maximum(probs, 1e-300)) * bench.ai.model.calibration.temperature_of(task)


def fit_temperatures(bench: Bench, limit: int = MAX_CASES) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """T for each label task; and per task and set what it changes, as in `compare`."""
    temperatures: dict[str, float] = {}
    report: list[dict[str, Any]] = []
    for task in ("sentiment", "emotion", "intent"):
        groups = list(intent_groups(bench, limit) if task == "intent" else label_groups(bench, task, limit))
        fitted = fit_temperature([(group.logprobs, group.gold) for group in groups if group.is_fitted])
        temperatures[task] = round(fitted, 4)
        report += [{"task": task, "temperature": temperatures[task], **compare(group, fitted)} for group in groups]
    return temperatures, report


def compare(group: Group, temperature: float) -> dict[str, Any]:
    """(at T = 1, at this T) of the calibration error and of the negative log-likelihood."""
    both = (1.0, temperature)
    return {
        "dataset": group.dataset,
        "cases": len(group.gold),
        "is_fitted": group.is_fitted,
        "ece": [round(calibration_error(softmax(group.logprobs / t), group.gold), 4) for t in both],
        "nll": [round(mean_nll([(group.logprobs, group.gold)], t), 4) for t in both],
    }


def softmax(logprobs: FloatArray) -> FloatArray:
    """Rows that sum to 1."""
    weights = np.exp(logprobs - logprobs.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def write_temperatures(path: Path, temperatures: Mapping[str, float]) -> None:
    """Put temperatures into a GGUF in place of those it had; atomic, everything else is copied as it is."""
    reader = gguf.GGUFReader(path)
    partial = path.with_suffix(".gguf.partial")
    writer = gguf.GGUFWriter(partial, reader.fields[gguf.Keys.General.ARCHITECTURE].contents())
    old = [name for name in reader.fields if name.startswith(METADATA_PREFIX)]
    kind = gguf.GGUFValueType.FLOAT32
    new = {f"{METADATA_PREFIX}{task}": MetadataDetails(kind, value) for task, value in temperatures.items()}
    copy_with_new_metadata(reader, writer, new, [name for name in old if name not in new])
    partial.replace(path)


def main() -> None:
    """Fits and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path, help="the exported file; it is rewritten")
    parser.add_argument("--data", type=Path, required=True, help="the data folder")
    parser.add_argument("--limit", type=int, default=MAX_CASES, help="most cases of each set")
    parser.add_argument("--threads", type=int, help="of the backend (default: the physical cores)")
    parser.add_argument("--dry-run", action="store_true", help="fit and report, write nothing")
    args = parser.parse_args()
    with Bench(str(args.gguf), require_data(args.data), threads=args.threads) as bench:
        temperatures, report = fit_temperatures(bench, args.limit)
    for line in report:
        print(json.dumps(line))
    if not args.dry_run:
        write_temperatures(args.gguf, temperatures)


if __name__ == "__main__":
    main()
