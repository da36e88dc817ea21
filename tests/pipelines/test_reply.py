"""Mood → reply: fused equals sequential, turns cost their own tokens only, nothing is left half-done."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from allinone import AllInOne
from allinone.backends.fake import FakeBackend
from allinone.engine.engine import Engine
from allinone.engine.requests import Request
from allinone.errors import AllInOneError, ContextLengthExceeded, InvalidInput, ModelError, StreamConsumed
from allinone.loading import LoadedModel, load_model
from allinone.pipelines.conversation import Conversation


@pytest.fixture
def ai() -> Iterator[AllInOne]:
    with AllInOne.load(backend="fake") as ai:
        yield ai


def talk(ai: AllInOne, texts: list[str]) -> list[tuple[object, str]]:
    conversation = ai.conversation()
    return [
        (reply.mood.probs, "".join(event.text for event in reply))
        for reply in (ai.reply(text, conversation) for text in texts)
    ]


def greedy(ai: AllInOne) -> AllInOne:
    """The same tasks without sampling, so that two runs can be compared."""
    import dataclasses

    chat = ai.tasks.get("chat")
    quiet = dataclasses.replace(chat, config=dataclasses.replace(chat.config, temperature=0.0, max_tokens=20))
    get = ai.tasks.get
    ai.tasks.get = lambda name: quiet if name == "chat" else get(name)  # type: ignore[method-assign]
    return ai


def remembered(ai: AllInOne, conversation: Conversation) -> str:
    """The conversation as the model sees it, control tokens written out."""
    names = {token_id: name for name, token_id in ai.model.tokenizer.control_tokens.items()}
    session = conversation._session
    assert session is not None
    pieces = [
        names[token_id].encode() if token_id in names else ai.model.tokenizer.token_bytes(token_id)
        for token_id in session.ids
    ]
    return b"".join(pieces).decode(errors="replace")


def speaking(max_context_tokens: int = 8192) -> AllInOne:
    """A model that answers every turn with "OK" and ends it."""
    fake = load_model(backend="fake")
    end = fake.tokenizer.control_tokens["<|im_end|>"]
    backend = FakeBackend(script={tuple(b"assistant\n"): (*b"OK", end)}, max_context_tokens=max_context_tokens)
    model = LoadedModel(
        name="fake", quantization="none", backend=backend, tokenizer=fake.tokenizer, template=fake.template
    )
    with AllInOne.load(backend="fake") as other:
        return AllInOne(model, other.tasks)


@contextmanager
def interrupted_after(seconds: float, *, also: Callable[[], object]) -> Iterator[None]:
    """The main thread gets a KeyboardInterrupt while it waits; `also` is called at that moment."""

    def interrupt(*_: object) -> None:
        also()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def failing(ai: AllInOne, is_to_fail: Callable[[], bool]) -> None:
    """Let the backend fail from the moment the condition holds."""
    extend = ai.model.backend.extend

    def maybe(batch: Any) -> Any:
        if is_to_fail():
            raise RuntimeError("bad kernel")
        return extend(batch)

    ai.model.backend.extend = maybe  # type: ignore[method-assign]


def test_reply_has_the_mood_before_the_first_token(ai: AllInOne) -> None:
    reply = ai.reply("今天心情很好")
    assert reply.mood.label in ("正面", "负面", "中性")
    events = list(reply)
    assert events[-1].finish_reason in ("stop", "length")
    assert reply.result().text == "".join(event.text for event in events).strip()


def test_reply_fused_equals_sequential(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scoring the mood in the batch that prefills the chat changes neither."""
    texts = ["今天的实验终于成功了", "I failed my exam", "明天几点开会？"]
    with AllInOne.load(backend="fake") as fused:
        expected = talk(greedy(fused), texts)

    submit = Engine.submit

    def one_at_a_time(engine: Engine, *requests: Request) -> tuple[object, ...]:
        tickets = []
        for request in requests:
            (ticket,) = submit(engine, request)
            if len(requests) > 1:
                ticket.result()
            tickets.append(ticket)
        return tuple(tickets)

    monkeypatch.setattr(Engine, "submit", one_at_a_time)
    with AllInOne.load(backend="fake") as sequential:
        assert talk(greedy(sequential), texts) == expected


def test_reply_scores_and_prefills_in_one_step(ai: AllInOne) -> None:
    """The fused step is real: with warm prefixes, mood and chat prefill share one call of the backend."""
    ai.reply("warm up").result()
    batches: list[int] = []
    extend = ai.model.backend.extend
    ai.model.backend.extend = lambda batch: (batches.append(len(batch)), extend(batch))[1]  # type: ignore[method-assign]
    ai.reply("一起算").result()
    assert batches[0] == 2  # the rest: label continuations, hint, decode steps


