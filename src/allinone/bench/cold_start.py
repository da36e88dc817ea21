"""The time from starting the program to its first label: what somebody waits who runs one command.

The command is the real one in a process of its own; files of the model are in the system's cache by then.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from allinone.bench.child import describe_failure
from allinone.bench.runner import LABEL_TASK, TASKS, Target


def measure_cold_start(target: Target, text: str) -> float:
    """Seconds from the start of `allinone run` to the end of its first line.

    Raises:
        RunError: it gave none; has the last line of its errors.
    """
    command = cold_start_command(target, text)
    environment = {name: value for name, value in os.environ.items() if name != "ALLINONE_TASKS"}
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            seconds = time.perf_counter() - start
            _, errors = process.communicate()
        except BaseException:  # Ctrl-C: do not wait for an answer that nobody wants
            process.kill()
            raise
    if process.returncode or not line:
        raise describe_failure("a cold start", process.returncode, errors.decode(errors="replace"))
    return seconds


def cold_start_command(target: Target, text: str) -> list[str]:
    """The command that answers one text and ends."""
    command = [sys.executable, "-m", "allinone", "run", LABEL_TASK, text, "--json", "--tasks", str(TASKS)]
    for option, value in (("--model", target.model), ("--backend", target.backend), ("--threads", target.threads)):
        if value is not None:
            command += [option, str(value)]
    return command
