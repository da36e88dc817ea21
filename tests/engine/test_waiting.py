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
from allinone.engine.prefix_cache import Prefix
from allinone.engine.requests import GenerateRequest, SamplingParams, ScoreRequest
from allinone.engine.running import Running
from allinone.engine.scheduler import MAX_SKIPPED_STEPS, MAX_SLICES, SLICE_TOKENS, Scheduler, Work
from allinone.engine.waiting import FairQueue, Line, WaitingRequests
from allinone.errors import Cancelled, DeadlineExceeded
from allinone.types import Caller, Priority

TOKENIZER = ByteTokenizer()
LABELS = {"a": (97,), "b": (98,)}
CHUNK = 256


def make_label(client: str, size: int = 10, priority: Priority = "interactive") -> Running:
    request = ScoreRequest(
        prefix_ids=(), input_ids=(120,) * size, label_ids=LABELS, caller=Caller(client=client, priority=priority)
    )
    running, _ = Intake(FakeBackend(), TOKENIZER, max_label_tokens=16).make(request)
    running.admit(request.input_ids)
    return running


def make_text(client: str, size: int = 10, priority: Priority = "interactive") -> Running:
    request = GenerateRequest(input_ids=(120,) * size, caller=Caller(client=client, priority=priority))
    running, _ = Intake(FakeBackend(), TOKENIZER, max_label_tokens=16).make(request)
    running.admit(request.input_ids)
    return running


def make_running_stream(backend: FakeBackend) -> Running:
    """A stream that waits for its next token."""
    stream, _ = Intake(backend, TOKENIZER, max_label_tokens=16).make(GenerateRequest(input_ids=(1,)))
    stream.admit(())
    stream.sequence = backend.fork()
    return stream


def num_tokens_of(batch: list[Work]) -> int:
    return sum(len(work.chunk.input_ids) for work in batch)


def take(queue: FairQueue) -> Running | None:
    """Give the next one its turn, as the engine does."""
    running = queue.next(lambda _: True)
    if running is not None:
        queue.had_turn(running)
        queue.remove(running)
    return running


def turns(queue: FairQueue, count: int) -> list[str]:
    """Clients of the next turns."""
    return [running.caller.client for _ in range(count) if (running := take(queue))]


def test_client_with_thousand_requests_does_not_hold_up_one_with_three() -> None:
    """Turns alternate, although the greedy client was there first."""
    queue = FairQueue()
    for _ in range(1000):
        queue.push(make_label("greedy"))
    for _ in range(3):
        queue.push(make_label("modest"))
    found = turns(queue, 8)
    assert found.count("modest") == 3 and "modest" in found[:2]


def test_client_with_long_texts_gets_fewer_turns_not_more_tokens() -> None:
    """Shares are of tokens: 100-token texts and 10-token texts at one to ten."""
    queue = FairQueue()
    for _ in range(300):
        queue.push(make_label("long", 100))
        queue.push(make_label("short", 10))
    fed = Counter[str]()
    for _ in range(200):
        running = take(queue)
        assert running is not None
        fed[running.caller.client] += running.num_to_feed
    assert abs(fed["long"] - fed["short"]) <= 100


def test_newcomer_starts_level_and_makes_up_for_nothing() -> None:
    """A client who was away does not get the turns that it did not ask for."""
    queue = FairQueue()
    for _ in range(60):
        queue.push(make_label("old"))
    turns(queue, 30)
    for _ in range(30):
        queue.push(make_label("new"))
    found = Counter(turns(queue, 20))
    assert abs(found["old"] - found["new"]) <= 2


def test_debts_are_forgotten_when_nobody_waits() -> None:
    """Whoever had much in a quiet hour is not behind a newcomer afterwards."""
    queue = FairQueue()
    for number in range(50):
        queue.push(make_label(f"client {number}", 10 + number))
        take(queue)
    for client in ("client 0", "client 49", "new"):
        queue.push(make_label(client))
    assert turns(queue, 3) == ["client 0", "client 49", "new"]


def test_accounts_are_few_however_many_clients_came() -> None:
    """A server sees very many clients, and beside a long `map` the queue is never empty."""
    queue = FairQueue()
    for _ in range(2000):
        queue.push(make_label("map"))
    for number in range(1500):
        queue.push(make_label(f"client {number}"))
        turns(queue, 2)
    assert len(queue._given) < 150


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 40)), max_size=40))
def test_everybody_gets_a_turn_once(wishes: list[tuple[str, int]]) -> None:
    """Nothing is lost and nothing comes twice, and a client's own requests of one kind keep their order."""
    queue = FairQueue()
    pushed = [make_label(client, size) for client, size in wishes]
    for running in pushed:
        queue.push(running)
    found = [running for _ in range(len(pushed)) if (running := take(queue))]
    assert take(queue) is None and not list(queue)
    assert {id(running) for running in found} == {id(running) for running in pushed}
    for client in "abc":
        assert [r for r in found if r.caller.client == client] == [r for r in pushed if r.caller.client == client]


