"""Several processes with one store, and processes that die: no acknowledged turn is lost, none is there twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).with_name("processes.py")


def _run(what: str, url: str, count: int) -> dict[str, Any]:
    command = [sys.executable, str(PROGRAM), what, url, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)


def test_eight_processes_add_turns_to_one_conversation(url: str) -> None:
    """They also open a store that is not there yet, all at once; every turn and token is counted exactly once."""
    outcome = _run("add", url, 8)
    assert outcome["codes"] == [0] * 8
    assert outcome["numbers"] == list(range(1, 81)) and outcome["num_turns"] == 80
    assert sorted(outcome["texts"]) == sorted(f"{name}:{i}" for name in range(8) for i in range(10))
    assert outcome["num_tokens"] == 8 * 10 * 3


def test_no_acknowledged_turn_is_lost_when_writers_are_killed(url: str) -> None:
    """`kill -9`, fifty times, at any moment: at most the one turn that was not acknowledged yet is in doubt."""
    outcome = _run("kill", url, 50)
    texts, acknowledged = outcome["texts"], outcome["acknowledged"]
    assert len(acknowledged) > 50, "the writers hardly wrote"
    assert [text for text in texts if text in set(acknowledged)] == acknowledged
    assert outcome["numbers"] == list(range(1, len(texts) + 1)) and outcome["num_turns"] == len(texts)
    assert len(set(texts)) == len(texts) and len(texts) - len(acknowledged) <= 50
    assert outcome["state"] == texts[-1] * 100, "the state is not that after the last turn"
