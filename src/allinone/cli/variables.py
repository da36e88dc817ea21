"""Values of template variables that arrive as text: `--var`, cells of a CSV file, `/task NAME name=value`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from allinone.errors import ConfigError, InvalidInput, did_you_mean

if TYPE_CHECKING:
    from allinone.prompts.prompt_file import PromptFile
    from allinone.prompts.schema import InputField


def parse_assignments(pairs: Iterable[str], prompt: PromptFile, *, option: str = "--var ") -> dict[str, Any]:
    """`name=value` pairs as variables of a task.

    Raises:
        ConfigError: not NAME=VALUE, a name that the task does not declare, or a value of another type.
    """
    known = [name for name in prompt.inputs if name != "text"]
    variables: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"{option}{pair!r} is not NAME=VALUE.", hint=f"for example {option}style=formal")
        if name not in known:
            choices = did_you_mean(name, known, noun="It takes")
            raise ConfigError(f"Task {prompt.full_name!r} has no variable {name!r}. {choices}")
        try:
            variables[name] = parse_value(prompt.inputs[name], value)
        except InvalidInput as error:
            raise ConfigError(error.message, hint=error.hint) from error
        if (problem := prompt.inputs[name].find_problem(variables[name])) is not None:
            raise ConfigError(problem)
    return variables


def parse_value(declared: InputField, text: str) -> Any:
    """Text as the type that the task declares; a list is JSON, or its items between commas.

    Raises:
        InvalidInput: the text is no such value.
    """
    if not declared.is_array:
        return _parse_scalar(declared, text)
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except ValueError as error:
            raise InvalidInput(f"Variable {declared.name!r} is not a JSON list: {error}.") from error
    return [_parse_scalar(declared, item.strip()) for item in text.replace("，", ",").split(",") if item.strip()]


def _parse_scalar(declared: InputField, text: str) -> Any:
    try:
        if declared.type == "integer":
            return int(text)
        if declared.type == "number":
            return float(text)
        if declared.type == "boolean":
            return {"true": True, "false": False}[text.strip().lower()]
    except (ValueError, KeyError) as error:
        raise InvalidInput(f"Variable {declared.name!r} must be of type {declared.type}, not {text!r}.") from error
    return text
