from __future__ import annotations

import gc
import itertools
import signal
import threading
import time
from collections.abc import Callable

import pytest

from allinone.backends.fake import ByteTokenizer, FakeBackend
from allinone.engine.engine import PREFILL_CHUNK_TOKENS, Engine
from allinone.engine.requests import (
    GenerateRequest,
    Generation,
    PrefillRequest,
    SamplingParams,
    ScoreRequest,
)
from allinone.engine.scheduler import MAX_SKIPPED_STEPS, Scheduler
from allinone.engine.tickets import Stream
from allinone.errors import (
    AllInOneError,
    CacheFull,
    Cancelled,
    ConfigError,
    ContextLengthExceeded,
    DeadlineExceeded,
    InvalidInput,
    ModelError,
    QueueFull,
    StreamConsumed,
    TokenizerMismatch,
    VerbalizerError,
)

from .conftest import RecordingBackend

PREFIX = tuple(b"You judge moods.")
LABELS = {"good": (1,), "bad": (2,)}


def score_request(text: bytes = b"fine", **changes: object) -> ScoreRequest:
    return ScoreRequest(**({"prefix_ids": PREFIX, "input_ids": tuple(text), "label_ids": LABELS} | changes))  # type: ignore[arg-type]


def generate_request(text: bytes = b"hello", *, max_tokens: int = 8, **changes: object) -> GenerateRequest:
    sampling = changes.pop("sampling", None) or SamplingParams(max_tokens=max_tokens)
    return GenerateRequest(**({"prefix_ids": PREFIX, "input_ids": tuple(text), "sampling": sampling} | changes))  # type: ignore[arg-type]


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread, however slow the machine."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.001)


# Prefix sharing and batching


def test_prefix_is_prefilled_once_and_shared(engine: Engine, backend: RecordingBackend) -> None:
    """32 texts cost one prefix and 32 times their own tokens; the usage says which tokens were there already."""
    tickets = engine.submit(*[score_request(b"text %02d" % i) for i in range(32)])
    usages = [ticket.result().usage for ticket in tickets]
    assert backend.num_fed == len(PREFIX) + 32 * 7
    assert {usage.num_prompt_tokens for usage in usages} == {len(PREFIX) + 7}
    assert [usage.num_cached_tokens for usage in usages] == [0] + [len(PREFIX)] * 31
    assert len(backend.batches) == 2, "the prefix, then all texts at once"
    stats = engine.stats()
    assert (stats.prefix_misses, stats.prefix_hits, stats.num_prefixes) == (1, 31, 1)


def test_label_request_asks_for_label_logits_only(engine: Engine, backend: RecordingBackend) -> None:
    """No full vocabulary for a label task."""
    engine.score(score_request())
    assert [(chunk.wanted, chunk.token_ids) for chunk in backend.batches[-1]] == [("token_logits", (1, 2))]


def test_requests_submitted_together_run_in_one_call(engine: Engine, backend: RecordingBackend) -> None:
    """Mood → reply: the label's suffix and the chat's prefill are one pass over the weights."""
    with engine.open_session(tuple(b"You are kind.")) as session:
        warm = engine.submit(score_request(), PrefillRequest(session=session, input_ids=(1,)))
        warm[0].result(), warm[1].result()
        before = len(backend.batches)
        score, prefill = engine.submit(score_request(b"I am sad"), PrefillRequest(session=session, input_ids=(5, 6, 7)))
        score.result(), prefill.result()
        assert len(backend.batches) == before + 1
        assert [tuple(chunk.input_ids) for chunk in backend.batches[-1]] == [tuple(b"I am sad"), (5, 6, 7)]


