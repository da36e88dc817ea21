"""What must hold and what is aimed at, and what the measured figures make of it.

Each row is a ratio of figures of the same round; the median over the rounds counts, and the smallest and largest are
its interval. Knows figures and targets; `report.py` and `run.py` show them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.works import METRICS

OURS, OUR_SERVER = "ours", "ours_server"
ARTICLES = ("transformers",)
EIGHT_BIT = ("llamacpp", "xllamacpp", "ctranslate2", "openvino")
SERVERS = ("xllamacpp", "ctranslate2", "openvino")
LLAMA_SERVER = ("llama_server",)
ENGINES = (*EIGHT_BIT, "llamacpp_bf16", "llamacpp_q4_0")
Kind = Literal["times", "share"]
Rounds = Mapping[int, float]
"""Round -> value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One target.

    Attributes:
        kind: "times": how many times better than the others, at least; "share": what part of theirs, at most.
        own: whose figure is compared.
        metric: which figure; a key of `METRICS`.
        against: the best of these peers counts; empty for a ratio within the product.
        of: for a ratio within the product: (figures of it, the whole result) -> the value of each round.
        is_floor: of a share: at least, instead of at most.
    """

    title: str
    must: float | None
    aim: float
    kind: Kind = "times"
    own: str = OURS
    metric: str = ""
    against: Sequence[str] = ()
    of: Callable[[Mapping[str, Rounds], Mapping[str, Any]], Rounds] | None = None
    is_floor: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A row and what was measured: nothing where figures are missing, and then `note` says whose."""

    row: Row
    ratios: tuple[float, ...] = ()
    note: str = ""

    @property
    def median(self) -> float:
        """Over the rounds."""
        return statistics.median(self.ratios)

    @property
    def verdict(self) -> str:
        """What became of the target."""
        if not self.ratios:
            return "not measured"
        if self._reaches(self.row.aim):
            return "aim reached"
        if self.row.must is None:
            return "aim missed"
        return "must met" if self._reaches(self.row.must) else "MUST MISSED"

    def _reaches(self, target: float) -> bool:
        is_floor = self.row.kind == "times" or self.row.is_floor
        return self.median >= target if is_floor else self.median <= target


def _fused_share(ours: Mapping[str, Rounds], result: Mapping[str, Any]) -> Rounds:
    return _divide(ours.get("fused_reply_s", {}), ours.get("apart_reply_s", {}))


def _overhead(ours: Mapping[str, Rounds], result: Mapping[str, Any]) -> Rounds:
    ratios = _divide(ours.get("whole_s", {}), ours.get("engine_s", {}))
    return {number: value - 1 for number, value in ratios.items()}


def _limit_share(ours: Mapping[str, Rounds], result: Mapping[str, Any]) -> Rounds:
    ops = result["prompts"]["ops_per_label"]
    spent = {number: rate * ops for number, rate in ours.get("labels_per_s", {}).items()}
    return _divide(spent, ours.get("ops_per_s", {}))


