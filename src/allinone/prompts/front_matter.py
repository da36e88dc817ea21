"""The front matter of a `.prompt` file, section by section: what each key means and which values it takes.

Rules between sections (labels and output schema, kind and config) are in `prompt_file`, which puts them together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from allinone.errors import PromptError, UnknownKey, VerbalizerError, did_you_mean
from allinone.prompts.schema import InputField
from allinone.prompts.template_rules import CONTROL_TOKEN
from allinone.prompts.yaml_source import Entry, parse_yaml

KEYS = (
    "description",
    "model",
    "config",
    "input",
    "output",
    "allinone.kind",
    "allinone.labels",
    "allinone.open_labels",
    "allinone.limits",
    "allinone.route",
)
_DOTPROMPT_ONLY = {
    "name": "the name comes from the file name: NAME.prompt",
    "variant": "the variant comes from the file name: NAME.VARIANT.prompt",
    "tools": "tasks call no tools",
    "toolDefs": "tasks call no tools",
    "ext": "write our keys with dots: `allinone.kind: label`",
    "allinone": "write our keys with dots: `allinone.kind: label`",
    "metadata": "put remarks into comments: `# …` in the front matter, {{! … }} in the body",
}
_DOTPROMPT_CONFIG = {
    "topK": "top_k",
    "topP": "top_p",
    "minP": "min_p",
    "maxOutputTokens": "max_tokens",
    "stopSequences": "stop",
    "repetitionPenalty": "repetition_penalty",
}
_OPENING = re.compile(r"---[ \t]*\n")
_CLOSING = re.compile(r"^---[ \t]*(?:\n|\Z)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSpec:
    """One answer of a label task.

    Attributes:
        label: as the model says it ("正面").
        name: short English name for programs ("positive"); the label itself where the file gives none.
        emoji, description: for people; the description may also stand in the prompt.
    """

    label: str
    name: str
    emoji: str | None = None
    description: str = ""

    def template_fields(self) -> dict[str, str]:
        """What `{{#each labels}}` can show."""
        return {"label": self.label, "name": self.name, "description": self.description, "emoji": self.emoji or ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationConfig:
    """`config`: how an answer is decoded. Temperature 0 is greedy; every other limit is off at its default."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int = 256
    prompt_lookup_num_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`allinone.limits`: the most tokens `text` may have, what happens to longer texts, and the default deadline."""

    max_input_tokens: int | None = None
    on_long: Literal["error", "truncate"] = "error"
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """`allinone.route`: inputs that belong to this task, and inputs that do not (key `not`)."""

    examples: tuple[str, ...] = ()
    not_examples: tuple[str, ...] = ()


def split_front_matter(text: str, *, path: str) -> tuple[Entry, str, int]:
    """(front matter, body, 1-based line of the body) of a file's text.

    Raises:
        PromptError: no front matter, one that never ends, or YAML errors. UnknownKey: a top-level key we do not have.
    """
    opening = _OPENING.match(text)
    if opening is None:
        hint = "begin the file with a line ---, then `description: …` and `allinone.kind: …`, then another line ---"
        raise PromptError("The file has no front matter.", path=path, line=1, hint=hint)
    closing = _CLOSING.search(text, opening.end())
    if closing is None:
        raise PromptError("The front matter is never closed.", path=path, line=1, hint="end it with a line ---")
    front = parse_yaml(text[opening.end() : closing.start()], path=path, first_line=2)
    for key, entry in front.fields().items():
        if key in _DOTPROMPT_ONLY:
            raise entry.error(f"The key {key!r} is not used here.", hint=_DOTPROMPT_ONLY[key], kind=UnknownKey)
    front.fields(KEYS)
    return front, text[closing.end() :], text.count("\n", 0, closing.end()) + 1


def parse_config(entry: Entry | None) -> GenerationConfig:
    """`config`: unknown keys and values out of range are errors."""
    if entry is None:
        return GenerationConfig()
    for key, value in entry.fields().items():
        if key in _DOTPROMPT_CONFIG:
            raise value.error(f"Unknown key {value.key!r}. Did you mean {_DOTPROMPT_CONFIG[key]!r}?", kind=UnknownKey)
    fields = entry.fields(_CONFIG)
    return GenerationConfig(**{key: _CONFIG[key](value) for key, value in fields.items()})


def _stop(entry: Entry) -> tuple[str, ...]:
    entries = entry.items() if isinstance(entry.content, list) else [entry]
    return tuple(item.text(may_be_blank=True) for item in entries)


_CONFIG: dict[str, Callable[[Entry], Any]] = {
    "temperature": lambda entry: entry.number(minimum=0),
    "top_k": lambda entry: entry.integer(minimum=0),
    "top_p": lambda entry: entry.number(above=0, maximum=1),
    "min_p": lambda entry: entry.number(minimum=0, maximum=1),
    "repetition_penalty": lambda entry: entry.number(minimum=0.01, maximum=100),
    "seed": lambda entry: entry.integer(minimum=0),
    "stop": _stop,
    "max_tokens": lambda entry: entry.integer(minimum=1),
    "prompt_lookup_num_tokens": lambda entry: entry.integer(minimum=0, maximum=32),
}


def parse_defaults(entry: Entry | None, inputs: Mapping[str, InputField]) -> dict[str, Any]:
    """`input.default`: values of declared variables, of the declared types.

    Raises:
        PromptError: a variable that is not declared, or a value of the wrong type.
    """
    if entry is None:
        return {}
    defaults: dict[str, Any] = {}
    for name, value in entry.fields().items():
        if name not in inputs:
            raise value.error(
                f"{name!r} is not declared. {did_you_mean(name, inputs, noun='Declared')}", kind=UnknownKey
            )
        declared = inputs[name]
        plain = value.raw if declared.type == "string" and value.is_scalar else value.plain()
        if (problem := declared.find_problem(plain)) is not None:
            raise value.error(problem)
        defaults[name] = tuple(cast("list[object]", plain)) if declared.is_array else plain
    return defaults


def parse_labels(entry: Entry | None) -> tuple[LabelSpec, ...]:
    """`allinone.labels`: label → name, emoji, description.

    Raises:
        VerbalizerError: fewer than two labels, or two labels that share a name.
    """
    if entry is None:
        return ()
    labels: list[LabelSpec] = []
    if not isinstance(entry.content, dict):
        raise entry.error("Labels are a mapping from label to its name.", kind=VerbalizerError, hint=_LABELS_HINT)
    for label, value in entry.fields().items():
        if not label.strip() or label != label.strip():
            raise value.error(f"The label {label!r} is blank or has blanks at its ends.", kind=VerbalizerError)
        fields = {} if value.content is None else value.fields(("name", "emoji", "description"))
        texts = {key: field.text() for key, field in fields.items()}
        for text in (label, *texts.values()):
            _refuse_control_token(value, text)
        spec = LabelSpec(
            label=label,
            name=texts.get("name", label),
            emoji=texts.get("emoji"),
            description=texts.get("description", ""),
        )
        _refuse_same_name(spec, labels, fields.get("name", value))
        labels.append(spec)
    if len(labels) < 2:
        raise entry.error("A label task needs at least two labels.", kind=VerbalizerError, hint=_LABELS_HINT)
    return tuple(labels)


_LABELS_HINT = "write `allinone.labels: {正面: {name: positive}, 负面: {name: negative}}`"


def _refuse_same_name(spec: LabelSpec, others: list[LabelSpec], entry: Entry) -> None:
    for other in others:
        for name in (spec.label, spec.name):
            if name in (other.label, other.name):
                raise entry.error(
                    f"Labels {other.label!r} and {spec.label!r} are both called {name!r}.",
                    kind=VerbalizerError,
                    hint="give each label a name of its own",
                )


def _refuse_control_token(entry: Entry, text: str) -> None:
    if found := CONTROL_TOKEN.search(text):
        raise entry.error(f"The control token {found.group()!r} may not be written in a prompt.")


def parse_limits(entry: Entry | None) -> Limits:
    """`allinone.limits`."""
    if entry is None:
        return Limits()
    fields = entry.fields(("max_input_tokens", "on_long", "deadline_s"))
    tokens, on_long, deadline = fields.get("max_input_tokens"), fields.get("on_long"), fields.get("deadline_s")
    choice = "error" if on_long is None else on_long.choice(("error", "truncate"))
    return Limits(
        max_input_tokens=None if tokens is None else tokens.integer(minimum=1),
        on_long=cast('Literal["error", "truncate"]', choice),
        deadline_s=None if deadline is None else deadline.number(above=0),
    )


def parse_route(entry: Entry | None) -> Route:
    """`allinone.route`."""
    if entry is None:
        return Route()
    fields = entry.fields(("examples", "not"))
    return Route(
        examples=fields["examples"].texts() if "examples" in fields else (),
        not_examples=fields["not"].texts() if "not" in fields else (),
    )
