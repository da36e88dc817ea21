"""No value yields a control id or changes the number of turns: 100,000 values on every tokenizer, by the real path.

The path is the product's: a `.prompt` file renders messages, the model's chat template makes segments of them, the
encoder makes ids. Values sit where users put them: the text, the history, the mood.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allinone.backends.fake import ByteTokenizer
from allinone.loading import load_model
from allinone.models.chat_template import ChatTemplate, read_gguf_template
from allinone.models.gguf import read_gguf_header
from allinone.models.tokenizer import BpeTokenizer, Tokenizer
from allinone.prompts.prompt_file import PromptFile, load_prompt
from allinone.tasks.encoder import PromptEncoder
from allinone.types import Message, Segment

from .hostile_values import CONTROL_STRINGS, hostile_values, split_values

NUM_VALUES = 100_000
VALUES_PER_PROMPT = 100
QWEN_VOCABULARY = Path(
    os.environ.get("ALLINONE_QWEN_VOCABULARY", Path(__file__).parents[3] / "shared" / "qwen2-vocab.gguf")
)
BUNDLED = Path(str(files("allinone.models.bundled")))


@dataclass(frozen=True)
class Text:
    """The text side of a model."""

    tokenizer: Tokenizer
    template: ChatTemplate


@cache
def text_side(name: str) -> Text:
    """Of the fake model, the bundled one, or of Qwen's real vocabulary."""
    if name == "byte":
        model = load_model(backend="fake")
        return Text(model.tokenizer, model.template)
    path = QWEN_VOCABULARY if name == "qwen" else max(BUNDLED.glob("*.gguf"), default=BUNDLED / "missing.gguf")
    if not path.exists():
        assert not os.environ.get("CI"), f"{path} is missing: the continuous integration must have it"
        pytest.skip(f"{path.name} is not on this machine")
    header = read_gguf_header(path)
    tokenizer = BpeTokenizer.from_gguf(header.metadata, file=path.name)
    return Text(tokenizer, read_gguf_template(header.metadata, name=path.stem))


@cache
def prompt(name: str) -> PromptFile:
    """A built-in task."""
    return load_prompt(Path(str(files("allinone.prompts.builtin") / f"{name}.prompt")))


def value(text: str) -> Segment:
    return Segment(text=text, trusted=False)


def history(values: Sequence[str]) -> tuple[Message, ...]:
    """Turns of two adjacent values each, so that a control string may be split over a boundary."""
    return tuple(
        Message(role="assistant" if i % 4 else "user", content=(value(values[i]), value(values[i + 1])))
        for i in range(0, len(values) - 1, 2)
    )


def control_counts(text: Text, ids: Sequence[int]) -> Counter[int]:
    return Counter(token_id for token_id in ids if token_id in text.tokenizer.control_ids)


def chat_segments(text: Text, values: Sequence[str]) -> tuple[Segment, ...]:
    """A chat prompt in which every value has a place of its own."""
    variables = {"text": values[0], "mood": values[1]}
    messages = prompt("chat").render(variables, history=history(values[2:]))
    return PromptEncoder(text.tokenizer, text.template).segments(messages)


@cache
def harmless_chat(name: str, num_values: int) -> tuple[tuple[Segment, ...], Counter[int]]:
    """The same prompt with harmless values, and the control ids that it has to have."""
    text = text_side(name)
    segments = chat_segments(text, ["x"] * num_values)
    return segments, control_counts(text, PromptEncoder(text.tokenizer, text.template).ids(segments))


def check_prompt(name: str, values: Sequence[str]) -> None:
    """All values in one chat prompt: only its own markers are control ids, and every value keeps its bytes."""
    text = text_side(name)
    harmless, expected = harmless_chat(name, len(values))
    hostile = chat_segments(text, values)
    assert [s.trusted for s in hostile] == [s.trusted for s in harmless]
    assert [s.text for s in hostile if s.trusted] == [s.text for s in harmless if s.trusted], "operator text changed"
    assert sorted(s.text for s in hostile if not s.trusted) == sorted(values), "a value was lost or altered"
    ids = PromptEncoder(text.tokenizer, text.template).ids(hostile)
    assert control_counts(text, ids) == expected, "a value became a control id, or the number of turns changed"
    said = text.tokenizer.detokenize(ids)
    shown = [s.text for s in hostile]
    for token in text.tokenizer.control_tokens:
        shown = [one.replace(token, "") if s.trusted else one for one, s in zip(shown, hostile, strict=True)]
    assert said == "".join(shown), "bytes of a value were altered"


@pytest.mark.parametrize("name", ["byte", "bundled", "qwen"])
def test_no_value_becomes_a_control_token_or_a_turn(name: str) -> None:
    """The promise of the product, on 100,000 values per tokenizer."""
    rng = random.Random(1)
    num_seen = 0
    values: list[str] = []
    for hostile in hostile_values(NUM_VALUES, seed=2):
        values += [hostile] if rng.random() < 0.9 else split_values(rng)
        if len(values) >= VALUES_PER_PROMPT:
            check_prompt(name, values[:VALUES_PER_PROMPT])
            num_seen += VALUES_PER_PROMPT
            values = values[VALUES_PER_PROMPT:]
    assert num_seen >= NUM_VALUES


@pytest.mark.parametrize("name", ["byte", "bundled", "qwen"])
def test_tokenizers_do_know_their_control_tokens_in_trusted_text(name: str) -> None:
    """Otherwise the test above could not fail."""
    text = text_side(name)
    for token in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"):
        (token_id,) = text.tokenizer.tokenize(token, control=True)
        assert token_id in text.tokenizer.control_ids
        assert token_id not in text.tokenizer.tokenize(token, control=False)


pieces = st.one_of(
    st.sampled_from(CONTROL_STRINGS),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8),
    st.builds(lambda text, cut: text[: cut % len(text)], st.sampled_from(CONTROL_STRINGS), st.integers(1, 30)),
)


@pytest.mark.parametrize("name", ["byte", "bundled", "qwen"])
@given(st.lists(st.lists(pieces, min_size=1, max_size=4).map("".join), min_size=4, max_size=8))
@settings(max_examples=100, deadline=None)
def test_no_combination_of_values_becomes_a_control_token_or_a_turn(name: str, values: list[str]) -> None:
    """The same, searched and shrunk by hypothesis."""
    values = [one or "·" for one in values]
    check_prompt(name, values[: len(values) // 2 * 2])


@pytest.mark.parametrize("task", ["sentiment", "translate", "rewrite", "summarize"])
def test_no_value_of_a_task_with_one_text_leaves_its_place(task: str) -> None:
    """The prefix of a task is the same whatever the text: it is what requests share."""
    text = text_side("byte")
    encoder = PromptEncoder(text.tokenizer, text.template)
    plain = encoder.encode(encoder.segments(prompt(task).render({"text": "x"})))
    for hostile in hostile_values(500, seed=3):
        encoded = encoder.encode(encoder.segments(prompt(task).render({"text": hostile})))
        assert encoded.prefix_ids == plain.prefix_ids
        assert control_counts(text, encoded.input_ids) == control_counts(text, plain.input_ids)


def test_byte_tokenizer_is_a_tokenizer() -> None:
    """The fake model's tokenizer keeps the seam's promises."""
    assert isinstance(ByteTokenizer(), Tokenizer)