ROWS: Sequence[Row] = (
    Row(title="one label, against transformers", metric="one_label_s", against=ARTICLES, must=30, aim=45),
    Row(
        title="labels/s, 32 in flight, against transformers at batch 16",
        metric="labels_per_s", against=ARTICLES, must=24, aim=40,
    ),
    Row(title="the same, against the best engine", metric="labels_per_s", against=ENGINES, must=1.3, aim=2),
    Row(title="one label, against the best engine", metric="one_label_s", against=ENGINES, must=2, aim=3),
    Row(
        title="labels/s over 8 tasks, against xllamacpp", metric="labels_8_per_s", against=("xllamacpp",),
        must=8, aim=13,
    ),
    Row(title="decode, one stream, against transformers", metric="decode_1_per_s", against=ARTICLES, must=6, aim=8),
    Row(
        title="decode, one stream, against the best 8-bit engine", metric="decode_1_per_s", against=EIGHT_BIT,
        must=0.95, aim=1.1,
    ),
    Row(
        title="decode, one stream, against the best engine at any precision", metric="decode_1_per_s",
        against=ENGINES, must=None, aim=1,
    ),
    Row(
        title="decode, 16 streams, against the best 8-bit server", metric="decode_16_per_s", against=SERVERS,
        must=1.7, aim=2.5,
    ),
    Row(
        title="mood → reply, time to the first reply token: part of label and then reply by the same engine",
        kind="share", of=_fused_share, must=0.75, aim=0.6,
    ),
    Row(
        title="first token of chat turn 50, against transformers", metric="chat_50_s", against=ARTICLES,
        must=20, aim=40,
    ),
    Row(
        title="peak memory, part of transformers'", kind="share", metric="peak_bytes", against=ARTICLES,
        must=0.45, aim=0.3,
    ),
    Row(title="loading, part of transformers'", kind="share", metric="load_s", against=ARTICLES, must=0.4, aim=0.2),
    Row(
        title="installed dependencies, part of transformers'", kind="share", metric="installed_bytes",
        against=ARTICLES, must=0.15, aim=0.1,
    ),
    Row(
        title="our code around the engine's own call, one label: added time", kind="share", of=_overhead,
        must=0.08, aim=0.04,
    ),
    Row(
        title="part of the machine's int8 limit, 32 labels in flight", kind="share", of=_limit_share, is_floor=True,
        must=0.6, aim=0.75,
    ),
    Row(
        title="`allinone serve`: labels/s over 8 tasks, against llama.cpp's server", own=OUR_SERVER,
        metric="served_labels_per_s", against=LLAMA_SERVER, must=None, aim=8,
    ),
    Row(
        title="`allinone serve`: first token of a chat, 8 clients, part of llama.cpp's server's", kind="share",
        own=OUR_SERVER, metric="served_first_8_s", against=LLAMA_SERVER, must=None, aim=0.5,
    ),
    Row(
        title="`allinone serve`: first token of a chat, 32 clients, part of llama.cpp's server's", kind="share",
        own=OUR_SERVER, metric="served_first_32_s", against=LLAMA_SERVER, must=None, aim=0.5,
    ),
    Row(
        title="`allinone serve`: peak memory, part of llama.cpp's server's", kind="share", own=OUR_SERVER,
        metric="served_peak_bytes", against=LLAMA_SERVER, must=None, aim=1,
    ),
)  # fmt: skip


def compare(result: Mapping[str, Any]) -> list[Compared]:
    """Every row, in order."""
    figures = collect(result)
    return [_compare_row(row, figures, result) for row in ROWS]


def collect(result: Mapping[str, Any]) -> dict[str, dict[str, dict[int, float]]]:
    """Peer -> metric -> round -> value; what a peer costs whatever the round is counts for each round."""
    found: dict[str, dict[str, dict[int, float]]] = {name: {} for name in result["peers"]}
    for figure in result["figures"]:
        for key, value in figure.items():
            if key not in ("round", "peer", "work") and isinstance(value, int | float):
                found[figure["peer"]].setdefault(key, {})[figure["round"]] = value
    for name, peer in result["peers"].items():
        for key in ("installed_bytes", "model_bytes"):
            if key in peer:
                found[name][key] = dict.fromkeys(range(result["rounds"]), peer[key])
    return found


def _compare_row(row: Row, figures: Mapping[str, Mapping[str, Rounds]], result: Mapping[str, Any]) -> Compared:
    ours = figures.get(row.own, {})
    if row.of is not None:
        ratios = row.of(ours, result)
        return Compared(row=row, ratios=tuple(ratios[number] for number in sorted(ratios)))
    own = ours.get(row.metric, {})
    others = {name: figures[name][row.metric] for name in row.against if figures.get(name, {}).get(row.metric)}
    best = min if METRICS[row.metric].better == "lower" else max
    theirs = {
        number: best(rounds[number] for rounds in others.values() if number in rounds)
        for number in own
        if any(number in rounds for rounds in others.values())
    }
    is_turned = row.kind == "times" and METRICS[row.metric].better == "lower"
    ratios = _divide(theirs, own) if is_turned else _divide(own, theirs)
    absent = [name for name in row.against if name not in others]
    notes = [f"without {', '.join(absent)}"] if absent else []
    if len(row.against) > 1 and others:
        medians = {name: statistics.median(rounds.values()) for name, rounds in others.items()}
        notes.insert(0, f"best: {best(medians, key=lambda name: medians[name])}")
    return Compared(row=row, ratios=tuple(ratios[number] for number in sorted(ratios)), note="; ".join(notes))


def _divide(above: Rounds, below: Rounds) -> dict[int, float]:
    """Round by round, where both are there."""
    return {number: value / below[number] for number, value in above.items() if below.get(number)}
