"""Picoschema, Dotprompt's short way to write a schema: inputs → `InputField`, outputs → JSON Schema.

Taken: `string`, `number`, `integer`, `boolean`, each with a description after a comma; `name?` for optional; `(array)`,
`(enum)`, `(object)`; nested objects in outputs. Refused with a hint: `any`, wildcards `(*)`, named schemas.
Source: https://google.github.io/dotprompt/reference/picoschema
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from allinone.errors import did_you_mean
from allinone.prompts.template_rules import RESERVED_NAMES, Shape
from allinone.prompts.yaml_source import Entry

ScalarType = Literal["string", "number", "integer", "boolean"]
_SCALAR_TYPES: tuple[ScalarType, ...] = get_args(ScalarType)
_JSON_TYPES = (*_SCALAR_TYPES, "object", "array", "null")
_KEY = re.compile(
    r"(?P<name>[^()?,\s]+)(?P<optional>\?)?(?:\((?P<form>\w+)(?:\s*,\s*(?P<description>.*))?\))?", re.DOTALL
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputField:
    """One declared variable of a prompt.

    Attributes:
        type: type of the value, or of each item of an array.
        is_optional: may be left out; it then counts as empty.
        choices: for an enum, the only values taken.
    """

    name: str
    type: ScalarType = "string"
    is_array: bool = False
    is_optional: bool = False
    choices: tuple[str, ...] = ()
    description: str = ""

    @property
    def shape(self) -> Shape:
        """Whether a template may print it or has to repeat it."""
        return "array" if self.is_array else "scalar"

    def find_problem(self, value: object) -> str | None:
        """What is wrong with a value: type, choice, or a lone surrogate; None if it is fine."""
        if not self.is_array:
            return self._find_item_problem(value)
        if not isinstance(value, (list, tuple)):
            return f"variable {self.name!r} must be a list, not {_describe(value)}."
        problems = (self._find_item_problem(item) for item in cast("list[object]", value))
        return next((problem for problem in problems if problem is not None), None)

    def _find_item_problem(self, item: object) -> str | None:
        if not _has_type(item, self.type):
            return f"variable {self.name!r} must be of type {self.type}, not {_describe(item)}."
        if self.choices and item not in self.choices:
            return f"variable {self.name!r} is {item!r}. {did_you_mean(str(item), self.choices, noun='Choices')}"
        if isinstance(item, str) and (position := _find_surrogate(item)) is not None:
            return f"variable {self.name!r} is not valid Unicode: a lone surrogate at character {position}."
        return None


def show_value(value: object) -> str:
    """A checked scalar as the text that stands in the prompt."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def placeholders(inputs: Mapping[str, InputField]) -> dict[str, Any]:
    """A value for each required variable, so that a prompt can be rendered without its users."""
    values: dict[str, Any] = {"string": "……", "integer": 1, "number": 1.0, "boolean": True}
    required = [declared for declared in inputs.values() if not declared.is_optional]
    scalars = {d.name: d.choices[0] if d.choices else values[d.type] for d in required}
    return {d.name: [scalars[d.name]] if d.is_array else scalars[d.name] for d in required}


def parse_inputs(schema: Entry) -> dict[str, InputField]:
    """The variables that `input.schema` declares.

    Raises:
        PromptError: a type or form that inputs cannot have, a reserved name, the same name twice.
    """
    fields: dict[str, InputField] = {}
    for key, entry in schema.fields().items():
        name, is_optional, form, description = _split_key(key, entry)
        if not name.isidentifier() or name in RESERVED_NAMES:
            raise entry.error(
                f"{name!r} cannot be the name of a variable.",
                hint=f"use letters, digits and _; reserved: {', '.join(RESERVED_NAMES)}",
            )
        if name in fields:
            raise entry.error(f"Variable {name!r} is declared twice.")
        if isinstance(entry.content, dict) or form == "object":
            raise entry.error(f"Variable {name!r} is an object; inputs are single values or arrays of them.")
        choices: tuple[str, ...] = ()
        type_: ScalarType = "string"
        if form == "enum":
            choices = _enum(entry)
        else:
            type_, inner = _scalar(entry)
            description = description or inner
        fields[name] = InputField(
            name=name,
            type=type_,
            is_array=form == "array",
            is_optional=is_optional,
            choices=choices,
            description=description,
        )
    return fields


