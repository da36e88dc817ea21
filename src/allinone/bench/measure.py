"""A whole run: every figure again and again, in rounds, within the time that is given.

It decides what is repeated how often; what one repetition does is in `runner.py`, `cold_start.py` and `footprint.py`,
what the samples say in `report.py`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from allinone.bench.cold_start import measure_cold_start
from allinone.bench.figures import FIGURES
from allinone.bench.footprint import can_measure_memory, measure_footprint
from allinone.bench.machine import BusyWatch, describe_machine
from allinone.bench.report import BenchReport, Workload, measurement
from allinone.bench.runner import Runner, Target
from allinone.loading import ProgressCallback

Samples = dict[str, list[list[float]]]
"""Figure -> samples of each round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long to measure.

    Attributes:
        num_rounds: at most; the samples of a figure are spread over them.
        max_s: no measurement begins after the first round that is not expected to end within this.
        slice_s: of one figure in one round; it is exceeded only by a single repetition that takes longer.
    """

    num_rounds: int
    max_s: float
    slice_s: float


QUICK = Plan(num_rounds=4, max_s=25.0, slice_s=0.35)
FULL = Plan(num_rounds=6, max_s=150.0, slice_s=1.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """Something to repeat.

    Attributes:
        title: for the progress.
        repeat: one repetition; gives a sample of one figure or of several.
        max_each_round: most repetitions in a round.
        is_warmed_up: a first repetition is made and not counted, as long as half of the time is left.
    """

    title: str
    repeat: Callable[[], Mapping[str, float]]
    max_each_round: int
    is_warmed_up: bool = True


def run_bench(
    target: Target,
    *,
    is_quick: bool = False,
    on_import: ProgressCallback | None = None,
    on_progress: ProgressCallback | None = None,
) -> BenchReport:
    """Load the model, measure every figure, and say whether the machine was free.

    Args:
        target: the model.
        is_quick: `QUICK` instead of `FULL`.
        on_import: called with (step, done, total) while the model is imported the first time.
        on_progress: called with (what is measured, done, total).

    Raises:
        AllInOneError: the model cannot be had, or a child process failed.
    """
    with Runner.open(target, on_progress=on_import) as runner:
        began = time.perf_counter()
        info = runner.ai.model.backend.info
        machine = describe_machine(info)
        target = replace(target, threads=info.num_threads)
        watch = BusyWatch(load=machine.load, num_cores=os.cpu_count() or 1)
        samples = collect(make_gauges(runner, target), QUICK if is_quick else FULL, on_progress=on_progress)
        busy = watch.judge()
        prefix_tokens, label_tokens = runner.count_label_tokens()
        return BenchReport(
            model=runner.ai.model.full_name,
            backend=info.name,
            quick=is_quick,
            machine=machine,
            workload=Workload(
                digest=runner.digest(),
                prefix_tokens=prefix_tokens,
                label_tokens=label_tokens,
                history_tokens=runner.history_tokens,
            ),
            busy=busy.is_busy,
            busy_reason=busy.reason,
            figures={name: measurement(name, samples[name]) for name in FIGURES if name in samples},
            seconds=round(time.perf_counter() - began, 2),
        )


def make_gauges(runner: Runner, target: Target) -> list[Gauge]:
    """Everything to measure, in the order in which it is measured."""

    def one(name: str, work: Callable[[], float], *, max_each_round: int, is_warmed_up: bool = True) -> Gauge:
        """Of one figure."""
        return Gauge(
            title=FIGURES[name].title,
            repeat=lambda: {name: work()},
            max_each_round=max_each_round,
            is_warmed_up=is_warmed_up,
        )

    def label() -> dict[str, float]:
        return dict.fromkeys(("label_p50_s", "label_p90_s"), runner.time_label())

    gauges = [
        one(
            "cold_start_s",
            lambda: measure_cold_start(target, runner.texts[0]),
            max_each_round=1,
            is_warmed_up=False,
        ),
        Gauge(title="one label", repeat=label, max_each_round=60),
        *(
            one(f"labels_per_s_{n}", partial(runner.time_labels, 8 + 3 * n, num_in_flight=n), max_each_round=8)
            for n in (1, 8, 32)
        ),
        one("labels_per_s_8_tasks", partial(runner.time_labels_over_tasks, 104), max_each_round=8),
        *(one(f"decode_tokens_per_s_{n}", partial(runner.time_decode, n), max_each_round=4) for n in (1, 4, 16)),
        Gauge(title=FIGURES["reply_ttft_s"].title, repeat=PairedReplies(runner), max_each_round=8),
        one("chat_turn_50_ttft_s", runner.time_late_turn, max_each_round=1),
    ]
    if can_measure_memory():
        memory = partial(measure_footprint, target)
        gauges.append(Gauge(title="memory", repeat=memory, max_each_round=1, is_warmed_up=False))
    return gauges


class PairedReplies:
    """Mood → reply and the same in two calls, side by side, each of them first every other time."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._is_fused_first = False

    def __call__(self) -> dict[str, float]:
        """One pair, and its ratio."""
        self._is_fused_first = not self._is_fused_first
        if self._is_fused_first:
            fused = self._runner.time_reply()
            separate = self._runner.time_label_then_reply()
        else:
            separate = self._runner.time_label_then_reply()
            fused = self._runner.time_reply()
        return {"reply_ttft_s": fused, "separate_ttft_s": separate, "reply_ratio": fused / separate}


def collect(
    gauges: Sequence[Gauge],
    plan: Plan,
    *,
    on_progress: ProgressCallback | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Samples:
    """Repeat everything, round after round, within the plan.

    The first round measures every figure, however slow the machine is. Later rounds leave out what would not end in
    time, so that a slow figure has fewer samples and a run keeps its length.

    Args:
        gauges: what to repeat.
        plan: how often, how long.
        on_progress: called with (title, done, total) before each.
        clock: seconds.
    """
    samples: Samples = {}
    costs: dict[str, float] = {}
    start, num_done, num_total = clock(), 0, plan.num_rounds * len(gauges)
    for number in range(plan.num_rounds):
        # back and forth, so that no figure is always measured after the same one
        for gauge in gauges if number % 2 == 0 else reversed(gauges):
            if on_progress is not None:
                on_progress(gauge.title, num_done, num_total)
            num_done += 1
            if number == 0:
                if gauge.is_warmed_up and clock() - start < plan.max_s / 2:
                    gauge.repeat()
            elif clock() - start + costs[gauge.title] > plan.max_s:
                continue
            began = clock()
            for name, values in _repeat(gauge, plan.slice_s, clock).items():
                samples.setdefault(name, []).append(values)
            costs[gauge.title] = clock() - began
    if on_progress is not None:
        on_progress("done", num_total, num_total)
    return samples


def _repeat(gauge: Gauge, slice_s: float, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Repetitions of one gauge until its slice of time is spent; at least one."""
    found: dict[str, list[float]] = {}
    began = clock()
    for _ in range(gauge.max_each_round):
        for name, value in gauge.repeat().items():
            found.setdefault(name, []).append(value)
        if clock() - began >= slice_s:
            break
    return found
