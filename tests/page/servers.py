"""Real server processes for the tests of the page: the program as a user starts it, with the bundled model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_READY = re.compile(rb"Ready: (http://\S+)")
_READY_WITHIN_S = 300
"""Preparing the model the first time takes a while on a busy machine."""

RAMBLING = """---
description: talks until it is stopped
config: {temperature: 50, max_tokens: 400}
input: {schema: {text: string, "mood?": string}}
allinone.kind: chat
---
{{history}}
{{role "user"}}
{{text}}
{{#if mood}}
{{role "system"}}
{{mood}}
{{/if}}
"""
"""So hot that the end of the reply is as unlikely as any other token: it talks until its limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that is running."""

    url: str
    tasks: Path
    key: str | None = None

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a response; the body of an error is raised with it."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                content = response.read()
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()}") from error
        return json.loads(content) if content else None

    def last_turns(self) -> list[dict[str, Any]]:
        """The turns of the conversation that was spoken in last."""
        (newest,) = self.call("GET", "/v1/conversations?limit=1")["conversations"]
        return self.call("GET", f"/v1/conversations/{newest['id']}")["turns"]


@contextmanager
def run_server(
    folder: Path,
    *,
    program: Sequence[str] = ("-m", "allinone"),
    options: Sequence[str] = ("--edit-prompts",),
    tasks: Mapping[str, str] | None = None,
    key: str | None = None,
) -> Iterator[Server]:
    """A server with a store and a folder of tasks of its own, below `folder`."""
    task_folder = folder / "tasks"
    task_folder.mkdir(parents=True)
    for name, text in (tasks or {}).items():
        (task_folder / name).write_text(text, encoding="utf-8")
    command = [sys.executable, *program, "serve", "--port", "0", "--tasks", str(task_folder), *options]
    environment = {**os.environ, "ALLINONE_HOME": str(folder / "home"), "PYTHONUNBUFFERED": "1"}
    environment.pop("ALLINONE_API_KEY", None)
    if key is not None:
        environment["ALLINONE_API_KEY"] = key
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        log = _Log(process)
        try:
            yield Server(url=log.wait_for_url(), tasks=task_folder, key=key)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=40)
            finally:
                process.kill()
                log.join()


class _Log:
    """What the process says, read all the time so that it never waits for us."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._lines: list[bytes] = []
        self._url: str | None = None
        self._is_decided = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait_for_url(self) -> str:
        """Where it listens, once it says so."""
        self._is_decided.wait(_READY_WITHIN_S)
        said = b"".join(self._lines[-30:]).decode(errors="replace")
        assert self._url is not None, f"the server is not ready:\n{said}"
        return self._url

    def join(self) -> None:
        """The process is over."""
        self._thread.join()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.append(line)
            if match := _READY.search(line):
                self._url = match[1].decode()
                self._is_decided.set()
        self._is_decided.set()
