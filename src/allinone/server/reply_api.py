"""`/v1/reply`: the mood of a message, then a reply that knows it, as server-sent events.

The label event comes first, then tokens, then done (or error). A client whose connection broke comes back with
`Last-Event-ID` and loses nothing. Above: `app.py`. Below: `reply_runs.py`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Request
from fastapi import Body as RequestBody
from pydantic import Field
from starlette.responses import Response, StreamingResponse

from allinone.errors import InvalidInput
from allinone.server.context import Context, ServerContext, WhoAsks, admit, require_access
from allinone.server.fields import Body, Text, problems
from allinone.server.reply_runs import ReplyRun, ReplyRuns, Wanted
from allinone.server.sse import EventResponse
from allinone.server.talks import Talks

MAX_EVENT_NUMBER = 1_000_000
_EVENT: dict[str, Any] = {
    "type": "object",
    "description": "One event; `data` is a JSON object.",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string", "pattern": "^ans_[A-Za-z0-9_-]+:[0-9]+$"},
        "event": {"enum": ["label", "token", "done", "error"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events: `label`, then `token`s, then `done` or `error`.",
        "content": {"text/event-stream": {"schema": _EVENT}},
    }
}
_EXAMPLES: dict[str, Any] = {
    "zh": {"summary": "A new conversation", "value": {"text": "今天的实验终于成功了,太棒了!", "language": "zh"}},
    "en": {"summary": "Nothing is kept", "value": {"text": "I feel a bit lonely", "language": "en", "store": False}},
}
ReplyId = Annotated[str, Path(pattern=r"^ans_[A-Za-z0-9_-]{1,64}$", description="From the label event.")]
LastEventId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", max_length=200, description="Id of the last event seen; goes on after it."),
]


class ReplyRequest(Body):
    """One message."""

    text: Annotated[Text, Field(min_length=1, pattern=r"\S", description="What the user says.")]
    conversation: Annotated[
        str | None,
        Field(pattern=r"^conv_[A-Za-z0-9_-]{1,64}$", description="Goes on with it; a new one where it is left out."),
    ] = None
    language: Annotated[
        Literal["zh", "en"] | None, Field(description="Wording of the prompts, for a new conversation.")
    ] = None
    store: Annotated[bool, Field(description="False: nothing is kept, and there is no conversation.")] = True


router = APIRouter(tags=["reply"], dependencies=[Depends(require_access)])


@router.post("/v1/reply", response_class=StreamingResponse, responses={**_EVENTS, **problems(404, 409)})
async def reply(
    request: Request,
    context: Context,
    access: WhoAsks,
    body: Annotated[ReplyRequest, RequestBody(openapi_examples=_EXAMPLES)],
    last_event_id: LastEventId = None,
) -> Response:
    """Judge the mood of a message, then stream a reply that knows it.

    With `Last-Event-ID` the body is ignored: the reply that the event belongs to goes on after it.
    """
    runs = runs_of(request)
    if last_event_id is not None:
        id, number = _parse_event_id(last_event_id)
        return _follow(context, runs, runs.find(access, id), number + 1)
    admit(context, access, task="reply")
    if not body.store and body.conversation is not None:
        raise InvalidInput("A reply that is not stored belongs to no conversation.", hint="leave `conversation` out")
    wanted = Wanted(
        text=body.text,
        conversation=body.conversation,
        language=body.language or context.ai.language,
        is_stored=body.store,
    )
    return _follow(context, runs, await runs.begin(access, wanted), 0)


@router.get("/v1/reply/{id}", response_class=StreamingResponse, responses={**_EVENTS, **problems(404)})
async def reply_again(
    request: Request, context: Context, access: WhoAsks, id: ReplyId, last_event_id: LastEventId = None
) -> Response:
    """Read a reply's events again: all of them, or those after `Last-Event-ID`."""
    runs = runs_of(request)
    run = runs.find(access, id)
    start = 0
    if last_event_id is not None:
        of, number = _parse_event_id(last_event_id)
        if of != id:
            raise InvalidInput("Last-Event-ID names another reply.")
        start = number + 1
    return _follow(context, runs, run, start)


@router.delete("/v1/reply/{id}", status_code=204, responses=problems(404))
async def stop_reply(request: Request, access: WhoAsks, id: ReplyId) -> Response:
    """Stop a reply; what was said is kept as the turn."""
    runs_of(request).find(access, id).stop()
    return Response(status_code=204)


def runs_of(request: Request) -> ReplyRuns:
    """The replies of this application; made with the first one."""
    state = request.app.state
    if not hasattr(state, "reply_runs"):
        state.reply_runs = ReplyRuns(state.context, talks_of(request))
    runs = state.reply_runs
    assert isinstance(runs, ReplyRuns)
    return runs


def talks_of(request: Request) -> Talks:
    """The live conversations of this application."""
    state = request.app.state
    if not hasattr(state, "talks"):
        state.talks = Talks(state.context.ai, state.context.store)
    talks = state.talks
    assert isinstance(talks, Talks)
    return talks


def _follow(context: ServerContext, runs: ReplyRuns, run: ReplyRun, start: int) -> Response:
    async def pieces() -> AsyncGenerator[bytes]:
        async with (
            runs.reading(run) as log,
            aclosing(log.read(start, ping_interval_s=context.settings.ping_interval_s)) as found,
        ):
            async for piece in found:
                yield piece

    return EventResponse(pieces())


def _parse_event_id(text: str) -> tuple[str, int]:
    id, _, number = text.rpartition(":")
    if not id or not number.isascii() or not number.isdigit() or int(number) > MAX_EVENT_NUMBER:
        raise InvalidInput("Last-Event-ID is not the id of an event.", hint="it looks like ans_…:12")
    return id, int(number)
