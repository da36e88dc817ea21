from __future__ import annotations

import json
import re
from typing import Any

import pytest

from allinone.backends.fake import ByteTokenizer
from allinone.engine.constraints import ConstraintCompiler
from allinone.engine.engine import Engine
from allinone.engine.requests import Constraint, GenerateRequest, SamplingParams
from allinone.errors import UsageError

SCHEMA = {
    "type": "object",
    "properties": {
        "reasoning": {"type": "string", "maxLength": 12},
        "answer": {"type": "string", "enum": ["是", "否"]},
        "scores": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3},
    },
    "required": ["reasoning", "answer", "scores"],
    "additionalProperties": False,
}


def generate(engine: Engine, kind: Any, value: Any, *, seed: int, max_tokens: int = 400) -> str:
    params = SamplingParams(
        temperature=1.0, seed=seed, max_tokens=max_tokens, constraint=Constraint(kind=kind, value=value)
    )
    generation = engine.stream(GenerateRequest(input_ids=(1, 2, seed + 3), sampling=params)).result()
    assert generation.finish_reason == "stop", generation
    return generation.text


def test_json_schema_is_obeyed_and_keys_keep_their_order(engine: Engine) -> None:
    """Random weights, and yet every answer parses; a reasoning field declared first is written first."""
    for seed in range(8):
        text = generate(engine, "json_schema", SCHEMA, seed=seed)
        data = json.loads(text)
        assert list(data) == ["reasoning", "answer", "scores"]
        assert data["answer"] in ("是", "否") and 1 <= len(data["scores"]) <= 3


def test_choice_is_one_of_the_strings(engine: Engine) -> None:
    """Quotes, backslashes and Chinese are strings like any other; one may begin with another."""
    choices = ("是", "不是", 'say "yes"', "a\\b", "no", "nothing")
    said = {generate(engine, "choice", choices, seed=seed) for seed in range(40)}
    assert said <= set(choices) and len(said) > 2


def test_regex_is_matched_whole(engine: Engine) -> None:
    """From the first character to the last."""
    for seed in range(8):
        assert re.fullmatch(r"[0-9]{4}-[0-9]{2}", generate(engine, "regex", r"[0-9]{4}-[0-9]{2}", seed=seed))


def test_constrained_output_cut_by_max_tokens_says_length(engine: Engine) -> None:
    """An unfinished JSON is reported as such, not as an answer."""
    params = SamplingParams(max_tokens=3, constraint=Constraint(kind="json_schema", value=SCHEMA))
    generation = engine.stream(GenerateRequest(input_ids=(1,), sampling=params)).result()
    assert generation.finish_reason == "length" and generation.text == '{"r'


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("json_schema", {"type": "nonsense"}),
        ("json_schema", {"type": "object", "properties": 3}),
        ("json_schema", "not a mapping"),
        ("choice", ()),
        ("choice", ("a", "")),
        ("choice", (1, 2)),
        ("regex", "["),
        ("regex", ""),
        ("regex", r"(?=look)around"),
        ("grammar", "start: a"),
    ],
)
def test_malformed_constraint_is_a_usage_error_at_submission(engine: Engine, kind: Any, value: Any) -> None:
    """The caller hears of it at once, with a hint; nothing is queued."""
    params = SamplingParams(constraint=Constraint(kind=kind, value=value))
    with pytest.raises(UsageError) as caught:
        engine.submit(GenerateRequest(input_ids=(1,), sampling=params))
    assert caught.value.hint
    assert engine.stats().num_steps == 0


def test_vocabulary_with_padding_rows_masks_them(byte_tokenizer: ByteTokenizer) -> None:
    """Models have more logits than the tokenizer has ids."""
    compiler = ConstraintCompiler(byte_tokenizer, vocab_size=300)
    matcher = compiler.compile(Constraint(kind="regex", value="[ab]+"))
    allowed = matcher.allowed()
    assert allowed.shape == (300,)
    assert [i for i, ok in enumerate(allowed) if ok] == [ord("a"), ord("b")]
    matcher.consume(ord("a"))
    ends = {i for i, ok in enumerate(matcher.allowed()) if ok} - {ord("a"), ord("b")}
    assert ends and ends <= byte_tokenizer.stop_ids


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [{"$ref": "#"}, {"$ref": "http://127.0.0.1:9/schema.json"}, _nested(300), _nested(3000), {"enum": []}],
    ids=["refers to itself alone", "elsewhere", "deep", "very deep", "nothing fits"],
)
def test_hostile_schema_is_a_usage_error_at_submission(engine: Engine, schema: dict[str, Any]) -> None:
    """A client wrote it: it is no failure of the model, nothing is fetched, and no parser falls over."""
    params = SamplingParams(constraint=Constraint(kind="json_schema", value=schema))
    with pytest.raises(UsageError, match="cannot constrain an output"):
        engine.stream(GenerateRequest(input_ids=(1,), sampling=params))
