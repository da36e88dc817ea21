"""Picoschema and JSON Schema of answers."""

from __future__ import annotations

from typing import Any

import pytest

from allinone.errors import PromptError

from .texts import parse, with_body


def output_schema(schema: str) -> dict[str, Any]:
    """The JSON Schema of a json task with this `output.schema`."""
    text = with_body("{{text}}", extra=f"output: {{schema: {schema}}}\n").replace("kind: text", "kind: json")
    found = parse(text).output_schema
    assert found is not None
    return found


def test_output_schema_keeps_the_order_of_the_file():
    """A `reasoning` field before the answer makes the model think first."""
    schema = output_schema('{reasoning: string, answer: "integer, the number", "tags?(array, some)": string}')
    assert list(schema["properties"]) == ["reasoning", "answer", "tags"]
    assert schema == {
        "type": "object",
        "properties": {
            "reasoning": {"type": "string"},
            "answer": {"type": "integer", "description": "the number"},
            "tags": {"type": ["array", "null"], "items": {"type": "string"}, "description": "some"},
        },
        "required": ["reasoning", "answer"],
        "additionalProperties": False,
    }


def test_output_schema_of_enums_objects_and_lists_of_objects():
    """The forms that Picoschema has for nesting."""
    schema = output_schema('{kind(enum): [a, b], who: {name: string}, "rows(array)": {n: number}, "maybe?(enum)": [x]}')
    assert schema["properties"]["kind"] == {"type": "string", "enum": ["a", "b"]}
    assert schema["properties"]["who"]["required"] == ["name"]
    assert schema["properties"]["rows"]["items"]["properties"] == {"n": {"type": "number"}}
    assert schema["properties"]["maybe"] == {"type": ["string", "null"], "enum": ["x", None]}


def test_output_schema_may_be_json_schema():
    """Whoever has a JSON Schema puts it in as it is."""
    literal = "{type: object, properties: {n: {type: integer, minimum: 1}}, required: [n]}"
    assert output_schema(literal) == {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 1}},
        "required": ["n"],
    }
    assert output_schema("{properties: {n: {type: integer}}}")["type"] == "object"


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("{a: any}", "Unknown type 'any'"),
        ('{"(*)": string}', "not a Picoschema key"),
        ('{"a(list)": string}', "Unknown form 'list'"),
        ("{a: Person}", "Unknown type 'Person'"),
        ("{}", "no properties"),
        ("string", "must describe an object"),
        ("{type: array, items: {type: string}}", "must describe an object"),
        ('{a: string, "a?": string}', "declared twice"),
        ("{a(enum): [x, x]}", "twice"),
    ],
)
def test_output_schema_errors(schema: str, message: str):
    """What we do not take is refused, never dropped."""
    with pytest.raises(PromptError) as caught:
        output_schema(schema)
    assert message in caught.value.message
    assert caught.value.line == 5