def test_lines_have_accounts_of_their_own() -> None:
    """A busy line of people does not make a newcomer in the line of bulk work start behind everybody there."""
    waiting = WaitingRequests()
    for _ in range(100):
        waiting.push(make_label("person"))
        waiting.push(make_label("bulk", priority="batch"))
    people, bulk = Line("interactive", True), Line("batch", True)
    for _ in range(90):
        waiting.take(waiting.next(people, lambda _: True))
    waiting.take(waiting.next(bulk, lambda _: True))
    for _ in range(10):
        waiting.push(make_label("newcomer", priority="batch"))
    found = []
    for _ in range(10):
        running = waiting.next(bulk, lambda _: True)
        waiting.take(running)
        found.append(running.caller.client)
    assert 4 <= found.count("newcomer") <= 6


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


def first_steps(backend: RecordingBackend, marker: int) -> int:
    """Number of the first call that feeds ids `marker`."""
    return next(
        number for number, batch in enumerate(backend.batches) if any(chunk.input_ids[0] == marker for chunk in batch)
    )


@pytest.mark.parametrize("is_label", [True, False])
def test_long_bulk_request_does_not_hold_up_people(backend: RecordingBackend, is_label: bool) -> None:
    """It is computed a chunk at a time, and what comes later runs beside it. (Admission once counted all of it.)"""
    with Engine(backend, TOKENIZER, max_cached_tokens=100_000) as engine:
        backend.hold()
        blocker = engine.submit(ScoreRequest(prefix_ids=(), input_ids=(9,), label_ids=LABELS))[0]
        assert backend.entered.wait(30)
        bulk = Caller(client="bulk", priority="batch")
        long_ids, short_ids = (65,) * 8_000, (66,) * 10
        if is_label:
            long = engine.submit(ScoreRequest(prefix_ids=(), input_ids=long_ids, label_ids=LABELS, caller=bulk))[0]
            short = engine.submit(ScoreRequest(prefix_ids=(), input_ids=short_ids, label_ids=LABELS))[0]
        else:
            one = SamplingParams(max_tokens=1)
            long = engine.submit(GenerateRequest(input_ids=long_ids, sampling=one, caller=bulk))[0]
            short = engine.submit(GenerateRequest(input_ids=short_ids, sampling=one))[0]
        backend.go()
        for ticket in (blocker, short, long):
            ticket.result()
    assert first_steps(backend, 66) <= 2


def test_document_beside_a_stream_and_ever_new_prefixes_is_not_passed_over_for_ever() -> None:
    """In every step a prefix is to be filled and a stream leaves one chunk: the document's chunk needs all of that."""
    backend = FakeBackend()
    document = make_label("document", 3_000)
    document.sequence = backend.fork()
    stream, scheduler = make_running_stream(backend), Scheduler(CHUNK)
    places = 0
    for _ in range(200):
        prefix = Prefix(ids=(7,) * 100, sequence=backend.fork())
        batch = scheduler.next_batch([stream, document], [prefix], max_batch_tokens=2048)
        places += any(work.owner is document for work in batch)
    assert places >= 100 // (MAX_SKIPPED_STEPS + 2)


