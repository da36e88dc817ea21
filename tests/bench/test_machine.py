"""Busy or free: from injected readings, never from the machine that runs the test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from allinone.bench import machine
from allinone.bench.machine import BusyWatch, CpuTimes, describe_machine, parse_cpu_times, read_cpu_times, read_load
from allinone.loading import load_model

STAT = """cpu  1000 10 500 8000 90 5 5 40 7 0
cpu0 600 10 300 4000 40 5 5 40 7 0
cpu1 400 0 200 4000 50 0 0 0 0 0
intr 1234
"""


def _watch(after: CpuTimes | None, *, load: float | None = 0.2) -> BusyWatch:
    """A watch that began at zero and reads `after` at the end; two cores."""
    start = CpuTimes(total_s=0, busy_s=0, stolen_s=0, own_s=0)
    readings = iter([start, after])
    return BusyWatch(lambda: next(readings), load=load, num_cores=2)


def test_stat_is_read_for_the_cores_of_this_process() -> None:
    """User, nice, system, irq and softirq are busy; idle and iowait are not; guest time is in user time."""
    times = parse_cpu_times(STAT, cores={0}, own_s=3.0, ticks_per_s=100)
    assert times == CpuTimes(total_s=50.0, busy_s=9.2, stolen_s=0.4, own_s=3.0)
    both = parse_cpu_times(STAT, cores={0, 1}, own_s=0.0, ticks_per_s=100)
    assert both.total_s == pytest.approx(96.5) and both.busy_s == pytest.approx(15.2)


def test_own_work_does_not_make_it_busy() -> None:
    """All cores in use, by nobody but us."""
    busy = _watch(CpuTimes(total_s=40, busy_s=39, stolen_s=0, own_s=39)).judge()
    assert busy.is_busy is False
    assert busy.reason == "others used 0% of the processors, 0% was stolen"


@pytest.mark.parametrize(
    ("after", "load", "needle"),
    [
        (CpuTimes(total_s=40, busy_s=30, stolen_s=0, own_s=20), 0.2, "other processes used 25% of the processors"),
        (CpuTimes(total_s=40, busy_s=20, stolen_s=4, own_s=20), 0.2, "10% of the processors' time was stolen"),
        (CpuTimes(total_s=40, busy_s=20, stolen_s=0, own_s=20), 3.5, "the load was 3.5 on 2 cores before the start"),
    ],
)
def test_work_of_others_is_named(after: CpuTimes, load: float, needle: str) -> None:
    """Each by itself is enough."""
    busy = _watch(after, load=load).judge()
    assert busy.is_busy is True
    assert needle in busy.reason and ";" not in busy.reason


def test_all_reasons_are_given() -> None:
    """In one line."""
    busy = _watch(CpuTimes(total_s=40, busy_s=30, stolen_s=4, own_s=0), load=9.0).judge()
    assert busy.is_busy is True and busy.reason.count(";") == 2


@pytest.mark.parametrize("after", [None, CpuTimes(total_s=0, busy_s=0, stolen_s=0, own_s=0)])
def test_unknown_is_not_free(after: CpuTimes | None) -> None:
    """Where the counters are missing or do not move, nothing is claimed."""
    busy = _watch(after).judge()
    assert busy.is_busy is None and busy.reason.startswith("unknown")


def test_other_systems_have_no_counters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No /proc/stat: None, and no failure; no load average on Windows."""
    monkeypatch.setattr(machine, "_STAT", tmp_path / "none")
    assert read_cpu_times() is None
    monkeypatch.delattr(os, "getloadavg", raising=False)
    assert read_load() is None


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="needs /proc/stat")
def test_counters_of_this_machine_move_on() -> None:
    """Own time is part of busy time: what we burn shows in both."""
    before = read_cpu_times()
    sum(number * number for number in range(3_000_000))
    after = read_cpu_times()
    assert before is not None and after is not None
    assert after.own_s > before.own_s and after.total_s > before.total_s
    assert 0 <= after.busy_s <= after.total_s


def test_machine_is_described() -> None:
    """What figures depend on besides the program."""
    model = load_model(backend="fake")
    found = describe_machine(model.backend.info)
    model.backend.close()
    assert found.cpu and found.cores >= 1 and found.threads == 1
    assert {"allinone", "python", "onnxruntime", "numpy"} <= found.versions.keys()
