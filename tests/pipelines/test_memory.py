"""A conversation that is written down and read again goes on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from allinone import AllInOne
from allinone.errors import StoreError
from allinone.pipelines.conversation import Conversation, Memory

TEXTS = ["今天的实验终于成功了", "可是我有点累", "周末想去爬山", "谢谢你"]


@pytest.fixture(scope="module")
def ai() -> Iterator[AllInOne]:
    with AllInOne.load() as ai:
        yield ai


def talk(conversation: Conversation, texts: list[str]) -> list[str]:
    """Replies; sampled, so only the ids that were fed can be compared between conversations."""
    return [conversation.reply(text).result().text or "" for text in texts]


def fed(ai: AllInOne, conversation: Conversation, text: str) -> tuple[int, ...]:
    """All ids that the model has seen of a conversation when it begins to answer `text`."""
    talk(conversation, [text])
    memory = conversation.memory()
    return (memory.prefix_ids + memory.ids)[: memory.starts[-1]]


def test_restored_conversation_feeds_the_same_ids(ai: AllInOne) -> None:
    """Exactly the ids that were decoded: never text that was rendered again."""
    first = ai.conversation()
    talk(first, TEXTS[:2])
    memory = Memory.from_bytes(first.memory().to_bytes())
    assert memory == first.memory()
    second = ai.conversation()
    second.restore(first.turns, memory)
    assert second.num_tokens == first.num_tokens and second.turns == first.turns
    assert fed(ai, second, TEXTS[2]) == fed(ai, first, TEXTS[2])


@pytest.mark.parametrize("num_turns", [1, 2, 3])
def test_memory_without_its_last_turn_is_the_memory_before(ai: AllInOne, num_turns: int) -> None:
    conversation = ai.conversation()
    talk(conversation, TEXTS[: num_turns - 1])
    before = conversation.memory()
    talk(conversation, TEXTS[num_turns - 1 : num_turns])
    found = conversation.memory().without_last_turn()
    assert (found.ids, found.starts, found.ends) == (before.ids, before.starts, before.ends)


def test_memory_of_another_prompt_is_read_again_from_its_texts(ai: AllInOne) -> None:
    """The turns stay, as text: as many turn markers as before, and every word."""
    first = ai.conversation()
    talk(first, TEXTS[:3])
    foreign = replace(first.memory(), versions=("other", "other"))
    second = ai.conversation()
    second.restore(first.turns, foreign)
    memory, tokenizer = second.memory(), ai.encoder.tokenizer
    text = tokenizer.detokenize([i for i in memory.prefix_ids + memory.ids if i not in tokenizer.control_ids])
    assert all(turn.text in text and turn.reply in text for turn in first.turns)
    starts, was = tokenizer.control_tokens["<|im_start|>"], first.memory()
    assert (memory.prefix_ids + memory.ids).count(starts) == (was.prefix_ids + was.ids).count(starts)
    assert talk(second, TEXTS[3:4])[0]


def test_long_restored_conversation_forgets_its_oldest_turns(ai: AllInOne) -> None:
    first = ai.conversation()
    long_text = "今天天气很好。" * 60
    talk(first, [long_text] * 6)
    second = ai.conversation()
    second.restore(first.turns, first.memory())
    talk(second, [long_text])
    assert second.num_tokens <= ai.max_context_tokens
    memory = second.memory()
    assert len(memory.starts) <= 7 and memory.ends[-1] == second.num_tokens


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"model": 1}',
        b"\xff",
        b'{"model":"m","versions":[],"prefix_ids":[1],"ids":[2],"starts":[1],"ends":[9]}',
    ],
)
def test_damaged_memory_is_refused(data: bytes) -> None:
    with pytest.raises(StoreError):
        Memory.from_bytes(data)


def test_foreign_ids_in_a_memory_are_refused(ai: AllInOne) -> None:
    """A database that somebody changed must not make the model read outside its tables."""
    conversation = ai.conversation()
    talk(conversation, TEXTS[:1])
    memory = conversation.memory()
    bad = replace(memory, ids=(10**9, *memory.ids[1:]))
    with pytest.raises(Exception, match="outside the model's vocabulary"):
        ai.conversation().restore(conversation.turns, bad)
