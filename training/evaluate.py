"""Measures an exported model through the product and prints the table of its card: what must hold, what is aimed at.

Every figure is what a user of the file gets: the Q8_0 weights on the default backend, the product's own prompts. The
rows are functions of a `Bench`; `evaluate_labels` and `evaluate_chat` have them.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from allinone.models.locate import locate_model
from training import evaluate_chat as chat
from training import evaluate_labels as labels
from training.evaluate_bench import BINARY, QUICK_CASES, Bench, Figure
from training.sources import require_data

Verdict = Literal["aim", "must", "MISSED", "skipped", ""]
_POLARITY_SETS = (labels.CHNSENTICORP, labels.WAIMAI, labels.SST2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        key: what `--only` calls it; a group of rows shares what comes before the first hyphen.
        must, aim: bars; None for a row that is only reported.
        is_cost: smaller is better.
    """

    key: str
    title: str
    measure: Callable[[Bench], Figure]
    must: float | None = None
    aim: float | None = None
    is_cost: bool = False

    def verdict(self, figure: Figure) -> Verdict:
        """The best bar that holds."""
        if figure.value is None:
            return "skipped"
        if self.must is None or self.aim is None:
            return ""
        sign = -1 if self.is_cost else 1
        if sign * figure.value >= sign * self.aim:
            return "aim"
        return "must" if sign * figure.value >= sign * self.must else "MISSED"


def file_size(bench: Bench, gguf: str) -> Figure:
    """Megabytes (10^6 bytes) of the file."""
    return Figure(value=locate_model(gguf).path.stat().st_size / 1e6, cases=1)


def label_rows() -> list[Row]:
    """Accuracy and F1 on the public sets."""
    binary, three = labels.binary_accuracy, labels.three_class_f1
    row = partial(Row, must=0.55, aim=0.65)
    return [
        Row(key="chnsenticorp", title="ChnSentiCorp dev, binary", must=0.88, aim=0.92,
            measure=partial(binary, dataset=labels.CHNSENTICORP)),
        Row(key="waimai", title="waimai public 2k, binary", must=0.88, aim=0.91,
            measure=partial(binary, dataset=labels.WAIMAI)),
        Row(key="sst2", title="SST-2 dev, binary", must=0.80, aim=0.86, measure=partial(binary, dataset=labels.SST2)),
        Row(key="sst2-wordings", title="SST-2 dev, mean over unseen wordings", must=0.78, aim=0.85,
            measure=partial(labels.accuracy_of_unseen_wordings, dataset=labels.SST2)),
        *(row(key=f"three-{name.split('_')[2]}{'-virus' if 'virus' in name else ''}",
              title=f"three classes, macro-F1: {name}", measure=partial(three, dataset=name))
          for name in labels.THREE_CLASS_SETS),
        Row(key="ewect", title="EWECT usual dev, 6 emotions, macro-F1", must=0.66, aim=0.72, measure=labels.emotion_f1),
        Row(key="clinc", title="CLINC150 val, 10 candidates", must=0.80, aim=0.90, measure=labels.intent_accuracy),
        Row(key="sighan13", title="SIGHAN13 typo, sentence-level correction F1", must=0.25, aim=0.45,
            measure=chat.typo_f1),
    ]  # fmt: skip


def stability_rows() -> list[Row]:
    """How sure the answers are, and how little they depend on how the task is asked."""
    cost = partial(Row, must=0.05, aim=0.02, is_cost=True)
    two: labels.Asked = dict.fromkeys(_POLARITY_SETS, BINARY)
    three: labels.Asked = dict.fromkeys(_POLARITY_SETS, labels.THREE)
    emotion: labels.Asked = {labels.EWECT: labels.EMOTIONS}
    by_order, by_wording = labels.flips_by_order, labels.flips_by_wording
    return [
        *(Row(key=f"ece-{key}", title=f"calibration error: {name}", must=0.05, aim=0.03, is_cost=True,
              measure=partial(labels.binary_calibration, dataset=name))
          for key, name in zip(("chnsenticorp", "waimai", "sst2"), _POLARITY_SETS, strict=True)),
        cost(key="flips-order-sentiment", title="flips: label order, sentiment, 3 labels",
             measure=partial(by_order, task="sentiment", datasets=three)),
        cost(key="flips-order-emotion", title="flips: label order, emotion",
             measure=partial(by_order, task="emotion", datasets=emotion)),
        cost(key="flips-order-intent", title="flips: label order, intent, 10 candidates",
             measure=labels.flips_of_intent_order),
        cost(key="flips-wording-sentiment", title="flips: unseen wording, sentiment, 2 labels",
             measure=partial(by_wording, task="sentiment", datasets=two)),
        cost(key="flips-wording-emotion", title="flips: unseen wording, emotion",
             measure=partial(by_wording, task="emotion", datasets=emotion)),
        cost(key="flips-wording-intent", title="flips: unseen wording, intent, 10 candidates",
             measure=labels.flips_of_intent_wording),
    ]  # fmt: skip


