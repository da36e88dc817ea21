"""`/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`, `/v1/models`: what OpenAI's clients ask, unmodified.

The model `allinone` (or the loaded model's own name) answers messages as they are; `allinone/TASK` runs a task on the
last user message. Decides nothing about texts: roles and contents go to the runtime, where no content becomes a turn.
Above: `app.py`. Below: `openai_requests.py` (what may be asked), `openai_begin.py` (what it means), `openai_forms.py`
(what comes back).
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from starlette.requests import Request
from starlette.responses import Response

from allinone.errors import InvalidInput
from allinone.server import openai_embeddings
from allinone.server.context import Context, ServerContext, WhoAsks, admit, require_access
from allinone.server.fields import MAX_NAME_CHARS
from allinone.server.keys import Access
from allinone.server.openai_begin import begin_chat, begin_completion
from allinone.server.openai_choices import Begin, collect
from allinone.server.openai_forms import ChatForm, CompletionForm, Form
from allinone.server.openai_models import allowed_name, describe_model, find_prompt, fingerprint, list_models
from allinone.server.openai_requests import ChatRequest, CompletionRequest, EmbeddingRequest
from allinone.server.openai_shapes import PROBLEMS, STREAMED, ChatCompletion, Completion, Embeddings, Model, Models
from allinone.server.openai_stream import StreamedAnswer
from allinone.server.problems import request_id_of, to_json

router = APIRouter(tags=["openai"], dependencies=[Depends(require_access)])


@router.post(
    "/v1/chat/completions", operation_id="create_chat_completion", response_model=ChatCompletion, responses=STREAMED
)
async def create_chat_completion(body: ChatRequest, request: Request, context: Context, access: WhoAsks) -> Response:
    """Answer messages; with `stream`, as `text/event-stream`."""
    prompt = find_prompt(context.ai, body.model, access)
    admit(context, access, task=allowed_name(prompt), num_items=body.num_choices)
    form = ChatForm(
        model=body.model,
        fingerprint=fingerprint(context.ai),
        has_logprobs=body.num_logprobs is not None,
        includes_usage=body.includes_usage,
        num_choices=body.num_choices,
    )
    begin = partial(begin_chat, body, prompt, context, access)
    return await _answer(body, begin, form, request, context, access)


@router.post("/v1/completions", operation_id="create_completion", response_model=Completion, responses=STREAMED)
async def create_completion(body: CompletionRequest, request: Request, context: Context, access: WhoAsks) -> Response:
    """Go on with texts as they are, without roles; with `stream`, as `text/event-stream`."""
    prompt = find_prompt(context.ai, body.model, access)
    if prompt is not None:
        raise InvalidInput(f"{body.model!r} is a task and answers messages.", hint="use /v1/chat/completions")
    num_choices = len(body.prompts) * body.num_choices
    admit(context, access, task=allowed_name(None), num_items=num_choices)
    form = CompletionForm(
        model=body.model,
        fingerprint=fingerprint(context.ai),
        has_logprobs=body.logprobs is not None,
        includes_usage=body.includes_usage,
        num_choices=body.num_choices,
    )
    begin = partial(begin_completion, body, context, access)
    return await _answer(body, begin, form, request, context, access)


@router.post("/v1/embeddings", operation_id="create_embedding", response_model=Embeddings, responses=PROBLEMS)
async def create_embedding(body: EmbeddingRequest, context: Context, access: WhoAsks) -> Response:
    """The hidden state of the chat model at the last token of each text. It is no retrieval model."""
    prompt = find_prompt(context.ai, body.model, access)
    if prompt is not None:
        raise InvalidInput(f"{body.model!r} is a task and embeds nothing.", hint="the model is 'allinone'")
    admit(context, access, task=allowed_name(None), num_items=len(body.texts))
    openai_embeddings.check_dimensions(body, context.ai.model.backend.info.hidden_size)
    return Response(await openai_embeddings.embed(body, context, access), media_type="application/json")


@router.get("/v1/models", operation_id="list_models", response_model=Models, responses=PROBLEMS)
async def show_models(context: Context, access: WhoAsks) -> Response:
    """The loaded model, and each task that this key may use as `allinone/TASK`."""
    admit(context, access, task=None)
    return Response(to_json(list_models(context.ai, access)), media_type="application/json")


@router.get("/v1/models/{model:path}", operation_id="show_model", response_model=Model, responses=PROBLEMS)
async def show_model(
    model: Annotated[str, Path(max_length=MAX_NAME_CHARS, examples=["allinone/sentiment"])],
    context: Context,
    access: WhoAsks,
) -> Response:
    """One model."""
    admit(context, access, task=allowed_name(find_prompt(context.ai, model, access)))
    return Response(to_json(describe_model(context.ai, model)), media_type="application/json")


async def _answer(
    body: ChatRequest | CompletionRequest,
    begin: Begin,
    form: Form,
    request: Request,
    context: ServerContext,
    access: Access,
) -> Response:
    if body.stream:
        return StreamedAnswer(
            begin,
            form,
            context=context,
            access=access,
            includes_usage=body.includes_usage,
            request_id=request_id_of(request),
        )
    answers = await collect(await begin())
    return Response(to_json(form.whole(answers)), media_type="application/json")
