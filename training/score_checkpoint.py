"""Scores the last checkpoint of a training, also while it runs, and appends one line to the run folder's scores.jsonl.

    nice python -m training.score_checkpoint --profile cpu --data DATA

The averaged weights become a Q8_0 file that is asked through the product, with one thread and the first cases of a few
sets: enough for a curve (`training.plots` draws it), not for the card. Nothing but the line stays.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from allinone.loading import import_model
from allinone.models.locate import locate_model
from training.evaluate import Row, all_rows
from training.evaluate_bench import QUICK_CASES, Bench
from training.export import write_gguf
from training.settings import Settings, load_settings
from training.sources import require_data
from training.tokenizer import Codec

DEFAULT_ROWS = ("chnsenticorp", "waimai", "sst2", "ewect", "clinc", "three-tweeteval", "sighan13")
SCORES_FILE = "scores.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """The averaged weights of a moment, and which moment it was."""

    weights: Mapping[str, Tensor]
    step: int
    tokens: int
    minutes: float


def read_checkpoint(settings: Settings) -> Checkpoint:
    """The last one. `checkpoint.pt` alone is read: `ema.pt` beside it may be of the moment before or after.

    Raises:
        SystemExit: there is none yet.
    """
    path = settings.run / "checkpoint.pt"
    if not path.exists():
        raise SystemExit(f"No checkpoint in '{settings.run}' yet.")
    state = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    return Checkpoint(
        weights=state["ema"], step=state["step"], tokens=state["tokens"], minutes=round(state["elapsed_s"] / 60, 2)
    )


def find_rows(keys: Sequence[str]) -> list[Row]:
    """The rows of the evaluation with exactly these keys.

    Raises:
        SystemExit: there is no such row; the message lists them.
    """
    known = {row.key: row for row in all_rows("bundled")}
    for key in keys:
        if key not in known:
            raise SystemExit(f"No row {key!r}. Known: {', '.join(known)}.")
    return [known[key] for key in keys]


def measure(checkpoint: Checkpoint, settings: Settings, data: Path, rows: Sequence[Row], cases: int) -> dict[str, Any]:
    """The record of a checkpoint; a row that cannot be measured is left out."""
    with tempfile.TemporaryDirectory(prefix="allinone-score-") as folder:
        gguf, compiled = Path(folder) / "checkpoint.gguf", Path(folder) / "compiled"
        write_gguf(checkpoint.weights, settings.model, Codec.load(settings.run / "tokenizer.json"), gguf)
        import_model(locate_model(gguf), compiled)  # here, so that the user's cache gets no folder per checkpoint
        values: dict[str, float] = {}
        with Bench(str(compiled), data, max_cases=cases, threads=1) as bench:
            for row in rows:
                value = row.measure(bench).value
                print(f"{row.title}: {value}", file=sys.stderr, flush=True)
                if value is not None:
                    values[row.key] = round(value, 4)
    return {
        "step": checkpoint.step,
        "tokens": checkpoint.tokens,
        "min": checkpoint.minutes,
        "max_cases": cases,
        "rows": values,
    }


def is_scored(scores: Path, checkpoint: Checkpoint) -> bool:
    """Whether the file has a line of this step already."""
    if not scores.exists():
        return False
    lines = scores.read_text(encoding="utf-8").splitlines()
    return any(json.loads(line)["step"] == checkpoint.step for line in lines)


def main() -> None:
    """Scores once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--data", type=Path, required=True, help="the data folder")
    parser.add_argument("--rows", nargs="+", default=DEFAULT_ROWS, metavar="ROW", help="keys of training.evaluate")
    parser.add_argument("--cases", type=int, default=QUICK_CASES, help="most cases of each set")
    args = parser.parse_args()
    settings, data, rows = load_settings(args.profile), require_data(args.data), find_rows(args.rows)
    torch.set_num_threads(1)
    scores, checkpoint = settings.run / SCORES_FILE, read_checkpoint(settings)
    if is_scored(scores, checkpoint):
        print(f"Step {checkpoint.step} is scored already.")
        return
    line = json.dumps(measure(checkpoint, settings, data, rows, args.cases))
    with scores.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
