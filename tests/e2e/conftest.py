"""The program as a user starts it: a process of its own, a home of its own, no network, the bundled model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest

import allinone

PROGRAM = str(Path(sys.executable).with_name("allinone"))
BUNDLED = sorted((Path(allinone.__file__).parent / "models" / "bundled").glob("*.gguf"))
NOWHERE = "http://127.0.0.1:9"

Run: TypeAlias = Callable[..., "subprocess.CompletedProcess[str]"]
"""Runs the program to its end: arguments, and `stdin` (str or bytes) and `env` by name."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark this folder, and skip it while the package has no bundled model."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("e2e")
            if not BUNDLED:
                item.add_marker(pytest.mark.skip(reason="the package has no bundled model yet"))


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all tests, in which the model was prepared once."""
    folder = tmp_path_factory.mktemp("home")
    command = [PROGRAM, "run", "sentiment", "x"]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(folder), timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    """Little more than a path, and proxies that lead nowhere."""
    return _environment(home)


def _environment(home: Path) -> dict[str, str]:
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "HF_ENDPOINT"), NOWHERE)
    kept = {name: os.environ[name] for name in ("PATH", "COVERAGE_PROCESS_START") if name in os.environ}
    return {**kept, **proxies, "HOME": str(home), "LANG": "C.UTF-8", "TERM": "xterm-256color"}


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """Run the program to its end."""

    def start(
        *arguments: str | Path, stdin: str | bytes = b"", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [PROGRAM, *map(str, arguments)],
            input=stdin if isinstance(stdin, bytes) else stdin.encode(),
            capture_output=True,
            env={**environment, **(env or {})},
            timeout=120,
            check=False,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return start
