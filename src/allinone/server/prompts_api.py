"""`/v1/prompts`: the task files as they are; drafts checked, compared and run on their cases; saving.

Only for administrators, and only where the server was started with `--edit-prompts`. A draft is never served: that
takes `PUT`, after which every process that uses the folder serves it with its next request. Above: `app.py`. Below:
`prompt_edit.py` and `prompt_trial.py`.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from starlette.requests import Request
from starlette.responses import Response

from allinone.errors import InvalidInput, NotFound
from allinone.server.context import Context, WhoAsks, admit, get_context, require_access, require_admin
from allinone.server.fields import MAX_NAME_CHARS, problems
from allinone.server.problems import to_json
from allinone.server.prompt_edit import PromptEditor
from allinone.server.prompt_shapes import (
    MAX_CASES,
    CasesReport,
    CasesRequest,
    CheckedPrompt,
    CheckRequest,
    CompareRequest,
    Comparison,
    PromptList,
    PromptSource,
    SaveRequest,
    WrongPrompt,
)
from allinone.server.prompt_trial import Trial


async def require_editing(request: Request) -> None:
    """Whoever may not edit prompts gets no further; where nobody may, there is nothing here.

    Raises:
        NotFound: the server does not let prompts be edited. NotAllowed: the key is not an administrator's.
    """
    if not get_context(request).settings.edit_prompts:
        raise NotFound("There is nothing at this path.")
    require_admin(await require_access(request))


PromptName = Annotated[str, Path(max_length=MAX_NAME_CHARS, examples=["sentiment"])]
router = APIRouter(tags=["prompts"], dependencies=[Depends(require_editing)])


@router.get("/v1/prompts", operation_id="list_prompts", response_model=PromptList, responses=problems(404))
async def list_prompts(context: Context, access: WhoAsks) -> Response:
    """All tasks of this key, whether each can be edited, and files that cannot be used as they are."""
    admit(context, access, task=None)
    listed = await asyncio.to_thread(PromptEditor(context.ai).list)
    return _json({**listed, "prompts": [entry for entry in listed["prompts"] if access.allows(entry["name"])]})


@router.get("/v1/prompts/{name}", operation_id="read_prompt", response_model=PromptSource, responses=problems(404))
async def read_prompt(name: PromptName, context: Context, access: WhoAsks) -> Response:
    """A task's prompt file and cases file."""
    admit(context, access, task=name)
    return _json(await asyncio.to_thread(PromptEditor(context.ai).read, name))


@router.post(
    "/v1/prompts/check",
    operation_id="check_prompt",
    response_model=CheckedPrompt | WrongPrompt,
    responses=problems(404),
)
async def check_prompt(request: CheckRequest, context: Context, access: WhoAsks) -> Response:
    """Whether a draft could be served; what is wrong with it, and in which line, if not."""
    admit(context, access, task=request.name)
    editor = PromptEditor(context.ai)
    return _json(await asyncio.to_thread(editor.check, request.name, request.text, request.cases_text))


@router.post("/v1/prompts/compare", operation_id="compare_prompt", response_model=Comparison, responses=problems(404))
async def compare_prompt(request: CompareRequest, context: Context, access: WhoAsks) -> Response:
    """A draft beside what is served, on the same texts; answers that change are marked."""
    admit(context, access, task=request.name, num_items=2 * len(request.texts))
    editor = PromptEditor(context.ai)
    draft = await asyncio.to_thread(editor.parse, request.name, request.text)
    served = await asyncio.to_thread(editor.find_served, request.name)
    return _json(await Trial(context, access).compare(served, draft, request.texts, request.variables or {}))


@router.post(
    "/v1/prompts/{name}/cases", operation_id="run_prompt_cases", response_model=CasesReport, responses=problems(404)
)
async def run_prompt_cases(name: PromptName, request: CasesRequest, context: Context, access: WhoAsks) -> Response:
    """A draft on its cases: those given, else those of the task's file."""
    editor = PromptEditor(context.ai)
    admit(context, access, task=name)
    draft = await asyncio.to_thread(editor.parse, name, request.text)
    cases = await asyncio.to_thread(editor.load_cases, draft, request.cases_text)
    if len(cases) > MAX_CASES:
        raise InvalidInput(f"There are {len(cases)} cases; at most {MAX_CASES} are run at once.")
    return _json(await Trial(context, access).run_cases(draft, cases))


@router.put(
    "/v1/prompts/{name}", operation_id="save_prompt", response_model=PromptSource, responses=problems(404, 409, 500)
)
async def save_prompt(name: PromptName, request: SaveRequest, context: Context, access: WhoAsks) -> Response:
    """Write a task's files into the server's last folder of tasks, if nobody else changed them; served at once."""
    admit(context, access, task=name)
    saved = await asyncio.to_thread(
        PromptEditor(context.ai).save,
        name,
        request.text,
        expected_version=request.expected_version,
        cases_text=request.cases_text,
    )
    return _json(saved)


def _json(value: Any) -> Response:
    return Response(to_json(value), media_type="application/json")
