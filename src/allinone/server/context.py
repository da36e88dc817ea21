"""What every endpoint works with: one `ServerContext` for the application, and who asks.

Owns how an endpoint gets its context, its access and its permission. Above: the API modules. Beside it: the parts that
it holds together. Knows no endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends
from starlette.requests import Request
from starlette.types import Scope

from allinone.errors import NotAllowed
from allinone.runtime import AllInOne
from allinone.server.answer_log import AnswerLog
from allinone.server.drain import Drain
from allinone.server.keys import Access, KeyRing
from allinone.server.limits import Limits
from allinone.server.metrics import Metrics
from allinone.server.settings import ServerSettings

if TYPE_CHECKING:
    from allinone.store.database import Store

BARE_MODEL = "model"
"""What stands in a key's allowed tasks for the model without a task (`/v1/chat/completions` and its like)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerContext:
    """The parts of one running server."""

    ai: AllInOne
    settings: ServerSettings
    keys: KeyRing
    limits: Limits
    drain: Drain
    metrics: Metrics
    answers: AnswerLog
    store: Store

    @classmethod
    def create(cls, ai: AllInOne, store: Store, *, settings: ServerSettings, keys: KeyRing) -> ServerContext:
        """Put the parts together that only depend on these."""
        return cls(
            ai=ai,
            settings=settings,
            keys=keys,
            limits=Limits(store.usage, max_streams=settings.max_streams),
            drain=Drain(timeout_s=settings.drain_timeout_s),
            metrics=Metrics(ai, settings),
            answers=AnswerLog(store.answers),
            store=store,
        )


def get_context(request: Request) -> ServerContext:
    """The server's context."""
    context = request.app.state.context
    assert isinstance(context, ServerContext)
    return context


async def depend_on_context(request: Request) -> ServerContext:
    """`get_context` as a FastAPI dependency: a plain function would be called in a thread, for every request."""
    return get_context(request)


async def require_access(request: Request) -> Access:
    """Who asks; a FastAPI dependency.

    Raises:
        AuthenticationRequired, ServerBusy: as `KeyRing.authenticate`.
    """
    return await authenticate(get_context(request), request.scope)


async def authenticate(context: ServerContext, scope: Scope) -> Access:
    """Who sends this request; checked once, whoever asks first (`guard.py` does before it reads a body)."""
    known: Access | None = scope.get("access")
    if known is not None:
        return known
    headers: Mapping[bytes, bytes] = dict(scope["headers"])
    access = await context.keys.authenticate(find_key(headers))
    await context.limits.recount(access)
    scope["access"] = access
    return access


def find_key(headers: Mapping[bytes, bytes]) -> str | None:
    """The key that a request brings: `Authorization: Bearer KEY`, else `X-API-Key: KEY`."""
    scheme, _, key = headers.get(b"authorization", b"").strip().partition(b" ")
    found = key.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"").strip()
    return found.decode("latin-1") or None


def admit(context: ServerContext, access: Access, *, task: str | None, num_items: int = 1) -> None:
    """Permission for one request.

    Args:
        context: the server's.
        access: who asks.
        task: which task it is for; `BARE_MODEL` for the model alone, None where no model is asked.
        num_items: how many inputs it brings; each counts against the key's rate.

    Raises:
        ShuttingDown: nothing new is begun. NotAllowed: the key may not use the task.
        TooManyRequests: the key has asked too much.
    """
    context.drain.require_open()
    if task is not None and not access.allows(task):
        raise NotAllowed(f"This key may not use {task!r}.", hint="`allinone keys list` shows what each key may do")
    context.limits.admit(access, num_items=num_items)


def require_admin(access: Access) -> None:
    """Raises NotAllowed for a key that is not an administrator's."""
    if not access.is_admin:
        raise NotAllowed("This needs the key of an administrator.", hint="`allinone keys new --admin` makes one")


Context = Annotated[ServerContext, Depends(depend_on_context)]
WhoAsks = Annotated[Access, Depends(require_access)]
