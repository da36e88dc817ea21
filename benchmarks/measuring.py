"""Rounds of measurements, peers in turn: one direction in even rounds, the other way in odd ones.

Each round starts every peer anew and ends it; within a round all are loaded, and one runs while the others are paused.
So what is compared was measured within seconds of each other. Knows works and processes, no files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.wire import PeerFailed, PeerProcess
from benchmarks.works import Work

NUM_QUICK = 10
"""Repetitions of a quick work within a round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A peer that takes part.

    Attributes:
        start: starts its process.
        load: the message that loads its model.
        works: names of the works it takes part in; all where None.
        num_slow: repetitions of a slow work within a round.
        is_ours: asked the works that only the product is asked.
        is_server: asked the works of servers, and no others.
    """

    name: str
    start: Callable[[], PeerProcess]
    load: Mapping[str, Any]
    works: Sequence[str] | None = None
    num_slow: int = 3
    is_ours: bool = False
    is_server: bool = False

    def does(self, work: Work, round_number: int) -> bool:
        """Whether it is asked in this round."""
        if work.is_served != self.is_server:
            return False
        if (work.only_ours and not self.is_ours) or (work.is_once and round_number > 0):
            return False
        return self.works is None or work.name in self.works


@dataclass(slots=True)
class Measured:
    """What came out: figures and failures, each with its round, work and peer; facts told when loading."""

    figures: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)


def order_of(names: Sequence[str], round_number: int) -> list[str]:
    """Who comes when: forth in even rounds, back in odd ones."""
    return list(names) if round_number % 2 == 0 else list(reversed(names))


def measure_rounds(
    contestants: Sequence[Contestant],
    works: Sequence[Work],
    ask: Callable[[Work, int, int], dict[str, Any]],
    *,
    num_rounds: int,
    say: Callable[[str], None] = lambda _: None,
) -> Measured:
    """All rounds.

    Args:
        contestants: each with another name.
        works: in this order.
        ask: (work, round, repeats) -> the message; called once for all peers that repeat as often.
        num_rounds: how often everything is measured.
        say: told what is being done.
    """
    measured = Measured()
    by_name = {one.name: one for one in contestants}
    for round_number in range(num_rounds):
        order = [by_name[name] for name in order_of(list(by_name), round_number)]
        running: dict[str, PeerProcess] = {}
        try:
            for one in order:
                say(f"round {round_number + 1} of {num_rounds}: loading {one.name}")
                _load(one, running, measured, round_number)
            for work in works:
                for one in order:
                    if one.does(work, round_number) and one.name in running:
                        say(f"round {round_number + 1} of {num_rounds}: {work.name}, {one.name}")
                        _run(one, work, running, measured, round_number, ask)
        finally:
            for process in running.values():
                process.close()
    return measured


def _load(one: Contestant, running: dict[str, PeerProcess], measured: Measured, round_number: int) -> None:
    """Start a peer and load its model; a peer that cannot is left out of the round."""
    place = {"round": round_number, "peer": one.name, "work": "load"}
    process = None
    try:
        process = one.start()
        facts = process.ask(one.load)
    except PeerFailed as error:
        if process is not None:
            process.close()
        measured.failures.append({**place, "reason": str(error)})
        return
    running[one.name] = process
    measured.figures.append({**place, "load_s": facts.pop("load_s")})
    measured.facts[one.name] = facts


def _run(
    one: Contestant,
    work: Work,
    running: dict[str, PeerProcess],
    measured: Measured,
    round_number: int,
    ask: Callable[[Work, int, int], dict[str, Any]],
) -> None:
    """One work of one peer. A peer that crashed is started again, so that its other works are measured."""
    place = {"round": round_number, "peer": one.name, "work": work.name}
    repeats = one.num_slow if work.is_slow else NUM_QUICK
    try:
        answer = running[one.name].ask(ask(work, round_number, repeats))
        measured.figures.append({**place, **work.read(answer)})
    except PeerFailed as error:
        measured.failures.append({**place, "reason": str(error)})
        if not running[one.name].is_alive:
            running.pop(one.name).close()
            _load_again(one, running, measured, place)


def _load_again(one: Contestant, running: dict[str, PeerProcess], measured: Measured, place: Mapping[str, Any]) -> None:
    process = None
    try:
        process = one.start()
        process.ask(one.load)
    except PeerFailed as error:
        if process is not None:
            process.close()
        measured.failures.append({**place, "work": "load", "reason": f"not to be had again after a crash: {error}"})
        return
    running[one.name] = process
