"""`/v1/embeddings`: hidden states of the chat model as vectors of length 1.

Knows the endpoint's JSON and its window; the engine makes the vectors. Above: `openai_api.py`. Below: `waiting.py` and
the runtime.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from allinone.engine.requests import Embedding
from allinone.errors import InvalidInput, QueueFull
from allinone.server.context import ServerContext
from allinone.server.fields import MAX_DEADLINE_S
from allinone.server.keys import Access
from allinone.server.openai_requests import EmbeddingRequest
from allinone.server.problems import to_json
from allinone.server.waiting import wait

WINDOW = 64
"""Texts of one request that are with the engine at the same time."""
_MAX_QUEUE_WAIT_S = 60.0
_SHORT_CHARS = 2_000


def check_dimensions(request: EmbeddingRequest, hidden_size: int) -> None:
    """Refuse another size than the model has: cutting such a vector loses what nobody can name.

    Raises:
        InvalidInput: gives both numbers.
    """
    if request.dimensions not in (None, hidden_size):
        raise InvalidInput(
            f"dimensions = {request.dimensions} cannot be had: the vectors of this model have {hidden_size}.",
            hint="leave it out",
        )


async def embed(request: EmbeddingRequest, context: ServerContext, access: Access) -> bytes:
    """The response's body."""
    gate = asyncio.Semaphore(WINDOW)
    tasks = [asyncio.create_task(_embed_one(text, context, access, gate)) for text in request.texts]
    try:
        embeddings = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return await asyncio.to_thread(_body, request, embeddings)


async def _embed_one(text: str, context: ServerContext, access: Access, gate: asyncio.Semaphore) -> Embedding:
    """One vector of many; a full queue is waited out, for it moves."""
    left_s = _MAX_QUEUE_WAIT_S
    async with gate:
        while True:
            try:
                if len(text) <= _SHORT_CHARS:
                    ticket = context.ai.start_embed(text, client=access.owner, deadline_s=MAX_DEADLINE_S)
                else:
                    ticket = await asyncio.to_thread(
                        context.ai.start_embed, text, client=access.owner, deadline_s=MAX_DEADLINE_S
                    )
                embedding = await wait(ticket)
                context.limits.add_tokens(access, embedding.usage)
                context.metrics.count_tokens(embedding.usage)
                return embedding
            except QueueFull as error:
                pause_s = min(error.retry_after_s, 1.0)
                if left_s <= 0:
                    raise
                left_s -= pause_s
                await asyncio.sleep(pause_s)


def _body(request: EmbeddingRequest, embeddings: Sequence[Embedding]) -> bytes:
    data = [
        {"object": "embedding", "index": place, "embedding": _encode(embedding, request.encoding_format)}
        for place, embedding in enumerate(embeddings)
    ]
    num_tokens = sum(embedding.usage.num_prompt_tokens for embedding in embeddings)
    counts = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    return to_json({"object": "list", "data": data, "model": request.model, "usage": counts})


def _encode(embedding: Embedding, encoding_format: str | None) -> Any:
    """The vector at length 1, as its users expect it: then a dot product is a cosine."""
    vector = embedding.vector.astype(np.float64)
    unit = (vector / max(float(np.linalg.norm(vector)), np.finfo(np.float64).tiny)).astype("<f4")
    return base64.b64encode(unit.tobytes()).decode("ascii") if encoding_format == "base64" else unit.tolist()
