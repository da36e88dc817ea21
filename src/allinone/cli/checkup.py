"""What this machine gives, what is in use, how fast it is, and what is wrong: facts and findings for `allinone doctor`.

It gathers facts and tries things out; a failure is a finding with a hint and never ends the rest. Prints nothing.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from allinone.cli.options import choose_backend
from allinone.errors import AllInOneError

if TYPE_CHECKING:
    from allinone.backends.base import Backend
    from allinone.cli.session import RuntimeOptions

PACKAGES = ("onnxruntime", "onnx", "tokenizers", "llguidance", "gguf", "numpy", "huggingface_hub", "pydantic", "typer")
OPTIONAL_PACKAGES = ("torch", "transformers", "safetensors", "llama_cpp_python")
_LOW_MEMORY_BYTES = 1_500_000_000
_LOW_DISK_BYTES = 2_000_000_000
_NUM_PREFILL_TOKENS, _NUM_DECODE_TOKENS = 256, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong ("problem": exit code 1) or could be better ("advice")."""

    level: Literal["problem", "advice"]
    message: str
    hint: str | None = None


@dataclass(slots=True)
class Report:
    """Facts by section, and what was found."""

    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def problem(self, message: str, hint: str | None = None) -> None:
        """Note what is wrong."""
        self.findings.append(Finding(level="problem", message=message, hint=hint))

    def advise(self, message: str, hint: str | None = None) -> None:
        """Note what could be better."""
        self.findings.append(Finding(level="advice", message=message, hint=hint))

    @property
    def is_healthy(self) -> bool:
        """Whether no problem was found."""
        return all(finding.level != "problem" for finding in self.findings)


def examine(options: RuntimeOptions) -> Report:
    """Look at everything, in the order in which people read it."""
    report = Report()
    _examine_versions(report)
    _examine_cpu(report)
    _examine_memory(report)
    _examine_folders(report)
    _examine_tasks(report, options)
    _examine_model(report, options)
    return report


def _examine_versions(report: Report) -> None:
    versions = {"allinone": _version("qwen-allinone") or "not installed", "python": platform.python_version()}
    versions |= {name: _version(name) or "missing" for name in PACKAGES}
    versions |= {name: version for name in OPTIONAL_PACKAGES if (version := _version(name))}
    report.facts["versions"] = versions
    missing = [name for name in PACKAGES if versions[name] == "missing"]
    if missing:
        report.problem(f"Not installed: {', '.join(missing)}.", "pip install qwen-allinone")
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    report.facts["system"] = {
        "os": platform.platform(),
        "machine": platform.machine(),
        "encoding": sys.stdout.encoding,
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith(("ALLINONE_", "HF_ENDPOINT"))},
    }
    if encoding != "utf8":
        report.advise(f"The terminal's encoding is {sys.stdout.encoding}.", "set PYTHONUTF8=1, or a UTF-8 locale")


def _examine_cpu(report: Report) -> None:
    from allinone.backends.cpu import detect_cpu
    from allinone.backends.onnx.kernels import require_exact_int8

    cpu = detect_cpu()
    facts: dict[str, Any] = asdict(cpu)
    try:
        require_exact_int8(cpu.weight_type)
        facts["int8_self_check"] = "exact"
    except AllInOneError as error:
        facts["int8_self_check"] = "wrong"
        report.problem(error.message, error.hint)
    report.facts["cpu"] = facts
    if cpu.weight_type == "uint8" or not cpu.features:
        report.advise(f"Int8 products run on {cpu.kernel}.", "labels are 2-4 x faster on a CPU with VNNI or AMX")
    if hasattr(os, "getloadavg"):
        load = os.getloadavg()[0]
        facts["load"] = round(load, 2)
        if load > 0.5 * cpu.num_physical_cores:
            report.advise(
                f"The machine is busy (load {load:.1f}).", "the measured speeds are lower than on a quiet one"
            )


def _examine_memory(report: Report) -> None:
    available = _available_memory_bytes()
    report.facts["memory"] = {"available_bytes": available}
    if available is not None and available < _LOW_MEMORY_BYTES:
        report.advise(f"Only {available / 1e9:.1f} GB of memory are free.", "a model of 0.5 B parameters needs 1 GB")


