from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable

import pytest

from allinone.backends.fake import ByteTokenizer, FakeBackend
from allinone.engine.engine import Engine
from allinone.engine.requests import GenerateRequest, Generation, PrefillRequest, SamplingParams, ScoreRequest
from allinone.engine.session import Session
from allinone.errors import ContextLengthExceeded, DeadlineExceeded, InvalidInput, ModelError, UsageError

from .conftest import RecordingBackend

PREFIX = tuple(b"You are kind.")


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread, however slow the machine."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.001)


def say(engine: Engine, session: Session, text: bytes, *, max_tokens: int = 5) -> Generation:
    request = GenerateRequest(session=session, input_ids=tuple(text), sampling=SamplingParams(max_tokens=max_tokens))
    return engine.stream(request).result()


def from_scratch(engine: Engine, ids: tuple[int, ...], *, max_tokens: int = 5) -> tuple[int, ...]:
    """What a fresh conversation with these ids answers."""
    request = GenerateRequest(
        prefix_ids=PREFIX, input_ids=ids[len(PREFIX) :], sampling=SamplingParams(max_tokens=max_tokens)
    )
    return engine.stream(request).result().token_ids


def test_turn_n_prefills_only_its_own_tokens(engine: Engine, backend: RecordingBackend) -> None:
    """Turn 50 costs what turn 2 costs: counted at the backend, and in the usage."""
    with engine.open_session(PREFIX) as session:
        say(engine, session, b"hello")
        for turn in range(2, 51):
            before, had = backend.num_fed, session.num_tokens
            generation = say(engine, session, b"turn %02d" % turn)
            fed = backend.num_fed - before
            assert fed == 1 + 7 + 4, "the pending token, the input, and all output but the last"
            assert generation.usage.num_prompt_tokens == had + 7
            assert generation.usage.num_cached_tokens == had - 1
        assert session.num_tokens == len(PREFIX) + 5 + 49 * 7 + 50 * 5


def test_session_answers_as_a_fresh_conversation_would(engine: Engine) -> None:
    """Its sequence holds exactly its ids, whatever the turns were."""
    with engine.open_session(PREFIX) as session:
        for text in (b"hello", b"and then?", b"x"):
            history = session.ids
            assert say(engine, session, text).token_ids == from_scratch(engine, history + tuple(text))
            assert session.ids[: len(history)] == history


def test_prefill_then_generate_equals_generate(engine: Engine) -> None:
    """Mood → reply feeds a turn in two parts; the reply must be the one of a single part."""
    with engine.open_session(PREFIX) as split, engine.open_session(PREFIX) as whole:
        for text, hint in ((b"I am sad", b" (sad)"), (b"good day", b" (happy)")):
            engine.submit(PrefillRequest(session=split, input_ids=tuple(text)))[0].result()
            assert say(engine, split, hint).token_ids == say(engine, whole, text + hint).token_ids
        assert split.ids == whole.ids


def test_requests_of_one_session_run_one_after_the_other(engine: Engine) -> None:
    """Submitted together, they see each other in order."""
    with engine.open_session(PREFIX) as session, engine.open_session(PREFIX) as other:
        params = SamplingParams(max_tokens=3)
        tickets = engine.submit(
            PrefillRequest(session=session, input_ids=(1, 2)),
            GenerateRequest(session=session, input_ids=(3,), sampling=params),
            GenerateRequest(session=session, input_ids=(4,), sampling=params),
            GenerateRequest(session=other, input_ids=(9,), sampling=params),
        )
        for ticket in tickets:
            ticket.result()
        ids = session.ids[len(PREFIX) :]
        assert (ids[:3], ids[6], len(ids)) == ((1, 2, 3), 4, 10)
        assert other.num_tokens == len(PREFIX) + 4


