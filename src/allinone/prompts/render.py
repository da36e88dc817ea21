"""A checked syntax tree and its values → messages made of trusted and value segments.

Invariant: a value is one segment of its own, never altered, never joined to template text; so no value can change the
number of turns, their roles or any trusted text around it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from allinone.prompts.template import Each, HistoryTag, If, Node, RoleTag, Text, Variable
from allinone.types import Message, Role, Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The values of one rendering.

    Attributes:
        values: variable -> its text; None for an optional one that was not given.
        arrays: variable -> its items.
        flags: variables whose value counts as true in `{{#if}}`.
        labels: fields of each label, and whether the operator wrote it (trusted) or the caller (a value).
        history: earlier turns, put in as they are.
    """

    values: Mapping[str, str | None]
    arrays: Mapping[str, Sequence[str]]
    flags: frozenset[str]
    labels: Sequence[tuple[Mapping[str, str], bool]] = ()
    history: Sequence[Message] = ()


def render_messages(nodes: tuple[Node, ...], scope: Scope) -> tuple[Message, ...]:
    """The messages of a prompt. Text before the first `{{role}}` is the user's; turns without content are left out."""
    builder = _Builder(scope)
    builder.add(nodes, item={})
    builder.close_turn()
    return tuple(builder.messages)


class _Builder:
    def __init__(self, scope: Scope) -> None:
        self.messages: list[Message] = []
        self._scope = scope
        self._role: Role | None = "user"
        self._content: list[Segment] = []

    def add(self, nodes: tuple[Node, ...], item: Mapping[str, Segment]) -> None:
        """Render nodes; `item` has the names that an enclosing {{#each}} adds."""
        for node in nodes:
            match node:
                case Text():
                    self._append(Segment(text=node.text, trusted=True))
                case Variable():
                    self._append(item[node.name] if node.name in item else self._value(node.name))
                case If():
                    is_true = bool(item[node.name].text) if node.name in item else node.name in self._scope.flags
                    self.add(node.then if is_true else node.otherwise, item)
                case Each():
                    for fields in self._items(node.name):
                        self.add(node.body, fields)
                case RoleTag():
                    self.close_turn()
                    self._role = node.role
                case HistoryTag():
                    self.close_turn()
                    self._role = None
                    self.messages.extend(self._scope.history)

    def close_turn(self) -> None:
        """Finish the open turn: trusted text at its edges loses its outer whitespace, values are left alone."""
        content, self._content = self._content, []
        if content and content[0].trusted:
            content[0] = Segment(text=content[0].text.lstrip(), trusted=True)
        if content and content[-1].trusted:
            content[-1] = Segment(text=content[-1].text.rstrip(), trusted=True)
        content = [segment for segment in content if segment.text or not segment.trusted]
        if content and self._role is not None:
            self.messages.append(Message(role=self._role, content=tuple(content)))

    def _append(self, segment: Segment) -> None:
        if segment.trusted and self._content and self._content[-1].trusted:
            self._content[-1] = Segment(text=self._content[-1].text + segment.text, trusted=True)
        else:
            self._content.append(segment)

    def _value(self, name: str) -> Segment:
        return Segment(text=self._scope.values[name] or "", trusted=False)

    def _items(self, name: str) -> list[dict[str, Segment]]:
        if name != "labels":
            return [{"this": Segment(text=text, trusted=False)} for text in self._scope.arrays[name]]
        return [
            {field: Segment(text=text, trusted=trusted) for field, text in fields.items()}
            for fields, trusted in self._scope.labels
        ]
