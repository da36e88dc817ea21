"""The load of `http_driver`, small: what holds for 500 clients is checked with 20 on every change."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from allinone import AllInOne

from .driver import seeded_tasks
from .http_client import Event
from .http_load import Known, run_load
from .http_outcome import Reading, Tally
from .http_server import Server, serving

NUM_KEYS = 4


@pytest.fixture(scope="module")
def tasks() -> Iterator[Path]:
    with seeded_tasks() as folder:
        yield folder


@pytest.fixture(scope="module")
def known(tasks: Path) -> Known:
    with AllInOne.load(tasks=tasks, cache=False) as ai:
        return Known.collect(ai, num_scripts=10, num_wishes=16, seed=5, max_characters=400)


@pytest.fixture(scope="module")
def server(tasks: Path) -> Iterator[Server]:
    with serving("--tasks", str(tasks), "--limit", "unread_reply_s=2", num_keys=NUM_KEYS) as found:
        yield found


@pytest.mark.slow
def test_mixed_clients_are_answered_as_if_alone_and_leave_nothing(server: Server, known: Known) -> None:
    """No wrong, crossed or lost answer, however clients come and go; afterwards only shared prefixes are held."""
    load = asyncio.run(run_load(server, known, num_clients=20, count=40, seed=1))
    tally = load.tally
    assert tally.wrong == []
    assert tally.lost == []
    assert load.leftovers == {}
    assert {"reply, read: whole", "reply, resume: whole", "task, one: whole"} <= set(tally.endings)
    assert len(tally.answers_by_key) == NUM_KEYS


@pytest.mark.slow
def test_wrong_answers_over_http_are_noticed(server: Server, known: Known) -> None:
    """A driver that finds nothing must be able to."""
    scripts, wishes = list(known.scripts.values()), list(known.wishes.values())
    swapped = Known(
        scripts=dict(zip(known.scripts, [*scripts[1:], scripts[0]], strict=True)),
        wishes=dict(zip(known.wishes, [*wishes[1:], wishes[0]], strict=True)),
    )
    load = asyncio.run(run_load(server, swapped, num_clients=6, count=12, seed=2))
    assert any("the mood of" in line for line in load.tally.wrong)


def _events(*names: str, id: str = "ans_a") -> list[Event]:
    data = {
        "label": {"id": id, "conversation": "conv_a"},
        "token": {"text": "好"},
        "done": {"id": id, "conversation": "conv_a", "text": "好" * names.count("token")},
    }
    return [Event(id=f"{id}:{number}", name=name, data=data[name]) for number, name in enumerate(names)]


def _wrong(events: list[Event]) -> list[str]:
    tally = Tally()
    reading = Reading(tally)
    for event in events:
        reading.take(event)
    return tally.wrong


def test_reading_takes_a_reply_in_order() -> None:
    assert _wrong(_events("label", "token", "token", "done")) == []


@pytest.mark.parametrize(
    ("events", "what"),
    [
        (_events("label", "token", "token", "done")[:2] + _events("label", "token", "token", "done")[3:], "number"),
        (_events("label", "token")[:1] + _events("label", "token", id="ans_b")[1:], "belongs to"),
        (_events("token", "done"), "'token' as event 0"),
        (_events("label", "label", "done"), "'label' as event 1"),
        (_events("label", "token", "done", "token"), "before 'token'"),
        (_events("label", "token", "done")[:2] + _events("label", "done", "done")[2:], "against its tokens"),
    ],
    ids=["gap", "crossed", "no label", "two labels", "after done", "other text"],
)
def test_reading_notices_what_is_wrong(events: list[Event], what: str) -> None:
    """Each of these would be a broken stream that a count of endings would not show."""
    assert any(what in line for line in _wrong(events))
