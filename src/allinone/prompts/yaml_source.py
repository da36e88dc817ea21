"""YAML that remembers where each value was written, so that every complaint can name file, line and key.

Owns: reading YAML (the core schema of YAML 1.2: `no` and `on` are text, not booleans; no aliases, no tags, no duplicate
keys) and typed access to its values. Does not know what any key means. Above: `prompt_file` and `cases`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import yaml

from allinone.errors import PromptError, UnknownKey, did_you_mean

Scalar: TypeAlias = "str | int | float | bool | None"
_TAG = "tag:yaml.org,2002:"
_MAX_DEPTH = 32


class _Loader(yaml.SafeLoader):
    """Composes nodes only; nothing is ever constructed from a tag."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        event = self.peek_event()
        mark = cast(Any, event.start_mark)  # the stubs know two classes of it
        self.depth += 1
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not supported", problem_mark=mark)
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem="tags (!name) are not supported", problem_mark=mark)
        if self.depth > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="it is nested too deeply", problem_mark=mark)
        node = super().compose_node(parent, index)  # pyright: ignore[reportArgumentType]
        self.depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {}
for _name, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?[0-9]{1,18}$", list("-+0123456789")),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), _first)


@dataclass(frozen=True, slots=True)
class Entry:
    """One YAML value and its place.

    Attributes:
        content: a scalar, a list of entries, or a mapping from key to entry.
        raw: a scalar as it was written (`no` stays "no", `01` stays "01"); empty for lists and mappings.
        line: 1-based line in the file.
        key: dotted key ("config.top_p"); empty for the whole document.
        path: the file, as the user named it.
    """

    content: Scalar | list[Entry] | dict[str, Entry]
    raw: str
    line: int
    key: str
    path: str

    @property
    def is_scalar(self) -> bool:
        """Whether this is a single value that was written out."""
        return not isinstance(self.content, (list, dict)) and self.content is not None

    def error(self, message: str, *, hint: str | None = None, kind: type[PromptError] = PromptError) -> PromptError:
        """An error at this place, to be raised by the caller; the message names the key."""
        message = message if self.key in message else f"{self.key}: {message}"
        return kind(message, path=self.path, line=self.line, key=self.key or None, hint=hint)

    def fields(self, known: Collection[str] | None = None) -> dict[str, Entry]:
        """The entries of a mapping.

        Raises:
            PromptError: not a mapping. UnknownKey: a key that is not in `known` (where that is given).
        """
        if not isinstance(self.content, dict):
            raise self._mismatch("a mapping (key: value)")
        if known is not None:
            for name, entry in self.content.items():
                if name not in known:
                    raise entry.error(f"Unknown key {entry.key!r}. {did_you_mean(name, known)}", kind=UnknownKey)
        return self.content

    def items(self) -> list[Entry]:
        """The entries of a list."""
        if not isinstance(self.content, list):
            raise self._mismatch("a list")
        return self.content

    def text(self, *, may_be_blank: bool = False) -> str:
        """A scalar as text, as it was written; never empty."""
        if not self.is_scalar or not (self.raw if may_be_blank else self.raw.strip()):
            raise self._mismatch("text")
        return self.raw

    def texts(self) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(entry.text() for entry in self.items())

    def flag(self) -> bool:
        """True or false."""
        if not isinstance(self.content, bool):
            raise self._mismatch("true or false")
        return self.content

    def integer(self, *, minimum: int, maximum: int | None = None) -> int:
        """A whole number of at least `minimum` and at most `maximum`."""
        most = math.inf if maximum is None else maximum
        if isinstance(self.content, int) and not isinstance(self.content, bool) and minimum <= self.content <= most:
            return self.content
        raise self._mismatch(
            f"a whole number of at least {minimum}" + ("" if maximum is None else f", at most {maximum}")
        )

    def number(self, *, above: float = -math.inf, minimum: float = -math.inf, maximum: float = math.inf) -> float:
        """A finite number within bounds."""
        value = self.content if isinstance(self.content, (int, float)) else math.nan
        is_finite = math.isfinite(value) and not isinstance(value, bool)
        if is_finite and value > above and minimum <= value <= maximum:
            return float(value)
        bounds = [f"above {above:g}"] if above > -math.inf else []
        bounds += [f"at least {minimum:g}"] if minimum > -math.inf else []
        bounds += [f"at most {maximum:g}"] if maximum < math.inf else []
        raise self._mismatch(" ".join(["a number", " and ".join(bounds)]).strip())

    def choice(self, choices: Sequence[str]) -> str:
        """One of several words."""
        word = self.text()
        if word not in choices:
            raise self.error(f"{self.key} is {word!r}. {did_you_mean(word, choices, noun='Choices')}")
        return word

    def plain(self) -> object:
        """The value without its places: scalars, lists and dicts."""
        if isinstance(self.content, dict):
            return {name: entry.plain() for name, entry in self.content.items()}
        if isinstance(self.content, list):
            return [entry.plain() for entry in self.content]
        return self.content

    def _mismatch(self, wanted: str) -> PromptError:
        if isinstance(self.content, dict):
            found = "a mapping"
        elif isinstance(self.content, list):
            found = "a list"
        else:
            found = "nothing" if self.content is None or not self.raw.strip() else repr(self.raw)
        return self.error(f"{self.key or 'The document'} must be {wanted}, not {found}.")


