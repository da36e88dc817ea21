"""A streamed answer as OpenAI's clients read it: `data: {…}` events, an error among them if one comes, then `[DONE]`.

Owns the response; an answer is begun only when there is room for one more stream, and whatever is refused before the
first event is an ordinary error response. Above: `openai_api.py`. Below: `openai_choices.py`, `openai_forms.py`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from allinone.errors import AllInOneError
from allinone.server.context import ServerContext
from allinone.server.keys import Access
from allinone.server.openai_choices import Begin, Pieces, merge
from allinone.server.openai_forms import Form
from allinone.server.problems import problem_response, to_json
from allinone.types import Usage

_DONE = b"data: [DONE]\n\n"
_PING = b": ping\n\n"


class StreamedAnswer(StreamingResponse):
    """Begins the choices when it is sent, and holds one of the key's streams until its end.

    Args:
        begin: submits the choices.
        form: of the chunks.
        includes_usage: end with the token counts.
    """

    def __init__(
        self,
        begin: Begin,
        form: Form,
        *,
        context: ServerContext,
        access: Access,
        includes_usage: bool,
        request_id: str,
    ) -> None:
        super().__init__(
            _never(), media_type="text/event-stream", headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        )
        self._begin, self._form = begin, form
        self._context, self._access = context, access
        self._includes_usage, self._request_id = includes_usage, request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        async with self._context.limits.stream(self._access):
            choices = await self._begin()
            async with aclosing(self._write(choices)) as self.body_iterator:
                await super().__call__(scope, receive, send)

    async def _write(self, choices: list[Pieces]) -> AsyncGenerator[bytes]:
        usages = [Usage()] * len(choices)
        try:
            async with aclosing(merge(choices, ping_s=self._context.settings.ping_interval_s)) as pieces:
                for place in range(len(choices)):
                    first = self._form.first_chunk(place)
                    if first is not None:
                        yield _event(first)
                async for found in pieces:
                    if found is None:
                        yield _PING
                        continue
                    place, piece = found
                    usages[place] = piece.usage or usages[place]
                    if piece.text or piece.tokens or piece.finish:
                        yield _event(self._form.piece_chunk(place, piece))
        except AllInOneError as error:
            yield self._failure(error)
            return
        if self._includes_usage:
            yield _event(self._form.usage_chunk(usages))
        yield _DONE

    def _failure(self, error: AllInOneError) -> bytes:
        """The body that the error would have had as a response, as an event; OpenAI's clients raise it."""
        response = problem_response(error, path="/v1/chat/completions", request_id=self._request_id)
        return _event(json.loads(bytes(response.body)))


async def _never() -> AsyncGenerator[bytes]:
    """Stands in until there is something to write."""
    return
    yield b""


def _event(value: object) -> bytes:
    return b"data: " + to_json(value) + b"\n\n"
