"""How many tokens a step should take at most, as the engine measured it for a model on this machine.

One small file for each model, quantisation, thread count and machine, in the cache folder; one that cannot be read or
written is no more than a measurement to be made again. Above: `runtime.py`. Beside it: `choice.py`.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path

from allinone.backends.base import BackendInfo
from allinone.backends.cpu import detect_cpu
from allinone.config import Settings


def recall_step_tokens(info: BackendInfo) -> int | None:
    """What was measured before; None when nothing was."""
    try:
        text = _file(info).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if re.fullmatch(r"[1-9]\d{2,5}", text) else None


def remember_step_tokens(info: BackendInfo, num_tokens: int) -> None:
    """Keep what was measured; where the cache folder cannot be written, the next process measures again."""
    file = _file(info)
    unfinished = file.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(f"{num_tokens}\n", encoding="ascii")
        unfinished.replace(file)


def _file(info: BackendInfo) -> Path:
    cpu = detect_cpu()
    parts = (info.name, info.model, info.quantization, str(info.num_threads), cpu.name, *cpu.features)
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
    return Settings.from_env().cache / "step-sizes" / f"{digest}.txt"
