"""Answers and tasks as they look over HTTP: the members of their JSON, for programs and for the OpenAPI document.

Results are turned into JSON by `answer_of`, not by these models: they are the contract, checked by tests, and cost
nothing at run time. Knows no request. Above: `tasks_api.py` and whoever sends results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from allinone.errors import AllInOneError
from allinone.prompts.prompt_file import PromptFile
from allinone.prompts.schema import ScalarType
from allinone.server.problems import describe
from allinone.types import FinishReason, Kind, Result


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class UsageShape(_Shape):
    """Token counts of one answer."""

    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int
    truncated_tokens: int


class TimingsShape(_Shape):
    """Seconds of one answer: waiting, until the first token, all in all."""

    queue_s: float
    ttft_s: float
    total_s: float


class DraftAnswer(_Shape):
    """The answer of one task, perhaps a draft, to one input; what its kind does not have is null."""

    task: str
    version: str
    model: str
    kind: Kind
    label: str | None
    name: str | None
    emoji: str | None
    probs: dict[str, float] | None
    p_max: float | None
    text: str | None
    data: Any
    finish_reason: FinishReason
    usage: UsageShape
    timings: TimingsShape
    cached: bool


class Answer(DraftAnswer):
    """The answer of one task to one input; what its kind does not have is null."""

    id: str = Field(description="What feedback refers to.")


class ItemError(_Shape):
    """Why one of many inputs has no answer."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str | None = None


class FailedItem(_Shape):
    """Stands in the place of an answer that could not be given."""

    error: ItemError


class Answers(_Shape):
    """Many answers, in the order of the inputs."""

    results: list[Answer | FailedItem]
    num_errors: int


class LabelShape(_Shape):
    """One label of a task."""

    label: str
    name: str
    emoji: str | None
    description: str


class VariableShape(_Shape):
    """One further variable of a task, beside its text."""

    name: str
    type: ScalarType
    is_array: bool
    is_required: bool
    description: str
    choices: list[str]
    default: Any


class TaskShape(_Shape):
    """A task: what it takes and what it answers."""

    name: str
    kind: Kind
    description: str
    version: str
    layer: str
    labels: list[LabelShape]
    open_labels: bool
    variables: list[VariableShape]
    max_input_tokens: int | None
    output_schema: dict[str, Any] | None


class Tasks(_Shape):
    """All tasks, sorted by name."""

    tasks: list[TaskShape]


def answer_of(result: Result, *, id: str) -> dict[str, Any]:
    """A result as `Answer` describes it."""
    return {
        "id": id,
        "task": result.task,
        "version": result.version,
        "model": result.model,
        "kind": result.kind,
        "label": result.label,
        "name": result.name,
        "emoji": result.emoji,
        "probs": None if result.probs is None else dict(result.probs),
        "p_max": result.p_max,
        "text": result.text,
        "data": result.data,
        "finish_reason": result.finish_reason,
        "usage": asdict(result.usage),
        "timings": asdict(result.timings),
        "cached": result.cached,
    }


def failed_item(error: AllInOneError) -> dict[str, Any]:
    """An error as `FailedItem` describes it."""
    return {"error": describe(error)}


def task_of(prompt: PromptFile) -> dict[str, Any]:
    """A task as `TaskShape` describes it."""
    return {
        "name": prompt.full_name,
        "kind": prompt.kind,
        "description": prompt.description,
        "version": prompt.version,
        "layer": prompt.layer,
        "labels": [asdict(spec) for spec in prompt.labels],
        "open_labels": prompt.open_labels,
        "variables": _variables_of(prompt, prompt.defaults),
        "max_input_tokens": prompt.limits.max_input_tokens,
        "output_schema": prompt.output_schema,
    }


def _variables_of(prompt: PromptFile, defaults: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": declared.name,
            "type": declared.type,
            "is_array": declared.is_array,
            "is_required": not declared.is_optional and declared.name not in defaults,
            "description": declared.description,
            "choices": list(declared.choices),
            "default": defaults.get(declared.name),
        }
        for declared in prompt.inputs.values()
        if declared.name != "text"
    ]
