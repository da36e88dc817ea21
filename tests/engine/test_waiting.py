"""Whose turn it is: fair between clients, people before bulk work, nobody forgotten."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.conftest import RecordingBackend

from allinone.backends.fake import ByteTokenizer, FakeBackend
from allinone.engine.engine import Engine
from allinone.engine.intake import Intake
from allinone.engine.requests import GenerateRequest, SamplingParams, ScoreRequest
from allinone.engine.running import Running
from allinone.engine.waiting import MAX_PASSED, WaitingRequests
from allinone.types import Caller, Priority

TOKENIZER = ByteTokenizer()
LABELS = {"a": (97,), "b": (98,)}


def make_label(client: str, size: int = 10, priority: Priority = "interactive") -> Running:
    request = ScoreRequest(
        prefix_ids=(), input_ids=(120,) * size, label_ids=LABELS, caller=Caller(client=client, priority=priority)
    )
    running, _ = Intake(FakeBackend(), TOKENIZER, max_label_tokens=16).make(request)
    running.admit(request.input_ids)
    return running


def take(waiting: WaitingRequests) -> Running | None:
    """Give the next one its turn, as the engine does."""
    running = waiting.next(is_short=True, may_start=lambda _: True)
    if running is not None:
        waiting.remove(running)
        waiting.had_turn(running)
        waiting.charge(running.caller.client, running.num_to_feed)
    return running


def test_client_with_thousand_requests_does_not_hold_up_one_with_three() -> None:
    """Turns alternate, although the greedy client was there first."""
    waiting = WaitingRequests()
    for _ in range(1000):
        waiting.push(make_label("greedy"))
    for _ in range(3):
        waiting.push(make_label("modest"))
    turns = [running.caller.client for _ in range(8) if (running := take(waiting))]
    assert turns.count("modest") == 3
    assert "modest" in turns[:2]


def test_client_with_long_texts_gets_fewer_turns_not_more_tokens() -> None:
    """Shares are of tokens: 100-token texts and 10-token texts at one to ten."""
    waiting = WaitingRequests()
    for _ in range(300):
        waiting.push(make_label("long", 100))
        waiting.push(make_label("short", 10))
    fed = Counter[str]()
    for _ in range(200):
        running = take(waiting)
        assert running is not None
        fed[running.caller.client] += running.num_to_feed
    assert abs(fed["long"] - fed["short"]) <= 100


def test_newcomer_starts_level_and_makes_up_for_nothing() -> None:
    """A client who was away does not get the turns that it did not ask for."""
    waiting = WaitingRequests()
    for _ in range(60):
        waiting.push(make_label("old"))
    for _ in range(30):
        take(waiting)
    for _ in range(30):
        waiting.push(make_label("new"))
    turns = Counter(running.caller.client for _ in range(20) if (running := take(waiting)))
    assert abs(turns["old"] - turns["new"]) <= 2


def test_bulk_work_is_slow_but_not_stopped() -> None:
    """People first; after so many of them one of the others."""
    waiting = WaitingRequests()
    for _ in range(100):
        waiting.push(make_label("bulk", priority="batch"))
        waiting.push(make_label("person"))
    turns = [running.caller.priority for _ in range(MAX_PASSED * 4 + 4) if (running := take(waiting))]
    assert turns.count("batch") in (3, 4)
    assert turns[:MAX_PASSED] == ["interactive"] * MAX_PASSED


def test_debts_are_forgotten_when_nobody_waits() -> None:
    """Whoever had much in a quiet hour is not behind a newcomer afterwards; and a server sees very many clients."""
    waiting = WaitingRequests()
    for number in range(500):
        waiting.push(make_label(f"client {number}"))
        take(waiting)
    waiting.forget_debts()
    assert not waiting._given
    for client in ("client 0", "client 1", "new"):
        waiting.push(make_label(client))
    assert [running.caller.client for _ in range(3) if (running := take(waiting))] == ["client 0", "client 1", "new"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 40), st.sampled_from(["interactive", "batch"])), max_size=40
    )
)
def test_everybody_gets_a_turn_once(wishes: list[tuple[str, int, Priority]]) -> None:
    """Nothing is lost and nothing comes twice, and a client's own requests of one kind keep their order."""
    waiting = WaitingRequests()
    pushed = [make_label(client, size, priority) for client, size, priority in wishes]
    for running in pushed:
        waiting.push(running)
    turns = [running for _ in range(len(pushed)) if (running := take(waiting))]
    assert len(waiting) == 0 and take(waiting) is None
    assert {id(running) for running in turns} == {id(running) for running in pushed}
    for client in "abc":
        for priority in ("interactive", "batch"):
            own = [r for r in pushed if (r.caller.client, r.caller.priority) == (client, priority)]
            assert [r for r in turns if (r.caller.client, r.caller.priority) == (client, priority)] == own


def test_long_document_does_not_stall_a_running_stream(backend: RecordingBackend) -> None:
    """Beside a stream no step prefills more than one chunk, so a token is never further away than that."""
    with Engine(backend, TOKENIZER, max_batch_tokens=1024) as engine:
        stream = engine.stream(GenerateRequest(input_ids=(1, 2, 3), sampling=SamplingParams(max_tokens=40)))
        next(stream)
        documents = [
            engine.submit(ScoreRequest(prefix_ids=(), input_ids=(65 + i,) * 2000, label_ids=LABELS))[0]
            for i in range(3)
        ]
        events = list(stream)
        for ticket in documents:
            ticket.result()
    with_stream = [batch for batch in backend.batches if any(len(chunk.input_ids) == 1 for chunk in batch)]
    assert len(events) == 39
    assert max(sum(len(c.input_ids) for c in batch if len(c.input_ids) > 1) for batch in with_stream) <= 256


@pytest.mark.parametrize("priority", ["interactive", "batch"])
def test_answers_do_not_depend_on_client_or_priority(engine: Engine, priority: Priority) -> None:
    """Only the order does."""
    plain = engine.score(ScoreRequest(prefix_ids=(), input_ids=(5, 6), label_ids=LABELS))
    other = engine.score(
        ScoreRequest(prefix_ids=(), input_ids=(5, 6), label_ids=LABELS, caller=Caller(client="x", priority=priority))
    )
    assert plain.logprobs == other.logprobs
