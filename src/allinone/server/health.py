"""Whether the server lives, whether it takes requests, and its numbers: for supervisors, for Prometheus, for the page.

Decides nothing and counts nothing: `metrics.py` does. Above: `app.py`.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from allinone import __version__
from allinone.errors import ServerBusy
from allinone.server.context import Context, WhoAsks, require_access, require_admin
from allinone.server.fields import problems
from allinone.server.problems import to_json

_STATM = Path("/proc/self/statm")
_STARTED_AT = time.time()

router = APIRouter(tags=["health"])


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Alive(_Shape):
    """The process answers."""

    status: str
    version: str
    worker: int


class ModelStatus(_Shape):
    """What runs."""

    name: str
    backend: str
    quantization: str
    max_context_tokens: int
    num_threads: int


class MemoryStatus(_Shape):
    """Resident memory of the process (null where the system does not say), and tokens held as keys and values."""

    rss_bytes: int | None
    kv_tokens: int
    max_kv_tokens: int


class QueueStatus(_Shape):
    """Requests with the engine."""

    num_waiting: int
    num_running: int


class CacheStatus(_Shape):
    """The result cache since the start."""

    hits: int
    misses: int
    hit_rate: float


class LatencyStatus(_Shape):
    """Percentiles of the last answers, in seconds; null before the first."""

    label_p50_s: float | None
    label_p95_s: float | None
    ttft_p50_s: float | None
    ttft_p95_s: float | None


class Features(_Shape):
    """What this server offers and wants."""

    edit_prompts: bool
    needs_key: bool


class Status(_Shape):
    """State of the process that answers."""

    model: ModelStatus
    version: str
    uptime_s: float
    worker: int
    num_workers: int
    memory: MemoryStatus
    queue: QueueStatus
    num_streams: int
    engine: dict[str, float]
    results_cache: CacheStatus
    latency: LatencyStatus
    features: Features


@router.get("/healthz", operation_id="is_alive", response_model=Alive, responses=problems())
async def is_alive(context: Context) -> Response:
    """Whether the process answers. A supervisor that hears nothing for a while should start it anew."""
    return _json({"status": "ok", "version": __version__, "worker": context.settings.worker})


@router.get("/readyz", operation_id="is_ready", response_model=Alive, responses=problems())
async def is_ready(context: Context) -> Response:
    """Whether requests are taken: 503 while the server is being stopped, and after its engine failed."""
    context.drain.require_open()
    if not context.ai.engine.is_open:
        raise ServerBusy("The engine has stopped; this process has to be started anew.")
    return _json({"status": "ready", "version": __version__, "worker": context.settings.worker})


@router.get(
    "/metrics",
    operation_id="show_metrics",
    response_class=Response,
    responses={
        200: {"description": "Counts for Prometheus.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **problems(),
    },
    dependencies=[Depends(require_access)],
)
async def show_metrics(context: Context, access: WhoAsks) -> Response:
    """Counts for Prometheus; where keys are in use, for an administrator's."""
    require_admin(access)
    return Response(context.metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get(
    "/v1/status",
    operation_id="show_status",
    response_model=Status,
    responses=problems(),
)
async def show_status(context: Context, access: WhoAsks) -> Response:
    """Model, memory, queue, caches and speed of the process that answers."""
    ai, settings, stats = context.ai, context.settings, context.ai.stats()
    info = ai.model.backend.info
    results = ai.results.stats()
    status: dict[str, Any] = {
        "model": {
            "name": ai.model.name,
            "backend": info.name,
            "quantization": ai.model.quantization,
            "max_context_tokens": ai.max_context_tokens,
            "num_threads": info.num_threads,
        },
        "version": __version__,
        "uptime_s": round(time.time() - _STARTED_AT, 1),
        "worker": settings.worker,
        "num_workers": settings.num_workers,
        "memory": {
            "rss_bytes": read_rss_bytes(),
            "kv_tokens": stats.num_kv_tokens,
            "max_kv_tokens": ai.max_kv_tokens,
        },
        "queue": {"num_waiting": stats.num_waiting, "num_running": stats.num_running},
        "num_streams": context.limits.num_streams,
        "engine": asdict(stats),
        "results_cache": {"hits": results.hits, "misses": results.misses, "hit_rate": results.hit_rate},
        "latency": context.metrics.latency(),
        "features": {
            "edit_prompts": settings.edit_prompts and access.is_admin,
            "needs_key": context.keys.is_required,
        },
    }
    return _json(status)


def read_rss_bytes() -> int | None:
    """Resident memory of this process; None where the system has no /proc."""
    if not _STATM.is_file():
        return None
    return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _json(value: Any) -> Response:
    return Response(to_json(value), media_type="application/json")
