"""How many tokens a step should take at most, as the engine measured it for a model on this machine.

One small file for each model, quantisation, thread count and machine, in the cache folder; one that cannot be read or
written is no more than a measurement to be made again. Above: `runtime.py`. Beside it: `choice.py`.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress

from allinone.backends.base import BackendInfo
from allinone.backends.cpu import detect_cpu
from allinone.config import Settings


class StepSizeFile:
    """Where the measurement of one model on this machine is kept."""

    def __init__(self, info: BackendInfo) -> None:
        cpu = detect_cpu()
        parts = (info.name, info.model, info.quantization, str(info.num_threads), cpu.name, *cpu.features)
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
        self.path = Settings.from_env().cache / "step-sizes" / f"{digest}.txt"

    def recall(self) -> int | None:
        """What was measured before; None when nothing was."""
        try:
            return int(self.path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def remember(self, num_tokens: int) -> None:
        """Keep what was measured; where the cache folder cannot be written, the next process measures again."""
        unfinished = self.path.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(f"{num_tokens}\n", encoding="ascii")
            unfinished.replace(self.path)
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
