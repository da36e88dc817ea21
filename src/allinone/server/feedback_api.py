"""`/v1/feedback`: what people think of answers, kept with the version of the task that gave them.

Checks and hands on; the store decides whose answer it is. Above: `app.py`. Below: the store.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi import Body as RequestBody
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from allinone.server.context import Context, WhoAsks, admit, require_access
from allinone.server.fields import Body, Name, Text, problems
from allinone.server.problems import to_json
from allinone.store.feedback import FeedbackRecord, Rating

MAX_PAGE = 1_000


class FeedbackRequest(Body):
    """What somebody thinks of one answer."""

    answer_id: Name = Field(description="The `id` of the answer.")
    rating: Rating
    comment: Text | None = Field(None, description="What is good or bad about it.")
    correction: Text | None = Field(None, description="What the answer should have been.")


class FeedbackId(BaseModel):
    """The name under which feedback is kept."""

    model_config = ConfigDict(extra="forbid")
    id: str


class FeedbackShape(FeedbackId):
    """What somebody thinks of one answer, as it is kept."""

    answer_id: str
    task: str
    version: str = Field(description="Of the task, when it gave the answer.")
    rating: Rating
    comment: str | None
    correction: str | None
    created_at: str


class FeedbackList(BaseModel):
    """Feedback, newest first."""

    model_config = ConfigDict(extra="forbid")
    feedback: list[FeedbackShape]


router = APIRouter(tags=["feedback"], dependencies=[Depends(require_access)])
FeedbackBody = Annotated[
    FeedbackRequest,
    RequestBody(
        openapi_examples={
            "up": {"summary": "A good answer", "value": {"answer_id": "ans_4Jr8m0bB3Qx2n1kZ0Yw5vA", "rating": "up"}},
            "down": {
                "summary": "A bad one, and what it should have been",
                "value": {"answer_id": "ans_4Jr8m0bB3Qx2n1kZ0Yw5vA", "rating": "down", "correction": "中性"},
            },
        }
    ),
]


@router.post(
    "/v1/feedback", operation_id="give_feedback", status_code=201, response_model=FeedbackId, responses=problems(404)
)
async def give_feedback(request: FeedbackBody, context: Context, access: WhoAsks) -> Response:
    """Rate an answer that this key got; what was said of it before is replaced."""
    admit(context, access, task=None)
    record = await asyncio.to_thread(
        context.store.feedback.add,
        access.owner,
        request.answer_id,
        rating=request.rating,
        comment=request.comment,
        correction=request.correction,
    )
    return Response(to_json({"id": record.id}), 201, media_type="application/json")


@router.get("/v1/feedback", operation_id="list_feedback", response_model=FeedbackList, responses=problems(404))
async def list_feedback(
    context: Context,
    access: WhoAsks,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    before: Annotated[Name | None, Query(description="`id` of the last one of the page before.")] = None,
) -> Response:
    """What this key has said of its answers, newest first."""
    admit(context, access, task=None)
    records = await asyncio.to_thread(context.store.feedback.list, access.owner, limit=limit, before=before)
    return Response(to_json({"feedback": [_shape(record) for record in records]}), media_type="application/json")


def _shape(record: FeedbackRecord) -> dict[str, object]:
    shown = asdict(record)
    del shown["owner"]
    return {**shown, "created_at": record.created_at.isoformat()}
