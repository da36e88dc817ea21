"""The application: the guard, the error handlers and the routers of all API modules, nothing else.

Above: `serving.py`, which runs it on sockets, and tests, which call it as it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from allinone import __version__
from allinone.errors import AllInOneError
from allinone.server import (
    conversations_api,
    feedback_api,
    health,
    openai_api,
    page_api,
    prompts_api,
    reply_api,
    tasks_api,
)
from allinone.server.context import ServerContext
from allinone.server.guard import Guard
from allinone.server.problems import on_error, on_http_exception, on_invalid_request, to_json

DESCRIPTION = """
One small chat model, many language jobs. Errors are problem details (RFC 9457) with a stable `code`; on the paths that
OpenAI's clients know they have OpenAI's shape. Every response has an `X-Request-ID`.
"""
_NEED_NO_KEY = frozenset({"/healthz", "/readyz"})
_log = logging.getLogger("allinone.server")


class _App(FastAPI):
    """FastAPI, with a document that says which operations want a key, where keys are in use."""

    def openapi(self) -> dict[str, Any]:
        """See `FastAPI.openapi`."""
        if self.openapi_schema is None and self.state.context.keys.is_required:
            document = super().openapi()
            document["components"]["securitySchemes"] = {
                "key": {"type": "http", "scheme": "bearer", "description": "`allinone keys new` makes one."}
            }
            for path, operations in document["paths"].items():
                for operation in operations.values() if path not in _NEED_NO_KEY else ():
                    operation["security"] = [{"key": []}]
        return super().openapi()


def create_app(context: ServerContext) -> FastAPI:
    """The application for one context. Whoever made the context closes its parts."""
    app = _App(
        title="Qwen All-in-One",
        version=__version__,
        description=DESCRIPTION,
        openapi_url=None,  # `_show_openapi` does it without keeping others waiting
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    app.state.context = context
    app.add_middleware(Guard, context=context)
    app.add_exception_handler(AllInOneError, on_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_invalid_request)
    for module in (tasks_api, reply_api, conversations_api, feedback_api, openai_api, health, page_api):
        app.include_router(module.router)
    if context.settings.edit_prompts:
        app.include_router(prompts_api.router)
    app.add_api_route("/openapi.json", _show_openapi, include_in_schema=False)
    return app


async def _show_openapi(request: Request) -> Response:
    """The OpenAPI document; made when it is first asked for, which takes a while, in a thread."""
    app: FastAPI = request.app
    return Response(to_json(await asyncio.to_thread(app.openapi)), media_type="application/json")


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """What goes on in the background while the application runs: counts are written."""
    context: ServerContext = app.state.context
    is_over = asyncio.Event()
    writing = asyncio.create_task(_write_counts(context, is_over))
    try:
        yield
    finally:
        is_over.set()
        await writing


async def _write_counts(context: ServerContext, is_over: asyncio.Event) -> None:
    """Token counts to the store and numbers to the other processes, now and then and once at the end."""
    while True:
        is_last = is_over.is_set()
        try:
            await context.limits.flush()
            await asyncio.to_thread(context.metrics.leave)
        except (AllInOneError, OSError) as error:
            _log.error("counts could not be written and are kept: %s", error)
        if is_last:
            return
        try:
            await asyncio.wait_for(is_over.wait(), context.settings.usage_flush_s)
        except asyncio.TimeoutError:
            continue