def test_batch_stays_within_its_budget_and_streams_go_on(
    backend: RecordingBackend, byte_tokenizer: ByteTokenizer
) -> None:
    """Running streams are not held up by long prompts: between two of their tokens there is one chunk at most."""
    with Engine(backend, byte_tokenizer, max_batch_tokens=64) as engine:
        backend.hold()
        stream = engine.stream(generate_request(max_tokens=60))
        assert backend.entered.wait(30)
        long = engine.submit(*[score_request(bytes([65 + i]) * 150) for i in range(9)])
        backend.go()
        for ticket in long:
            ticket.result()
        list(stream)
    sizes = [sum(len(chunk.input_ids) for chunk in batch) for batch in backend.batches]
    assert max(sizes) <= 64
    said = {chunk.sequence for batch in backend.batches for chunk in batch if len(chunk.input_ids) == 1}
    assert len(said) == 1, "only the stream feeds single tokens"
    steps = [place for place, batch in enumerate(backend.batches) if any(chunk.sequence in said for chunk in batch)]
    between = [sum(sizes[one + 1 : other]) for one, other in itertools.pairwise(steps[1:])]
    assert len(between) == 58 and max(between) == 32, "one chunk and no more"


@pytest.mark.parametrize("num_streams", [1, 2, 7])
def test_whole_chunk_fits_beside_any_number_of_streams(
    backend: RecordingBackend, byte_tokenizer: ByteTokenizer, num_streams: int
) -> None:
    """A long prompt once starved for as long as two streams ran: each took a token of the one chunk it may feed."""
    with Engine(backend, byte_tokenizer, max_batch_tokens=64) as engine:
        backend.hold()
        first = engine.stream(generate_request(max_tokens=40))
        assert backend.entered.wait(30)
        others = [engine.stream(generate_request(max_tokens=40)) for _ in range(num_streams - 1)]
        (label,) = engine.submit(score_request(b"L" * 320))
        backend.go()
        label.result(timeout=30)
        for stream in (first, *others):
            list(stream)
    places = [n for n, batch in enumerate(backend.batches) for chunk in batch if set(chunk.input_ids) == {ord("L")}]
    assert len(places) == 10 and places[-1] < places[0] + 20 + num_streams, "a chunk in every second step"
    assert any(len(batch) == num_streams for batch in backend.batches[places[-1] :]), "while the streams ran"


