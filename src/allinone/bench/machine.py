"""The machine a run was made on: what it is, and whether it was free for us.

Reads /proc on Linux; where there is none, how busy the machine was is unknown, and said to be.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from allinone.backends.base import BackendInfo
from allinone.bench.report import Busy, Machine

PACKAGES = ("onnxruntime", "tokenizers", "numpy", "torch", "transformers", "llama_cpp_python")
MAX_LOAD = 1.0
"""Load average per core before the start. Not lower: the load of a run that has just ended is still in it."""
MAX_OTHERS_SHARE = 0.05
MAX_STOLEN_SHARE = 0.03
_STAT = Path("/proc/stat")


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTimes:
    """Seconds of CPU since the start of the machine, summed over the cores that this process may use.

    Attributes:
        total_s: of all kinds, idle among them.
        busy_s: spent by anybody.
        stolen_s: that the host gave to another machine.
        own_s: spent by this process and its ended children.
    """

    total_s: float
    busy_s: float
    stolen_s: float
    own_s: float


def describe_machine(backend: BackendInfo) -> Machine:
    """What figures depend on besides the program."""
    from allinone.backends.cpu import detect_cpu

    cpu = detect_cpu()
    versions = {"allinone": metadata.version("qwen-allinone"), "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return Machine(
        cpu=cpu.name,
        cores=cpu.num_physical_cores,
        threads=backend.num_threads,
        features=cpu.features,
        kernel=cpu.kernel,
        load=read_load(),
        system=platform.platform(),
        versions=versions,
    )


def read_load() -> float | None:
    """Load average of the last minute; None where the system has none."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def read_cpu_times() -> CpuTimes | None:
    """The counters at this moment; None where the system has no /proc/stat."""
    if not _STAT.is_file():
        return None
    spent = os.times()
    own_s = spent.user + spent.system + spent.children_user + spent.children_system
    return parse_cpu_times(
        _STAT.read_text(encoding="ascii"),
        cores=os.sched_getaffinity(0),
        own_s=own_s,
        ticks_per_s=os.sysconf("SC_CLK_TCK"),
    )


def parse_cpu_times(stat: str, *, cores: Collection[int], own_s: float, ticks_per_s: int) -> CpuTimes:
    """The counters in the text of /proc/stat.

    Source: proc(5): user nice system idle iowait irq softirq steal guest guest_nice; guest time is in user time too.
    """
    total = idle = stolen = 0
    for line in stat.splitlines():
        name, *values = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            ticks = [int(value) for value in values[:8]]
            total += sum(ticks)
            idle += ticks[3] + ticks[4]
            stolen += ticks[7]
    return CpuTimes(
        total_s=total / ticks_per_s,
        busy_s=(total - idle - stolen) / ticks_per_s,
        stolen_s=stolen / ticks_per_s,
        own_s=own_s,
    )


class BusyWatch:
    """Whether others used the machine while this process measured.

    Args:
        read: gives the counters, at the start and at the end.
        load: load average before the start.
        num_cores: of the whole machine, as the load counts it.
    """

    def __init__(
        self,
        read: Callable[[], CpuTimes | None] = read_cpu_times,
        *,
        load: float | None,
        num_cores: int,
    ) -> None:
        self._read, self._load, self._num_cores = read, load, num_cores
        self._before = read()

    def judge(self) -> Busy:
        """What happened since the start."""
        before, after = self._before, self._read()
        if before is None or after is None or after.total_s <= before.total_s:
            return Busy(is_busy=None, reason="unknown: this system does not say who used its processors")
        total = after.total_s - before.total_s
        stolen = (after.stolen_s - before.stolen_s) / total
        others = max(0.0, (after.busy_s - before.busy_s) - (after.own_s - before.own_s)) / total
        reasons: list[str] = []
        if self._load is not None and self._load > MAX_LOAD * self._num_cores:
            reasons.append(f"the load was {self._load:.1f} on {self._num_cores} cores before the start")
        if others > MAX_OTHERS_SHARE:
            reasons.append(f"other processes used {others:.0%} of the processors")
        if stolen > MAX_STOLEN_SHARE:
            reasons.append(f"{stolen:.0%} of the processors' time was stolen by other machines on this host")
        quiet = f"others used {others:.0%} of the processors, {stolen:.0%} was stolen"
        return Busy(is_busy=bool(reasons), reason="; ".join(reasons) or quiet)
