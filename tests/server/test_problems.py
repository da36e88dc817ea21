"""What an error becomes for a client: every class has a status, and no shape repeats what a user sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from allinone import errors
from allinone.server.problems import HTTP_STATUS, is_openai_path, problem_response, to_json


def _tree(root: type[errors.AllInOneError] = errors.AllInOneError) -> list[type[errors.AllInOneError]]:
    return [root, *(found for child in root.__subclasses__() for found in _tree(child))]


def _make(kind: type[errors.AllInOneError]) -> errors.AllInOneError:
    more: dict[str, Any] = {"raw_text": "…"} if kind is errors.OutputParseError else {}
    if kind is errors.TooManyRequests:
        more["retry_after_s"] = 7.2
    return kind("It did not work.", hint="try something else", **more)


def _answer(error: errors.AllInOneError, path: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    response = problem_response(error, path=path, request_id="abc")
    return response.status_code, dict(response.headers), json.loads(bytes(response.body))


def test_every_error_has_a_status() -> None:
    """A new class without one would be a 500 that nobody decided on."""
    assert set(HTTP_STATUS) == set(_tree())


@pytest.mark.parametrize("kind", _tree(), ids=lambda kind: kind.__name__)
def test_problem_details(kind: type[errors.AllInOneError]) -> None:
    """The members of RFC 9457 and our own, the same for all."""
    status, headers, problem = _answer(_make(kind), "/v1/tasks/sentiment")
    assert headers["content-type"] == "application/problem+json" and status == HTTP_STATUS[kind]
    assert problem == {
        "type": "about:blank",
        "title": problem["title"],
        "status": status,
        "detail": "It did not work.",
        "code": kind.code,
        "hint": "try something else",
        "request_id": "abc",
    }
    assert ("retry-after" in headers) == (status in (429, 503))
    assert ("www-authenticate" in headers) == (status == 401)


@pytest.mark.parametrize("kind", _tree(), ids=lambda kind: kind.__name__)
def test_openai_clients_get_their_own_shape(kind: type[errors.AllInOneError]) -> None:
    """They raise by status, and show `message`."""
    status, headers, body = _answer(_make(kind), "/v1/chat/completions")
    assert headers["content-type"] == "application/json"
    assert status == (400 if HTTP_STATUS[kind] == 422 else HTTP_STATUS[kind])
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] == kind.code and "try something else" in body["error"]["message"]
    assert body["error"]["type"].endswith("_error")


def test_retry_after_is_a_whole_number_that_is_not_too_early() -> None:
    """Browsers and clients read nothing else; 0 would mean at once."""
    for seconds, expected in ((0.01, "1"), (1.0, "1"), (7.2, "8"), (86_400.0, "86400")):
        error = errors.TooManyRequests("Too often.", retry_after_s=seconds)
        assert _answer(error, "/v1/tasks")[1]["retry-after"] == expected
    assert _answer(errors.QueueFull("Full."), "/v1/tasks")[1]["retry-after"] == "1"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/chat/completions", True), ("/v1/completions", True), ("/v1/embeddings", True), ("/v1/models", True),
        ("/v1/models/bundled", True), ("/v1/tasks", False), ("/v1/reply", False), ("/v1/modelsx", True), ("/", False),
    ],
)  # fmt: skip
def test_openai_paths_are_known(path: str, expected: bool) -> None:
    """By their beginning: a mistyped one is asked for by the same clients."""
    assert is_openai_path(path) is expected


def test_json_carries_everything_a_model_may_say() -> None:
    """A JSON task's answer may hold an escaped lone surrogate, which UTF-8 cannot."""
    assert to_json({"a": "好\x00"}) == '{"a":"好\\u0000"}'.encode()
    assert to_json({"a": "好\ud800"}) == b'{"a":"\\u597d\\ud800"}'
    with pytest.raises(ValueError):
        to_json({"a": float("nan")})
