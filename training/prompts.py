"""Reads the product's `.prompt` files and turns them into parts, exactly as the product does.

Kept apart from the product's own compiler on purpose: the recipe must run without it, and tests compare the two.
A part is text of the operator (control tokens allowed) or a value (user text, tokenised alone).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from training.settings import ROOT

BUILTIN = ROOT / "src" / "allinone" / "prompts" / "builtin"
TAG = re.compile(r"\{\{\s*(.*?)\s*\}\}")
NONE, ANSWER, LABEL, INPUT, EDIT = range(5)  # the role of a token in the loss


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a training example.

    Attributes:
        text: what is tokenised.
        control: whether control tokens are read in it.
        role: what its tokens are in the loss.
        edits: (start, end) of characters whose tokens have the role EDIT instead.
    """

    text: str
    control: bool
    role: int = NONE
    edits: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """One earlier turn of a conversation; `parts` are its content."""

    role: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One `.prompt` file: body, and its labels with their descriptions."""

    name: str
    body: str
    labels: tuple[tuple[str, str], ...] = ()

    def render(
        self,
        values: Mapping[str, str],
        *,
        labels: Sequence[tuple[str, str]] | None = None,
        history: Sequence[Message] = (),
    ) -> list[Part]:
        """Parts of the prompt up to and including the opening of the assistant's turn."""
        messages = render_messages(self.body, values, labels if labels is not None else self.labels, history)
        parts: list[Part] = []
        for message in messages:
            parts.append(Part(f"<|im_start|>{message.role}\n", True))
            parts.extend(message.parts)
            parts.append(Part("<|im_end|>\n", True))
        parts.append(Part("<|im_start|>assistant\n", True))
        return parts


def render_messages(
    body: str, values: Mapping[str, str], labels: Sequence[tuple[str, str]], history: Sequence[Message]
) -> list[Message]:
    """Messages of a body: `{{role}}` opens one, values become parts of their own, trusted text is stripped."""
    body = re.sub(
        r"\{\{#if (\w+)\}\}(.*?)\{\{/if\}\}",
        lambda m: m.group(2) if values.get(m.group(1)) else "",
        body,
        flags=re.DOTALL,
    )

    def each(match: re.Match[str]) -> str:
        block = match.group(1)
        return "".join(block.replace("{{label}}", n).replace("{{description}}", d) for n, d in labels)

    # A line that holds only a block tag leaves no line behind.
    body = re.sub(r"(?m)^[ \t]*(\{\{[#/]each[^}]*\}\})[ \t]*\n", r"\1", body)
    body = re.sub(r"\{\{#each labels\}\}(.*?)\{\{/each\}\}", each, body, flags=re.DOTALL)
    messages: list[Message] = []
    role, parts = "", list[Part]()

    def close() -> None:
        if not role:
            return
        kept = list(parts)
        if kept and kept[0].control:
            kept[0] = Part(kept[0].text.lstrip(), True)
        if kept and kept[-1].control:
            kept[-1] = Part(kept[-1].text.rstrip(), True)
        kept = [p for p in kept if p.text or not p.control]
        messages.append(Message(role, tuple(kept)))

    position = 0
    for tag in TAG.finditer(body):
        if body[position : tag.start()]:
            parts.append(Part(body[position : tag.start()], True))
        position = tag.end()
        if opened := re.match(r'role "(\w+)"', tag.group(1)):
            close()
            role, parts = opened.group(1), []
        elif tag.group(1) == "history":
            close()
            role, parts = "", []
            messages.extend(history)
        else:
            parts.append(Part(values[tag.group(1)], False, INPUT))
    if body[position:]:
        parts.append(Part(body[position:], True))
    close()
    return messages


def load_prompt(path: Path) -> Prompt:
    """Reads one `.prompt` file (YAML front matter between `---` lines, then the body)."""
    _, front, body = re.split(r"(?m)^---\s*$", path.read_text(encoding="utf-8"), maxsplit=2)
    meta = yaml.safe_load(re.sub(r"([{,]\s*)(\w+\?)(?=\s*:)", r'\1"\2"', front))  # PyYAML rejects a plain `mood?:`
    entries = meta.get("allinone.labels") or {}
    labels = tuple((str(name), str((entry or {}).get("description", ""))) for name, entry in entries.items())
    return Prompt(path.stem, body.strip("\n"), labels)


def load_prompts(folder: Path) -> dict[str, Prompt]:
    """All prompts of a folder by name (`sentiment`, `sentiment.en`, …)."""
    return {prompt.name: prompt for prompt in (load_prompt(path) for path in sorted(folder.glob("*.prompt")))}


def chat_body(system: str, user: str = "{{text}}") -> str:
    """Body of an alternative wording: one system text, one user turn."""
    return f'{{{{role "system"}}}}\n{system}\n{{{{role "user"}}}}\n{user}'
