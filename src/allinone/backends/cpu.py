"""What this machine's CPU is: its name, the features that matter to int8 products, and how many cores may be used.

Reads what the system says and imports no model library, so every backend may ask. What ONNX Runtime makes of it, and
whether its sums are exact: `onnx/kernels.py`.
"""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

IntegerType = Literal["int8", "uint8"]

MAX_DEFAULT_THREADS = 16
"""A model this small gains nothing from more, and a thread's share of a product must not shrink to one row (then a
float kernel with another order of summation is used, and bit-equality is lost)."""

_X86 = frozenset({"x86_64", "amd64", "i386", "i686"})
_ARM = frozenset({"arm64", "aarch64"})
_NAMES_OF_FEATURES = {
    "amx_int8": "amx_int8",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "avx2": "avx2",
    "i8mm": "i8mm",
    "asimddp": "dotprod",
}
_KERNELS = {
    "amx_int8": "AMX int8 tiles",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX VNNI",
    "avx2": "AVX2 (no dot product: weights stored unsigned)",
    "i8mm": "ARM i8mm",
    "dotprod": "ARM dot product",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuReport:
    """What matters about this CPU.

    Attributes:
        name: as the system calls it.
        machine: "x86_64", "arm64", ….
        features: those that matter to int8 products, best first: "amx_int8", "avx512_vnni", "avx_vnni", "avx2",
            "i8mm", "dotprod".
        kernel: what ONNX Runtime computes int8 products with here, in words.
        weight_type: how int8 weights must be stored here.
        num_physical_cores: cores this process may use; the default number of threads, up to a limit.
    """

    name: str
    machine: str
    features: tuple[str, ...]
    kernel: str
    weight_type: IntegerType
    num_physical_cores: int

    @property
    def default_threads(self) -> int:
        """Physical cores, at most `MAX_DEFAULT_THREADS`."""
        return min(self.num_physical_cores, MAX_DEFAULT_THREADS)


@lru_cache(maxsize=1)
def detect_cpu() -> CpuReport:
    """What the system says about its CPU; unknown features count as missing."""
    machine = platform.machine().lower()
    cpuinfo = _read_cpuinfo()
    if sys.platform == "darwin":
        name, flags = _sysctl("machdep.cpu.brand_string"), _darwin_flags(machine)
    else:
        name, flags = _cpuinfo_value(cpuinfo, "model name"), _cpuinfo_flags(cpuinfo)
    features = tuple(feature for flag, feature in _NAMES_OF_FEATURES.items() if flag in flags)
    has_exact_signed = machine in _ARM or bool({"amx_int8", "avx512_vnni", "avx_vnni"} & set(features))
    return CpuReport(
        name=name or platform.processor() or machine,
        machine=machine,
        features=features,
        kernel=_KERNELS[features[0]] if features else "portable code",
        weight_type="int8" if has_exact_signed or machine not in _X86 else "uint8",
        num_physical_cores=_count_physical_cores(cpuinfo),
    )


def _read_cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _cpuinfo_value(cpuinfo: str, key: str) -> str:
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() == key:
            return value.strip()
    return ""


def _cpuinfo_flags(cpuinfo: str) -> frozenset[str]:
    return frozenset(f"{_cpuinfo_value(cpuinfo, 'flags')} {_cpuinfo_value(cpuinfo, 'features')}".split())


def _sysctl(key: str) -> str:
    done = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, check=False, timeout=5)
    return done.stdout.strip()


def _darwin_flags(machine: str) -> frozenset[str]:
    if machine in _ARM:
        names = {"asimddp": "hw.optional.arm.FEAT_DotProd", "i8mm": "hw.optional.arm.FEAT_I8MM"}
        return frozenset(flag for flag, key in names.items() if _sysctl(key) == "1")
    leaf = _sysctl("machdep.cpu.leaf7_features").lower().split()
    return frozenset(flag for flag, name in {"avx2": "avx2", "avx512_vnni": "avx512vnni"}.items() if name in leaf)


def _count_physical_cores(cpuinfo: str) -> int:
    """Physical cores among the CPUs this process may run on, and within its container's CPU quota."""
    if sys.platform == "darwin":
        return int(_sysctl("hw.perflevel0.physicalcpu") or _sysctl("hw.physicalcpu") or os.cpu_count() or 1)
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else frozenset(range(os.cpu_count() or 1))
    cores: set[tuple[str, str]] = set()
    for block in cpuinfo.split("\n\n"):
        processor, core = _cpuinfo_value(block, "processor"), _cpuinfo_value(block, "core id")
        if processor.isdigit() and core and int(processor) in allowed:
            cores.add((_cpuinfo_value(block, "physical id"), core))
    count = len(cores) or len(allowed)
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, _, period = quota.read_text(encoding="ascii").strip().partition(" ")
        if limit.isdigit() and period.isdigit():
            count = min(count, max(1, math.ceil(int(limit) / int(period))))
    return count