def test_evicted_session_is_prefilled_again_from_its_ids(
    backend: RecordingBackend, byte_tokenizer: ByteTokenizer
) -> None:
    """Memory for two conversations, five of them: all go on as if nothing had happened, oldest evicted first."""
    with Engine(backend, byte_tokenizer, max_cached_tokens=len(PREFIX) + 45) as engine:
        sessions = [engine.open_session(PREFIX) for _ in range(5)]
        num_rebuilt = 0
        for turn in range(3):
            for number, session in enumerate(sessions):
                history = session.ids
                text = b"%d:%d" % (number, turn)
                generation = say(engine, session, text)
                num_rebuilt += turn > 0 and generation.usage.num_cached_tokens == len(PREFIX)
                assert generation.token_ids == from_scratch(engine, history + tuple(text))
        assert num_rebuilt >= 5, "of ten later turns"
        assert engine.stats().num_kv_tokens <= len(PREFIX) + 45
        say(engine, sessions[-1], b"again")
        again = say(engine, sessions[-1], b"again")
        assert again.usage.num_cached_tokens > len(PREFIX), "the most recent one was kept"
        for session in sessions:
            session.close()


def test_session_evicted_between_prefill_and_reply_is_fed_in_the_same_pieces(
    backend: RecordingBackend, byte_tokenizer: ByteTokenizer
) -> None:
    """Otherwise int8 rounding could give another reply. (It did, with 500 clients.)"""

    def pieces(engine: Engine, *, evict: bool) -> list[int]:
        with engine.open_session(PREFIX) as session, engine.open_session(PREFIX) as other:
            engine.submit(PrefillRequest(session=session, input_ids=(65,) * 300))[0].result()
            if evict:
                say(engine, other, b"x" * 300)
            begun = len(backend.batches)
            usage = say(engine, session, b" (sad)").usage
            assert usage.num_cached_tokens == len(PREFIX) + (0 if evict else 300)
            return [len(chunk.input_ids) for batch in backend.batches[begun:] for chunk in batch]

    with Engine(backend, byte_tokenizer, max_cached_tokens=len(PREFIX) + 400) as engine:
        kept = pieces(engine, evict=False)
        assert pieces(engine, evict=True) == [256, 44, *kept]


def test_reply_does_not_count_as_cached_what_was_prefilled_for_it(engine: Engine) -> None:
    """Only what was there before the turn is."""
    with engine.open_session(PREFIX) as session:
        say(engine, session, b"hello")
        usage = engine.submit(PrefillRequest(session=session, input_ids=(65,) * 30))[0].result()
        assert usage.num_cached_tokens == len(PREFIX) + 9
        request = GenerateRequest(
            session=session,
            input_ids=(66,),
            sampling=SamplingParams(max_tokens=2),
            max_cached_tokens=usage.num_cached_tokens,
        )
        assert engine.stream(request).result().usage.num_cached_tokens == len(PREFIX) + 9


def test_session_is_not_evicted_for_its_own_next_turn(backend: RecordingBackend, byte_tokenizer: ByteTokenizer) -> None:
    """The oldest conversation speaks again: somebody else makes room."""
    with (
        Engine(backend, byte_tokenizer, max_cached_tokens=len(PREFIX) + 60) as engine,
        engine.open_session(PREFIX) as older,
        engine.open_session(PREFIX) as newer,
    ):
        say(engine, older, b"x" * 20)
        say(engine, newer, b"y" * 20)
        assert say(engine, older, b"z" * 15).usage.num_cached_tokens == len(PREFIX) + 24


def test_truncate_takes_turns_back(engine: Engine) -> None:
    """As if they had never been said."""
    with engine.open_session(PREFIX) as session:
        say(engine, session, b"hello")
        keep = session.ids
        say(engine, session, b"a mistake")
        session.truncate(len(keep))
        assert session.ids == keep
        assert say(engine, session, b"well").token_ids == from_scratch(engine, keep + tuple(b"well"))
        session.truncate(len(PREFIX))
        assert say(engine, session, b"anew").token_ids == from_scratch(engine, PREFIX + tuple(b"anew"))


def test_drop_forgets_the_oldest_turns(engine: Engine, backend: RecordingBackend) -> None:
    """The prefix stays, what follows is fed again, once."""
    with engine.open_session(PREFIX) as session:
        say(engine, session, b"oldest")
        start, end = len(PREFIX), session.num_tokens
        say(engine, session, b"newer")
        session.drop(start, end)
        kept = session.ids
        assert kept[: len(PREFIX)] == PREFIX and len(kept) == len(PREFIX) + 10
        before = backend.num_fed
        assert say(engine, session, b"go on").token_ids == from_scratch(engine, kept + tuple(b"go on"))
        assert backend.num_fed - before < 60
        assert say(engine, session, b"x").usage.num_cached_tokens == session.num_tokens - 1 - 6


