"""Peers are asked in turn, paused while others run, and what fails is reported."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

LOAD = {"op": "load", "model": "none", "threads": 1, "distributions": ["numpy"]}
REQUEST = {"prefix": [1, 2], "ids": [3], "text": "", "task": ""}
LABEL = {"op": "label", "requests": [REQUEST] * 4, "token_ids": [1]}
LABELS = {"op": "labels", "batches": [[REQUEST]] * 3, "token_ids": [1]}
NEXT = {"op": "next_tokens", "requests": [REQUEST, REQUEST]}
Start = Callable[..., Any]


def test_peer_answers_and_says_what_it_costs(start_fake: Start) -> None:
    """The first of four calls fills caches and is not counted."""
    peer = start_fake("good")
    facts = peer.ask(LOAD)
    assert facts["versions"]["numpy"] and facts["installed_bytes"] > 1_000_000 and facts["num_distributions"] == 1
    assert len(peer.ask(LABEL)["seconds"]) == 3
    assert all(spent >= 0.001 for spent in peer.ask(LABELS)["seconds"])
    assert peer.ask(NEXT) == {"next_tokens": [6, 6]}
    assert peer.ask({"op": "memory"})["peak_bytes"] > 1_000_000
    peer.close()
    assert not peer.is_alive


def test_what_libraries_print_is_no_answer(start_fake: Start) -> None:
    """Model libraries print on stdout, from C too; the pipe must hold answers only."""
    peer = start_fake("noisy", "noisy")
    assert "load_s" in peer.ask(LOAD)
    assert peer.ask(NEXT)["next_tokens"] == [6, 6]
    peer.close()


def test_failure_of_a_peer_is_its_answer(start_fake: Start) -> None:
    """An exception is told with its message, and the process goes on."""
    from benchmarks.wire import PeerFailed

    peer = start_fake("failing", "fail")
    peer.ask(LOAD)
    with pytest.raises(PeerFailed, match="ValueError: no such label"):
        peer.ask(LABEL)
    with pytest.raises(PeerFailed, match="NotImplementedError"):
        peer.ask({"op": "decode", "requests": [REQUEST], "num_tokens": 3})
    assert peer.ask(NEXT)["next_tokens"] == [6, 6]
    peer.close()


def test_crash_and_silence_have_reasons(start_fake: Start) -> None:
    """A signal is named; a peer that does not answer is killed."""
    from benchmarks.wire import PeerFailed

    crashing, hanging = start_fake("crashing", "crash"), start_fake("hanging", "hang")
    with pytest.raises(PeerFailed, match="crashed: SIGSEGV"):
        crashing.ask(LABEL)
    with pytest.raises(PeerFailed, match="no answer in 1 s"):
        hanging.ask(LABEL, timeout_s=1)
    assert not crashing.is_alive and not hanging.is_alive
    crashing.close()
    hanging.close()


def test_absent_peers_are_called_not_installed() -> None:
    """Neither an environment that is missing nor one without the library is a crash."""
    from benchmarks.wire import PeerFailed, PeerProcess

    with pytest.raises(PeerFailed, match="not installed"):
        PeerProcess("absent", ["no-such-python"], threads=1)
    peer = PeerProcess("empty", [sys.executable, "-m", "benchmarks.peers.no_such_peer"], threads=1)
    with pytest.raises(PeerFailed, match=r"not installed: .*no_such_peer"):
        peer.ask(LOAD)
    peer.close()


def _becomes_stopped(process_id: int) -> bool:
    """Whether the system says so within a few seconds: a signal takes effect when the process has its next turn."""
    for _ in range(500):
        if Path(f"/proc/{process_id}/stat").read_text().rsplit(") ", 1)[1][0] == "T":
            return True
        time.sleep(0.01)
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs /proc")
def test_peer_is_paused_while_it_is_not_asked(start_fake: Start) -> None:
    """Threads of engines spin when idle; that must not cost the others."""
    peer = start_fake("good")
    peer.ask(LOAD)
    for _ in range(2):
        assert _becomes_stopped(peer._process.pid)
        assert peer.ask(NEXT)["next_tokens"] == [6, 6]
    peer.close()


def _measure(starts: dict[str, Callable[[], Any]], num_rounds: int, say: Callable[[str], None] = lambda _: None) -> Any:
    from benchmarks.measuring import Contestant, measure_rounds
    from benchmarks.works import Work

    works = (
        Work(name="one_label", ask=lambda *_: LABEL, read=lambda answer: {"count": len(answer["seconds"])}),
        Work(name="labels", ask=lambda *_: LABELS, read=lambda answer: {"count": len(answer["seconds"])}),
        Work(name="agreement", ask=lambda *_: NEXT, read=dict, is_once=True),
        Work(name="limit", ask=lambda *_: {"op": "limit"}, read=dict, only_ours=True),
    )
    contestants = [Contestant(name=name, start=start, load=LOAD) for name, start in starts.items()]
    return measure_rounds(contestants, works, lambda work, *_: work.ask(None, 0, 0), num_rounds=num_rounds, say=say)


def test_order_alternates_between_rounds(start_fake: Start) -> None:
    """Who is always first always finds the machine in the state that the last one left."""
    measured = _measure({name: partial(start_fake, name) for name in ("a", "b", "c")}, num_rounds=3)
    for work in ("load", "one_label", "labels"):
        order = ["".join(f["peer"] for f in measured.figures if (f["round"], f["work"]) == (n, work)) for n in range(3)]
        assert order == ["abc", "cba", "abc"], work
    once = [(f["round"], f["peer"]) for f in measured.figures if f["work"] == "agreement"]
    assert once == [(0, "a"), (0, "b"), (0, "c")]
    assert not measured.failures and set(measured.facts) == {"a", "b", "c"}


def test_crashed_peer_is_reported_and_its_other_works_are_measured(start_fake: Start) -> None:
    """One bad call must cost neither the other peers nor the other works, and must be seen."""
    starts = {"good": partial(start_fake, "good"), "bad": partial(start_fake, "bad", "crash")}
    measured = _measure(starts, num_rounds=1)
    (failure,) = measured.failures
    assert failure.items() >= {"peer": "bad", "work": "one_label", "round": 0}.items()
    assert "SIGSEGV" in failure["reason"]
    done = [(figure["peer"], figure["work"]) for figure in measured.figures]
    assert ("good", "one_label") in done and ("bad", "labels") in done and ("bad", "one_label") not in done


def test_peer_that_cannot_load_is_reported_in_each_round(start_fake: Start) -> None:
    """It is left out of the round, not out of the report."""
    starts = {"bad": partial(start_fake, "bad", "broken"), "good": partial(start_fake, "good")}
    measured = _measure(starts, num_rounds=2)
    reasons = [(failure["round"], failure["peer"], failure["work"]) for failure in measured.failures]
    assert reasons == [(0, "bad", "load"), (1, "bad", "load")]
    assert "another kind" in measured.failures[0]["reason"]
    assert {figure["peer"] for figure in measured.figures} == {"good"}


def test_servers_and_others_are_asked_their_own_works(start_fake: Start) -> None:
    """A server has no streams in process to be measured, and the others have no clients."""
    from benchmarks.measuring import Contestant, measure_rounds
    from benchmarks.works import Work

    works = (
        Work(name="one_label", ask=lambda *_: LABEL, read=lambda answer: {}),
        Work(name="served_labels", ask=lambda *_: LABELS, read=lambda answer: {}, is_served=True),
    )
    contestants = [
        Contestant(name=name, start=partial(start_fake, name), load=LOAD, is_server=is_server)
        for name, is_server in (("library", False), ("server", True))
    ]
    measured = measure_rounds(contestants, works, lambda work, *_: work.ask(None, 0, 0), num_rounds=1)
    done = {(figure["peer"], figure["work"]) for figure in measured.figures if figure["work"] != "load"}
    assert done == {("library", "one_label"), ("server", "served_labels")}


def test_decoding_counts_while_all_streams_run() -> None:
    """Neither the prefill of a late stream nor the end of a long one makes a peer look faster or slower."""
    from benchmarks.peers.serving import Peer

    class Streams(Peer):
        def decode(self, requests: Any, num_tokens: int) -> list[list[float]]:
            return [[0.0, 1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0, 5.0, 6.0]]

    measured = Streams().time_decode(requests=[REQUEST, REQUEST], num_tokens=5)
    assert measured["tokens_per_s"] == pytest.approx(4 / 2)  # from 2.0 to 4.0: two tokens of each

    class Consecutive(Peer):
        def decode(self, requests: Any, num_tokens: int) -> list[list[float]]:
            return [[0.0, 1.0], [2.0, 3.0]]

    with pytest.raises(RuntimeError, match="same time"):
        Consecutive().time_decode(requests=[REQUEST, REQUEST], num_tokens=2)
