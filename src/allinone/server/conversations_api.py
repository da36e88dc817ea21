"""`/v1/conversations`: what was said, as its owner finds it again, renames it, takes it along or deletes it.

Above: `app.py`. Below: the store, and `talks.py` where the model's memory has to follow.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi import Body as RequestBody
from pydantic import BaseModel
from starlette.responses import Response

from allinone.server.context import Context, WhoAsks, admit, require_access
from allinone.server.fields import Body, Name, problems
from allinone.server.problems import to_json
from allinone.server.reply_api import talks_of

if TYPE_CHECKING:
    from allinone.store.conversations import ConversationRecord

MAX_PAGE = 200
ConversationId = Annotated[str, Path(pattern=r"^conv_[A-Za-z0-9_-]{1,64}$")]


class NewConversation(Body):
    """How a conversation begins."""

    title: Name | None = None
    language: Literal["zh", "en"] | None = None


class Renamed(Body):
    """What may be changed."""

    title: Name


class ConversationShape(BaseModel):
    """A conversation without its turns."""

    id: str
    title: str
    language: str
    num_turns: int
    created_at: datetime
    updated_at: datetime


class TurnShape(BaseModel):
    """One exchange."""

    number: int
    text: str
    mood: dict[str, Any] | None
    reply: str
    finish_reason: str
    answer_id: str
    created_at: datetime


class WholeConversation(ConversationShape):
    """A conversation with its turns, oldest first."""

    turns: list[TurnShape]


class ConversationPage(BaseModel):
    """Conversations, the one with the newest turn first."""

    conversations: list[ConversationShape]


class ExportedTurn(TurnShape):
    """A turn, with the version of the prompt that answered."""

    task_version: str


class ExportedConversation(ConversationShape):
    """A conversation in an export."""

    turns: list[ExportedTurn]


class Export(BaseModel):
    """Everything that was said and answered."""

    conversations: list[ExportedConversation]


router = APIRouter(prefix="/v1/conversations", tags=["conversations"], dependencies=[Depends(require_access)])


@router.get("", response_model=ConversationPage, responses=problems(404))
async def list_conversations(
    context: Context,
    access: WhoAsks,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    before: Annotated[
        str | None, Query(pattern=r"^conv_[A-Za-z0-9_-]{1,64}$", description="Last id of the page before.")
    ] = None,
) -> Response:
    """Your conversations, a page at a time."""
    admit(context, access, task=None)
    found = await asyncio.to_thread(context.store.conversations.list, access.owner, limit=limit, before=before)
    return _json({"conversations": [_shown(record) for record in found]})


@router.post("", status_code=201, response_model=ConversationShape, responses=problems())
async def create_conversation(
    request: Request,
    context: Context,
    access: WhoAsks,
    body: Annotated[NewConversation | None, RequestBody()] = None,
) -> Response:
    """Begin a conversation without saying anything yet."""
    admit(context, access, task=None)
    body = body or NewConversation()
    language = body.language or context.ai.language
    record = await talks_of(request).create(access.owner, language=language, title=body.title or "")
    return _json(_shown(record), status=201)


@router.get("/export", response_model=Export, responses=problems())
async def export_conversations(context: Context, access: WhoAsks) -> Response:
    """Everything of yours that is stored, as one document."""
    admit(context, access, task=None)
    return _json(await asyncio.to_thread(context.store.conversations.export, access.owner))


@router.get("/{id}", response_model=WholeConversation, responses=problems(404))
async def get_conversation(context: Context, access: WhoAsks, id: ConversationId) -> Response:
    """One conversation with its turns."""
    admit(context, access, task=None)
    record = await asyncio.to_thread(context.store.conversations.get, access.owner, id)
    turns = await asyncio.to_thread(context.store.conversations.turns, access.owner, id)
    shown = [
        {
            "number": turn.number,
            "text": turn.text,
            "mood": turn.mood,
            "reply": turn.reply,
            "finish_reason": turn.finish_reason,
            "answer_id": turn.answer_id,
            "created_at": turn.created_at.isoformat(),
        }
        for turn in turns
    ]
    return _json({**_shown(record), "turns": shown})


@router.patch("/{id}", response_model=ConversationShape, responses=problems(404))
async def rename_conversation(
    context: Context, access: WhoAsks, id: ConversationId, body: Annotated[Renamed, RequestBody()]
) -> Response:
    """Give it another title."""
    admit(context, access, task=None)
    return _json(_shown(await asyncio.to_thread(context.store.conversations.rename, access.owner, id, body.title)))


@router.delete("/{id}", status_code=204, responses=problems(404))
async def delete_conversation(request: Request, context: Context, access: WhoAsks, id: ConversationId) -> Response:
    """Delete it and all its turns, for good."""
    admit(context, access, task=None)
    await asyncio.to_thread(context.store.conversations.delete, access.owner, id)
    talks_of(request).forget(access.owner, id)
    return Response(status_code=204)


@router.delete("/{id}/turns/last", response_model=ConversationShape, responses=problems(404, 409))
async def delete_last_turn(request: Request, context: Context, access: WhoAsks, id: ConversationId) -> Response:
    """Take the last exchange back, to say it differently; waits for a reply that is under way."""
    admit(context, access, task=None)
    talks = talks_of(request)
    async with talks.hold(access.owner, id) as talk:
        record = await talk.drop_last_turn()
    talks.forget(access.owner, id)
    return _json(_shown(record))


def _shown(record: ConversationRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "title": record.title,
        "language": record.language,
        "num_turns": record.num_turns,
        "created_at": record.created_at.isoformat(),
        "updated_at": record.updated_at.isoformat(),
    }


def _json(value: Any, *, status: int = 200) -> Response:
    return Response(to_json(value), status, media_type="application/json")