def test_turn_50_prefills_only_its_own_tokens(ai: AllInOne) -> None:
    """The conversation's past stays in its sequence."""
    conversation = greedy(ai).conversation()
    for i in range(49):
        ai.reply(f"turn {i}", conversation).result()
    fed = 0
    extend = ai.model.backend.extend

    def counting(batch):  # type: ignore[no-untyped-def]
        nonlocal fed
        fed += sum(len(chunk.input_ids) for chunk in batch)
        return extend(batch)

    ai.model.backend.extend = counting  # type: ignore[method-assign]
    before = conversation.num_tokens
    result = ai.reply("turn 50", conversation).result()
    assert before > 1500 and conversation.num_tokens > before
    mood_tokens = ai.run("sentiment", "turn 50").usage
    own = conversation.num_tokens - before + mood_tokens.num_prompt_tokens
    assert fed <= own + 1
    assert result.usage.num_cached_tokens >= before - 1
    assert len(conversation.turns) == 50


def test_reply_left_early_keeps_what_was_said(ai: AllInOne) -> None:
    conversation = ai.conversation()
    reply = ai.reply("tell me a story", conversation)
    for _ in reply:
        break
    assert len(conversation.turns) == 1
    assert ai.reply("go on", conversation).result().text is not None
    assert len(conversation.turns) == 2


def test_failed_reply_leaves_the_conversation_as_it_was(ai: AllInOne) -> None:
    conversation = ai.conversation()
    ai.reply("hello", conversation).result()
    before = conversation.num_tokens
    for text, error in (("", InvalidInput), ("x" * 5000, ContextLengthExceeded)):
        with pytest.raises(error):
            ai.reply(text, conversation)
    with pytest.raises(AllInOneError):
        ai.reply("in time?", conversation, deadline_s=0.0)
    assert conversation.num_tokens == before and len(conversation.turns) == 1
    assert ai.reply("still there?", conversation).result().finish_reason in ("stop", "length")


def test_conversation_is_well_formed_from_turn_to_turn() -> None:
    """One end to each turn: an end sampled by the model and the template's own once stood side by side."""
    with speaking() as ai:
        conversation = ai.conversation()
        for text in ("a", "b", "c"):
            assert ai.reply(text, conversation).result().text == "OK"
        seen = remembered(ai, conversation)
    turns = seen.split("<|im_start|>")[1:]
    assert [turn.split("\n")[0] for turn in turns] == ["system", *["user", "system", "assistant"] * 3]
    assert all(turn.endswith("<|im_end|>\n") and turn.count("<|im_end|>") == 1 for turn in turns[:-1])
    assert turns[-1] == "assistant\nOK"


def test_conversation_that_forgot_reads_like_a_younger_one() -> None:
    """Turns are forgotten whole, from the user's words to the next user's: no role marker stays behind alone."""
    with speaking(max_context_tokens=1600) as ai:
        old = ai.conversation()
        for i in range(30):
            ai.reply(f"turn {i}", old).result()
        seen = remembered(ai, old)
        num_left = seen.count("<|im_start|>user")
        assert 0 < num_left < 29 and len(old.turns) == 30
        young = ai.conversation()
        for i in range(30 - num_left, 30):
            ai.reply(f"turn {i}", young).result()
        assert remembered(ai, young) == seen


def test_conversation_that_is_full_prefills_rarely() -> None:
    """What stays after forgetting is prefilled again: it makes room for many turns at once."""
    with speaking(max_context_tokens=1600) as ai:
        conversation = ai.conversation()
        cached: list[bool] = []
        for i in range(40):
            before = conversation.num_tokens
            usage = ai.reply(f"turn {i:02}", conversation).result().usage
            cached.append(usage.num_cached_tokens >= before - 1)
        assert not all(cached) and sum(not one for one in cached) <= 8


@pytest.mark.parametrize("num_turns", [0, 2])
@pytest.mark.parametrize("num_events", [0, 3])
def test_reply_that_fails_half_way_leaves_no_trace(ai: AllInOne, num_turns: int, num_events: int) -> None:
    """The reader gets the error, each time, and the conversation goes on as if the turn had not been."""
    conversation = greedy(ai).conversation()  # sampled, it might end by itself before the failure
    for i in range(num_turns):
        ai.reply(f"turn {i}", conversation).result()
    before = conversation.num_tokens
    steps_left = 3 + num_events
    failed = False

    def is_to_fail() -> bool:
        nonlocal steps_left
        steps_left -= 1
        return steps_left < 0 and not failed

    failing(ai, is_to_fail)
    reply = None
    with pytest.raises(ModelError, match="bad kernel"):
        reply = ai.reply("hello", conversation)
        list(reply)
    if reply is not None:
        with pytest.raises(ModelError, match="bad kernel"):
            reply.result()
    failed = True
    assert (conversation.num_tokens, len(conversation.turns)) == (before, num_turns)
    assert ai.reply("again", conversation).result().usage.num_output_tokens
    assert len(conversation.turns) == num_turns + 1


