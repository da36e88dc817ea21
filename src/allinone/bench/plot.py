"""A report as an SVG picture: horizontal bars with their intervals, by unit. No library, no fonts of its own.

Colours follow the reader's theme, light or dark; the picture brings its own background, so it can be read on any page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap
from xml.sax.saxutils import escape

from allinone.bench.figures import FIGURES, Unit
from allinone.bench.report import BenchReport, Measurement

WIDTH, LABEL_WIDTH, VALUE_WIDTH, ROW, BAR, NOTE, MARGIN = 860, 270, 170, 26, 14, 18, 20
_NOTE_CHARACTERS = 120
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328; }
  .title { font-size: 16px; font-weight: 600; }
  .group { font-weight: 600; }
  .dim { fill: #59636e; font-size: 12px; }
  .page { fill: #ffffff; }
  .bar { fill: #6ea8e5; }
  .interval { stroke: #1f2328; stroke-width: 1.5; fill: none; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .dim { fill: #9198a1; }
    .page { fill: #0d1117; }
    .bar { fill: #2f6cb3; }
    .interval { stroke: #e6edf3; }
  }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Figures that share a scale."""

    title: str
    names: tuple[str, ...]


GROUPS = (
    _Group(title="starting (shorter is better)", names=("cold_start_s",)),
    _Group(
        title="waiting (shorter is better)",
        names=("label_p50_s", "label_p90_s", "reply_ttft_s", "separate_ttft_s", "chat_turn_50_ttft_s"),
    ),
    _Group(
        title="labels a second (longer is better)",
        names=("labels_per_s_1", "labels_per_s_8", "labels_per_s_32", "labels_per_s_8_tasks"),
    ),
    _Group(
        title="decoded tokens a second (longer is better)",
        names=("decode_tokens_per_s_1", "decode_tokens_per_s_4", "decode_tokens_per_s_16"),
    ),
    _Group(title="memory (shorter is better)", names=("memory_peak_bytes", "memory_after_bytes")),
)
"""A ratio is no bar: it is in the table and the JSON."""


def draw(report: BenchReport) -> str:
    """The picture, a whole SVG document."""
    machine = report.machine
    trust = "The machine was busy: " if report.busy else ""
    notes = [
        f"{machine.cpu}, {machine.threads} of {machine.cores} cores · median and 95 % interval",
        *wrap(trust + report.busy_reason, _NOTE_CHARACTERS),
    ]
    top = 50 + NOTE * len(notes)
    rows = list(_draw_groups(report, top=top))
    height = (rows[-1].bottom if rows else top) + MARGIN
    head = "\n".join(_text(MARGIN, 50 + NOTE * number, note, "dim") for number, note in enumerate(notes))
    body = "\n".join(row.svg for row in rows)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">
<title>allinone bench: {escape(report.model)}</title>
<style>{_STYLE}</style>
<rect class="page" width="{WIDTH}" height="{height}"/>
{_text(MARGIN, 30, f"allinone bench · {report.model}", "title")}
{head}
{body}
</svg>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    svg: str
    bottom: int


def _draw_groups(report: BenchReport, *, top: int) -> Iterator[_Row]:
    for group in GROUPS:
        names = [name for name in group.names if name in report.figures]
        if not names:
            continue
        yield _Row(svg=_text(MARGIN, top + 18, group.title, "group"), bottom=top + ROW)
        top += ROW
        longest = max(report.figures[name].high for name in names)
        for name in names:
            yield _Row(svg=_draw_bar(name, report.figures[name], longest, top), bottom=top + ROW)
            top += ROW
        top += 8


def _draw_bar(name: str, figure: Measurement, longest: float, top: int) -> str:
    """One row: title, bar from zero, interval, value."""
    left, room = MARGIN + LABEL_WIDTH, WIDTH - 2 * MARGIN - LABEL_WIDTH - VALUE_WIDTH
    end, low, high = (left + room * value / longest for value in (figure.value, figure.low, figure.high))
    middle = top + ROW / 2
    tip = escape(f"{format_value(figure.low, figure.unit)} to {format_value(figure.high, figure.unit)}")
    whiskers = f"M{low:.1f} {middle - 4:.1f}v8m0 -4H{high:.1f}m0 -4v8"
    parts = (
        _text(MARGIN + 8, middle + 4, FIGURES[name].title, ""),
        f'<rect class="bar" x="{left}" y="{middle - BAR / 2:.1f}" width="{end - left:.1f}" height="{BAR}" rx="2"/>',
        f'<path class="interval" d="{whiskers}"/>',
        _text(left + room + 12, middle + 4, format_value(figure.value, figure.unit), ""),
    )
    return f"<g><title>{tip}</title>{''.join(parts)}</g>"


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{style}">{escape(text)}</text>'


def format_value(value: float, unit: Unit) -> str:
    """A value with its unit, three digits: "3.42 ms", "1,040 labels/s", "212 MB"."""
    if unit == "s":
        return f"{_three_digits(value)} s" if value >= 1 else f"{_three_digits(value * 1_000)} ms"
    if unit == "bytes":
        return f"{_three_digits(value / 1e9)} GB" if value >= 1e9 else f"{_three_digits(value / 1e6)} MB"
    return f"{_three_digits(value)} ×" if unit == "ratio" else f"{_three_digits(value)} {unit}"


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
