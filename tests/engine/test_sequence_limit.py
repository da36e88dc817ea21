"""A backend with few sequences at a time (llama.cpp has 256): requests wait, idle ones make room, nothing fails."""

from __future__ import annotations

import threading

import pytest

from allinone.backends.fake import ByteTokenizer, FakeBackend
from allinone.engine.engine import Engine
from allinone.engine.requests import GenerateRequest, SamplingParams, ScoreRequest
from allinone.errors import CacheFull

MOST = 7
BRANCHING = {"aab": (1, 1, 2), "aba": (1, 2, 3), "bab": (2, 1, 3), "c": (3,)}
"""Labels with several branches: each needs a sequence after the first id."""


def answers_of(backend: FakeBackend) -> list[object]:
    """What mixed work from several threads gets: labels of four tasks, streams, and conversations in turn."""
    with Engine(backend, ByteTokenizer()) as engine:
        sessions = [engine.open_session(tuple(b"You are kind.")) for _ in range(9)]
        found: dict[tuple[str, int], object] = {}

        def score(task: int) -> None:
            for number in range(6):
                request = ScoreRequest(
                    prefix_ids=tuple(b"task %d" % task), input_ids=tuple(b"text %d" % number), label_ids=BRANCHING
                )
                found["score", 10 * task + number] = engine.score(request).logprobs

        def talk(number: int) -> None:
            for turn in range(3):
                request = GenerateRequest(
                    session=sessions[number], input_ids=tuple(b"turn %d" % turn), sampling=SamplingParams(max_tokens=6)
                )
                found["talk", 10 * number + turn] = engine.stream(request).result().token_ids

        threads = [threading.Thread(target=score, args=(task,)) for task in range(4)]
        threads += [threading.Thread(target=talk, args=(number,)) for number in range(len(sessions))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(found) == 4 * 6 + 9 * 3
        return [found[key] for key in sorted(found)]


def test_few_sequences_give_the_same_answers_as_many() -> None:
    """Nine conversations, four prefixes and branches of labels on seven sequences."""
    assert answers_of(FakeBackend(max_sequences=MOST)) == answers_of(FakeBackend())


def test_request_that_needs_more_than_there_are_is_refused_and_says_why(byte_tokenizer: ByteTokenizer) -> None:
    """It alone, and what comes after it is answered."""
    with Engine(FakeBackend(max_sequences=4), byte_tokenizer) as engine:
        request = ScoreRequest(prefix_ids=(7,), input_ids=(8,), label_ids=BRANCHING)
        with pytest.raises(CacheFull, match="backend has 4"):
            engine.score(request)
        few = ScoreRequest(prefix_ids=(7,), input_ids=(8,), label_ids={"a": (1,), "b": (2,)})
        assert set(engine.score(few).logprobs) == {"a", "b"}