def test_drop_refuses_what_is_not_a_part_of_the_conversation(engine: Engine) -> None:
    """The prefix is operator text and never cut."""
    with engine.open_session(PREFIX) as session:
        say(engine, session, b"hello")
        for start, end in ((0, 5), (len(PREFIX) - 1, 20), (20, 18), (15, 999)):
            with pytest.raises(UsageError, match="Cannot drop"):
                session.drop(start, end)
        with pytest.raises(UsageError):
            session.truncate(3)
    with pytest.raises(UsageError, match="closed"):
        session.truncate(20)


def test_truncate_waits_for_the_reply_under_way(engine: Engine, backend: RecordingBackend) -> None:
    """Ids never change under a running request."""
    session = engine.open_session(PREFIX)
    backend.step_s = 0.001
    backend.hold()
    stream = engine.stream(GenerateRequest(session=session, input_ids=(1, 2), sampling=SamplingParams(max_tokens=4000)))
    assert backend.entered.wait(30)
    cutter = threading.Thread(target=session.truncate, args=(len(PREFIX),))
    cutter.start()
    backend.go()
    next(stream)
    assert cutter.is_alive()
    stream.cancel()
    cutter.join(30)
    assert session.ids == PREFIX
    session.close()


def test_cancelled_reply_stays_in_the_conversation_as_far_as_it_came(engine: Engine, backend: RecordingBackend) -> None:
    """Ctrl-C stops a reply and keeps the session; when the last event is there, the session is free."""
    backend.step_s = 0.001
    with engine.open_session(PREFIX) as session:
        stream = engine.stream(
            GenerateRequest(session=session, input_ids=(1, 2), sampling=SamplingParams(max_tokens=4000))
        )
        said = [next(stream).token_id for _ in range(3)]
        stream.cancel()
        said += [event.token_id for event in stream if event.token_id is not None]
        assert list(session.ids) == [*PREFIX, 1, 2, *said]
        assert say(engine, session, b"ok").token_ids == from_scratch(
            engine, (*PREFIX, 1, 2, *said, *b"ok"), max_tokens=5
        )


def test_stop_string_does_not_stay_in_the_conversation(byte_tokenizer: ByteTokenizer) -> None:
    """A base model that goes on with "User:" is cut there, in its memory too; a token that is part text stays."""
    backend = FakeBackend(script={tuple(b"hi"): tuple(b"ok\nUser: more")})
    with Engine(backend, byte_tokenizer) as engine, engine.open_session(PREFIX) as session:
        sampling = SamplingParams(max_tokens=50, stop=("\nUser:",))
        request = GenerateRequest(session=session, input_ids=tuple(b"hi"), sampling=sampling)
        assert engine.stream(request).result().text == "ok"
        assert session.ids == PREFIX + tuple(b"hiok")
        assert say(engine, session, b"!").token_ids == from_scratch(engine, PREFIX + tuple(b"hiok!"))
    with pytest.raises(UsageError):
        session.truncate(20)


def test_stop_id_does_not_stay_in_the_conversation(byte_tokenizer: ByteTokenizer) -> None:
    """Once kept, it stood twice before every later turn: the template ends each turn, however the reply ended."""
    end = byte_tokenizer.control_tokens["<|im_end|>"]
    backend = FakeBackend(script={tuple(b"hi"): (*b"ok", end), tuple(b"mute"): (end,)})
    with Engine(backend, byte_tokenizer) as engine, engine.open_session(PREFIX) as session:
        assert say(engine, session, b"hi").token_ids == (*b"ok", end)
        assert session.ids == PREFIX + tuple(b"hiok")
        assert say(engine, session, b"mute").token_ids == (end,)
        assert session.ids == PREFIX + tuple(b"hiokmute"), "a reply that is nothing but its end is a reply"
        assert say(engine, session, b"!").token_ids == from_scratch(engine, PREFIX + tuple(b"hiokmute!"))


