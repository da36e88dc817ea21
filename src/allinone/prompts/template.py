"""The language of prompt bodies: text → syntax tree.

Owns the grammar: `{{name}}`, `{{#if name}}…{{else}}…{{/if}}`, `{{#each name}}…{{/each}}`, `{{role "user"}}`,
`{{history}}` and `{{! comments }}`. There are no calls, no attribute access and no escapes. A line that holds only a
block tag or a comment vanishes whole, as in Handlebars. Does not know which names are declared (`template_rules`) nor
how a tree becomes messages (`render`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias, get_args

from allinone.errors import PromptError, did_you_mean
from allinone.types import Role

ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Text:
    """Literal text of the operator; `line` is where it begins."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Variable:
    """`{{name}}`: an input, an item (`this`), or a field of a label."""

    name: str
    line: int


@dataclass(frozen=True, slots=True)
class RoleTag:
    """`{{role "system"}}`: what follows belongs to a new turn."""

    role: Role
    line: int


@dataclass(frozen=True, slots=True)
class HistoryTag:
    """`{{history}}`: the earlier turns stand here."""

    line: int


@dataclass(frozen=True, slots=True)
class If:
    """`{{#if name}}`: `then` where the value is not empty, `otherwise` else."""

    name: str
    then: tuple[Node, ...]
    otherwise: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Each:
    """`{{#each name}}`: `body` once for each item."""

    name: str
    body: tuple[Node, ...]
    line: int


Node: TypeAlias = "Text | Variable | RoleTag | HistoryTag | If | Each"


@dataclass(slots=True)
class _Open:
    """A block whose end was not seen yet."""

    tag: str
    name: str
    line: int
    nodes: list[Node]
    then: list[Node] | None = None  # of an {{#if}} after its {{else}}


_MAX_DEPTH = 16
_NAME = re.compile(r"[^\W\d]\w*")
_BLOCK = re.compile(r"#\s*(\w+)(?:\s+(.*))?", re.DOTALL)
_ROLE = re.compile(r"role(?:\s+(.*))?", re.DOTALL)


def parse_template(body: str, *, path: str, first_line: int = 1) -> tuple[Node, ...]:
    """The syntax tree of a prompt body.

    Args:
        body: the text, every newline a line feed.
        path: shown in errors.
        first_line: 1-based line of `body` in its file.

    Raises:
        PromptError: an unknown, unclosed or misplaced tag, with its line and what to write instead.
    """
    return _Parser(body, path, first_line).parse()


def walk(nodes: tuple[Node, ...]) -> Iterator[Node]:
    """Every node of a tree, in the order of the file."""
    for node in nodes:
        yield node
        if isinstance(node, If):
            yield from walk(node.then)
            yield from walk(node.otherwise)
        elif isinstance(node, Each):
            yield from walk(node.body)


