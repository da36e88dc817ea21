"""`allinone serve` as a process of its own: started on a free port with a home of its own, watched, ended.

The bundled model is prepared in the test run's own cache, once. Knows no endpoint but `/readyz`; the tests of this
folder that need a real socket, a signal or a memory of its own stand on it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

PROGRAM = Path(sys.executable).with_name("allinone")
START_TIMEOUT_S = 300.0
"""The first process of a run prepares the model."""
ANSWER_TIMEOUT_S = 120.0
_READY = re.compile(r"Ready: http://(?P<host>[\w.]+):(?P<port>\d+)")
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event; `data` is the parsed JSON."""

    id: str
    name: str
    data: dict[str, Any]


@dataclass(slots=True)
class ServerProcess:
    """A server that is running, or was.

    Attributes:
        log: file with what it wrote to stderr.
    """

    process: subprocess.Popen[bytes]
    log: Path
    host: str = "127.0.0.1"
    port: int = 0

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.host}:{self.port}"

    def client(self, *, key: str | None = None) -> httpx.Client:
        """A client of it; to be closed."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=ANSWER_TIMEOUT_S, trust_env=False)

    def rss_bytes(self) -> int:
        """Resident memory now."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.process.wait()

    def stop(self, *, sig: signal.Signals = signal.SIGTERM, timeout_s: float = ANSWER_TIMEOUT_S) -> int:
        """End it gently; its exit code."""
        self.process.send_signal(sig)
        return self.process.wait(timeout_s)

    def wait_until_ready(self) -> None:
        """Wait for its port, then for `/readyz`.

        Raises:
            AssertionError: it ended, or did not get there in time; shows its log.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            found = _READY.search(self.log.read_text(encoding="utf-8", errors="replace"))
            if found is not None:
                self.host, self.port = found["host"], int(found["port"])
                with self.client() as client:
                    assert client.get("/readyz").status_code == 200
                return
            time.sleep(_POLL_S)
        raise AssertionError(f"The server did not start: {self.log.read_text(encoding='utf-8', errors='replace')}")


def environment(home: Path) -> dict[str, str]:
    """This run's environment, with another home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ALLINONE_")}
    return {**kept, "ALLINONE_HOME": str(home), "ALLINONE_CACHE": os.environ["ALLINONE_CACHE"], "LANG": "C.UTF-8"}


def start_server(home: Path, *arguments: str, env: Mapping[str, str] | None = None) -> ServerProcess:
    """Start one and wait until it answers. What it stores is in `home`, and is found by the next one there."""
    home.mkdir(parents=True, exist_ok=True)
    log = home / f"log-{time.monotonic_ns()}.txt"
    command = [str(PROGRAM), "serve", "--port", "0", "--threads", "1", *arguments]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={**environment(home), **(env or {})}
        )
    server = ServerProcess(process, log)
    try:
        server.wait_until_ready()
    except BaseException:
        server.kill()
        raise
    return server


@contextmanager
def running_server(
    home: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> Generator[ServerProcess, None, None]:
    """A server for the length of a block; it is killed at the end if it has not ended by then."""
    server = start_server(home, *arguments, env=env)
    try:
        yield server
    finally:
        server.kill()


def make_key(home: Path, name: str, *options: str) -> str:
    """A new key in the key file of a home."""
    done = subprocess.run(
        [str(PROGRAM), "keys", "new", name, *options],
        capture_output=True,
        text=True,
        env=environment(home),
        timeout=START_TIMEOUT_S,
        check=True,
    )
    return done.stdout.strip()


def read_events(response: httpx.Response) -> Iterator[Event]:
    """Server-sent events of a response as they come; comments are passed over."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            yield Event(fields.get("id", ""), fields.get("event", ""), json.loads(fields["data"]))
            fields = {}


@dataclass(slots=True)
class Memory:
    """What a process held while it was watched, in bytes."""

    first: int
    peak: int = 0
    last: int = 0
    _is_over: threading.Event = field(default_factory=threading.Event)

    @property
    def growth(self) -> int:
        """From the beginning to the peak."""
        return self.peak - self.first


@contextmanager
def watch_memory(server: ServerProcess) -> Generator[Memory, None, None]:
    """Look at the memory of a server again and again for the length of a block."""
    memory = Memory(server.rss_bytes())

    def watch() -> None:
        while not memory._is_over.wait(_POLL_S):
            memory.peak = max(memory.peak, server.rss_bytes())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        memory._is_over.set()
        thread.join()
        memory.last = server.rss_bytes()
        memory.peak = max(memory.peak, memory.last, memory.first)
