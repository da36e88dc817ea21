"""Bars as SVG: one panel for each figure, one bar for each peer, a line from the smallest to the largest round.

No library. Colours follow the reader's theme; the same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, LABELS, VALUES, ROW, BAR, MARGIN, HEAD = 860, 210, 190, 24, 13, 20, 34
_STYLE = """
  svg { --ink: #1f2328; --dim: #59636e; --ours: #2f7d4f; --theirs: #8fa3b8; --line: #1f2328; }
  @media (prefers-color-scheme: dark) {
    svg { --ink: #e6edf3; --dim: #9198a1; --ours: #3fb26b; --theirs: #55687d; --line: #e6edf3; }
  }
  text { font: 13px system-ui, 'PingFang SC', 'Noto Sans CJK SC', sans-serif; fill: var(--ink); }
  .title { font-weight: 600; }
  .value { fill: var(--dim); font-size: 12px; }
  .ours { fill: var(--ours); }
  .theirs { fill: var(--theirs); }
  .interval { stroke: var(--line); stroke-width: 1.5; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One peer's figure: median, smallest and largest, and the median in words."""

    label: str
    value: float
    low: float
    high: float
    text: str
    is_ours: bool = False


def draw(panels: Mapping[str, Sequence[Bar]]) -> str:
    """A whole SVG document: panels below each other, each with a scale of its own from zero."""
    parts: list[str] = []
    top = MARGIN
    for title, bars in panels.items():
        parts.append(f'<text class="title" x="{MARGIN}" y="{top + 14}">{escape(title)}</text>')
        top += HEAD
        longest = max((bar.high for bar in bars), default=0) or 1
        for bar in bars:
            parts += _draw_bar(bar, top, (WIDTH - LABELS - VALUES - 2 * MARGIN) / longest)
            top += ROW
        top += MARGIN
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}">\n'
        f"<style>{_STYLE}</style>\n{body}\n</svg>\n"
    )


def _draw_bar(bar: Bar, top: int, scale: float) -> list[str]:
    left, middle = MARGIN + LABELS, top + BAR / 2
    end = left + bar.value * scale
    low, high = left + bar.low * scale, left + bar.high * scale
    kind = "ours" if bar.is_ours else "theirs"
    return [
        f'<text x="{left - 8}" y="{top + 11}" text-anchor="end">{escape(bar.label)}</text>',
        f'<rect class="{kind}" x="{left}" y="{top}" width="{max(end - left, 1):.1f}" height="{BAR}" rx="2"/>',
        f'<line class="interval" x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}"/>',
        f'<text class="value" x="{max(end, high) + 8:.1f}" y="{top + 11}">{escape(bar.text)}</text>',
    ]
