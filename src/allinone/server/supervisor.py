"""Several server processes on one port: started one after the other, replaced when one dies, ended together.

Each has its own model; the system spreads connections over them (SO_REUSEPORT). Knows no HTTP and no model: what a
process does is a function that it is given. Above: `cli/serve.py`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType

from allinone.errors import AllInOneError, RunError

Work = Callable[[int, Callable[[], None]], int]
"""What a process does: its number from 1, and what to call when it is ready; returns its exit code."""
_PAUSE_S = 1.0
_GRACE_S = 10.0


@dataclass(slots=True)
class _Worker:
    number: int
    process: BaseProcess
    line: Connection
    is_ready: bool = False


class Supervisor:
    """Keeps a number of processes running until a signal ends them.

    Args:
        work: what each of them does; it is sent to them, so it has to be picklable.
        num_workers: how many.
        drain_timeout_s: how long they may take to end.
        report: told one line about what happened.
        on_ready: called when all of them are ready for the first time.
    """

    def __init__(
        self,
        work: Work,
        *,
        num_workers: int,
        drain_timeout_s: float,
        report: Callable[[str], None],
        on_ready: Callable[[], None],
    ) -> None:
        self._work = work
        self._num_workers = num_workers
        self._drain_timeout_s = drain_timeout_s
        self._report = report
        self._on_ready = on_ready
        self._spawn = multiprocessing.get_context("spawn")
        self._workers: dict[int, _Worker] = {}
        self._signal: int | None = None

    def run(self) -> int:
        """Start, watch, end; the exit code.

        Raises:
            RunError: a process ended before it was ready.
        """
        before = {sig: signal.signal(sig, self._handle) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            for number in range(1, self._num_workers + 1):  # the first prepares the model, the others find it there
                self._start(number)
                self._wait_until_ready(self._workers[number])
            if self._signal is None:
                self._on_ready()
            while self._signal is None:
                self._watch()
        finally:
            self._end()
            for sig, handler in before.items():
                signal.signal(sig, handler)
        return 130 if self._signal == signal.SIGINT else 0

    def _handle(self, sig: int, frame: FrameType | None) -> None:
        if self._signal is not None and sig == signal.SIGINT:
            for worker in self._workers.values():
                worker.process.kill()
            os.write(2, b"Stopped.\n")
            os._exit(130)
        self._signal = sig

    def _start(self, number: int) -> None:
        ours, theirs = self._spawn.Pipe()
        process = self._spawn.Process(target=_be_worker, args=(self._work, number, theirs), name=f"worker-{number}")
        process.start()
        theirs.close()
        self._workers[number] = _Worker(number, process, ours)

    def _wait_until_ready(self, worker: _Worker) -> None:
        while not worker.is_ready and self._signal is None:
            for ready in wait([worker.line, worker.process.sentinel], timeout=0.2):
                if ready is worker.line and self._hear(worker):
                    return
                if not worker.process.is_alive() and self._signal is None:
                    raise RunError(f"Process {worker.number} of {self._num_workers} ended before it was ready.")

    def _hear(self, worker: _Worker) -> bool:
        """Take what a process says; whether it is ready."""
        try:
            worker.is_ready = worker.line.recv() == "ready"
        except (EOFError, OSError):
            return False
        return worker.is_ready

    def _watch(self) -> None:
        """Wait until a process ends, and replace it."""
        sentinels = {worker.process.sentinel: worker for worker in self._workers.values()}
        for sentinel in wait(list(sentinels), timeout=0.2):
            assert isinstance(sentinel, int)
            worker = sentinels[sentinel]
            worker.process.join()
            worker.line.close()
            if self._signal is None:
                self._report(f"Process {worker.number} ended (exit code {worker.process.exitcode}); starting it again.")
                time.sleep(_PAUSE_S)
                self._start(worker.number)
                self._wait_until_ready(self._workers[worker.number])

    def _end(self) -> None:
        """Ask all to end, and make those that do not."""
        for worker in self._workers.values():
            if worker.process.is_alive():
                worker.process.terminate()
        deadline = time.monotonic() + self._drain_timeout_s + _GRACE_S
        for worker in self._workers.values():
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                self._report(f"Process {worker.number} did not end in time.")
                worker.process.kill()
                worker.process.join()
            worker.line.close()


def _be_worker(work: Work, number: int, line: Connection) -> None:
    """The body of a process. Ctrl-C goes to the whole group: the supervisor decides; if it dies, so does this."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(line,), daemon=True).start()
    try:
        code = work(number, lambda: line.send("ready"))
    except AllInOneError as error:
        sys.stderr.write(f"error: {error}\n")
        code = 1
    sys.exit(code)


def _end_with_parent(line: Connection) -> None:
    try:
        line.recv()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
