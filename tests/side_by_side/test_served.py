"""Servers are asked over HTTP, by clients that count the first text, and are paused and ended with their adapter."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

LOAD = {"op": "load", "model": "none", "threads": 1, "distributions": []}
LABELS = {"op": "labels", "batches": [[{"text": str(n)} for n in range(64)]] * 2, "token_ids": []}
Start = Callable[..., Any]


def _chat(*clients: list[str]) -> dict[str, Any]:
    common = {"system": "", "task": "", "num_tokens": 3, "token_ids": [5]}
    return {"op": "served_chat", "clients": list(clients), **common}


@pytest.fixture
def start_server(start_fake: Start, tmp_path: Path) -> Start:
    """Starts the adapter of a fake server; what both say goes to `log`."""
    return partial(start_fake, "server", program="fake_server.py", log=tmp_path / "log")


def _server_id(log: Path) -> int:
    """As the adapter says it on stderr, which is passed on when it is read."""
    for _ in range(500):
        lines = log.read_text().splitlines() if log.is_file() else []
        if found := [line for line in lines if "] server " in line]:
            return int(found[0].split()[-1])
        time.sleep(0.01)
    raise AssertionError("the adapter did not say it")


def _state(process_id: int) -> str | None:
    """One letter of the system's; None when the process is no more, or is waited for by nobody."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(") ", 1)[1][0]
    except FileNotFoundError:
        return None


def _becomes(process_id: int, states: set[str | None]) -> bool:
    for _ in range(500):
        if _state(process_id) in states:
            return True
        time.sleep(0.01)
    return False


def test_server_is_asked_by_many_clients(start_server: Start) -> None:
    """Of each client the first answer is not counted, and it is the first text that counts, not the first event."""
    peer = start_server()
    peer.ask(LOAD)
    assert len(peer.ask(LABELS)["seconds"]) == 1
    seconds = peer.ask(_chat(["a", "late", "late"], ["b", "late", "late"]))["seconds"]
    assert len(seconds) == 4 and min(seconds) >= 0.05
    assert peer.ask({"op": "memory"})["peak_bytes"] > 1_000_000
    peer.close()


def test_servers_say_how_they_begin_each_reply(start_server: Start) -> None:
    """One after the other, so that what is compared does not depend on who was quick."""
    peer = start_server()
    peer.ask(LOAD)
    asked = {"op": "served_texts", "system": "", "task": "", "texts": ["abc", "def"], "token_ids": [5]}
    assert peer.ask(asked) == {"served_texts": ["a", "d"]}
    peer.close()


@pytest.mark.parametrize(
    ("text", "reason"), [("broken", "503.*busy"), ("silent", "without text"), ("wrong", "no memory")]
)
def test_failed_chat_is_no_figure(start_server: Start, text: str, reason: str) -> None:
    """Refused, empty and broken replies would look fast."""
    from benchmarks.wire import PeerFailed

    peer = start_server()
    peer.ask(LOAD)
    with pytest.raises(PeerFailed, match=reason):
        peer.ask(_chat(["a", text]))
    assert peer.ask(_chat(["a", "b"]))["seconds"]
    peer.close()


def test_server_that_does_not_start_is_reported(start_server: Start) -> None:
    """It ends without saying where it listens."""
    from benchmarks.wire import PeerFailed

    peer = start_server()
    with pytest.raises(PeerFailed, match="did not start"):
        peer.ask({**LOAD, "model": "broken"})
    peer.close()


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs /proc")
def test_server_is_paused_and_ended_with_its_adapter(start_server: Start, tmp_path: Path) -> None:
    """It is the server that would take processors from the others, not the adapter."""
    peer = start_server()
    peer.ask(LOAD)
    server = _server_id(tmp_path / "log")
    assert _becomes(server, {"T"})
    assert peer.ask(LABELS)["seconds"]
    peer.close()
    assert _becomes(server, {None})


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs /proc")
def test_server_does_not_outlive_an_adapter_that_crashes(start_server: Start, tmp_path: Path) -> None:
    """Nobody else would end it, and it would be measured with whatever comes next."""
    from benchmarks.wire import PeerFailed

    peer = start_server("crash")
    peer.ask(LOAD)
    server = _server_id(tmp_path / "log")
    with pytest.raises(PeerFailed, match="crashed: SIGSEGV"):
        peer.ask(LABELS)
    assert _becomes(server, {None, "Z"})
    peer.close()
