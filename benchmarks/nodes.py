"""Where the time of a step goes, node by node: `python -m benchmarks.nodes [--shape qwen1.5-0.5b]`.

Runs some works on the `onnx` backend alone, first as they are, then with ONNX Runtime's profiler, which adds some ten
microseconds to each node. "Products" are those of weights in int8; everything else is attention, norms, scales and the
moving of rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from allinone.backends.base import Chunk
from allinone.backends.onnx.backend import OnnxBackend
from allinone.bench.shapes import SHAPES, make_model

NUM_PREFIX, NUM_NEW = 68, 28
PRODUCT = "MatMulInteger"
BRANCH = "If"
"""Its time is that of the nodes in it, which are counted themselves."""

WORKS = {
    "one label": (1, NUM_NEW, 1),
    "32 labels": (32, NUM_NEW, 1),
    "32 labels of 8 tasks": (32, NUM_NEW, 8),
    "one stream": (1, 1, 1),
    "16 streams": (16, 1, 1),
}
"""Sequences, new tokens of each, and prefixes that they share."""


@dataclass(slots=True)
class Profiled:
    """Sessions that were opened with the profiler."""

    sessions: list[Any]

    def read(self) -> Iterator[tuple[float, Counter[str], int]]:
        """Of each call: milliseconds, milliseconds by operator, number of nodes."""
        events = json.loads(Path(self.sessions[-1].end_profiling()).read_text(encoding="utf-8"))
        calls = sorted((e["ts"], e["dur"]) for e in events if e.get("name") == "model_run")
        spent: list[Counter[str]] = [Counter() for _ in calls]
        nodes = [0] * len(calls)
        starts = [start for start, _ in calls]
        for event in events:
            is_node = event.get("cat") == "Node" and event["name"].endswith("kernel_time")
            if is_node and event["args"]["op_name"] != BRANCH:
                call = bisect_right(starts, event["ts"]) - 1
                spent[call][event["args"]["op_name"]] += event["dur"] / 1e3
                nodes[call] += 1
        for (_, lasted), by_operator, num_nodes in zip(calls, spent, nodes, strict=True):
            yield lasted / 1e3, by_operator, num_nodes


@contextmanager
def profiling(folder: Path) -> Generator[Profiled]:
    """Sessions opened in here are profiled; the product has no switch for it."""
    original, found = onnxruntime.InferenceSession, Profiled([])

    def profiled(path: str, options: Any, **others: Any) -> Any:
        options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
        found.sessions.append(original(path, options, **others))
        return found.sessions[-1]

    onnxruntime.InferenceSession = profiled
    try:
        yield found
    finally:
        onnxruntime.InferenceSession = original


def prepare(backend: OnnxBackend, num_sequences: int, num_ids: int, num_prefixes: int = 1) -> Callable[[], float]:
    """One work: a call that takes milliseconds, on sequences that share prefixes; labels are forgotten again."""
    prefixes = [backend.fork() for _ in range(num_prefixes)]
    for place, prefix in enumerate(prefixes):
        backend.extend([Chunk(sequence=prefix, input_ids=range(place, place + NUM_PREFIX))])
    sequences = [backend.fork(prefixes[n % num_prefixes]) for n in range(num_sequences)]
    is_label = num_ids > 1
    wanted: Any = {"wanted": "token_logits", "token_ids": (7, 8, 9)} if is_label else {"wanted": "last_logits"}

    def run() -> float:
        began = time.perf_counter()
        backend.extend(
            [Chunk(sequence=one, input_ids=range(n, n + num_ids), **wanted) for n, one in enumerate(sequences)]
        )
        lasted = 1e3 * (time.perf_counter() - began)
        for one in sequences if is_label else ():
            backend.trim(one, NUM_PREFIX)
        return lasted

    return run


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="qwen1.5-0.5b")
    parser.add_argument("--calls", type=int, default=20, help="of each work (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args()
    folder = make_model(args.shape, SHAPES[args.shape])
    for name, sizes in WORKS.items():
        backend = OnnxBackend.load(folder, num_threads=args.threads)
        run = prepare(backend, *sizes)
        plain = statistics.median([run() for _ in range(args.calls + 3)][3:])
        backend.close()
        with tempfile.TemporaryDirectory() as place, profiling(Path(place)) as profiled:
            backend = OnnxBackend.load(folder, num_threads=args.threads)
            run = prepare(backend, *sizes)
            for _ in range(args.calls):
                run()
            calls = list(profiled.read())[sizes[2] :]  # the first ones fed the prefixes
            backend.close()
        print_work(name, plain, calls, num_runs=args.calls)


def print_work(name: str, plain_ms: float, calls: list[tuple[float, Counter[str], int]], *, num_runs: int) -> None:
    """What one run takes, and the operators that take the most of it."""
    total = sum((by_operator for _, by_operator, _ in calls), Counter[str]())
    parts = {operator: spent / num_runs for operator, spent in total.most_common()}
    products = sum(spent for operator, spent in parts.items() if PRODUCT in operator)
    lasted = sum(lasted for lasted, _, _ in calls) / num_runs
    num_nodes = sum(nodes for _, _, nodes in calls) // num_runs
    print(f"{name}: {plain_ms:.1f} ms; profiled {lasted:.1f} ms, {num_nodes} nodes, products {products:.1f} ms")
    others = [f"{operator} {spent:.1f}" for operator, spent in parts.items() if PRODUCT not in operator]
    print(f"    others: {', '.join(others[:9])}", flush=True)


if __name__ == "__main__":
    main()
