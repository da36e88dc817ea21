"""A `.prompt` file, read and checked: what its sections say together, and how it renders.

Knows no tokenizer: whether a model can tell two labels apart is checked in `tasks/`. Above: the library and the tasks.
Below, in this room: `files`, `front_matter`, `schema`, `template`, `template_rules`, `render`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from allinone.errors import InvalidInput, MissingVariable, VerbalizerError, did_you_mean
from allinone.prompts.files import decode_text, read_bytes, split_name, text_version
from allinone.prompts.front_matter import (
    GenerationConfig,
    LabelSpec,
    Limits,
    Route,
    parse_config,
    parse_defaults,
    parse_labels,
    parse_limits,
    parse_route,
    split_front_matter,
)
from allinone.prompts.render import Scope, render_messages
from allinone.prompts.schema import InputField, parse_inputs, parse_output, show_value, variable_name
from allinone.prompts.template import HistoryTag, Node, parse_template, walk
from allinone.prompts.template_rules import Shape, check_template, used_names
from allinone.prompts.yaml_source import Entry
from allinone.types import Kind, Message

__all__ = ["GenerationConfig", "LabelSpec", "Limits", "PromptFile", "Route", "load_prompt", "parse_prompt"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFile:
    """One task, as its file says.

    Attributes:
        name, variant: of `NAME.VARIANT.prompt`.
        path: where it was read.
        layer: "builtin", or the directory it came from.
        text: the whole file, newlines normalised.
        version: first 12 hex digits of the SHA-256 of `text`.
        inputs: declared variables in the order of the file; `text` is always one of them.
        defaults: values of variables that the caller leaves out.
        output_schema: JSON Schema of the answer; properties in the order of the file.
        labels: for label tasks, in the order of the file.
        open_labels: the caller may give other labels than these.
        model: the file's `model` key, passed through.
    """

    name: str
    variant: str | None
    path: Path
    layer: str
    text: str = field(repr=False)
    version: str
    description: str
    kind: Kind
    config: GenerationConfig
    inputs: Mapping[str, InputField]
    defaults: Mapping[str, Any]
    output_schema: dict[str, Any] | None
    labels: tuple[LabelSpec, ...]
    open_labels: bool
    limits: Limits
    route: Route
    model: str | None
    template: tuple[Node, ...] = field(repr=False)

    @property
    def full_name(self) -> str:
        """Name with the variant: "sentiment", "sentiment.en"."""
        return f"{self.name}.{self.variant}" if self.variant else self.name

    @property
    def takes_history(self) -> bool:
        """Whether the body has `{{history}}`."""
        return any(isinstance(node, HistoryTag) for node in walk(self.template))

    def render(
        self,
        variables: Mapping[str, Any],
        *,
        history: Sequence[Message] = (),
        labels: Sequence[LabelSpec] | None = None,
    ) -> tuple[Message, ...]:
        """The prompt's turns with these values in place.

        Args:
            variables: values of the declared inputs; None counts as not given.
            history: earlier turns, values only, put in unchanged where the body says `{{history}}`.
            labels: what `{{#each labels}}` shows; the file's own where None. Labels that the file does not have are the
                caller's text and stay values.

        Raises:
            MissingVariable: a required variable is missing.
            InvalidInput: a variable that is not declared or has the wrong type; history that is not wanted or trusted.
        """
        values = self._values(variables)
        if history and not self.takes_history:
            raise InvalidInput(f"Task {self.full_name!r} takes no history.", hint="its body has no {{history}}")
        if any(segment.trusted for message in history for segment in message.content):
            raise InvalidInput("History holds values only, but one of its segments claims to be trusted.")
        own = {name: values[name] for name, declared in self.inputs.items() if not declared.is_array}
        arrays = {name: values[name] or () for name, declared in self.inputs.items() if declared.is_array}
        shown = self.labels if labels is None else labels
        scope = Scope(
            values={name: None if value is None else show_value(value) for name, value in own.items()},
            arrays={name: [show_value(item) for item in items] for name, items in arrays.items()},
            flags=frozenset(name for name, value in values.items() if value),
            labels=[(spec.template_fields(), spec in self.labels) for spec in shown],
            history=history,
        )
        return render_messages(self.template, scope)

    def find_labels(self, names: Sequence[str]) -> tuple[LabelSpec, ...]:
        """Labels by label or by English name, in the order asked for; any text where the file has open labels.

        Raises:
            VerbalizerError: no labels, an unknown label, or the same one twice.
        """
        if not names:
            raise self._label_error(f"Task {self.full_name!r} was given an empty list of labels.")
        known = {spec.name: spec for spec in self.labels} | {spec.label: spec for spec in self.labels}
        found: list[LabelSpec] = []
        for name in names:
            spec = known.get(name)
            if spec is None and self.open_labels and name.strip():
                spec = LabelSpec(label=name, name=name)
            if spec is None:
                raise self._label_error(f"Task {self.full_name!r} has no label {name!r}. {did_you_mean(name, known)}")
            if any(spec.label == other.label for other in found):
                raise self._label_error(f"Label {spec.label!r} was asked for twice.")
            found.append(spec)
        return tuple(found)

    def _label_error(self, message: str) -> VerbalizerError:
        return VerbalizerError(message, path=str(self.path), key="allinone.labels")

    def _values(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Every declared input with its value, its default, or None."""
        for name in variables:
            if name not in self.inputs:
                known = did_you_mean(name, self.inputs, noun="Declared")
                raise InvalidInput(f"Task {self.full_name!r} has no variable {name!r}. {known}")
        values: dict[str, Any] = {}
        for name, declared in self.inputs.items():
            value = variables.get(name)
            value = self.defaults.get(name) if value is None else value
            if value is not None and (problem := declared.find_problem(value)) is not None:
                raise InvalidInput(f"Task {self.full_name!r}: {problem}")
            if value is None and not declared.is_optional:
                raise MissingVariable(
                    f"Task {self.full_name!r} needs the variable {name!r}.",
                    path=str(self.path),
                    key=f"input.schema.{name}",
                    hint=declared.description or None,
                )
            values[name] = value
        return values


