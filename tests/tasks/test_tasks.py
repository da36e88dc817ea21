"""What each kind of task asks of the engine and how its answer is read, on the fake backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from allinone import AllInOne
from allinone.errors import ContextLengthExceeded, InvalidInput, OutputParseError, VerbalizerError
from allinone.models.tokenizer import Tokenizer
from allinone.prompts.prompt_file import LabelSpec
from allinone.tasks.encoder import PromptEncoder
from allinone.tasks.label import verbalize
from allinone.types import Message, Segment

JSON_TASK = """---
description: thinks, then answers
config: {temperature: 0, max_tokens: MAX}
input: {schema: {text: string}}
output:
  format: json
  schema:
    type: object
    properties:
      reasoning: {type: string, maxLength: 12}
      answer: {type: string, enum: ["yes", "no"]}
    required: [reasoning, answer]
    additionalProperties: false
allinone.kind: json
---
{{role "system"}}
Think first, then answer.
{{role "user"}}
{{text}}
"""


def load(tmp_path: Path, name: str, text: str) -> AllInOne:
    (tmp_path / f"{name}.prompt").write_text(text, encoding="utf-8")
    return AllInOne.load(backend="fake", tasks=tmp_path)


def user(text: str, *, trusted: bool = False) -> Message:
    return Message(role="user", content=(Segment(text=text, trusted=trusted),))


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    with AllInOne.load(backend="fake") as ai:
        return ai.encoder


def test_encode_prefix_is_the_leading_trusted_text(encoder: PromptEncoder) -> None:
    """Everything up to the first user value is shared; nothing of the user's text is in it."""
    messages = [Message(role="system", content=(Segment(text="Be kind.", trusted=True),)), user("hello")]
    prompt = encoder.encode(encoder.segments(messages))
    ids = prompt.prefix_ids + prompt.input_ids
    assert encoder.tokenizer.detokenize(prompt.prefix_ids).endswith("user\n")
    assert encoder.tokenizer.detokenize(prompt.input_ids).startswith("hello")
    assert ids.count(encoder.tokenizer.control_tokens["<|im_start|>"]) == 3


def test_encode_prompt_without_values_keeps_one_id_to_feed(encoder: PromptEncoder) -> None:
    prompt = encoder.encode(encoder.segments([user("hello", trusted=True)]))
    assert len(prompt.input_ids) == 1 and prompt.prefix_ids


class Counted:
    """A tokenizer that remembers what it was asked."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.asked: list[str] = []
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def tokenize(self, text: str, *, control: bool) -> list[int]:
        """As the tokenizer does."""
        self.asked.append(text)
        return self._tokenizer.tokenize(text, control=control)


def test_ids_of_the_operators_texts_are_kept_and_never_those_of_a_user(encoder: PromptEncoder) -> None:
    """Otherwise the time of an answer would tell whether somebody else had said the same."""
    counted: Any = Counted(encoder.tokenizer)
    kept = PromptEncoder(counted, encoder.template)
    messages = [Message(role="system", content=(Segment(text="Be kind.", trusted=True),)), user("secret")]
    first = kept.encode(kept.segments(messages))
    asked = list(counted.asked)
    assert asked.count("secret") == 1 and len(asked) > 2
    assert kept.encode(kept.segments(messages)) == first == encoder.encode(encoder.segments(messages))
    assert counted.asked[len(asked) :] == ["secret"]


def test_labels_of_the_file_are_kept_and_those_of_a_caller_are_not(encoder: PromptEncoder) -> None:
    labels = [LabelSpec(label="good", name="good"), LabelSpec(label="bad", name="bad")]
    counted: Any = Counted(encoder.tokenizer)
    kept = PromptEncoder(counted, encoder.template)
    found = [verbalize(labels, kept, of_operator=is_own) for is_own in (True, True, False, False)]
    assert all(ids == found[0] for ids in found) and counted.asked == ["good", "bad"] * 3


def test_shorten_never_splits_a_character(encoder: PromptEncoder) -> None:
    """A token of a byte-level tokenizer may end inside a character."""
    text, dropped = encoder.shorten("汉字汉字", 7)
    assert text == "汉字" and dropped == 5


def test_long_text_is_an_error_that_gives_both_numbers(tmp_path: Path) -> None:
    with AllInOne.load(backend="fake") as ai, pytest.raises(ContextLengthExceeded, match=r"600 tokens.*at most 512"):
        ai.run("sentiment", "x" * 600)


def test_long_text_is_truncated_where_the_file_says_so(tmp_path: Path) -> None:
    task = JSON_TASK.replace("MAX", "64").replace(
        "allinone.kind: json", "allinone.kind: json\nallinone.limits: {max_input_tokens: 10, on_long: truncate}"
    )
    with load(tmp_path, "think", task) as ai:
        assert ai.run("think", "x" * 25).usage.truncated_tokens == 15
        assert ai.run("think", "x" * 10).usage.truncated_tokens == 0


def test_json_task_keeps_reasoning_before_the_answer(tmp_path: Path) -> None:
    """Chain of thought: the reasoning field is decoded first, so the answer can depend on it."""
    with load(tmp_path, "think", JSON_TASK.replace("MAX", "120")) as ai:
        result = ai.run("think", "is water wet?")
    assert list(result.data) == ["reasoning", "answer"] and result.data["answer"] in ("yes", "no")
    assert result.text is not None and result.text.index("reasoning") < result.text.index("answer")


def test_json_task_cut_short_is_an_error_with_the_raw_text(tmp_path: Path) -> None:
    with load(tmp_path, "think", JSON_TASK.replace("MAX", "6")) as ai, pytest.raises(OutputParseError) as caught:
        ai.run("think", "is water wet?")
    assert caught.value.raw_text.startswith("{") and "max_tokens" in str(caught.value.hint)


def test_labels_that_share_ids_are_refused(encoder: PromptEncoder) -> None:
    twice = [LabelSpec(label="a", name="a"), LabelSpec(label="a", name="b")]
    with pytest.raises(VerbalizerError, match="same token ids"):
        verbalize(twice, encoder)
    with pytest.raises(VerbalizerError, match="no labels"):
        verbalize([], encoder)


def test_labels_on_a_text_task_are_refused() -> None:
    with AllInOne.load(backend="fake") as ai, pytest.raises(InvalidInput, match="has no labels"):
        ai.run("summarize", "text", labels=["a"])


def test_variables_reach_the_prompt_and_unknown_ones_are_refused() -> None:
    with AllInOne.load(backend="fake") as ai:
        formal = ai.run("rewrite", "hi there", style="formal").usage.num_prompt_tokens
        assert ai.run("rewrite", "hi there", style="very formal").usage.num_prompt_tokens == formal + len("very ")
        with pytest.raises(InvalidInput, match="stlye"):
            ai.run("rewrite", "hi there", stlye="formal")
