"""Curves of growth: what was measured at each size, whether it grows faster than its input, and how it is drawn.

Knows no model. Above: `growth.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from xml.sax.saxutils import escape

MIN_INPUT_RATIO = 4
"""Sizes that are compared differ by so much: nearer ones say more about steps of allocators than about growth."""
MAX_EXCESS = 2.0
"""Above proportion, still called proportional: allocators take memory in steps, a busy machine is slower for a while.
What grows with the square has at least `MIN_INPUT_RATIO`.
"""
MEMORY_FLOOR_BYTES = 8 * 2**20
"""A process gains and loses so much with nothing to do; less is not compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One size, measured in a process of its own.

    Attributes:
        value: what the curve shows: labels a second, or seconds.
        seconds: what such an input takes: all requests in flight; one label, of so many tasks; the reply's first token.
        base_bytes: the process's resident size just before, its model loaded and used once.
        peak_bytes: the largest since, at moments a hundredth of a second apart.
    """

    size: int
    value: float
    seconds: float
    base_bytes: int
    peak_bytes: int

    @property
    def added_bytes(self) -> int:
        """What this size took."""
        return max(0, self.peak_bytes - self.base_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The largest input beside the smaller one that it exceeds most; `holds` where it grows no faster than its input.

    Attributes:
        input_ratio: large to small.
        ratio: of what was measured there.
    """

    small: int
    large: int
    input_ratio: float
    ratio: float
    holds: bool

    def __str__(self) -> str:
        grows = "grows no faster than its input" if self.holds else "GROWS FASTER THAN ITS INPUT"
        return f"{grows} ({self.small} to {self.large}: input × {self.input_ratio:.3g}, this × {self.ratio:.3g})"


def judge(sizes: Sequence[int], values: Sequence[float], *, floor: float = 0.0) -> Verdict:
    """Compare the largest size with each that is at most a quarter of it.

    Not only with the smallest: what is small there, or below the floor, would let anything pass.

    Args:
        sizes: rising; the first at most a quarter of the last.
        values: of each size, positive.
        floor: less counts as this much.
    """
    large, of_large = sizes[-1], max(values[-1], floor)
    ratios = {
        small: of_large / max(value, floor)
        for small, value in zip(sizes, values, strict=True)
        if small * MIN_INPUT_RATIO <= large
    }
    small = max(ratios, key=lambda size: ratios[size] * size)
    input_ratio = large / small
    return Verdict(
        small=small,
        large=large,
        input_ratio=round(input_ratio, 3),
        ratio=round(ratios[small], 3),
        holds=ratios[small] <= MAX_EXCESS * input_ratio,
    )


@dataclass(slots=True, kw_only=True)
class Curve:
    """One dependence: a point for each size."""

    title: str
    unit: str
    of: str
    points: list[Point] = field(default_factory=list[Point])

    @property
    def sizes(self) -> list[int]:
        """Of all points."""
        return [point.size for point in self.points]

    @property
    def memory(self) -> Verdict:
        """Of the memory above the base."""
        return judge(self.sizes, [point.added_bytes for point in self.points], floor=MEMORY_FLOOR_BYTES)

    @property
    def time(self) -> Verdict:
        """Of the seconds that an input takes: where it is so many items, the time of one does not grow."""
        return judge(self.sizes, [point.seconds for point in self.points])

    def to_record(self) -> dict[str, Any]:
        """For JSON."""
        points = [
            {
                "size": point.size,
                "value": round(point.value, 5),
                "seconds": round(point.seconds, 5),
                "base_mb": round(point.base_bytes / 2**20, 1),
                "peak_mb": round(point.peak_bytes / 2**20, 1),
                "memory_mb": round(point.added_bytes / 2**20, 1),
            }
            for point in self.points
        ]
        verdicts = {"memory": asdict(self.memory), "time": asdict(self.time)}
        return {"title": self.title, "unit": self.unit, "of": self.of, "points": points, "verdicts": verdicts}


WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 258, 62, 58, 34, 58
STYLE = """
  svg { --ink: #1f2328; --dim: #59636e; --speed: #2f7d4f; --memory: #b3762f; --grid: #d1d9e0; }
  @media (prefers-color-scheme: dark) {
    svg { --ink: #e6edf3; --dim: #9198a1; --speed: #3fb26b; --memory: #d8a25c; --grid: #3d444d; }
  }
  text { font: 12px system-ui, sans-serif; fill: var(--dim); }
  .title { font-weight: 600; fill: var(--ink); }
  .speed { stroke: var(--speed); fill: none; stroke-width: 2; }
  .memory { stroke: var(--memory); fill: none; stroke-width: 1.5; stroke-dasharray: 4 3; }
  .grid { stroke: var(--grid); }
"""


def draw(curves: Sequence[Curve]) -> str:
    """The curves side by side: values as a line, memory above the base dashed, both from zero; the sizes at equal
    distances, and the verdicts below.
    """
    parts: list[str] = []
    for number, curve in enumerate(curves):
        parts += _panel(curve, number * WIDTH)
    width = WIDTH * len(curves)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" viewBox="0 0 {width} {HEIGHT}">\n'
        f"<style>{STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _panel(curve: Curve, left: int) -> list[str]:
    x0, x1, y0, y1 = left + LEFT, left + WIDTH - RIGHT, HEIGHT - BOTTOM, TOP
    step = (x1 - x0) / max(1, len(curve.points) - 1)
    parts = [f'<text class="title" x="{x0}" y="20">{escape(curve.title)} · {escape(curve.of)}</text>']
    parts.append(f'<line class="grid" x1="{x0}" y1="{y0}" x2="{x1}" y2="{y0}"/>')
    for place, size in enumerate(curve.sizes):
        parts.append(f'<text x="{x0 + place * step:.0f}" y="{y0 + 18}" text-anchor="middle">{size}</text>')
    values = [point.value for point in curve.points]
    added = [point.added_bytes / 2**20 for point in curve.points]
    for name, heights, top, label in (
        ("speed", values, max(values), f"{max(values):.3g}{curve.unit}"),
        ("memory", added, max(*added, 1.0), f"+{max(*added, 1.0):.3g} MB"),
    ):
        points = " ".join(f"{x0 + i * step:.1f},{y0 - v / top * (y0 - y1):.1f}" for i, v in enumerate(heights))
        parts.append(f'<polyline class="{name}" points="{points}"/>')
        anchor, x = ("end", x0 - 6) if name == "speed" else ("start", x1 + 6)
        parts.append(f'<text x="{x}" y="{y1 + 4}" text-anchor="{anchor}">{label}</text>')
    faster = [name for name, verdict in (("memory", curve.memory), ("time", curve.time)) if not verdict.holds]
    said = f"faster than the input: {', '.join(faster)}" if faster else "time and memory grow no faster than the input"
    parts.append(f'<text x="{x0}" y="{y0 + 40}">{said}</text>')
    return parts