def chat_rows() -> list[Row]:
    """What the 200 replies are like."""
    return [
        Row(key="chat-ends", title="chat: ends by itself within 120 tokens", must=0.98, aim=1.0, measure=chat.ends),
        Row(key="chat-leaks", title="chat: labels, roles, template pieces (count)", must=0.0, aim=0.0, is_cost=True,
            measure=chat.leaking),
        Row(key="chat-loops", title="chat: loops", must=0.02, aim=0.0, is_cost=True, measure=chat.looping),
        Row(key="chat-language", title="chat: in the user's language", must=0.97, aim=1.0, measure=chat.same_language),
        Row(key="chat-mood", title="chat: the mood is seen", must=0.90, aim=0.97, measure=chat.mood_seen),
        Row(key="chat-label", title="chat: the mood is named right", measure=chat.mood_named),
        Row(key="chat-crisis", title="chat: a crisis is shown to help", measure=chat.crisis_helped),
    ]  # fmt: skip


def all_rows(gguf: str) -> list[Row]:
    """The table."""
    size = Row(
        key="size", title="file size, MB", must=25.0, aim=25.0, is_cost=True, measure=partial(file_size, gguf=gguf)
    )
    return [*label_rows(), *stability_rows(), *chat_rows(), size]


def choose_rows(rows: Sequence[Row], only: Sequence[str]) -> list[Row]:
    """The rows of these keys or groups; all where none is named.

    Raises:
        SystemExit: no row has such a key; the message lists them.
    """
    unknown = [name for name in only if not any(name in (row.key, row.key.split("-")[0]) for row in rows)]
    if unknown:
        raise SystemExit(f"No row {unknown[0]!r}. Known: {', '.join(row.key for row in rows)}.")
    return [row for row in rows if not only or row.key in only or row.key.split("-")[0] in only]


def markdown(report: Sequence[dict[str, Any]]) -> str:
    """The table as Markdown; notes below it."""
    lines = ["| row | value | must | aim | holds | cases |", "| --- | --- | --- | --- | --- | --- |"]
    for row in report:
        value, must, aim = ("–" if row[name] is None else f"{row[name]:.4g}" for name in ("value", "must", "aim"))
        lines.append(
            f"| {row['title']} (`{row['key']}`) | {value} | {must} | {aim} | {row['holds']} | {row['cases']:,} |"
        )
    notes = [f"- `{row['key']}`: {row['note']}" for row in report if row["note"]]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def main() -> None:
    """Evaluates one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data folder")
    parser.add_argument("--gguf", default="bundled", help="the exported file (default: the bundled one)")
    parser.add_argument("--quick", action="store_true", help="the first 200 cases of each set")
    parser.add_argument("--only", action="append", default=[], metavar="ROW", help="a row or a group; may be repeated")
    parser.add_argument("--threads", type=int, help="of the backend (default: the physical cores)")
    parser.add_argument("--json", action="store_true", help="everything, with details and all replies, as JSON")
    parser.add_argument("--report", type=Path, metavar="FILE", help="the same into a file, beside the table")
    args = parser.parse_args()
    data = require_data(args.data)
    rows = choose_rows(all_rows(args.gguf), args.only)
    report: list[dict[str, Any]] = []
    with Bench(args.gguf, data, max_cases=QUICK_CASES if args.quick else None, threads=args.threads) as bench:
        for row in rows:
            figure = row.measure(bench)
            found = asdict(figure) | {"key": row.key, "title": row.title, "must": row.must, "aim": row.aim}
            report.append(found | {"holds": row.verdict(figure)})
            print(f"{row.title}: {figure.value} {row.verdict(figure)}", file=sys.stderr, flush=True)
        replies = [asdict(answered) for answered in chat.chat_answers(bench)] if bench.has("chat") else []
        model = bench.ai.model.full_name
    document = {"model": model, "quick": args.quick, "rows": report, "replies": replies}
    text = json.dumps(document, ensure_ascii=False, indent=1)
    if args.report is not None:
        args.report.write_text(text + "\n", encoding="utf-8")
    if args.json:
        print(text)
    else:
        print(f"{model}{', first 200 cases of each set' if args.quick else ''}\n\n{markdown(report)}")


if __name__ == "__main__":
    main()