def test_request_that_came_to_nothing_leaves_no_trace(engine: Engine, backend: RecordingBackend) -> None:
    """A failed step, a missed deadline, a text too long: the conversation is as it was before."""
    with engine.open_session(PREFIX) as session:
        say(engine, session, b"hello")
        before = session.ids
        backend.error = RuntimeError("bad kernel")
        with pytest.raises(ModelError, match="bad kernel"):
            say(engine, session, b"fails")
        assert session.ids == before
        assert backend.num_sequences() == 1, "what a failed step may have written is not used again"
        with pytest.raises(ContextLengthExceeded):
            say(engine, session, b"x" * backend.info.max_context_tokens)
        assert session.ids == before
        late = engine.submit(PrefillRequest(session=session, input_ids=(1,), deadline_s=0.0))[0]
        with pytest.raises(DeadlineExceeded):
            late.result()
        assert session.ids == before
        assert say(engine, session, b"well").token_ids == from_scratch(engine, before + tuple(b"well"))


def test_request_without_anything_to_feed_is_refused(engine: Engine) -> None:
    """There are no logits to continue from."""
    with engine.open_session(PREFIX) as session:
        with pytest.raises(InvalidInput, match="nothing to continue"):
            say(engine, session, b"")
        say(engine, session, b"hello")
        assert len(say(engine, session, b"").token_ids) == 5, "a pending token is enough"
        engine.submit(PrefillRequest(session=session, input_ids=(1,)))[0].result()
        with pytest.raises(InvalidInput, match="nothing to continue"):
            say(engine, session, b"")
        with pytest.raises(InvalidInput):
            engine.submit(PrefillRequest(session=session, input_ids=()))
        with pytest.raises(InvalidInput, match="prefix of its own"):
            engine.submit(GenerateRequest(session=session, prefix_ids=(1,), input_ids=(2,)))


@pytest.mark.parametrize("how", ["close", "with", "collect"])
def test_session_gives_its_memory_back(engine: Engine, backend: RecordingBackend, how: str) -> None:
    """Closed, left or forgotten: the sequence is freed, without a further request."""
    session = engine.open_session(PREFIX)
    say(engine, session, b"hello")
    assert backend.num_sequences() == 2
    if how == "close":
        session.close()
        session.close()
    elif how == "with":
        with session:
            pass
    else:
        del session
        gc.collect()
    until(lambda: backend.num_sequences() == 1)
    until(lambda: engine.stats().num_resident_sessions == 0)


def test_session_closed_while_its_reply_runs_lets_it_finish(engine: Engine, backend: RecordingBackend) -> None:
    """Closing harms nobody; memory comes back afterwards; later requests are refused."""
    session = engine.open_session(PREFIX)
    stream = engine.stream(GenerateRequest(session=session, input_ids=(1,), sampling=SamplingParams(max_tokens=50)))
    next(stream)
    session.close()
    assert len(list(stream)) == 49
    until(lambda: backend.num_sequences() == 1)
    with pytest.raises(UsageError, match="closed"):
        engine.submit(
            ScoreRequest(prefix_ids=(), input_ids=(1,), label_ids={"a": (1,)}),
            PrefillRequest(session=session, input_ids=(1,)),
        )


def test_session_shortened_while_idle_frees_at_once(engine: Engine) -> None:
    """The budget sees it before the next turn."""
    with engine.open_session(PREFIX) as session:
        say(engine, session, b"x" * 300)
        assert engine.stats().num_kv_tokens > 300
        session.truncate(len(PREFIX) + 10)
        until(lambda: engine.stats().num_kv_tokens == len(PREFIX) + 10)


def test_sessions_with_the_same_prefix_share_it(engine: Engine, backend: RecordingBackend) -> None:
    """A hundred conversations, one prefill of the persona."""
    sessions = [engine.open_session(PREFIX) for _ in range(10)]
    for ticket in engine.submit(*[PrefillRequest(session=session, input_ids=(1, 2)) for session in sessions]):
        ticket.result()
    assert backend.num_fed == len(PREFIX) + 20
    for session in sessions:
        session.close()
