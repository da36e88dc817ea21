"""Draws the pictures of the documentation as SVG: learning curves, what is taken for what, how sure answers are.

    python -m training.plots --log train.log --scores runs/gpu/curve.jsonl --report report.json

The log is what `training.train` prints, the scores are what `training.score_checkpoint` appends, the report is of
`training.evaluate --report`; each may be left out. The same input gives the same bytes. Text stays text, in the
reader's own fonts; what is grey here is drawn in the page's text colour, light or dark.
"""

import argparse
import io
import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from allinone.prompts.library import PromptLibrary
from training.evaluate import Row, all_rows
from training.settings import ROOT

INK = "#24292f"  # stands for the text colour until the file is written
DARK_INK = "#d0d7de"
COLOURS = ("#3b82f6", "#e8590c", "#2f9e44", "#9c36b5", "#c2255c")
MAX_POINTS = 200
LOSSES = {"label": "labels", "answer": "answers", "edit": "corrected characters", "copy answer": "copying"}
_DRAWN_FONT = re.compile(r"font-family: 'DejaVu Sans'; ?")  # comes with matplotlib: the same widths everywhere
_FONTS = (
    "system-ui, -apple-system, 'Segoe UI', 'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', 'Noto Sans SC', "
    "'DejaVu Sans', sans-serif"
)
_STYLE = (
    f"<style>:root{{color:{INK}}}@media(prefers-color-scheme:dark){{:root{{color:{DARK_INK}}}}}"
    f"text{{font-family:{_FONTS}}}</style>"
)
_OPTIONS = {
    "svg.fonttype": "none", "svg.hashsalt": "allinone", "font.family": ["DejaVu Sans"], "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10, "axes.titlelocation": "left",
    "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "legend.frameon": False, "legend.labelcolor": INK, "lines.linewidth": 1.6, "axes.unicode_minus": False,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """Cases by right label (rows) and answer (columns)."""

    title: str
    labels: Sequence[str]
    counts: Sequence[Sequence[int]]


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line; other lines (a log has some) are left out."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def last_run(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of the last training in a log: a resumed one goes back to its checkpoint, a fresh one to nothing."""
    kept: list[dict[str, Any]] = []
    for record in records:
        while kept and kept[-1]["step"] >= record["step"]:
            kept.pop()
        kept.append(record)
    return kept


def read_phases(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The records of trainings that went on from one another: steps and tokens are added up."""
    found: list[dict[str, Any]] = []
    for path in paths:
        step, tokens = (found[-1]["step"], found[-1]["tokens"]) if found else (0, 0)
        for record in last_run(read_json_lines(path)):
            found.append(record | {"step": record["step"] + step, "tokens": record["tokens"] + tokens})
    return found


def thin(records: Sequence[dict[str, Any]], most: int = MAX_POINTS) -> list[dict[str, Any]]:
    """At most `most` records, evenly, the last one among them."""
    stride = -(-len(records) // most) if records else 1
    return list(records[::-stride])[::-1]


def millions(records: Iterable[Mapping[str, Any]]) -> list[float]:
    """Millions of tokens seen at each record."""
    return [record["tokens"] / 1e6 for record in records]


def draw_losses(records: Sequence[dict[str, Any]]) -> Picture:
    """Smoothed losses of each kind of token against the tokens that were seen."""
    picture, axes = _picture(1, 1, width=7.2, height=3.4)
    for colour, (key, name) in zip(COLOURS, LOSSES.items(), strict=False):
        found = [record for record in records if key in record]
        if found:
            axes[0].plot(millions(found), [record[key] for record in found], color=colour, label=name)
    axes[0].set(xlabel="million tokens", ylabel="loss, nats per token", ylim=(0, None), xlim=(0, None))
    axes[0].set_title("What the training learns")
    axes[0].legend()
    return picture


def draw_scores(records: Sequence[dict[str, Any]], rows: Mapping[str, Row]) -> Picture:
    """One small curve for each row of the evaluation, with the bars that it has to reach."""
    keys = [key for key in rows if any(key in record["rows"] for record in records)]
    num_columns = min(4, max(1, len(keys)))
    num_rows = max(1, -(-len(keys) // num_columns))
    picture, axes = _picture(num_rows, num_columns, width=2.4 * num_columns, height=2.1 * num_rows)
    for ax, key in zip(axes, keys, strict=False):
        found = [record for record in records if key in record["rows"]]
        values = [record["rows"][key] for record in found]
        ax.plot(millions(found), values, color=COLOURS[0], marker="o", markersize=3)
        for bar, style in ((rows[key].must, "--"), (rows[key].aim, ":")):
            if bar is not None:
                ax.axhline(bar, color=COLOURS[1], linewidth=1, linestyle=style)
        ax.set_title(f"{key}: {values[-1]:.3g}")
        ax.set(xlim=(0, None))
    for ax in axes[len(keys) :]:
        ax.set_axis_off()
    picture.supxlabel("million tokens · dashed: must, dotted: aim", fontsize=9)
    return picture


def draw_confusion(confusion: Confusion) -> Picture:
    """A table of counts; the darker a cell, the larger the share of its row."""
    size = len(confusion.labels)
    picture, axes = _picture(1, 1, width=2.1 + 0.75 * size, height=1.4 + 0.5 * size)
    ax = axes[0]
    for row, counts in enumerate(confusion.counts):
        total = max(1, sum(counts))
        for column, count in enumerate(counts):
            share = count / total
            ax.add_patch(Rectangle((column, row), 1, 1, color=COLOURS[0], alpha=round(0.75 * share, 3), linewidth=0))
            weight = "bold" if row == column else "normal"
            ax.text(column + 0.5, row + 0.5, str(count), ha="center", va="center", fontweight=weight)
    middles = [number + 0.5 for number in range(size)]
    ax.set(xlim=(0, size), ylim=(size, 0), xlabel="answer", ylabel="right label")
    ax.set_xticks(middles, [label.split(" ")[0] for label in confusion.labels])
    ax.set_yticks(middles, confusion.labels)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    picture.suptitle(confusion.title, x=0.01, horizontalalignment="left", fontsize=9)
    return picture


def draw_calibration(sets: Mapping[str, Sequence[Mapping[str, float]]]) -> Picture:
    """Share of right answers against confidence; on the diagonal they are equal. Larger dots: more answers."""
    picture, axes = _picture(1, 1, width=4.4, height=4.0)
    axes[0].plot([0.5, 1], [0.5, 1], color=INK, linewidth=0.8, linestyle="--")
    for colour, (name, bins) in zip(COLOURS, sets.items(), strict=False):
        total = sum(found["cases"] for found in bins)
        points = [(found["confidence"], found["accuracy"]) for found in bins]
        axes[0].plot(*zip(*points, strict=True), color=colour, linewidth=1, label=name)
        areas = [4 + 160 * found["cases"] / total for found in bins]
        axes[0].scatter(*zip(*points, strict=True), s=areas, color=colour, linewidths=0)
    axes[0].set(xlabel="confidence", ylabel="right", xlim=(0.48, 1.02))
    for axis in (axes[0].xaxis, axes[0].yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    axes[0].set_title("How sure, and how often right")
    axes[0].legend(loc="upper left")
    return picture


def _picture(num_rows: int, num_columns: int, *, width: float, height: float) -> tuple[Picture, list[Axes]]:
    picture = Picture(figsize=(width, height), layout="constrained")
    axes = picture.subplots(num_rows, num_columns, squeeze=False).flatten().tolist()
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    return picture, axes


def to_svg(picture: Picture) -> str:
    """The file: no date, no ids by chance, the reader's fonts and text colour."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # Chinese: the reader's font has it
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        picture.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = _DRAWN_FONT.sub("", buffer.getvalue().replace(INK, "currentColor"))
    head, opening, rest = text.partition("<defs>")
    lines = f"{head}{_STYLE}\n {opening}{rest}".splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


def label_names(task: str) -> dict[str, str]:
    """English name of each label of a built-in task -> how a picture writes it, "快乐 happy"."""
    return {spec.name: f"{spec.label} {spec.name}" for spec in PromptLibrary.load().get(task).labels}


def confusions(report: Mapping[str, Any]) -> dict[str, Confusion]:
    """The tables of counts in a report of the evaluation, by the key of their row."""
    names = label_names("sentiment") | label_names("emotion")
    return {
        row["key"]: Confusion(
            title=f"{row['title']}: {row['value']:.3f}",
            labels=[names.get(label, label) for label in row["details"]["labels"]],
            counts=row["details"]["confusion"],
        )
        for row in report["rows"]
        if "confusion" in row["details"]
    }


def pictures(
    log: Sequence[dict[str, Any]], scores: Sequence[dict[str, Any]], report: Mapping[str, Any] | None
) -> dict[str, Picture]:
    """Every picture that there is something to draw for, by its name."""
    found: dict[str, Picture] = {}
    if log:
        found["losses"] = draw_losses(thin(log))
    if scores:
        found["scores"] = draw_scores(scores, {row.key: row for row in all_rows("bundled")})
    if report is not None:
        found |= {f"confusion-{key}": draw_confusion(table) for key, table in confusions(report).items()}
        bins = {row["title"]: row["details"]["bins"] for row in report["rows"] if "bins" in row["details"]}
        if bins:
            found["calibration"] = draw_calibration({key.partition(": ")[2] or key: bins[key] for key in bins})
    return found


def svg_files(
    log: Sequence[dict[str, Any]], scores: Sequence[dict[str, Any]], report: Mapping[str, Any] | None
) -> dict[str, str]:
    """The files by the name that they get; whatever settings of matplotlib the user has."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_OPTIONS)
        return {name: to_svg(picture) for name, picture in pictures(log, scores, report).items()}


def main() -> None:
    """Writes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, nargs="+", default=[], help="what training.train printed, phase by phase")
    parser.add_argument(
        "--scores", type=Path, nargs="+", default=[], help="curve.jsonl or scores.jsonl, phase by phase"
    )
    parser.add_argument("--report", type=Path, help="what training.evaluate --report wrote")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures", help="folder (default: docs/pictures)")
    args = parser.parse_args()
    log, scores = read_phases(args.log), read_phases(args.scores)
    report = json.loads(args.report.read_text(encoding="utf-8")) if args.report else None
    args.out.mkdir(parents=True, exist_ok=True)
    for name, text in svg_files(log, scores, report).items():
        path = args.out / f"{name}.svg"
        path.write_text(text, encoding="utf-8")
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