@pytest.mark.parametrize("num_turns", [0, 2])
def test_reply_dropped_unread_leaves_no_trace(ai: AllInOne, num_turns: int) -> None:
    """Nobody knows what it said, so neither does the model."""
    conversation = ai.conversation()
    for i in range(num_turns):
        ai.reply(f"turn {i}", conversation).result()
    seen = remembered(ai, conversation) if num_turns else ""
    ai.reply("never mind", conversation)
    gc.collect()
    ai.reply("hello", conversation).result()
    assert len(conversation.turns) == num_turns + 1
    assert remembered(ai, conversation).startswith(seen) and "never mind" not in remembered(ai, conversation)


def test_next_reply_waits_for_the_one_before(ai: AllInOne) -> None:
    """Two messages in a row, read later: both replies are whole, in order, and remembered."""
    conversation = greedy(ai).conversation()
    first = ai.reply("one", conversation)
    second = ai.reply("two", conversation)
    said = [reply.result().text for reply in (first, second)]
    assert [turn.reply for turn in conversation.turns] == said
    other = ai.conversation()
    assert [ai.reply(text, other).result().text for text in ("one", "two")] == said


def test_conversation_reset_while_a_reply_runs(ai: AllInOne) -> None:
    """The reply may be read to its end, and belongs to nobody's past."""
    conversation = ai.conversation()
    reply = ai.reply("hello", conversation)
    conversation.reset()
    assert reply.result().usage.num_output_tokens
    assert not conversation.turns and conversation.num_tokens == 0
    ai.reply("hello again", conversation).result()
    assert len(conversation.turns) == 1


def test_reply_is_iterated_once(ai: AllInOne) -> None:
    """A second reader is refused and does not stop the first."""
    reply = ai.reply("hello")
    events = iter(reply)
    next(events)
    with pytest.raises(StreamConsumed):
        iter(reply)
    assert list(events)[-1].finish_reason in ("stop", "length")


def test_deadline_before_the_first_token_leaves_no_trace(ai: AllInOne, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mood came in time, the reply did not begin: the turn is taken back."""
    conversation = ai.conversation()
    ai.reply("hello", conversation).result()
    before = conversation.num_tokens
    with monkeypatch.context() as patch:
        patch.setattr("allinone.pipelines.conversation._remaining_s", lambda *_: 0.0)
        result = ai.reply("late", conversation, deadline_s=60).result()
    assert (result.finish_reason, result.text, result.usage.num_output_tokens) == ("deadline", "", 0)
    assert conversation.num_tokens == before and len(conversation.turns) == 1


def test_interrupted_wait_for_the_mood_leaves_no_trace(ai: AllInOne) -> None:
    """Ctrl-C while the mood is scored: the main thread wakes up, and the conversation is as it was."""
    conversation = ai.conversation()
    ai.reply("hello", conversation).result()
    before = conversation.num_tokens
    go = threading.Event()
    extend = ai.model.backend.extend

    def held(batch: Any) -> Any:
        assert go.wait(30)
        return extend(batch)

    ai.model.backend.extend = held  # type: ignore[method-assign]
    with interrupted_after(0.05, also=go.set), pytest.raises(KeyboardInterrupt):
        ai.reply("stop me", conversation)
    assert conversation.num_tokens == before and len(conversation.turns) == 1
    ai.reply("go on", conversation).result()
    assert len(conversation.turns) == 2


def test_conversation_forgets_its_oldest_turns_when_the_context_is_full(ai: AllInOne) -> None:
    """A chat never dies of its own length."""
    conversation = ai.conversation()
    for i in range(12):
        ai.reply(f"{i} " + "x" * 700, conversation).result()
    assert conversation.num_tokens <= ai.model.backend.info.max_context_tokens
    assert len(conversation.turns) == 12


def test_conversation_reset_gives_everything_back(ai: AllInOne) -> None:
    conversation = ai.conversation()
    ai.reply("hello", conversation).result()
    conversation.reset()
    assert conversation.num_tokens == 0 and not conversation.turns
    ai.run("sentiment", "settle")  # a step, so that the engine has seen the close
    assert ai.stats().num_resident_sessions == 0


def test_english_ui_uses_the_english_wording() -> None:
    with AllInOne.load(backend="fake", language="en") as ai:
        reply = ai.reply("hello")
        assert reply.mood.task == "sentiment.en" and reply.result().task == "chat.en"
