"""What the CPU can do, read from what the system says; and the check that its sums are exact."""

from __future__ import annotations

import numpy as np
import pytest

import allinone.backends.cpu as cpu
import allinone.backends.onnx.kernels as kernels
from allinone.backends.cpu import detect_cpu
from allinone.backends.onnx.kernels import require_exact_int8, weight_signedness
from allinone.errors import ModelError


def cpuinfo(flags: str, *, cores: int = 2, siblings: int = 1, key: str = "flags") -> str:
    """A /proc/cpuinfo of so many cores."""
    blocks = [
        f"processor\t: {number}\nmodel name\t: Test CPU\nphysical id\t: 0\n"
        f"core id\t\t: {number // siblings}\n{key}\t: {flags}"
        for number in range(cores * siblings)
    ]
    return "\n\n".join(blocks) + "\n\n"


@pytest.fixture
def as_cpu(monkeypatch: pytest.MonkeyPatch):
    """Pretend to run on another CPU."""

    def pretend(machine: str, text: str) -> cpu.CpuReport:
        monkeypatch.setattr(cpu.sys, "platform", "linux")
        monkeypatch.setattr(cpu.platform, "machine", lambda: machine)
        monkeypatch.setattr(cpu, "_read_cpuinfo", lambda: text)
        monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
        detect_cpu.cache_clear()
        return detect_cpu()

    yield pretend
    detect_cpu.cache_clear()


@pytest.mark.parametrize(
    ("machine", "flags", "key", "best", "weight_type"),
    [
        ("x86_64", "fpu avx2 avx512f avx512_vnni amx_tile amx_int8", "flags", "amx_int8", "int8"),
        ("x86_64", "fpu avx2 avx512f avx512_vnni", "flags", "avx512_vnni", "int8"),
        ("AMD64", "fpu avx2 avx_vnni", "flags", "avx_vnni", "int8"),
        ("x86_64", "fpu avx2 avx512f avx512bw", "flags", "avx2", "uint8"),
        ("aarch64", "fp asimd asimddp", "Features", "dotprod", "int8"),
        ("aarch64", "fp asimd asimddp i8mm", "Features", "i8mm", "int8"),
    ],
)
def test_kernel_and_signedness_follow_the_features(
    as_cpu, machine: str, flags: str, key: str, best: str, weight_type: str
) -> None:
    """Signed weights only where their products are exact: AVX2 and AVX-512 without VNNI saturate."""
    report = as_cpu(machine, cpuinfo(flags, key=key))
    assert report.features[0] == best
    assert report.weight_type == weight_type
    assert weight_signedness() == ("signed" if weight_type == "int8" else "unsigned")
    assert report.kernel


def test_unknown_x86_gets_unsigned_weights(as_cpu) -> None:
    """Nothing known: the exact kernel, not the fast one."""
    report = as_cpu("x86_64", "")
    assert (report.features, report.weight_type) == ((), "uint8")
    assert report.num_physical_cores >= 1


def test_hyperthreads_are_not_counted(as_cpu) -> None:
    """Two threads of a core share its multipliers."""
    assert as_cpu("x86_64", cpuinfo("avx2", cores=6, siblings=2)).num_physical_cores <= 6


def test_default_threads_have_a_limit(as_cpu) -> None:
    """A model this small gains nothing from a 64-core server."""
    report = as_cpu("x86_64", cpuinfo("avx512_vnni", cores=64))
    assert report.default_threads <= cpu.MAX_DEFAULT_THREADS


def test_int8_products_are_exact_here() -> None:
    """The weight type chosen for this machine passes its own check."""
    require_exact_int8(detect_cpu().weight_type)
    require_exact_int8("uint8")


def test_saturating_kernel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of pairs cut at 16 bits, as AVX2 does, do not pass."""

    def saturate(left: np.ndarray, weight: np.ndarray) -> np.ndarray:
        pairs = left.astype(np.int64)[:, :, None] * weight.astype(np.int64)
        sums = np.clip(pairs[:, 0::2] + pairs[:, 1::2], -32768, 32767).sum(axis=1)
        return sums - 128 * weight.astype(np.int64).sum(axis=0)

    monkeypatch.setattr(kernels, "_int8_product", saturate)
    with pytest.raises(ModelError, match="wrong") as caught:
        require_exact_int8("int8")
    assert caught.value.hint