def load_prompt(path: Path, *, layer: str = "") -> PromptFile:
    """Read and check one file.

    Raises:
        PromptNotFound: no such file. PromptError: anything wrong with it, with line and key where known.
    """
    return parse_prompt(read_bytes(path), path=path, layer=layer)


def parse_prompt(source: bytes | str, *, path: Path, layer: str = "") -> PromptFile:
    """Check the content of a file.

    Args:
        source: the file's bytes, or its text.
        path: gives name and variant; shown in errors.
        layer: where it belongs in the library.

    Raises:
        PromptError: anything wrong with it, with line and key where known.
    """
    name, variant = split_name(path)
    text = decode_text(source.encode() if isinstance(source, str) else source, path=path)
    front, body, body_line = split_front_matter(text, path=str(path))
    fields = front.fields()
    kind = _parse_kind(front)
    inputs, defaults = _parse_input(front)
    labels = parse_labels(fields.get("allinone.labels"))
    template = _parse_body(body, body_line, front, inputs, has_labels=bool(labels))
    prompt = PromptFile(
        name=name,
        variant=variant,
        path=path,
        layer=layer,
        text=text,
        version=text_version(text),
        description=_parse_description(front),
        kind=kind,
        config=parse_config(fields.get("config")),
        inputs=inputs,
        defaults=defaults,
        output_schema=_parse_output(fields.get("output"), kind),
        labels=labels,
        open_labels="allinone.open_labels" in fields and fields["allinone.open_labels"].flag(),
        limits=parse_limits(fields.get("allinone.limits")),
        route=parse_route(fields.get("allinone.route")),
        model=fields["model"].text() if "model" in fields else None,
        template=template,
    )
    _check_kind(prompt, front)
    return prompt


def _parse_kind(front: Entry) -> Kind:
    entry = front.fields().get("allinone.kind")
    if entry is None:
        raise front.error("The key 'allinone.kind' is missing.", hint=f"write `allinone.kind: {' | '.join(KINDS)}`")
    return cast(Kind, entry.choice(KINDS))


def _parse_description(front: Entry) -> str:
    entry = front.fields().get("description")
    if entry is None:
        raise front.error("The key 'description' is missing.", hint="say in a few words what the task does")
    return entry.text()


