"""What a program sends without a task is a value everywhere, its system message too: by the path the server takes."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest

from allinone.engine.requests import GenerateRequest
from allinone.tasks.encoder import PromptEncoder
from allinone.tasks.raw import RawRequests

from .hostile_values import hostile_values, split_values
from .test_control_tokens import control_counts, text_side

NUM_VALUES = 10_000
ROLES = ("system", "user", "assistant", "user", "assistant", "user")


class Recorded(RawRequests):
    """Stands for its own engine, and keeps what that would be asked."""

    def __init__(self, name: str) -> None:
        text = text_side(name)
        self.encoder = PromptEncoder(text.tokenizer, text.template)
        self.max_context_tokens = 1_000_000
        self.engine = self  # type: ignore[assignment]

    def stream(self, request: GenerateRequest) -> Any:
        """As `Engine.stream`."""
        return request

    def ask(self, values: list[str]) -> GenerateRequest:
        """A conversation of these contents."""
        turns = [{"role": role, "content": value} for role, value in zip(ROLES, values, strict=True)]
        return self.complete(turns)  # type: ignore[return-value]


@cache
def harmless(name: str) -> tuple[GenerateRequest, int]:
    asked = Recorded(name).ask(["x"] * len(ROLES))
    return asked, sum(control_counts(text_side(name), (*asked.prefix_ids, *asked.input_ids)).values())


@pytest.mark.parametrize("name", ["byte", "bundled", "qwen"])
def test_no_content_becomes_a_control_token_a_turn_or_a_part_of_the_prefix(name: str) -> None:
    """Whatever is sent, and however it is cut into messages."""
    rng = random.Random(4)
    recorded = Recorded(name)
    plain, num_control = harmless(name)
    assert num_control >= 2 * len(ROLES), "the markers of the turns are there"
    values: list[str] = []
    num_seen = 0
    for hostile in hostile_values(NUM_VALUES, seed=5):
        values += [hostile] if rng.random() < 0.9 else split_values(rng)
        while len(values) >= len(ROLES):
            sent, values = values[: len(ROLES)], values[len(ROLES) :]
            asked = recorded.ask(sent)
            ids = (*asked.prefix_ids, *asked.input_ids)
            assert asked.prefix_ids == plain.prefix_ids, sent
            assert sum(control_counts(text_side(name), ids).values()) == num_control, sent
            num_seen += len(sent)
    assert num_seen >= NUM_VALUES - len(ROLES)


@pytest.mark.parametrize("name", ["byte", "bundled", "qwen"])
def test_no_text_becomes_a_control_token(name: str) -> None:
    """A text to go on with has no turns at all."""
    recorded = Recorded(name)
    for hostile in hostile_values(2_000, seed=6):
        asked: Any = recorded.complete(hostile)
        assert not asked.prefix_ids and not control_counts(text_side(name), asked.input_ids)
        assert recorded.encoder.tokenizer.detokenize(asked.input_ids) == hostile
