"""A peer's process, seen from `run.py`: start it, ask it, pause it while others are measured, end it.

What goes over the pipes is described in `peers/serving.py`. A process that crashes, hangs or says that it failed is a
`PeerFailed` with the reason; nothing is hidden. Above: `run.py`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_CAN_PAUSE = hasattr(signal, "SIGSTOP")


class PeerFailed(Exception):
    """What a peer was asked for could not be had; the message is what the report shows."""


class PeerProcess:
    """One running peer, with what it starts itself: a group of processes that is paused and ended as one.

    Args:
        name: for messages.
        command: starts it; from the root of the checkout.
        threads: for libraries that ask the environment.
        log: where to pass on what it says on stderr; None keeps only the end, for messages.
    """

    def __init__(self, name: str, command: Sequence[str], *, threads: int, log: Path | None = None) -> None:
        self.name = name
        self._tail: deque[str] = deque(maxlen=8)
        self._log = log
        try:
            self._process = subprocess.Popen(
                list(command), cwd=ROOT, text=True, encoding="utf-8", errors="replace",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env={**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"},
                process_group=0 if _CAN_PAUSE else None,
            )  # fmt: skip
        except OSError as error:
            raise PeerFailed(f"not installed: {error.strerror}") from error
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()
        self._is_paused = False

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def ask(self, message: Mapping[str, Any], *, timeout_s: float = 900.0) -> dict[str, Any]:
        """Send one message and wait for its answer; paused before and after.

        Raises:
            PeerFailed: it says so, ended, or did not answer in time (it is killed then).
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        self._signal(is_paused=False)
        has_expired = threading.Event()

        def expire() -> None:
            has_expired.set()
            self._process.kill()

        timer = threading.Timer(timeout_s, expire)
        timer.start()
        try:
            stdin.write(json.dumps(message) + "\n")
            stdin.flush()
            line = stdout.readline()
        except OSError:
            line = ""
        finally:
            timer.cancel()
        if not line:
            raise PeerFailed(self._say_why(f"no answer in {timeout_s:.0f} s" if has_expired.is_set() else ""))
        self._signal(is_paused=True)
        answer = json.loads(line)
        if "error" in answer:
            raise PeerFailed(answer["error"])
        return answer["ok"]

    def close(self) -> None:
        """End the process; it is given a moment to do so by itself."""
        self._signal(is_paused=False)
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._end_what_is_left()
        self._reader.join(timeout=5)
        self._process.stdout.close()

    def _signal(self, *, is_paused: bool) -> None:
        """While another peer is measured this one gets no processor, whatever its threads do when idle."""
        if _CAN_PAUSE and self._is_paused != is_paused and self.is_alive:
            os.killpg(self._process.pid, signal.SIGSTOP if is_paused else signal.SIGCONT)
            self._is_paused = is_paused

    def _end_what_is_left(self) -> None:
        """What it had started and has left behind, once it has ended."""
        if _CAN_PAUSE:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _say_why(self, reason: str) -> str:
        self._process.wait()
        self._end_what_is_left()
        self._reader.join(timeout=5)
        code = self._process.returncode
        if not reason and code < 0:
            reason = f"crashed: {signal.Signals(-code).name}"
        last = next((line for line in reversed(self._tail) if line.strip()), "").strip()
        reason = reason or f"ended with code {code}"
        if "No module named" in last:
            return f"not installed: {last}"
        return f"{reason}: {last[:300]}" if last else reason

    def _drain(self) -> None:
        """Keep the end of what it says, so that a failure has a reason and the pipe never fills."""
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for line in stream:
                self._tail.append(line)
                if self._log is not None:
                    with self._log.open("a", encoding="utf-8") as file:
                        file.write(f"[{self.name}] {line}")


def peer_command(adapter: str, python: Path | str = sys.executable) -> list[str]:
    """How an adapter is started in an environment."""
    return [str(python), "-m", f"benchmarks.peers.{adapter}"]
