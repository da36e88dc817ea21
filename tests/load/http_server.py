"""`allinone serve` as a process of its own, with a key file, for programs that play its clients.

Owns the process, its folder and its keys, and reads what the system says of it. Knows no endpoint but `/v1/status`.
Above: `http_driver.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from allinone.server.key_file import KeyFile

READY_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server.

    Attributes:
        keys: of ordinary clients.
        admin_key: of whoever watches.
    """

    address: tuple[str, int]
    keys: Sequence[str] = field(repr=False)
    admin_key: str = field(repr=False)
    process: subprocess.Popen[bytes]
    log: Path

    def status(self) -> dict[str, Any]:
        """What the server says of itself."""
        request = urllib.request.Request(
            f"http://{self.address[0]}:{self.address[1]}/v1/status",
            headers={"Authorization": f"Bearer {self.admin_key}"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    async def status_later(self) -> dict[str, Any]:
        """The same, without holding the event loop up."""
        return await asyncio.to_thread(self.status)

    def failures(self) -> str:
        """What it logged of requests that failed by its own fault, with tracebacks."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        shown: list[str] = []
        for line in lines:
            if " failed: " in line or (shown and line.startswith("  ")):
                shown.append(line)
        return "\n".join(shown[:60])

    def num_open(self) -> dict[str, int]:
        """Threads and open files (sockets among them) of the process, where the system says so."""
        folder = Path(f"/proc/{self.process.pid}")
        if not folder.is_dir():
            return {}
        return {"threads": len(os.listdir(folder / "task")), "files": len(os.listdir(folder / "fd"))}


@contextmanager
def serving(*options: str, num_keys: int) -> Generator[Server]:
    """Start a server on a free port, with keys, a store and a log in a folder of its own; end it gently.

    Raises:
        RuntimeError: it did not start, or did not end as it should; with the end of its log.
    """
    with tempfile.TemporaryDirectory(prefix="allinone-load-") as name:
        folder = Path(name)
        keys = KeyFile(folder / "keys.json")
        own = [keys.add(f"client {number}")[1] for number in range(num_keys)]
        admin = keys.add("watcher", is_admin=True)[1]
        command = [
            *(sys.executable, "-m", "allinone", "serve", "--port", "0"),
            *("--key-file", str(keys.path), "--store", f"sqlite:///{folder / 'server.db'}"),
            *options,
        ]
        log = folder / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            address = _wait_until_ready(process, log)
            yield Server(address=address, keys=own, admin_key=admin, process=process, log=log)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
        if code:
            raise RuntimeError(f"the server ended with {code}: {_tail(log)}")


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> tuple[str, int]:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("Ready: "):
                url = urlsplit(line.split()[1])
                assert url.hostname is not None and url.port is not None
                return url.hostname, url.port
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start: {_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2_000:]
