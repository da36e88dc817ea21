"""What is measured: the name, unit and meaning of every figure.

Names are a contract: saved reports are compared by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Unit = Literal["s", "labels/s", "tokens/s", "bytes", "ratio"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure.

    Attributes:
        title: for people.
        better: the direction of an improvement.
        quantile: which one of the samples the value is.
    """

    title: str
    unit: Unit
    better: Literal["lower", "higher"]
    quantile: float = 0.5


def _time(title: str, quantile: float = 0.5) -> Figure:
    return Figure(title=title, unit="s", better="lower", quantile=quantile)


def _rate(title: str, unit: Unit) -> Figure:
    return Figure(title=title, unit=unit, better="higher")


def _size(title: str) -> Figure:
    return Figure(title=title, unit="bytes", better="lower")


FIGURES: Mapping[str, Figure] = {
    "cold_start_s": _time("cold start: process to first label"),
    "label_p50_s": _time("one label, median"),
    "label_p90_s": _time("one label, 90th percentile", 0.9),
    "labels_per_s_1": _rate("labels, 1 in flight", "labels/s"),
    "labels_per_s_8": _rate("labels, 8 in flight", "labels/s"),
    "labels_per_s_32": _rate("labels, 32 in flight", "labels/s"),
    "labels_per_s_8_tasks": _rate("labels, 32 in flight over 8 tasks", "labels/s"),
    "decode_tokens_per_s_1": _rate("decode, 1 stream", "tokens/s"),
    "decode_tokens_per_s_4": _rate("decode, 4 streams", "tokens/s"),
    "decode_tokens_per_s_16": _rate("decode, 16 streams", "tokens/s"),
    "reply_ttft_s": _time("mood → reply: first token"),
    "separate_ttft_s": _time("label, then reply: first token"),
    "reply_ratio": Figure(title="mood → reply ÷ label, then reply", unit="ratio", better="lower"),
    "chat_turn_50_ttft_s": _time("50th chat turn: first token"),
    "memory_peak_bytes": _size("memory, peak"),
    "memory_after_bytes": _size("memory, after the work"),
}
"""Name -> figure, in the order in which people read them. The unit ends the name, or stands before a count."""