def _examine_folders(report: Report) -> None:
    from allinone.config import Settings

    settings = Settings.from_env()
    facts: dict[str, Any] = {}
    for name, folder, variable in (
        ("data", settings.home, "ALLINONE_HOME"),
        ("cache", settings.cache, "ALLINONE_CACHE"),
    ):
        reason = _why_not_writable(folder)
        free = _free_disk_bytes(folder)
        facts[name] = {"path": str(folder), "writable": reason is None, "free_bytes": free}
        if reason is not None:
            report.problem(
                f"The {name} folder {folder} cannot be written: {reason}.", f"set {variable} to another folder"
            )
        elif free is not None and free < _LOW_DISK_BYTES:
            report.advise(f"Only {free / 1e9:.1f} GB are free at {folder}.", f"set {variable} to a larger disk")
    report.facts["folders"] = facts


def _examine_tasks(report: Report, options: RuntimeOptions) -> None:
    from allinone.cli.session import load_library

    try:
        report.facts["tasks"] = {"names": sorted(load_library(options).names())}
    except AllInOneError as error:
        report.facts["tasks"] = {"names": []}
        report.problem(error.message, error.hint)


def _examine_model(report: Report, options: RuntimeOptions) -> None:
    from allinone.cli.session import ImportProgress
    from allinone.loading import load_model

    start = time.perf_counter()
    try:
        chosen_by = "--backend" if options.backend else _who_chose_backend(options.model)
        with ImportProgress() as progress:
            model = load_model(
                options.model,
                backend=choose_backend(options.backend),
                num_threads=options.threads,
                on_progress=progress.show,
            )
    except AllInOneError as error:
        report.facts["model"] = {"error": error.message}
        report.problem(error.message, error.hint)
        return
    load_s = time.perf_counter() - start
    try:
        report.facts["model"] = {
            "name": model.full_name,
            "path": str(model.path) if model.path else None,
            "chosen_by": chosen_by,
            "load_s": round(load_s, 3),
            "backend": asdict(model.backend.info),
            **measure_speed(model.backend),
        }
    finally:
        model.backend.close()
    if model.name.startswith("bundled"):
        report.advise(
            "The bundled model is a small demonstration.",
            "allinone models pull Qwen/Qwen2.5-0.5B-Instruct, then --model",
        )


def _who_chose_backend(model: str | None) -> str:
    """Where no backend is asked for."""
    from allinone.backends.choice import find_choice
    from allinone.config import Settings
    from allinone.models.locate import locate_model

    location = locate_model(model if model is not None else Settings.from_env().model)
    return "default" if find_choice(location) is None else "allinone models tune"


def measure_speed(backend: Backend) -> dict[str, float]:
    """Tokens a second of one stream, from a prefill of up to 256 tokens and 32 single steps after it."""
    from allinone.backends.base import Chunk

    num_prefill = min(_NUM_PREFILL_TOKENS, backend.info.max_context_tokens - _NUM_DECODE_TOKENS - 1)
    ids = [i % 200 for i in range(num_prefill)]
    warm_up = backend.fork()
    backend.extend([Chunk(sequence=warm_up, input_ids=ids[:16], wanted="last_logits")])
    backend.free(warm_up)
    sequence = backend.fork()
    start = time.perf_counter()
    backend.extend([Chunk(sequence=sequence, input_ids=ids, wanted="last_logits")])
    prefilled = time.perf_counter()
    for token_id in ids[:_NUM_DECODE_TOKENS]:
        backend.extend([Chunk(sequence=sequence, input_ids=[token_id], wanted="last_logits")])
    decoded = time.perf_counter()
    backend.free(sequence)
    return {
        "prefill_tokens_per_s": round(num_prefill / (prefilled - start), 1),
        "decode_tokens_per_s": round(_NUM_DECODE_TOKENS / (decoded - prefilled), 1),
    }


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _available_memory_bytes() -> int | None:
    """Memory that can still be used; None where the system does not say."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return None
    for line in meminfo.read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _why_not_writable(folder: Path) -> str | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _free_disk_bytes(folder: Path) -> int | None:
    for place in (folder, *folder.parents):
        if place.is_dir():
            return shutil.disk_usage(place).free
    return None
