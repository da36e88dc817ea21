"""`/v1/feedback`: whose answer it is, what is kept of it, what is refused."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from .editing import Server, serving


@pytest.fixture
def server(tmp_path: Path) -> Generator[Server]:
    """A server with the built-in tasks."""
    with serving(tmp_path) as server:
        yield server


def _answer(server: Server, who: str) -> dict[str, Any]:
    return server.call("POST", "/v1/tasks/sentiment", {"text": "这家店太棒了"}, who=who).json()


def test_feedback_is_kept_with_task_and_version(server: Server) -> None:
    """The task and its version come from the answer, not from who rates it."""
    answer = _answer(server, "ann")
    body = {"answer_id": answer["id"], "rating": "down", "comment": "不对", "correction": "中性"}
    given = server.call("POST", "/v1/feedback", body, who="ann")
    assert given.status_code == 201 and given.json()["id"].startswith("fb_")
    (kept,) = server.call("GET", "/v1/feedback", who="ann").json()["feedback"]
    assert kept == body | {"id": given.json()["id"], "task": "sentiment", "version": answer["version"]} | {
        "created_at": kept["created_at"]
    }
    assert kept["created_at"].endswith("+00:00")


def test_answer_of_another_key_does_not_exist(server: Server) -> None:
    """Not even an administrator rates what somebody else was answered; the refusal is that for a made-up id."""
    answer = _answer(server, "ann")
    refusals = [
        server.call("POST", "/v1/feedback", {"answer_id": id, "rating": "up"}, who=who)
        for id, who in [(answer["id"], "bob"), (answer["id"], "admin"), ("ans_never", "ann")]
    ]
    assert [refusal.status_code for refusal in refusals] == [404] * 3
    assert len({refusal.json()["detail"] for refusal in refusals}) == 1
    assert all(not server.call("GET", "/v1/feedback", who=who).json()["feedback"] for who in ("ann", "bob", "admin"))


def test_feedback_needs_a_key(server: Server) -> None:
    """Otherwise anybody could fill the disk."""
    for method in ("GET", "POST"):
        assert server.client.request(method, "/v1/feedback").status_code == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"rating": "meh"},
        {"rating": None},
        {"answer_id": ""},
        {"answer_id": "a\x00"},
        {"comment": "x" * 100_001},
        {"comment": "a\x00b"},
        {"correction": ["中性"]},
        {"owner": "bob"},
    ],
)
def test_malformed_feedback_is_refused(server: Server, changes: dict[str, Any]) -> None:
    """With the place, without the value."""
    body = {"answer_id": _answer(server, "ann")["id"], "rating": "up"} | changes
    refusal = server.call("POST", "/v1/feedback", body, who="ann")
    assert refusal.status_code == 422 and refusal.headers["content-type"] == "application/problem+json"
    assert refusal.json()["errors"][0]["place"].endswith(next(iter(changes)))
    assert not server.call("GET", "/v1/feedback", who="ann").json()["feedback"]


def test_lone_surrogates_are_refused(server: Server) -> None:
    """JSON can say half a character; no database can keep it."""
    content = b'{"answer_id": "%s", "rating": "up", "comment": "\\ud800"}' % _answer(server, "ann")["id"].encode()
    headers = {"Authorization": f"Bearer {server.keys['ann']}", "Content-Type": "application/json"}
    assert server.client.post("/v1/feedback", content=content, headers=headers).status_code == 422


def test_feedback_comes_in_pages(server: Server) -> None:
    """Each once, newest first; a later rating of an answer replaces the earlier one."""
    ids = [_answer(server, "ann")["id"] for _ in range(5)]
    for id in [*ids, ids[0]]:
        assert server.call("POST", "/v1/feedback", {"answer_id": id, "rating": "up"}, who="ann").status_code == 201
    seen: list[str] = []
    path = "/v1/feedback?limit=2"
    while page := server.call("GET", path, who="ann").json()["feedback"]:
        seen += [kept["answer_id"] for kept in page]
        path = f"/v1/feedback?limit=2&before={page[-1]['id']}"
    assert seen == [ids[0], *ids[:0:-1]]
    assert server.call("GET", "/v1/feedback?before=fb_never", who="ann").status_code == 404
    for query in ("limit=0", "limit=1001", "limit=x", "before="):
        assert server.call("GET", f"/v1/feedback?{query}", who="ann").status_code == 422
