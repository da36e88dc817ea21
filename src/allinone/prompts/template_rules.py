"""What a prompt body must keep to beyond its grammar: declared names, turns in order, no control tokens.

Checked once when a file is read, so that rendering cannot fail on the template's account.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, TypeAlias

from allinone.errors import MissingVariable, PromptError, did_you_mean
from allinone.prompts.template import Each, HistoryTag, If, Node, RoleTag, Text, Variable, walk
from allinone.types import Role

Shape: TypeAlias = Literal["scalar", "array"]
LABEL_FIELDS = ("label", "name", "description", "emoji")
RESERVED_NAMES = ("else", "history", "labels", "role", "this")
CONTROL_TOKEN = re.compile(r"<[|｜][^<>|｜\n]{1,60}[|｜]>")


def check_template(nodes: tuple[Node, ...], *, shapes: Mapping[str, Shape], has_labels: bool, path: str) -> None:
    """Check a tree against what its file declares.

    Args:
        nodes: the tree.
        shapes: declared inputs, and whether each is one value or an array.
        has_labels: whether `{{#each labels}}` has something to repeat.
        path: shown in errors.

    Raises:
        MissingVariable: a name that is not declared. PromptError: any other rule, with its line.
    """
    _check_names(nodes, shapes, has_labels, path, item=None)
    _check_turns(nodes, path)
    for node in walk(nodes):
        if isinstance(node, Text) and (found := CONTROL_TOKEN.search(node.text)):
            line = node.line + node.text.count("\n", 0, found.start())
            raise PromptError(
                f"The control token {found.group()!r} may not be written in a prompt.",
                path=path,
                line=line,
                hint='use {{role "system"}}, {{role "user"}}, {{role "assistant"}}; each model gets its own tokens',
            )


def used_names(nodes: tuple[Node, ...]) -> set[str]:
    """Names that occur anywhere in a tree (inputs, and fields of labels)."""
    return {node.name for node in walk(nodes) if isinstance(node, (Variable, If, Each))}


def _check_names(
    nodes: tuple[Node, ...],
    shapes: Mapping[str, Shape],
    has_labels: bool,
    path: str,
    item: Literal["label", "value"] | None,
) -> None:
    """`item`: what an enclosing {{#each}} repeats, if there is one."""
    own = {"label": LABEL_FIELDS, "value": ("this",), None: ()}[item]
    for node in nodes:
        if isinstance(node, Variable):
            if node.name in own:
                continue
            if _require_declared(node.name, node.line, shapes, own, path) == "array":
                hint = f"write {{{{#each {node.name}}}}}{{{{this}}}}{{{{/each}}}}"
                raise PromptError(
                    f"{node.name!r} is an array and cannot stand alone.", path=path, line=node.line, hint=hint
                )
        elif isinstance(node, If):
            if node.name not in own:
                _require_declared(node.name, node.line, shapes, own, path)
            _check_names(node.then, shapes, has_labels, path, item)
            _check_names(node.otherwise, shapes, has_labels, path, item)
        elif isinstance(node, Each):
            if item is not None:
                raise PromptError("{{#each}} inside {{#each}} is not supported.", path=path, line=node.line)
            _check_each(node, shapes, has_labels, path)
        elif isinstance(node, (RoleTag, HistoryTag)) and item is not None:
            raise PromptError(
                "Turns cannot be repeated: no {{role}} or {{history}} inside {{#each}}.", path=path, line=node.line
            )


def _check_each(node: Each, shapes: Mapping[str, Shape], has_labels: bool, path: str) -> None:
    if node.name == "labels":
        if not has_labels:
            raise MissingVariable(
                "{{#each labels}} needs labels.",
                path=path,
                line=node.line,
                hint="add `allinone.labels`",
            )
        return _check_names(node.body, shapes, has_labels, path, "label")
    if _require_declared(node.name, node.line, shapes, ("labels",) if has_labels else (), path) != "array":
        raise PromptError(
            f"{{{{#each {node.name}}}}} needs an array; {node.name!r} is a single value.",
            path=path,
            line=node.line,
            hint=f'declare it as "{node.name}(array)": string',
        )
    return _check_names(node.body, shapes, has_labels, path, "value")


def _require_declared(name: str, line: int, shapes: Mapping[str, Shape], own: tuple[str, ...], path: str) -> Shape:
    if name in shapes:
        return shapes[name]
    hint = f"declare it under `input.schema`: {{{name}: string}}"
    if name in LABEL_FIELDS or name == "this":
        hint = "{{label}}, {{name}}, {{description}}, {{emoji}} exist in {{#each labels}}, {{this}} in other {{#each}}"
    elif name == "labels":
        hint = "write {{#each labels}}{{label}}{{/each}}"
    raise MissingVariable(
        f"{name!r} is not declared. {did_you_mean(name, [*shapes, *own], noun='Declared')}",
        path=path,
        line=line,
        key=f"input.schema.{name}",
        hint=hint,
    )


def _check_turns(nodes: tuple[Node, ...], path: str) -> None:
    """Every text has a role, history comes once, and the answer is the assistant's to give."""
    histories = [node for node in walk(nodes) if isinstance(node, HistoryTag)]
    if len(histories) > 1:
        raise PromptError("{{history}} may occur once only.", path=path, line=histories[1].line)
    last_line = max((node.line for node in walk(nodes)), default=None)
    for role in _roles_after(nodes, frozenset({"user"}), path):
        if role is None:
            raise PromptError(
                "Nothing follows {{history}}.", path=path, line=last_line, hint='add {{role "user"}} {{text}}'
            )
        if role == "assistant":
            raise PromptError(
                "The prompt ends in an assistant turn; the answer is to come there.",
                path=path,
                line=last_line,
                hint='end it with {{role "user"}} {{text}}',
            )


def _roles_after(nodes: tuple[Node, ...], roles: frozenset[Role | None], path: str) -> frozenset[Role | None]:
    """Which roles may be open after `nodes`; None right after {{history}}, where text would belong to nobody."""
    for node in nodes:
        if isinstance(node, RoleTag):
            roles = frozenset({node.role})
        elif isinstance(node, HistoryTag):
            roles = frozenset({None})
        elif isinstance(node, If):
            roles = _roles_after(node.then, roles, path) | _roles_after(node.otherwise, roles, path)
        elif None in roles and not (isinstance(node, Text) and not node.text.strip()):
            raise PromptError(
                "Text after {{history}} needs a role.", path=path, line=node.line, hint='put {{role "user"}} before it'
            )
    return roles