def parse_output(schema: Entry) -> dict[str, Any]:
    """`output.schema` as JSON Schema, properties in the order of the file.

    A mapping whose `type` is a JSON type, or that has a mapping `properties`, is JSON Schema already, as in Dotprompt.
    """
    content = schema.content
    if isinstance(content, dict):
        type_, properties = content.get("type"), content.get("properties")
        if type_ is not None and type_.content in _JSON_TYPES:
            return cast("dict[str, Any]", schema.plain())
        if properties is not None and isinstance(properties.content, dict):
            return {"type": "object", **cast("dict[str, Any]", schema.plain())}
    return _to_json_schema(schema)


def _to_json_schema(schema: Entry) -> dict[str, Any]:
    if not isinstance(schema.content, dict):
        type_, description = _scalar(schema)
        return {"type": type_, **({"description": description} if description else {})}
    properties: dict[str, Any] = {}
    required: list[str] = []
    for key, entry in schema.fields().items():
        name, is_optional, form, description = _split_key(key, entry)
        if name in properties:
            raise entry.error(f"Property {name!r} is declared twice.")
        value = _property(entry, form)
        if description:
            value["description"] = description
        properties[name] = _nullable(value) if is_optional else value
        if not is_optional:
            required.append(name)
    if not properties:
        raise schema.error("The schema has no properties.", hint="write for example {answer: string}")
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _property(entry: Entry, form: str | None) -> dict[str, Any]:
    if form == "array":
        return {"type": "array", "items": _to_json_schema(entry)}
    if form == "enum":
        return {"type": "string", "enum": list(_enum(entry))}
    return _to_json_schema(entry)


def _nullable(value: Mapping[str, Any]) -> dict[str, Any]:
    nullable = {**value, "type": [value["type"], "null"]}
    return {**nullable, "enum": [*value["enum"], None]} if "enum" in value else nullable


def variable_name(key: str) -> str:
    """The name in a Picoschema key that was parsed before: "mood" of "mood?"."""
    return re.split(r"[?(]", key, maxsplit=1)[0]


def _split_key(key: str, entry: Entry) -> tuple[str, bool, str | None, str]:
    """(name, is it optional, form in parentheses, description) of a Picoschema key."""
    match = _KEY.fullmatch(key)
    if match is None:
        hint = 'write "name", "name?", "name(array)", "name(enum)" or "name(object)"'
        raise entry.error(f"{key!r} is not a Picoschema key.", hint=hint)
    form = match["form"]
    if form is not None and form not in ("array", "enum", "object"):
        raise entry.error(f"Unknown form {form!r}. {did_you_mean(form, ('array', 'enum', 'object'))}")
    return match["name"], bool(match["optional"]), form, (match["description"] or "").strip()


def _scalar(entry: Entry) -> tuple[ScalarType, str]:
    """(type, description) of `string, the description`."""
    name, _, description = entry.text().partition(",")
    name = name.strip()
    if name not in _SCALAR_TYPES:
        raise entry.error(f"Unknown type {name!r}. {did_you_mean(name, _SCALAR_TYPES)}")
    return name, description.strip()


def _enum(entry: Entry) -> tuple[str, ...]:
    choices = entry.texts()
    if not choices:
        raise entry.error(f"{entry.key} has no values to choose from.")
    for i, choice in enumerate(choices):
        if choice in choices[:i]:
            raise entry.error(f"{entry.key} has {choice!r} twice.")
    return choices


def _has_type(value: object, type_: ScalarType) -> bool:
    if isinstance(value, bool):
        return type_ == "boolean"
    match type_:
        case "string":
            return isinstance(value, str)
        case "integer":
            return isinstance(value, int)
        case "number":
            return isinstance(value, (int, float)) and value == value and abs(value) != float("inf")
        case "boolean":
            return False


def _find_surrogate(text: str) -> int | None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return None


def _describe(value: object) -> str:
    return "nothing" if value is None else f"{value!r:.60} ({type(value).__name__})"
