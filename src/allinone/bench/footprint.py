"""Memory of a process that loads the model and works with it: a child process, so that nothing else is counted.

`measure_footprint` starts it, `main` is what runs in it. Resident memory: from /proc on Linux, from `getrusage` and
`ps` on other Unix systems; unknown elsewhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from allinone.bench.child import describe_failure
from allinone.bench.runner import Runner, Target
from allinone.errors import AllInOneError

_STATUS = Path("/proc/self/status")
NUM_LABELS, NUM_STREAMS, NUM_TOKENS = 32, 16, 32


def can_measure_memory() -> bool:
    """Whether this system says how much memory a process has."""
    return os.name == "posix"


def measure_footprint(target: Target) -> dict[str, float]:
    """Peak and later resident memory, in bytes, of a process that answers eight tasks and writes sixteen replies.

    Raises:
        RunError: it failed; says why.
    """
    command = [sys.executable, "-m", __name__, json.dumps(asdict(target))]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", check=False)
    if done.returncode or not done.stdout:
        raise describe_failure("measuring memory", done.returncode, done.stderr)
    return json.loads(done.stdout)


def read_memory() -> dict[str, float]:
    """Largest and present resident size of this process, in bytes."""
    if _STATUS.is_file():
        fields = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="ascii").splitlines())
        peak, now = (int(fields[name].split()[0]) * 1024 for name in ("VmHWM", "VmRSS"))
    else:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        listed = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, check=True
        )
        now = int(listed.stdout) * 1024
    return {"memory_peak_bytes": float(peak), "memory_after_bytes": float(now)}


def main() -> None:
    """Work, then print the memory as one line of JSON."""
    try:
        with Runner.open(Target(**json.loads(sys.argv[1]))) as runner:
            runner.time_labels_over_tasks(NUM_LABELS)
            runner.time_decode(NUM_STREAMS, NUM_TOKENS)
            sys.stdout.write(json.dumps(read_memory()) + "\n")
    except AllInOneError as error:
        sys.exit(f"error: {error.message}")


if __name__ == "__main__":
    main()