def parse_yaml(text: str, *, path: str, first_line: int = 1) -> Entry:
    """The document as an entry tree.

    Args:
        text: YAML, newlines normalised.
        path: shown in errors.
        first_line: 1-based line of `text` in its file.

    Raises:
        PromptError: not YAML, or YAML that we do not take (aliases, tags, duplicate keys); with its line.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = first_line + (mark.line if mark else 0)
        raise PromptError(
            f"Not valid YAML: {error.problem or error.context}.", path=path, line=line, hint=_HINT
        ) from error
    except yaml.YAMLError as error:
        raise PromptError(f"Not valid YAML: {' '.join(str(error).split())}", path=path, line=first_line) from error
    if node is None:
        return Entry({}, "", first_line, "", path)
    return _entry(node, key="", path=path, first_line=first_line, key_line=None)


_HINT = "inside {…} and […], put quotes around keys and text that have ? , : { } [ ] or #"


def _entry(node: yaml.Node, *, key: str, path: str, first_line: int, key_line: int | None) -> Entry:
    """An entry, at the line of its key, which is what people look for; at its own where it has none."""
    line: int = first_line + node.start_mark.line if key_line is None else key_line
    if isinstance(node, yaml.MappingNode):
        return Entry(_fields(node, key=key, path=path, first_line=first_line), "", line, key, path)
    if isinstance(node, yaml.SequenceNode):
        items = [
            _entry(item, key=f"{key}[{i}]", path=path, first_line=first_line, key_line=None)
            for i, item in enumerate(node.value)
        ]
        return Entry(items, "", line, key, path)
    return Entry(_SCALARS[node.tag](node.value), node.value, line, key, path)


def _fields(node: yaml.MappingNode, *, key: str, path: str, first_line: int) -> dict[str, Entry]:
    fields: dict[str, Entry] = {}
    for key_node, value_node in node.value:
        line = first_line + key_node.start_mark.line
        if not isinstance(key_node, yaml.ScalarNode):
            raise PromptError("A key must be plain text.", path=path, line=line, key=key or None)
        name = key_node.value
        dotted = f"{key}.{name}" if key else name
        if name in fields:
            raise PromptError(
                f"Duplicate key {dotted!r}; it was given on line {fields[name].line} already.",
                path=path,
                line=line,
                key=dotted,
                hint="remove one of the two",
            )
        fields[name] = _entry(value_node, key=dotted, path=path, first_line=first_line, key_line=line)
    return fields


_SCALARS: dict[str, Callable[[str], Scalar]] = {
    _TAG + "str": str,
    _TAG + "int": int,
    _TAG + "float": float,
    _TAG + "bool": lambda raw: raw.lower() == "true",
    _TAG + "null": lambda raw: None,
}
