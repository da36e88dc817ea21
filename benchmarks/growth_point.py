"""One point of a curve of growth, in a process of its own: python -m benchmarks.growth_point '{"axis": "queue", …}'.

An order as JSON in, a `Point` as JSON out. A fresh process, because what one size takes, an allocator keeps for the
next: within one process memory only shows the largest so far. Above: `growth.py`. Below: `AllInOne`.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from allinone import AllInOne
from benchmarks.curves import Point
from benchmarks.memory import MemoryWatch

TEXTS = ("这家店的面条很筋道，", "快递三天才到，包装还破了，", "the soup was cold and late, ", "我有点难过，")
MIXED_WINDOW = 64
"""Requests in flight where the number of tasks is what varies."""


def texts() -> Iterator[str]:
    """Endless distinct texts of about twenty tokens."""
    number = 0
    while True:
        yield f"{TEXTS[number % len(TEXTS)]}{number}"
        number += 1


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


def labels_per_s(ai: AllInOne, tasks: Sequence[str], *, window: int, num_labels: int, source: Iterator[str]) -> float:
    """Labels a second with `window` requests in flight, the tasks taking turns; the median of three goes."""
    rates: list[float] = []
    for _ in range(4):
        began = time.perf_counter()
        maps = [
            ai.map(task, list(islice(source, max(1, num_labels // len(tasks)))), window=max(1, window // len(tasks)))
            for task in tasks
        ]
        count = 0
        while maps:
            maps = [answers for answers in maps if next(answers, None) is not None]
            count += len(maps)
        rates.append(count / (time.perf_counter() - began))
    return median(rates[1:])


def first_token_s(ai: AllInOne, num_turns: int, source: Iterator[str]) -> float:
    """Seconds to the first token of a reply in the last turns of a conversation; the median of three."""
    waits: list[float] = []
    while len(waits) < 3:
        conversation = ai.conversation()
        for turn in range(1, num_turns + 1):
            began = time.perf_counter()
            events = iter(ai.reply(next(source), conversation))
            next(events)
            if turn > num_turns - 3:
                waits.append(time.perf_counter() - began)
            for _ in events:
                pass
        conversation.close()
    return median(waits)


def measure_here(axis: str, size: int, *, num_labels: int, model: str | None) -> Point:
    """Load the model, use it once, and measure one size.

    Args:
        axis: "queue", "tasks" or "history".
        size: requests in flight, tasks mixed, turns of a conversation.
        num_labels: of each go; more where so many do not fill the queue twice.
        model: as `AllInOne.load`.
    """
    source = texts()
    with tempfile.TemporaryDirectory() as folder:
        names = many_tasks(Path(folder), size if axis == "tasks" else 1)
        with AllInOne.load(model, tasks=folder, cache=False) as ai:
            ai.run(names[0], next(source))
            if axis == "history":
                first_token_s(ai, 1, source)
            gc.collect()
            with MemoryWatch(interval_s=0.01) as memory:
                if axis == "history":
                    value = seconds = first_token_s(ai, size, source)
                else:
                    window = size if axis == "queue" else MIXED_WINDOW
                    num_labels = max(num_labels, 2 * window)
                    value = labels_per_s(ai, names, window=window, num_labels=num_labels, source=source)
                    seconds = (size if axis == "queue" else 1) / value
    return Point(size=size, value=value, seconds=seconds, base_bytes=memory.samples[0][1], peak_bytes=memory.max_bytes)


def main() -> None:
    """Measure what the first argument orders."""
    order: dict[str, Any] = json.loads(sys.argv[1])
    print(json.dumps(asdict(measure_here(**order))))


if __name__ == "__main__":
    main()
