"""Requests and responses of `/v1/prompts`, for the OpenAPI document and for checking what clients send."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from allinone.prompts.files import MAX_FILE_BYTES
from allinone.server.answers import DraftAnswer, FailedItem, TaskShape
from allinone.server.fields import Body, Name, Text
from allinone.server.tasks_api import Variables
from allinone.types import Kind

MAX_TEXTS = 64
"""Of one comparison: each is answered twice."""
MAX_CASES = 512

PromptText = Annotated[str, Field(max_length=MAX_FILE_BYTES, description="The whole prompt file.")]
CasesText = Annotated[str, Field(max_length=MAX_FILE_BYTES, description="The whole cases file; blank: no cases.")]


class CheckRequest(Body):
    """A draft: what would be the file of the task `name`."""

    name: Name
    text: PromptText
    cases_text: CasesText | None = None


class CompareRequest(Body):
    """A draft, and texts to try it on beside what is served."""

    name: Name
    text: PromptText
    texts: list[Text] = Field(min_length=1, max_length=MAX_TEXTS)
    variables: Variables | None = None


class CasesRequest(Body):
    """A draft, and its cases; those of the task's file where None."""

    text: PromptText
    cases_text: CasesText | None = None


class SaveRequest(Body):
    """A task's new files."""

    text: PromptText
    expected_version: Name | None = Field(None, description="`version` as it was read; null for a new task.")
    cases_text: CasesText | None = Field(None, description="The cases file; null keeps the cases as they are.")


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(_Shape):
    """What is wrong with a file, and where."""

    file: Literal["prompt", "cases"]
    line: int | None
    key: str | None
    message: str
    hint: str | None


class PromptEntry(_Shape):
    """A task in the list; one whose file cannot be used, and never could, has no kind and no version."""

    name: str
    kind: Kind | None
    description: str
    version: str | None
    layer: str
    is_editable: bool
    error: Problem | None = Field(description="Why the file is not served as it is now.")


class PromptList(_Shape):
    """All tasks and all files that cannot be used; `folder` is where tasks are saved, null where they cannot be."""

    prompts: list[PromptEntry]
    folder: str | None


class PromptSource(_Shape):
    """A task's files as they lie on disk."""

    name: str
    text: str
    version: str = Field(description="Of `text`; to be sent back with a change.")
    served_version: str | None = Field(description="Another one where `text` cannot be used; null where nothing is.")
    layer: str
    path: str
    is_editable: bool
    cases_text: str | None
    errors: list[Problem]


class CheckedPrompt(TaskShape):
    """A draft that could be served."""

    ok: Literal[True]
    num_prefix_tokens: int = Field(description="What all its requests share.")


class WrongPrompt(_Shape):
    """A draft that could not be served."""

    ok: Literal[False]
    errors: list[Problem]


class Row(_Shape):
    """One text, as both versions answer it."""

    text: str
    old: DraftAnswer | FailedItem
    new: DraftAnswer | FailedItem
    is_changed: bool


class Comparison(_Shape):
    """Both versions on the same texts, in their order."""

    rows: list[Row]
    num_changed: int


class CaseShape(_Shape):
    """How one case went."""

    line: int
    description: str
    vars: dict[str, Any]
    passed: bool
    failures: list[str]
    answer: str | None


class CasesReport(_Shape):
    """How the cases of a draft went, in the order of the file."""

    version: str
    cases: list[CaseShape]
    num_passed: int
