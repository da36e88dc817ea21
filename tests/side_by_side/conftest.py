"""What tests of the benchmark share: the benchmark on the path, and a peer without a model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
if sys.version_info < (3, 11):  # the benchmark reads TOML
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def _benchmarks_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """`import benchmarks` works from a checkout; nothing of it is installed."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def start_fake() -> Callable[..., Any]:
    """Starts `fake_peer.py`, or another program of this folder; its arguments say how it behaves."""

    def start(name: str, *behaviour: str, program: str = "fake_peer.py", log: Path | None = None) -> Any:
        from benchmarks.wire import PeerProcess

        command = [sys.executable, str(Path(__file__).with_name(program)), *behaviour]
        return PeerProcess(name, command, threads=1, log=log)

    return start
