"""Variables that arrive as text."""

from __future__ import annotations

from typing import Any

import pytest

from allinone.cli.variables import parse_value
from allinone.errors import InvalidInput
from allinone.prompts.schema import InputField, ScalarType


@pytest.mark.parametrize(
    ("type_", "is_array", "text", "value"),
    [
        ("string", False, "a,b=c", "a,b=c"),
        ("integer", False, "-3", -3),
        ("number", False, "0.5", 0.5),
        ("boolean", False, "True", True),
        ("string", True, "a, b，c,", ["a", "b", "c"]),
        ("string", True, '["a,b", "c"]', ["a,b", "c"]),
        ("integer", True, "1,2", [1, 2]),
        ("string", True, "", []),
    ],
)
def test_text_becomes_the_declared_type(type_: ScalarType, is_array: bool, text: str, value: Any) -> None:
    """A shell and a CSV file know only text."""
    assert parse_value(InputField(name="x", type=type_, is_array=is_array), text) == value


@pytest.mark.parametrize(
    ("type_", "is_array", "text"),
    [("integer", False, "3.5"), ("number", False, "much"), ("boolean", False, "1"), ("string", True, "[1,")],
)
def test_text_of_another_type_is_refused(type_: ScalarType, is_array: bool, text: str) -> None:
    """Named, not guessed."""
    with pytest.raises(InvalidInput, match="Variable 'x'"):
        parse_value(InputField(name="x", type=type_, is_array=is_array), text)
