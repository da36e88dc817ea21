"""Prompt texts and fixtures that several tests of this room need."""

from __future__ import annotations

from pathlib import Path

from allinone.prompts.prompt_file import PromptFile, parse_prompt

LABEL_PROMPT = """\
---
description: is it urgent?
config: {temperature: 0}
input: {schema: {text: string}}
output: {schema: {label(enum): [紧急, 普通]}}
allinone.kind: label
allinone.labels:
  紧急: {name: urgent, emoji: 🔥, description: 马上处理}
  普通: {name: normal, description: 可以等}
---
{{role "system"}}
选一个：{{#each labels}}{{label}}（{{description}}）{{/each}}
{{role "user"}}
{{text}}
"""

TEXT_PROMPT = """\
---
description: says it again
input: {schema: {text: string, "style?": string, "words?(array)": string}}
allinone.kind: text
---
{{role "system"}}
Say it again.{{#if style}} Style: {{style}}.{{else}} Any style.{{/if}}
{{#each words}}
- {{this}}
{{/each}}
{{role "user"}}
{{text}}
"""


def parse(text: str, name: str = "task") -> PromptFile:
    """A prompt from its text."""
    return parse_prompt(text, path=Path(f"{name}.prompt"))


def with_body(body: str, schema: str = "{text: string}", extra: str = "") -> str:
    """A text prompt with this body; the body begins on line 6, or later by the lines of `extra`."""
    return f"---\ndescription: d\ninput: {{schema: {schema}}}\nallinone.kind: text\n{extra}---\n{body}"