def test_overdue_label_beside_a_stream_has_its_step_to_itself() -> None:
    """It goes first because it was passed over, and is still a label: no text shares its call."""
    backend = FakeBackend()
    label, text = make_label("c", 20), make_text("c", 5)
    for one in (label, text):
        one.sequence = backend.fork()
    label.num_skipped = MAX_SKIPPED_STEPS + 1
    batch = Scheduler(CHUNK).next_batch([make_running_stream(backend), text, label], [], max_batch_tokens=2048)
    assert [work.owner for work in batch] == [label]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["label", "text", "nothing"]), st.integers(1, 700), st.booleans()), max_size=40),
    st.integers(1, 5),
)
def test_beside_streams_prefills_are_short_and_labels_do_not_wait_for_others(
    arrivals: list[tuple[str, int, bool]], num_streams: int
) -> None:
    """Never more than a chunk between two tokens, labels alone, and everybody is fed in the end."""
    backend = FakeBackend()
    scheduler = Scheduler(CHUNK)
    running: list[Running] = [make_running_stream(backend) for _ in range(num_streams)]
    streams, left, num_between = set(running), list(arrivals), 0
    for _ in range(2_000):
        if left:
            kind, size, is_bulk = left.pop()
            if kind != "nothing":
                made = (make_label if kind == "label" else make_text)("c", size, "batch" if is_bulk else "interactive")
                made.sequence = backend.fork()
                running.append(made)
        most = max(SLICE_TOKENS, sum(one.num_to_feed for one in running if one not in streams) // MAX_SLICES)
        batch = scheduler.next_batch(running, [], max_batch_tokens=2048)
        assert batch
        if any(work.owner in streams for work in batch):
            assert len(batch) == num_streams and all(work.owner in streams for work in batch)
            num_between = 0
            if not left and len(running) == num_streams:
                return
            continue
        num_between += num_tokens_of(batch)
        assert num_between <= CHUNK
        labels = [work for work in batch if isinstance(work.owner, Running) and work.owner.is_short]
        assert len(labels) in (0, len(batch)) or batch[0] not in labels  # only an overdue text has labels behind it
        if not labels:
            assert len(batch) == 1 or num_tokens_of(batch) <= most
        for work in batch:
            assert isinstance(work.owner, Running)
            work.owner.accept(work.chunk, backend.extend([work.chunk])[0])
            if not work.owner.is_prefilling:
                running.remove(work.owner)
    raise AssertionError(f"{len(running) - num_streams} were never fed")


def test_labels_with_branches_fill_their_steps(backend: RecordingBackend) -> None:
    """Only a stream holds prefills to one chunk: nobody reads a label's branches as they come."""
    forked = {"aa": (97, 97), "ab": (97, 98), "ba": (98, 97), "bb": (98, 98)}
    with Engine(backend, TOKENIZER, max_batch_tokens=512) as engine:
        tickets = engine.submit(
            *[ScoreRequest(prefix_ids=(), input_ids=(65 + i % 9,) * 30, label_ids=forked) for i in range(200)]
        )
        for ticket in tickets:
            ticket.result()
    assert backend.num_fed / len(backend.batches) > 350


def test_people_pass_bulk_work_that_waits_for_memory_but_not_for_ever(backend: RecordingBackend) -> None:
    """A bulk document that does not fit at the moment is overtaken by labels; when there is room it comes first."""
    backend.step_s = 0.001
    with Engine(backend, TOKENIZER, max_cached_tokens=1_000) as engine:
        stream = engine.stream(GenerateRequest(input_ids=(1,), sampling=SamplingParams(max_tokens=600)))
        next(stream)
        bulk = Caller(priority="batch")
        document = engine.submit(ScoreRequest(prefix_ids=(), input_ids=(66,) * 700, label_ids=LABELS, caller=bulk))[0]
        label = engine.submit(ScoreRequest(prefix_ids=(), input_ids=(67,) * 5, label_ids=LABELS))[0]
        label.result()
        assert not document.is_done
        stream.cancel()
        assert document.result().best in LABELS


@pytest.mark.parametrize("how", ["cancel", "expire"])
def test_request_that_waits_for_memory_can_end(backend: RecordingBackend, how: str) -> None:
    """And those behind it are let through then; what was cached is still there, for it never fitted."""
    backend.step_s = 0.001
    with Engine(backend, TOKENIZER, max_cached_tokens=1_000) as engine:
        engine.score(ScoreRequest(prefix_ids=(5,) * 20, input_ids=(6,), label_ids=LABELS))
        stream = engine.stream(GenerateRequest(input_ids=(1,), sampling=SamplingParams(max_tokens=600)))
        next(stream)
        deadline = 0.05 if how == "expire" else None
        held = engine.submit(ScoreRequest(prefix_ids=(), input_ids=(66,) * 700, label_ids=LABELS, deadline_s=deadline))
        behind = engine.submit(ScoreRequest(prefix_ids=(), input_ids=(67,) * 5, label_ids=LABELS))[0]
        if how == "cancel":
            held[0].cancel()
        with pytest.raises((Cancelled, DeadlineExceeded)):
            held[0].result()
        assert behind.result().best in LABELS
        stream.cancel()
        assert engine.stats().num_prefixes == 1 and engine.stats().prefix_evictions == 0


def test_what_did_not_get_its_whole_answer_is_counted(backend: RecordingBackend) -> None:
    """A stream that ran out of time counts as failed, like a label that did."""
    backend.step_s = 0.002
    with Engine(backend, TOKENIZER) as engine:
        engine.score(ScoreRequest(prefix_ids=(), input_ids=(1,), label_ids=LABELS))
        late = GenerateRequest(input_ids=(1,), sampling=SamplingParams(max_tokens=500), deadline_s=0.03)
        assert engine.stream(late).result().finish_reason == "deadline"
        engine.score(ScoreRequest(prefix_ids=(), input_ids=(1,), label_ids=LABELS))
        stats = engine.stats()
        assert (stats.num_failed, stats.num_cancelled) == (1, 0)
