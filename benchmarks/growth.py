"""How speed and memory grow with what is asked: `python -m benchmarks.growth --json growth.json --plot growth.svg`.

Three curves of this product on one model: labels a second against requests in flight and against the number of tasks
that are mixed, the time to the first token against the turns of a conversation; and the process's memory with each.
Nothing should grow faster than its input. Speeds are of this machine, at this moment: read the shapes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from xml.sax.saxutils import escape

from allinone import AllInOne

TEXTS = ("这家店的面条很筋道，", "快递三天才到，包装还破了，", "the soup was cold and late, ", "我有点难过，")
IN_FLIGHT = (1, 4, 16, 64, 256, 1024)
NUM_TASKS = (1, 2, 4, 8, 16, 32, 64)
TURNS = (1, 5, 10, 20, 30, 40, 50)
NUM_LABELS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One dependence: `values` over `inputs`, and the memory after each."""

    title: str
    unit: str
    of: str
    inputs: list[int] = field(default_factory=list[int])
    values: list[float] = field(default_factory=list[float])
    memory_mb: list[float] = field(default_factory=list[float])

    def add(self, size: int, value: float) -> None:
        """One more point."""
        self.inputs.append(size)
        self.values.append(round(value, 5))
        self.memory_mb.append(round(rss_bytes() / 2**20, 1))


def rss_bytes() -> int:
    """What this process holds now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def texts() -> Iterator[str]:
    """Endless distinct texts of about twenty tokens."""
    number = 0
    while True:
        yield f"{TEXTS[number % len(TEXTS)]}{number}"
        number += 1


def labels_per_s(ai: AllInOne, tasks: Sequence[str], *, window: int, source: Iterator[str]) -> float:
    """Labels a second with `window` requests in flight, the tasks taking turns; the median of three goes."""
    rates: list[float] = []
    for _ in range(4):
        began = time.perf_counter()
        maps = [
            ai.map(task, list(islice(source, NUM_LABELS // len(tasks))), window=max(1, window // len(tasks)))
            for task in tasks
        ]
        count = 0
        while maps:
            maps = [answers for answers in maps if next(answers, None) is not None]
            count += len(maps)
        rates.append(count / (time.perf_counter() - began))
    return median(rates[1:])


def many_tasks(folder: Path, count: int) -> list[str]:
    """So many label tasks of the user's, each with a prompt of its own."""
    for number in range(count):
        (folder / f"mood{number}.prompt").write_text(
            "---\ndescription: mood of one text\nconfig: {temperature: 0}\ninput: {schema: {text: string}}\n"
            "output: {schema: {label(enum): [正面, 负面]}}\nallinone.kind: label\n"
            "allinone.labels: {正面: {name: positive}, 负面: {name: negative}}\n---\n"
            f'{{{{role "system"}}}}\n你是第{number}号情感分析师，读一段话，说出它的情绪，只回答一个词：正面或负面。\n'
            '{{role "user"}}\n{{text}}\n',
            encoding="utf-8",
        )
    return [f"mood{number}" for number in range(count)]


def measure_history(ai: AllInOne, curve: Curve) -> None:
    """Time to the first token of a reply, turn after turn of one conversation."""
    conversation, waits = ai.conversation(), []
    for turn, text in enumerate(islice(texts(), max(TURNS)), start=1):
        began = time.perf_counter()
        events = iter(ai.reply(text, conversation))
        next(events)
        waits.append(time.perf_counter() - began)
        for _ in events:
            pass
        if turn in TURNS:
            curve.add(turn, median(waits[-3:]))
    conversation.close()


def measure(model: str | None) -> list[Curve]:
    """All three curves."""
    queue = Curve(title="labels a second", unit="/s", of="requests in flight")
    tasks = Curve(title="labels a second, 64 in flight", unit="/s", of="tasks mixed")
    history = Curve(title="time to the first token", unit="s", of="turns of the conversation")
    with tempfile.TemporaryDirectory() as folder:
        names = many_tasks(Path(folder), max(NUM_TASKS))
        with AllInOne.load(model, tasks=folder, cache=False) as ai:
            source = texts()
            for window in IN_FLIGHT:
                queue.add(window, labels_per_s(ai, names[:1], window=window, source=source))
                print(f"{window} in flight: {queue.values[-1]:.0f} /s", file=sys.stderr, flush=True)
            for count in NUM_TASKS:
                tasks.add(count, labels_per_s(ai, names[:count], window=64, source=source))
                print(f"{count} tasks: {tasks.values[-1]:.0f} /s", file=sys.stderr, flush=True)
            measure_history(ai, history)
    return [queue, tasks, history]


WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 240, 62, 52, 34, 40
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
    """The curves side by side: values as a line, memory (MB) dashed, both from zero; inputs at equal distances."""
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
    step = (x1 - x0) / max(1, len(curve.inputs) - 1)
    parts = [f'<text class="title" x="{x0}" y="20">{escape(curve.title)} · {escape(curve.of)}</text>']
    parts.append(f'<line class="grid" x1="{x0}" y1="{y0}" x2="{x1}" y2="{y0}"/>')
    for place, size in enumerate(curve.inputs):
        parts.append(f'<text x="{x0 + place * step:.0f}" y="{y0 + 18}" text-anchor="middle">{size}</text>')
    for name, values, unit in (("speed", curve.values, curve.unit), ("memory", curve.memory_mb, " MB")):
        top = max(values)
        points = " ".join(f"{x0 + i * step:.1f},{y0 - v / top * (y0 - y1):.1f}" for i, v in enumerate(values))
        parts.append(f'<polyline class="{name}" points="{points}"/>')
        anchor, x = ("end", x0 - 6) if name == "speed" else ("start", x1 + 6)
        parts.append(f'<text x="{x}" y="{y1 + 4}" text-anchor="{anchor}">{top:.3g}{unit}</text>')
    return parts


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=None)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    curves = measure(args.model)
    report = {"cpu_count": os.cpu_count(), "load": os.getloadavg()[0], "curves": [asdict(curve) for curve in curves]}
    text = json.dumps(report, ensure_ascii=False, indent=1)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    if args.plot:
        args.plot.write_text(draw(curves), encoding="utf-8")


if __name__ == "__main__":
    main()