def _parse_input(front: Entry) -> tuple[dict[str, InputField], dict[str, Any]]:
    entry = front.fields().get("input")
    if entry is None:
        raise front.error("The key 'input' is missing.", hint="write `input: {schema: {text: string}}`")
    fields = entry.fields(("schema", "default"))
    if "schema" not in fields:
        raise entry.error("The key 'input.schema' is missing.", hint="write `input: {schema: {text: string}}`")
    inputs = parse_inputs(fields["schema"])
    text = inputs.get("text")
    if text is None or text.type != "string" or text.is_array or text.is_optional:
        raise fields["schema"].error(
            "Every task takes the user's input as `text`, a required string.", hint="declare `text: string`"
        )
    return inputs, parse_defaults(fields.get("default"), inputs)


def _parse_body(
    body: str, line: int, front: Entry, inputs: Mapping[str, InputField], *, has_labels: bool
) -> tuple[Node, ...]:
    template = parse_template(body, path=front.path, first_line=line)
    shapes: dict[str, Shape] = {name: declared.shape for name, declared in inputs.items()}
    check_template(template, shapes=shapes, has_labels=has_labels, path=front.path)
    for name in inputs:
        if name not in used_names(template):
            schema = front.fields()["input"].fields()["schema"]
            entry = next(entry for key, entry in schema.fields().items() if variable_name(key) == name)
            raise entry.error(f"The body never uses the variable {name!r}.", hint=f"write {{{{{name}}}}} in the body")
    return template


def _parse_output(entry: Entry | None, kind: Kind) -> dict[str, Any] | None:
    if entry is None:
        return None
    fields = entry.fields(("format", "schema"))
    wanted = "json" if kind == "json" else "text"
    if "format" in fields and fields["format"].choice(("text", "json")) != wanted:
        raise fields["format"].error(f"A task of kind {kind!r} answers in the format {wanted!r}.")
    if "schema" not in fields:
        return None
    if kind in ("text", "chat"):
        raise fields["schema"].error(f"A task of kind {kind!r} has no schema.", hint="use `allinone.kind: json`")
    return parse_output(fields["schema"])


def _check_kind(prompt: PromptFile, front: Entry) -> None:
    """What each kind must have, and must not."""
    fields = front.fields()
    if prompt.kind == "label":
        _check_label_kind(prompt, front)
    else:
        for key in ("allinone.labels", "allinone.open_labels"):
            if key in fields:
                raise fields[key].error(
                    f"A task of kind {prompt.kind!r} has no labels.", hint="use `allinone.kind: label`"
                )
    if prompt.kind == "json" and prompt.output_schema is None:
        raise front.error(
            "A json task needs 'output.schema'.",
            hint='write `output: {format: json, schema: {"items(array)": string}}`',
        )
    if prompt.kind == "json" and prompt.output_schema and prompt.output_schema.get("type") != "object":
        raise fields["output"].error("The schema of a json task must describe an object.")
    if prompt.kind == "chat" and not prompt.takes_history:
        raise front.error("The body of a chat task needs {{history}}.", hint="put it between the system and user turns")


def _check_label_kind(prompt: PromptFile, front: Entry) -> None:
    fields = front.fields()
    if not prompt.labels:
        raise VerbalizerError(
            "A label task needs 'allinone.labels'.",
            path=front.path,
            line=front.line,
            key="allinone.labels",
            hint="write `allinone.labels: {正面: {name: positive}, 负面: {name: negative}}`",
        )
    if prompt.config != GenerationConfig():
        raise fields["config"].error(
            "A label is read from the model's scores, never sampled: only `temperature: 0` makes sense here."
        )
    if prompt.output_schema is None:
        return
    labels = [spec.label for spec in prompt.labels]
    properties = list(cast("dict[str, dict[str, Any]]", prompt.output_schema.get("properties", {})).values())
    choices = properties[0].get("enum") if len(properties) == 1 else None
    if choices != labels:
        raise (
            fields["output"]
            .fields()["schema"]
            .error(
                f"The schema must list the labels as they stand in 'allinone.labels': {', '.join(labels)}.",
                kind=VerbalizerError,
                hint=f"write `schema: {{label(enum): [{', '.join(labels)}]}}`, or leave `output` out",
            )
        )
