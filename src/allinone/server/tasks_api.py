"""`/v1/tasks`: the tasks there are, and their answers to one input or to many.

Checks and hands on; the runtime answers. Of many inputs a bad one never stops the others: its error stands in its
place. Above: `app.py`. Below: `waiting.py` (answers without threads) and the runtime.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi import Body as RequestBody
from pydantic import Discriminator, Field, Tag
from starlette.responses import Response

from allinone.errors import AllInOneError, InvalidInput
from allinone.prompts.prompt_file import PromptFile
from allinone.server.answers import Answer, Answers, Tasks, TaskShape, answer_of, failed_item, task_of
from allinone.server.context import Context, ServerContext, WhoAsks, admit
from allinone.server.fields import MAX_NAME_CHARS, Body, Name, Seconds, Text, bounded, check_text, problems
from allinone.server.keys import Access
from allinone.server.problems import to_json
from allinone.server.waiting import outcome_of, wait
from allinone.tasks.run import Pending
from allinone.types import Priority, Result

MAX_ITEMS = 512
"""Inputs of one request."""
WINDOW = 64
"""Inputs of one request that are with the engine at the same time."""
_SHORT_CHARS = 2_000
_RESERVED = frozenset({"task", "text", "labels", "history", "deadline_s", "client", "priority", "is_private"})

Scalar = Annotated[int, Field(ge=-(2**53), le=2**53)] | Annotated[float, Field(allow_inf_nan=False)] | bool | Text
Variables = Annotated[
    dict[Name, Scalar | Annotated[list[Scalar], Field(max_length=100, fail_fast=True)] | None],
    bounded(32),
    Field(max_length=32, description="Further variables that the task declares, by name."),
]
Labels = Annotated[
    list[Name],
    Field(min_length=1, max_length=100, description="For label tasks: choose among these only, by label or by name."),
]
Input = Annotated[Text, Field(min_length=1, pattern=r"\S", description="What the task works on.")]
ItemText = Annotated[str, Field(description="What the task works on; a text that cannot be used fails alone.")]


class OneInput(Body):
    """One text, with what the task wants beside it."""

    text: Input
    variables: Variables | None = None
    labels: Labels | None = None
    deadline_s: Seconds | None = Field(None, description="Give up after so many seconds, waiting included.")


class Item(Body):
    """One of many inputs."""

    text: ItemText
    variables: Variables | None = None


class ManyInputs(Body):
    """Many inputs for the same task; each is answered, or says why not."""

    inputs: list[Item] = Field(min_length=1, max_length=MAX_ITEMS, fail_fast=True)
    labels: Labels | None = None
    deadline_s: Seconds | None = Field(None, description="For each input, from the moment it is begun.")


def _shape_of(value: Any) -> str:
    return "many" if isinstance(value, dict) and "inputs" in value else "one"


TaskRequest = Annotated[
    Annotated[OneInput, Tag("one")] | Annotated[ManyInputs, Tag("many")],
    Discriminator(_shape_of),
    RequestBody(
        openapi_examples={
            "label": {"summary": "One text", "value": {"text": "今天的实验终于成功了,太棒了!"}},
            "subset": {"summary": "Among some labels", "value": {"text": "还行吧", "labels": ["正面", "负面"]}},
            "many": {"summary": "Many texts", "value": {"inputs": [{"text": "这家店太棒了"}, {"text": "服务很差"}]}},
        }
    ),
]
TaskName = Annotated[str, Path(max_length=MAX_NAME_CHARS, examples=["sentiment"])]

router = APIRouter(tags=["tasks"])


@router.get("/v1/tasks", operation_id="list_tasks", response_model=Tasks, responses=problems())
async def list_tasks(context: Context, access: WhoAsks) -> Response:
    """Every task that this key may use: what it takes and what it answers."""
    admit(context, access, task=None)
    context.ai.tasks.refresh()
    tasks = [task_of(prompt) for prompt in context.ai.tasks.prompts() if access.allows(prompt.full_name)]
    return _json({"tasks": tasks})


@router.get("/v1/tasks/{name}", operation_id="show_task", response_model=TaskShape, responses=problems(404))
async def show_task(name: TaskName, context: Context, access: WhoAsks) -> Response:
    """One task: what it takes and what it answers."""
    admit(context, access, task=name)
    return _json(task_of(_find(context, name)))


@router.post("/v1/tasks/{name}", operation_id="run_task", response_model=Answer | Answers, responses=problems(404))
async def run_task(name: TaskName, request: TaskRequest, context: Context, access: WhoAsks) -> Response:
    """Run a task on one text, or on many: `{"text": …}` or `{"inputs": [{"text": …}, …]}`.

    Of many inputs, one that cannot be answered has its error in the place of its answer; the others are answered.
    """
    num_items = len(request.inputs) if isinstance(request, ManyInputs) else 1
    admit(context, access, task=name, num_items=num_items)
    runner = _Runner(context, access, _find(context, name), labels=request.labels, deadline_s=request.deadline_s)
    if isinstance(request, ManyInputs):
        return _json(await runner.answer_many(request.inputs))
    return _json(await runner.answer_one(request.text, request.variables or {}))


class _Runner:
    """Answers the inputs of one request."""

    def __init__(
        self,
        context: ServerContext,
        access: Access,
        prompt: PromptFile,
        *,
        labels: list[str] | None,
        deadline_s: float | None,
    ) -> None:
        self._context, self._access, self._prompt = context, access, prompt
        self._labels, self._deadline_s = labels, deadline_s

    async def answer_one(self, text: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """As `Answer` describes it. Its id is written while the engine works."""
        pending = await self._begin(text, variables, priority="interactive")
        result, (answer_id,) = await asyncio.gather(
            self._finish(pending), self._context.answers.add(self._access, self._prompt)
        )
        return answer_of(result, id=answer_id)

    async def answer_many(self, inputs: list[Item]) -> dict[str, Any]:
        """As `Answers` describes it."""
        gate = asyncio.Semaphore(WINDOW)
        outcomes = await asyncio.gather(*(self._answer_item(item, gate) for item in inputs))
        results = [outcome for outcome in outcomes if isinstance(outcome, Result)]
        ids = iter(await self._context.answers.add(self._access, self._prompt, len(results)))
        shown = [
            answer_of(outcome, id=next(ids)) if isinstance(outcome, Result) else failed_item(outcome)
            for outcome in outcomes
        ]
        return {"results": shown, "num_errors": len(outcomes) - len(results)}

    async def _answer_item(self, item: Item, gate: asyncio.Semaphore) -> Result | AllInOneError:
        """One answer of many; a full queue is waited out, for it moves."""
        async with gate:
            return await outcome_of(lambda: self._answer(item))

    async def _answer(self, item: Item) -> Result:
        return await self._finish(await self._begin(item.text, item.variables or {}, priority="batch"))

    async def _begin(self, text: str, variables: Mapping[str, Any], *, priority: Priority) -> Pending:
        _check_input(self._prompt, text, variables)
        begin = partial(
            self._context.ai.start,
            self._prompt,
            text,
            labels=self._labels,
            client=self._access.owner,
            priority=priority,
            deadline_s=self._deadline_s,
            **variables,
        )
        is_quick = len(text) <= _SHORT_CHARS and self._prompt.kind != "json"  # a schema may take long to compile
        return begin() if is_quick else await asyncio.to_thread(begin)

    async def _finish(self, pending: Pending) -> Result:
        """The answer, counted."""
        result = await wait(pending)
        if not result.cached:
            self._context.limits.add_tokens(self._access, result.usage)
        self._context.metrics.count_result(result)
        return result


def _find(context: ServerContext, name: str) -> PromptFile:
    """The prompt file that serves a task at this moment."""
    context.ai.tasks.refresh()
    return context.ai.tasks.get(name)


def _check_input(prompt: PromptFile, text: str, variables: Mapping[str, Any]) -> None:
    """Refuse texts that are none, and variables that the task does not declare, before they become arguments."""
    try:
        check_text(text)
    except ValueError as error:
        raise InvalidInput(f"{error}.") from None
    declared = [name for name in prompt.inputs if name not in _RESERVED]
    for name in variables:
        if name not in declared:
            known = ", ".join(declared) or "none"
            raise InvalidInput(f"Task {prompt.full_name!r} has no variable {name[:50]!r}. Known: {known}.")


def _json(value: Any) -> Response:
    return Response(to_json(value), media_type="application/json")