def test_chunks_of_a_prompt_do_not_depend_on_company(byte_tokenizer: ByteTokenizer) -> None:
    """Bit-equality alone and in company needs the same cuts, whatever else is in the batch."""

    def chunks(company: int) -> list[int]:
        backend = RecordingBackend()
        with Engine(backend, byte_tokenizer) as engine:
            own = score_request(b"x" * 700, prefix_ids=tuple(b"p" * 300))
            others = [score_request(bytes([97 + i]) * (90 + 31 * i), prefix_ids=()) for i in range(company)]
            for ticket in engine.submit(*others[: company // 2], own, *others[company // 2 :]):
                ticket.result()
        fed = [chunk for batch in backend.batches for chunk in batch if set(chunk.input_ids) <= set(b"xp")]
        return [len(chunk.input_ids) for chunk in fed]

    alone = chunks(0)
    assert alone == [PREFILL_CHUNK_TOKENS, 300 - PREFILL_CHUNK_TOKENS, PREFILL_CHUNK_TOKENS, PREFILL_CHUNK_TOKENS, 188]
    assert chunks(6) == alone


def test_short_labels_overtake_a_long_prompt_but_do_not_starve_it(
    backend: RecordingBackend, byte_tokenizer: ByteTokenizer
) -> None:
    """A label for a short text comes before somebody's long document; the document still comes."""
    with Engine(backend, byte_tokenizer, max_batch_tokens=32) as engine:
        engine.score(score_request())
        backend.hold()
        first = engine.submit(score_request(b"a" * 5))[0]
        assert backend.entered.wait(30)
        document = engine.stream(generate_request(b"d" * 64, max_tokens=1))
        labels = engine.submit(*[score_request(bytes([101 + i % 20]) * 16) for i in range(60)])
        backend.go()
        document.result()
        for ticket in (first, *labels):
            ticket.result()
    order = [
        "d" if chunk.input_ids[0] == ord("d") else "l"
        for b in backend.batches[2:]
        for chunk in b
        if len(chunk.input_ids) == 16
    ]
    assert order[0] == "l", "labels first"
    assert "d" in order[: 2 * (MAX_SKIPPED_STEPS + 2)], "but not for ever"


# Streams


def test_stream_equals_its_drained_self(engine: Engine, byte_tokenizer: ByteTokenizer) -> None:
    """Streamed = whole; the last event carries reason, usage and timings."""
    events = list(engine.stream(generate_request(max_tokens=40)))
    whole = engine.stream(generate_request(max_tokens=40)).result()
    assert "".join(event.text for event in events) == whole.text
    assert tuple(event.token_id for event in events if event.token_id is not None) == whole.token_ids
    assert [event.finish_reason for event in events[:-1]] == [None] * (len(events) - 1)
    assert whole.finish_reason == events[-1].finish_reason == "length"
    assert whole.usage.num_output_tokens == 40 == len(whole.token_ids)
    assert whole.timings.total_s >= whole.timings.ttft_s >= whole.timings.queue_s >= 0


def test_stream_never_contains_control_tokens_and_ends_at_stop_ids(byte_tokenizer: ByteTokenizer) -> None:
    """`<|im_start|>` is the likeliest token here, and still never said; `<|im_end|>` ends the reply."""
    start, end = byte_tokenizer.control_tokens["<|im_start|>"], byte_tokenizer.control_tokens["<|im_end|>"]
    backend = FakeBackend(script={tuple(b"hi"): (*b"ok", end), tuple(b"no"): (start,)})
    with Engine(backend, byte_tokenizer) as engine:
        said = engine.stream(generate_request(b"hi")).result()
        assert (said.text, said.finish_reason, said.token_ids) == ("ok", "stop", (*b"ok", end))
        other = engine.stream(generate_request(b"no", max_tokens=50)).result()
        assert start not in other.token_ids


def test_stop_string_ends_the_stream_and_is_not_part_of_it(byte_tokenizer: ByteTokenizer) -> None:
    """Base models have no turn tokens: "用户：" on a new line ends the answer, and no piece of it is shown."""
    backend = FakeBackend(script={tuple(b"hi"): tuple("好的\n用户：再来".encode())})
    with Engine(backend, byte_tokenizer) as engine:
        sampling = SamplingParams(max_tokens=50, stop=("\n用户：",))
        events = list(engine.stream(generate_request(b"hi", sampling=sampling)))
    assert "".join(event.text for event in events) == "好的"
    assert events[-1].finish_reason == "stop"
    assert all("\n" not in event.text for event in events)


def test_text_that_only_began_like_a_stop_string_is_released_at_the_end(byte_tokenizer: ByteTokenizer) -> None:
    """Nothing the model said is lost."""
    backend = FakeBackend(script={tuple(b"hi"): tuple(b"ab\nUs")})
    with Engine(backend, byte_tokenizer) as engine:
        sampling = SamplingParams(max_tokens=5, stop=("\nUser:",))
        assert engine.stream(generate_request(b"hi", sampling=sampling)).result().text == "ab\nUs"


def test_stream_is_read_once(engine: Engine) -> None:
    """What was read is gone; a whole of the rest would be a lie."""
    stream = engine.stream(generate_request())
    next(stream)
    with pytest.raises(StreamConsumed):
        stream.result()
    rest = list(stream)
    assert rest[-1].finish_reason == "length" and stream.is_done
    assert list(stream) == []


def test_seeded_streams_do_not_depend_on_neighbours(engine: Engine) -> None:
    """Each request has its own generator and its own sequence."""
    requests = [
        generate_request(b"q%d" % i, sampling=SamplingParams(temperature=1.3, top_p=0.9, seed=i, max_tokens=20))
        for i in range(6)
    ]
    alone = [engine.stream(request).result() for request in requests]
    together = [stream.result() for stream in engine.submit(*requests) if not isinstance(stream, tuple)]
    assert [g.token_ids for g in together if isinstance(g, Generation)] == [g.token_ids for g in alone]


# Ends: cancel, deadline, failure, close


def test_cancelled_stream_keeps_its_text_and_gives_its_memory_back(engine: Engine, backend: RecordingBackend) -> None:
    """Ctrl-C: at most the step under way goes on."""
    backend.step_s = 0.001
    stream = engine.stream(generate_request(max_tokens=4000))
    seen = [next(stream) for _ in range(3)]
    stream.cancel()
    seen += list(stream)
    assert seen[-1].finish_reason == "cancelled" and seen[-1].usage is not None
    assert seen[-1].usage.num_output_tokens == len([event for event in seen if event.token_id is not None])
    until(lambda: engine.stats().num_running == 0)
    assert backend.num_sequences() == 1, "only the prefix stays"


@pytest.mark.parametrize("how", ["break", "collect", "with", "exception"])
def test_abandoned_stream_is_cancelled(engine: Engine, backend: RecordingBackend, how: str) -> None:
    """A browser that goes away must not cost tokens for ever."""
    backend.step_s = 0.001
    if how == "break":
        for _ in engine.stream(generate_request(max_tokens=8000)):
            break
    elif how == "collect":
        stream = engine.stream(generate_request(max_tokens=8000))
        del stream
    elif how == "with":
        with engine.stream(generate_request(max_tokens=8000)) as stream:
            next(stream)
        assert list(stream) == []
    else:
        with pytest.raises(ZeroDivisionError):
            for _ in engine.stream(generate_request(max_tokens=8000)):
                1 / 0  # noqa: B018
    gc.collect()
    until(lambda: engine.stats().num_running == 0 and engine.stats().num_waiting == 0 and backend.num_sequences() <= 1)
    assert engine.stats().num_decoded_tokens < 7999


def test_cancelled_score_raises_cancelled(engine: Engine, backend: RecordingBackend) -> None:
    """While it waits, or while it runs."""
    backend.hold()
    running = engine.submit(score_request())[0]
    assert backend.entered.wait(30)
    waiting = engine.submit(score_request(b"later"))[0]
    running.cancel(), waiting.cancel()
    backend.go()
    for ticket in (running, waiting):
        with pytest.raises(Cancelled):
            ticket.result()


@pytest.mark.parametrize("kind", ["score", "stream"])
def test_wait_for_an_answer_can_be_interrupted(engine: Engine, backend: RecordingBackend, kind: str) -> None:
    """Ctrl-C on the main thread wakes it although nothing has come; the request goes on and can be waited for again."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    backend.hold()
    ticket = engine.submit(score_request() if kind == "score" else generate_request())[0]
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            next(ticket) if isinstance(ticket, Stream) else ticket.result()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    backend.go()
    assert list(ticket) if isinstance(ticket, Stream) else ticket.result()


def test_failed_stream_raises_again(engine: Engine, backend: RecordingBackend) -> None:
    """Who asks a second time must not take the silence for an empty answer."""
    backend.error = RuntimeError("bad kernel")
    stream = engine.stream(generate_request())
    for _ in range(2):
        with pytest.raises(ModelError, match="bad kernel"):
            list(stream)


def test_deadline_counts_waiting_and_prefill(engine: Engine, backend: RecordingBackend) -> None:
    """A score late in the queue fails; a stream ends with what it has, here nothing."""
    backend.hold()
    blocker = engine.submit(score_request())[0]
    assert backend.entered.wait(30)
    score = engine.submit(score_request(b"late", deadline_s=0.01))[0]
    stream = engine.stream(generate_request(deadline_s=0.01))
    with pytest.raises(DeadlineExceeded):
        score.result(timeout=0.001)
    time.sleep(0.02)
    backend.go()
    blocker.result()
    with pytest.raises(DeadlineExceeded, match="deadline passed"):
        score.result()
    generation = stream.result()
    assert (generation.finish_reason, generation.text, generation.usage.num_output_tokens) == ("deadline", "", 0)


def test_deadline_that_is_no_number_is_refused(engine: Engine) -> None:
    """It would never pass, and nobody meant that."""
    with pytest.raises(InvalidInput, match="deadline_s = nan"):
        engine.submit(score_request(b"never", deadline_s=float("nan")))


def test_deadline_ends_a_running_stream_with_its_text(engine: Engine, backend: RecordingBackend) -> None:
    """Partial text is better than none, and is marked."""
    backend.hold()
    stream = engine.stream(generate_request(max_tokens=8000, deadline_s=3600))
    assert backend.entered.wait(30)
    backend.step_s = 0.001
    backend.go()
    first = next(stream)
    engine._running[0].deadline_at = 0.0
    rest = list(stream)
    assert rest[-1].finish_reason == "deadline" and first.token_id is not None


def test_backend_failure_fails_the_batch_and_nobody_else(engine: Engine, backend: RecordingBackend) -> None:
    """The thread lives on, memory comes back, and the cause is kept."""
    engine.score(score_request())
    backend.error = RuntimeError("bad kernel")
    score, stream = engine.submit(score_request(b"x"), generate_request(b"y"))
    with pytest.raises(ModelError, match="bad kernel") as caught:
        score.result()
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(ModelError, match="bad kernel"):
        list(stream)
    assert engine.score(score_request(b"x")).best in LABELS
    until(lambda: engine.stats().num_running == 0)
    assert backend.num_sequences() == 1


def test_failed_prefix_fails_who_waits_for_it_and_is_prefilled_again(engine: Engine, backend: RecordingBackend) -> None:
    """A half-filled prefix is never shared."""
    backend.error = RuntimeError("out of luck")
    for ticket in engine.submit(score_request(b"a"), score_request(b"b")):
        with pytest.raises(ModelError, match="out of luck"):
            ticket.result()
    assert engine.score(score_request(b"a")).usage.num_cached_tokens == 0
    assert engine.score(score_request(b"a")).usage.num_cached_tokens == len(PREFIX)


def test_failure_of_the_engine_itself_reaches_every_caller(
    engine: Engine, backend: RecordingBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a dead thread and callers that wait for ever."""
    backend.hold()
    ticket = engine.submit(score_request())[0]
    assert backend.entered.wait(30)
    waiting = engine.submit(score_request())[0]
    monkeypatch.setattr(Scheduler, "next_batch", lambda *_, **__: 1 / 0)
    backend.go()
    for one in (ticket, waiting):
        with pytest.raises(ZeroDivisionError):
            one.result()
    until(lambda: backend.num_sequences() == 0)
    with pytest.raises(ModelError, match="engine stopped"):
        engine.submit(score_request())


def test_backend_that_cannot_free_ends_the_engine_and_every_caller_hears_of_it(
    backend: RecordingBackend, byte_tokenizer: ByteTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer that was computed is given; whoever waits gets the error; nobody waits for ever."""
    engine = Engine(backend, byte_tokenizer)
    session = engine.open_session(PREFIX)
    backend.hold()
    first = engine.submit(score_request())[0]
    assert backend.entered.wait(30)
    prefill, stream = engine.submit(PrefillRequest(session=session, input_ids=(1,)), generate_request(max_tokens=4000))

    def free(sequence: object) -> None:
        raise RuntimeError("cannot free")

    monkeypatch.setattr(backend, "free", free)
    backend.go()
    assert first.result().best in LABELS
    ended = 0
    for ticket in (prefill, stream):
        try:
            ticket.result()
        except RuntimeError as error:
            assert "cannot free" in str(error)
            ended += 1
    assert ended
    session.truncate(len(PREFIX))
    with pytest.raises(ModelError, match="cannot free"):
        engine.submit(score_request())
    engine.close()
    monkeypatch.undo()
    backend.close()


def test_close_cancels_everything_and_frees_everything(
    backend: RecordingBackend, byte_tokenizer: ByteTokenizer
) -> None:
    """Running and waiting requests get Cancelled, the thread ends, later calls are refused."""
    engine = Engine(backend, byte_tokenizer)
    session = engine.open_session(PREFIX)
    engine.submit(PrefillRequest(session=session, input_ids=(1, 2)))[0].result()
    backend.hold()
    under_way = engine.submit(score_request())[0]
    assert backend.entered.wait(30)
    score = engine.submit(score_request())[0]
    stream = engine.stream(generate_request())
    closer = threading.Thread(target=engine.close)
    closer.start()
    until(lambda: engine._is_closed)
    backend.go()
    closer.join(30)
    assert not closer.is_alive()
    assert under_way.is_done, "a step is never torn apart"
    with pytest.raises(Cancelled):
        score.result()
    with pytest.raises(Cancelled):
        list(stream)
    with pytest.raises(Cancelled):
        engine.submit(score_request())
    with pytest.raises(Cancelled):
        engine.open_session()
    assert backend.num_sequences() == 0
    assert not any(thread.name == "allinone-engine" and thread is engine._thread for thread in threading.enumerate())
    engine.close()
    session.close()


# Limits and refusals


def test_full_queue_refuses_all_or_nothing(backend: RecordingBackend, byte_tokenizer: ByteTokenizer) -> None:
    """A pair is never torn apart; room comes back when requests are admitted."""
    with Engine(backend, byte_tokenizer, max_queue=3) as engine:
        backend.hold()
        running = engine.submit(score_request())[0]
        assert backend.entered.wait(30)
        waiting = engine.submit(score_request(), score_request())
        with pytest.raises(QueueFull, match="limit of 3") as caught:
            engine.submit(score_request(), score_request())
        assert caught.value.retryable and caught.value.retry_after_s == 1.0, "nothing has ended yet"
        third = engine.submit(score_request())[0]
        backend.go()
        for ticket in (running, *waiting, third):
            ticket.result()
        until(lambda: engine.stats().num_waiting == 0)
        engine.submit(score_request(), score_request(), score_request())[2].result()
        stats = engine.stats()
        assert stats.expected_wait_s(10_000) == round(10_000 * stats.step_s / stats.num_ended, 2) > 0


def test_memory_budget_makes_requests_wait_and_evicts_what_is_idle(
    backend: RecordingBackend, byte_tokenizer: ByteTokenizer
) -> None:
    """Reserved up front, so nothing runs out half-way; prefixes of other tasks make room."""
    with Engine(backend, byte_tokenizer, max_cached_tokens=100, max_prefix_tokens=100) as engine:
        for name in (b"a", b"b", b"c", b"d"):
            engine.score(score_request(b"x" * 10, prefix_ids=tuple(name * 40)))
        assert engine.stats().num_kv_tokens <= 100 and engine.stats().prefix_evictions >= 2
        streams = [engine.stream(generate_request(bytes([c]) * 20, max_tokens=30, prefix_ids=())) for c in b"efgh"]
        texts = [stream.result().finish_reason for stream in streams]
        assert texts == ["length"] * 4
    running = [len(batch) for batch in backend.batches]
    assert max(running) <= 2, "two streams of 50 tokens fit, not more"


def test_output_is_limited_by_the_room_there_is(backend: RecordingBackend, byte_tokenizer: ByteTokenizer) -> None:
    """More output than the budget or the context allows ends with "length", not with an error half-way."""
    with Engine(backend, byte_tokenizer, max_cached_tokens=60) as engine:
        generation = engine.stream(generate_request(b"x" * 20, max_tokens=8000, prefix_ids=())).result()
        assert (generation.finish_reason, len(generation.token_ids)) == ("length", 40)
        with pytest.raises(CacheFull, match="60"):
            engine.stream(generate_request(b"x" * 60, prefix_ids=())).result()


def test_text_longer_than_the_context_is_refused_with_both_numbers(byte_tokenizer: ByteTokenizer) -> None:
    """At submission where possible."""
    backend = RecordingBackend(max_context_tokens=50)
    with Engine(backend, byte_tokenizer) as engine:
        with pytest.raises(ContextLengthExceeded, match="50"):
            engine.submit(score_request(b"x" * 40))
        exactly = score_request(b"x" * (50 - len(PREFIX)))
        assert engine.score(exactly).best in LABELS
        full = engine.stream(generate_request(b"x" * (50 - len(PREFIX) - 5), max_tokens=100)).result()
        assert (full.finish_reason, len(full.token_ids)) == ("length", 5)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (score_request(b""), InvalidInput),
        (generate_request(b""), InvalidInput),
        (score_request(prefix_ids=(999,)), InvalidInput),
        (score_request(input_ids=(-1,)), InvalidInput),
        (score_request(label_ids={"a": (259,)}), InvalidInput),
        (generate_request(sampling=SamplingParams(top_p=7)), InvalidInput),
        (score_request(label_ids={}), VerbalizerError),
        (score_request(label_ids={"long": (1,) * (PREFILL_CHUNK_TOKENS + 1), "a": (2,)}), VerbalizerError),
    ],
)
def test_malformed_request_is_refused_at_submission(
    engine: Engine, request_: ScoreRequest | GenerateRequest, error: type[AllInOneError]
) -> None:
    """On the caller's thread, and its good neighbour is not queued either."""
    with pytest.raises(error):
        engine.submit(score_request(), request_)
    assert engine.score(score_request()).best in LABELS
    assert engine.stats().num_steps == 2


def test_engine_refuses_a_tokenizer_that_does_not_fit(byte_tokenizer: ByteTokenizer) -> None:
    """A wrong tokenizer gives fluent nonsense: better no engine."""
    with pytest.raises(TokenizerMismatch, match="259"):
        Engine(FakeBackend(vocab_size=100), byte_tokenizer)
    with pytest.raises(ConfigError, match="max_batch_tokens = 1"):
        Engine(FakeBackend(), byte_tokenizer, max_batch_tokens=1)


def test_many_threads_get_their_own_answers(engine: Engine) -> None:
    """One engine, many callers: every answer is the one it would get alone."""
    texts = [b"text number %d" % i for i in range(24)]
    alone = [engine.score(score_request(text)).logprobs for text in texts]
    streams = [engine.stream(generate_request(text)).result().text for text in texts]
    answers: dict[int, tuple[object, str]] = {}

    def call(i: int) -> None:
        answers[i] = (
            engine.score(score_request(texts[i])).logprobs,
            engine.stream(generate_request(texts[i])).result().text,
        )

    threads = [threading.Thread(target=call, args=(i,)) for i in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [answers[i] for i in range(24)] == list(zip(alone, streams, strict=True))


def test_logit_bias_moves_tokens_but_not_forbidden_ones(engine: Engine) -> None:
    """A client may ban or force what can be said; a control token without text stays unsayable."""

    def say(bias: dict[int, float]) -> Generation:
        return engine.stream(generate_request(sampling=SamplingParams(max_tokens=4, logit_bias=bias))).result()

    plain = say({})
    assert say({65: 100.0}).text == "AAAA"
    assert plain.token_ids[0] not in say({plain.token_ids[0]: -100.0}).token_ids
    assert say({257: 1000.0}).token_ids == plain.token_ids
    with pytest.raises(InvalidInput, match="259"):
        say({259: 1.0})