class _Parser:
    def __init__(self, body: str, path: str, first_line: int) -> None:
        self._body, self._path, self._first_line = body, path, first_line
        self._nodes: list[Node] = []
        self._open: list[_Open] = []

    def parse(self) -> tuple[Node, ...]:
        position = 0
        while (start := self._body.find("{{", position)) >= 0:
            end = self._tag_end(start)
            tag, line = self._body[start:end], self._line(start)
            inner = tag[2:-2].strip()
            if inner.startswith(("!", "#", "/")) or inner == "else":
                start, end = self._standalone(start, end)
            self._add_text(position, start)
            position = end
            if not inner.startswith("!"):
                self._add_tag(tag, inner, line)
        self._add_text(position, len(self._body))
        if self._open:
            block = self._open[-1]
            raise self._error(
                f"{{{{#{block.tag} {block.name}}}}} is never closed.", block.line, hint=f"add {{{{/{block.tag}}}}}"
            )
        return tuple(self._nodes)

    def _add_text(self, start: int, end: int) -> None:
        if start < end:
            self._nodes.append(Text(self._body[start:end], self._line(start)))

    def _tag_end(self, start: int) -> int:
        is_long_comment = self._body.startswith("{{!--", start)
        closing = "--}}" if is_long_comment else "}}"
        end = self._body.find(closing, start + 2)
        is_comment = self._body[start + 2 : end].lstrip().startswith("!")
        if end < 0 or (not is_comment and self._body.find("{{", start + 2, end) >= 0):
            raise self._error("This {{ is never closed.", self._line(start), hint=f"write {closing} after the tag")
        return end + len(closing)

    def _add_tag(self, tag: str, inner: str, line: int) -> None:
        if inner == "else":
            self._start_else(line)
        elif inner == "history":
            self._nodes.append(HistoryTag(line))
        elif block := _BLOCK.fullmatch(inner):
            self._start_block(block.group(1), block.group(2) or "", line)
        elif inner.startswith("/"):
            self._end_block(inner[1:].strip(), line)
        elif role := _ROLE.fullmatch(inner):
            self._nodes.append(RoleTag(self._role(role.group(1) or "", line), line))
        elif _NAME.fullmatch(inner):
            self._nodes.append(Variable(inner, line))
        else:
            raise self._error(f"{tag} is not a tag of this language.", line, hint=_advice(inner))

    def _start_block(self, tag: str, name: str, line: int) -> None:
        if tag not in ("if", "each"):
            hint = "write {{#if name}}{{else}}…{{/if}}" if tag == "unless" else None
            raise self._error(f"Unknown block {{{{#{tag}}}}}. {did_you_mean(tag, ('if', 'each'))}", line, hint=hint)
        if not _NAME.fullmatch(name):
            raise self._error(f"{{{{#{tag}}}}} takes one name, not {name!r}.", line, hint=f"write {{{{#{tag} name}}}}")
        if len(self._open) == _MAX_DEPTH:
            raise self._error(f"More than {_MAX_DEPTH} blocks are open here.", line)
        self._open.append(_Open(tag, name, line, self._nodes))
        self._nodes = []

    def _start_else(self, line: int) -> None:
        block = self._open[-1] if self._open else None
        if block is None or block.tag != "if" or block.then is not None:
            raise self._error("{{else}} without an open {{#if}}.", line)
        block.then, self._nodes = self._nodes, []

    def _end_block(self, tag: str, line: int) -> None:
        if not self._open:
            raise self._error(f"{{{{/{tag}}}}} closes nothing.", line)
        block = self._open.pop()
        if block.tag != tag:
            raise self._error(
                f"{{{{/{tag}}}}} does not close {{{{#{block.tag} {block.name}}}}} of line {block.line}.",
                line,
                hint=f"write {{{{/{block.tag}}}}}",
            )
        nodes, self._nodes = self._nodes, block.nodes
        if tag == "each":
            self._nodes.append(Each(block.name, tuple(nodes), block.line))
        elif block.then is None:
            self._nodes.append(If(block.name, tuple(nodes), (), block.line))
        else:
            self._nodes.append(If(block.name, tuple(block.then), tuple(nodes), block.line))

    def _role(self, argument: str, line: int) -> Role:
        quoted = len(argument) >= 2 and argument[0] == argument[-1] and argument[0] in "\"'"
        role = argument[1:-1] if quoted else argument
        if quoted and role in ROLES:
            return role
        if role in ROLES:
            raise self._error("{{role}} takes a quoted word.", line, hint=f'write {{{{role "{role}"}}}}')
        meant = "assistant" if role == "model" else role  # Dotprompt's own name for it
        raise self._error(f"Unknown role {role!r}. {did_you_mean(meant, ROLES)}", line)

    def _standalone(self, start: int, end: int) -> tuple[int, int]:
        """The span of the whole line where the tag is alone on it; the tag's own span otherwise."""
        line_start = self._body.rfind("\n", 0, start) + 1
        newline = self._body.find("\n", end)
        line_end = len(self._body) if newline < 0 else newline + 1
        alone = not self._body[line_start:start].strip(" \t") and not self._body[end:line_end].strip(" \t\n")
        return (line_start, line_end) if alone else (start, end)

    def _line(self, position: int) -> int:
        return self._first_line + self._body.count("\n", 0, position)

    def _error(self, message: str, line: int, *, hint: str | None = None) -> PromptError:
        return PromptError(message, path=self._path, line=line, hint=hint)


def _advice(inner: str) -> str:
    """What to write instead of a tag that other template languages have."""
    if inner.startswith(("{", "&")):
        return "write {{name}}: nothing is ever escaped here"
    if inner.startswith(">"):
        return "partials are not supported; write the text here"
    if inner.startswith("~") or inner.endswith("~"):
        return "whitespace control (~) is not supported; a line that holds only a block tag vanishes anyway"
    if inner.startswith("else"):
        return "write {{else}} and a nested {{#if}}"
    if inner.startswith("@"):
        return "loop variables are not supported"
    if re.fullmatch(r"[\w.\[\]/]+", inner):
        return "no attribute access: declare an input of its own under `input.schema`"
    return 'no helper calls; the tags are {{name}}, {{#if}}, {{#each}}, {{role "user"}}, {{history}}, {{! comment }}'
