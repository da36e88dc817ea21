"""Rounds, slices and budgets, on a clock of the test's own; and one real run on the fake backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest

from allinone.bench import measure
from allinone.bench.figures import FIGURES
from allinone.bench.measure import Gauge, PairedReplies, Plan, collect, run_bench
from allinone.bench.runner import Runner, Target
from allinone.errors import RunError, UnknownModel


class Clock:
    """A clock that moves only when work is done."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def __call__(self) -> float:
        """Seconds."""
        return self.now

    def gauge(self, name: str, cost_s: float, *, max_each_round: int = 100, is_warmed_up: bool = False) -> Gauge:
        """A gauge whose repetition takes `cost_s`."""

        def repeat() -> Mapping[str, float]:
            self.now += cost_s
            self.log.append(name)
            return {name: cost_s}

        return Gauge(title=name, repeat=repeat, max_each_round=max_each_round, is_warmed_up=is_warmed_up)


def test_slice_ends_the_repetitions_of_a_round() -> None:
    """0.35 s of something that takes 0.1 s: four repetitions; the limit holds where it comes first."""
    clock = Clock()
    gauges = [clock.gauge("a", 0.1), clock.gauge("b", 0.001, max_each_round=5)]
    samples = collect(gauges, Plan(num_rounds=2, max_s=100, slice_s=0.35), clock=clock)
    assert [len(values) for values in samples["a"]] == [4, 4]
    assert [len(values) for values in samples["b"]] == [5, 5]


def test_slow_machine_still_measures_everything_once() -> None:
    """The first round ignores the budget; nothing begins after it that cannot end in time."""
    clock = Clock()
    samples = collect(
        [clock.gauge("a", 30), clock.gauge("b", 40)], Plan(num_rounds=4, max_s=25, slice_s=0.35), clock=clock
    )
    assert samples == {"a": [[30]], "b": [[40]]}
    assert clock.now == 70


def test_budget_is_kept_and_spent() -> None:
    """A figure that is too slow for what is left is passed over; the quick one goes on."""
    clock = Clock()
    gauges = [clock.gauge("slow", 6, max_each_round=1), clock.gauge("quick", 1, max_each_round=1)]
    samples = collect(gauges, Plan(num_rounds=6, max_s=15, slice_s=0.35), clock=clock)
    assert len(samples["slow"]) == 2
    assert len(samples["quick"]) == 3
    assert clock.now == 15


def test_rounds_go_back_and_forth() -> None:
    """What is measured just after a child process in one round comes just before it in the next."""
    clock = Clock()
    collect([clock.gauge("a", 1), clock.gauge("b", 1)], Plan(num_rounds=3, max_s=100, slice_s=0.1), clock=clock)
    assert clock.log == ["a", "b", "b", "a", "a", "b"]


def test_first_repetition_is_not_counted() -> None:
    """It pays for caches, in the first round only."""
    clock = Clock()
    gauge = clock.gauge("a", 1, is_warmed_up=True)
    samples = collect([gauge], Plan(num_rounds=2, max_s=100, slice_s=0.1), clock=clock)
    assert samples == {"a": [[1], [1]]}
    assert clock.now == 3


def test_slow_machine_counts_the_first_repetition() -> None:
    """Once half of the time is spent, a repetition that is thrown away is one too many."""
    clock = Clock()
    gauges = [clock.gauge("a", 15), clock.gauge("b", 5, is_warmed_up=True)]
    assert collect(gauges, Plan(num_rounds=1, max_s=25, slice_s=0.1), clock=clock) == {"a": [[15]], "b": [[5]]}
    assert clock.now == 20


def test_progress_reaches_its_end() -> None:
    """Also where figures are passed over."""
    clock, seen = Clock(), list[tuple[str, int, int]]()
    collect(
        [clock.gauge("a", 30)],
        Plan(num_rounds=3, max_s=25, slice_s=0.1),
        on_progress=lambda title, done, total: seen.append((title, done, total)),
        clock=clock,
    )
    assert seen == [("a", 0, 3), ("a", 1, 3), ("a", 2, 3), ("done", 3, 3)]


def test_pairs_take_turns() -> None:
    """Whoever comes second finds warmer caches: each is second half of the time."""
    log: list[str] = []

    class Recorder:
        def time_reply(self) -> float:
            log.append("fused")
            return 2.0

        def time_label_then_reply(self) -> float:
            log.append("separate")
            return 4.0

    pairs = PairedReplies(Recorder())  # type: ignore[arg-type] # only these two methods are used
    assert pairs() == {"reply_ttft_s": 2.0, "separate_ttft_s": 4.0, "reply_ratio": 0.5}
    pairs()
    assert log == ["fused", "separate", "separate", "fused"]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One round, one repetition: as short as a run can be."""
    for name in ("QUICK", "FULL"):
        monkeypatch.setattr(measure, name, Plan(num_rounds=1, max_s=0.1, slice_s=0.001))
    yield


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_run_measures_every_figure() -> None:
    """With real child processes, on the fake backend; whatever the machine, every figure is there and positive."""
    told: list[str] = []
    report = run_bench(Target(backend="fake"), is_quick=True, on_progress=lambda title, done, total: told.append(title))
    assert list(report.figures) == list(FIGURES)
    assert all(figure.low <= figure.value <= figure.high for figure in report.figures.values())
    assert report.model == "fake/float32" and report.backend == "fake" and report.quick is True
    assert report.workload.history_tokens is not None and report.workload.history_tokens > 0
    assert report.machine.threads == 1 and report.seconds > 0
    assert told[-1] == "done" and len(set(told)) > 8


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("child", ["measure_cold_start", "measure_footprint"])
def test_failing_child_is_an_error_that_says_why(monkeypatch: pytest.MonkeyPatch, child: str) -> None:
    """A figure that cannot be had is not left out quietly, and the model is closed."""
    real: Callable[..., object] = getattr(measure, child)
    fake = {"measure_cold_start": lambda target, text: 0.1, "measure_footprint": lambda target: {}}
    for name, work in fake.items():
        monkeypatch.setattr(measure, name, work)
    nowhere = Target(model="nowhere.gguf", backend="onnx")
    monkeypatch.setattr(measure, child, lambda target, *text: real(nowhere, *text))
    with pytest.raises(RunError, match=r"nowhere\.gguf") as caught:
        run_bench(Target(backend="fake"))
    assert caught.value.hint


def test_unknown_model_is_refused_before_anything_is_measured() -> None:
    """As any command refuses it."""
    with pytest.raises(UnknownModel):
        run_bench(Target(model="no-such-model"))


def test_gauges_cover_the_figures() -> None:
    """One that nobody measures would be missing from every report."""
    with Runner.open(Target(backend="fake")) as runner:
        gauges = measure.make_gauges(runner, Target(backend="fake"))
        names = {name for gauge in gauges if gauge.is_warmed_up for name in gauge.repeat()}
    in_children = {"cold_start_s", "memory_peak_bytes", "memory_after_bytes"}
    assert names | in_children == set(FIGURES)
    assert not names & in_children
