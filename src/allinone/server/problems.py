"""What an error becomes for an HTTP client: RFC 9457 problem details, and OpenAI's own shape on OpenAI's paths.

Owns the table from error classes to status codes (a test walks the tree). A message goes to whoever sent the request
and to nobody else; it is never logged. Knows no engine and no key. Above: `app.py`, `guard.py` and every API module.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, Match

from allinone import errors
from allinone.server.failures import log_failure

HTTP_STATUS: dict[type[errors.AllInOneError], int] = {
    errors.AllInOneError: 500,
    errors.UsageError: 400,
    errors.ConfigError: 500,
    errors.UnknownTask: 404,
    errors.UnknownModel: 404,
    errors.InvalidInput: 422,
    errors.ContextLengthExceeded: 422,
    errors.AuthenticationRequired: 401,
    errors.NotAllowed: 403,
    errors.NotFound: 404,
    errors.RequestTooLarge: 413,
    errors.RequestTooSlow: 408,
    errors.PromptError: 422,
    errors.PromptNotFound: 404,
    errors.MissingVariable: 422,
    errors.UnknownKey: 422,
    errors.VerbalizerError: 422,
    errors.VersionConflict: 409,
    errors.ModelError: 500,
    errors.WeightsNotFound: 500,
    errors.WeightsMismatch: 500,
    errors.TokenizerMismatch: 500,
    errors.RunError: 500,
    errors.OutputParseError: 422,
    errors.DeadlineExceeded: 408,
    errors.Cancelled: 503,
    errors.StreamConsumed: 500,
    errors.CapacityError: 503,
    errors.QueueFull: 503,
    errors.CacheFull: 503,
    errors.TooManyRequests: 429,
    errors.ServerBusy: 503,
    errors.ShuttingDown: 503,
    errors.StoreError: 500,
    errors.SchemaTooNew: 500,
    errors.MigrationFailed: 500,
}
"""Status of every class of the tree. A deadline is the client's own wish, and a JSON task that ran out of tokens is the
answer to that text: neither is a fault of the server."""

OPENAI_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models")
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_CODES = {404: "not_found", 405: "method_not_allowed"}
_MAX_SHOWN = 100
_SHAPES = frozenset({"one", "many"})  # which of the shapes of a body was taken: no member of it


def describe(error: errors.AllInOneError, *, request_id: str | None = None) -> dict[str, Any]:
    """The members of problem details for one error; also the data of an `error` event and of a failed item."""
    status = status_of(error)
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": error.message,
        "code": error.code,
    }
    if error.hint is not None:
        problem["hint"] = error.hint
    if request_id is not None:
        problem["request_id"] = request_id
    return problem


def status_of(error: errors.AllInOneError) -> int:
    """The HTTP status of an error; a class that is not of the package counts as its nearest parent."""
    return next(HTTP_STATUS[kind] for kind in type(error).__mro__ if kind in HTTP_STATUS)


def problem_response(
    error: errors.AllInOneError, *, path: str, request_id: str, headers: Mapping[str, str] | None = None
) -> Response:
    """The response for an error: problem details, or OpenAI's shape where its clients expect it."""
    problem = describe(error, request_id=request_id)
    return _respond(problem, path=path, headers={**_headers_of(error), **(headers or {})})


async def on_error(request: Request, error: Exception) -> Response:
    """Exception handler for everything of our own tree; what is the server's own fault is logged."""
    assert isinstance(error, errors.AllInOneError)
    if status_of(error) == 500:
        has_texts: bool = request.app.state.context.settings.log_texts
        log_failure(error, request_id=request_id_of(request), with_message=has_texts)
    return problem_response(error, path=request.url.path, request_id=request_id_of(request))


async def on_invalid_request(request: Request, error: Exception) -> Response:
    """Exception handler for a body or parameter that does not fit its schema: says where, never repeats a value."""
    assert isinstance(error, RequestValidationError)
    found = [_describe_mismatch(entry) for entry in error.errors()]
    first = found[0]
    problem = describe(
        errors.InvalidInput(f"{first['place'] or 'The request'}: {first['message']}"), request_id=request_id_of(request)
    )
    return _respond({**problem, "errors": found}, path=request.url.path)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Exception handler for what the framework itself refuses: unknown paths, other methods, bodies it cannot read."""
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    detail = f"There is nothing at this path ({request.method})." if error.status_code == 404 else error.detail
    problem = {
        "type": "about:blank",
        "title": phrase,
        "status": error.status_code,
        "detail": detail if detail.endswith(".") else f"{detail}.",
        "code": _CODES.get(error.status_code, "bad_request"),
        "request_id": request_id_of(request),
    }
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods_at(request))
    return _respond(problem, path=request.url.path, headers=headers)


def _methods_at(request: Request) -> list[str]:
    """Every method that this path knows; the framework itself only names those of the first route that fits."""
    routes: list[BaseRoute] = request.app.routes
    return [
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


def request_id_of(request: Request) -> str:
    """The id that `guard.py` gave the request."""
    return str(request.scope["request_id"])


def to_json(value: Any) -> bytes:
    """JSON as UTF-8; a document with a lone surrogate, and no other, is written in ASCII escapes."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def _respond(problem: dict[str, Any], *, path: str, headers: Mapping[str, str] | None = None) -> Response:
    status: int = problem["status"]
    if not is_openai_path(path):
        return Response(to_json(problem), status, dict(headers or {}), "application/problem+json")
    status = 400 if status == 422 else status
    kind = _OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    detail = f"{problem['detail']} ({problem['hint']})" if "hint" in problem else problem["detail"]
    places: list[dict[str, str]] = problem.get("errors", [])
    param = places[0]["place"] if places else None
    body = {"error": {"message": detail, "type": kind, "param": param or None, "code": problem["code"]}}
    return Response(to_json(body), status, dict(headers or {}), "application/json")


def is_openai_path(path: str) -> bool:
    """Whether OpenAI's clients ask here."""
    return path.startswith(OPENAI_PATHS)


def _headers_of(error: errors.AllInOneError) -> dict[str, str]:
    headers: dict[str, str] = {}
    status = status_of(error)
    if status in (429, 503):
        retry_after_s: float | None = getattr(error, "retry_after_s", None)
        headers["Retry-After"] = str(max(1, math.ceil(retry_after_s or 1)))
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="allinone"'
    return headers


def _describe_mismatch(entry: Mapping[str, Any]) -> dict[str, str]:
    """Where a request differs from its schema, and how; the value itself is left out."""
    where: Sequence[str | int] = entry["loc"]
    members = where[2:] if where[1:2] and where[1] in _SHAPES else where[1:]
    place = ".".join(str(part) for part in members)
    message = str(entry["msg"]).removeprefix("Value error, ")
    return {"in": str(where[0]), "place": _clean(place), "message": _clean(message), "kind": str(entry["type"])}


def _clean(text: str) -> str:
    """A key of the client's own may be part of a place: kept short, and valid UTF-8."""
    return text.encode("utf-8", errors="replace").decode("utf-8")[:_MAX_SHOWN]
