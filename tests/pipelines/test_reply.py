"""Mood → reply: fused equals sequential, turns cost their own tokens only, nothing is left half-done."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from allinone import AllInOne
from allinone.engine.engine import Engine
from allinone.engine.requests import Request
from allinone.errors import AllInOneError, ContextLengthExceeded, InvalidInput


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
