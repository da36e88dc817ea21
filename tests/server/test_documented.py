"""Requests that docs/server.md shows are made, as a reader would make them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from allinone import AllInOne

from .live import Live, live

PAGE = (Path(__file__).parents[2] / "docs" / "server.md").read_text(encoding="utf-8")
CALLS = re.findall(r"^curl -s localhost:8000(/\S+) .*?-d '([^']*)'$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The bundled model, as in the page."""
    with AllInOne.load() as ai, live(ai, tmp_path_factory.mktemp("store")) as server:
        yield server


@pytest.mark.parametrize(("path", "body"), CALLS)
def test_requests_of_the_page_work(server: Live, path: str, body: str) -> None:
    """A command that was copied from a page must work."""
    with server.client() as client:
        response = client.post(path, content=body.encode(), headers={"Content-Type": "application/json"})
    assert response.status_code == 200, response.text


def test_requests_are_found() -> None:
    """If the pattern broke, nothing would be tried."""
    assert len(CALLS) == PAGE.count("curl -s ") >= 4


def test_the_first_answer_is_as_the_page_shows_it(server: Live) -> None:
    """Its members, and what they say; numbers are those of one day."""
    shown = json.loads(re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0])
    with server.client() as client:
        answer = client.post(
            CALLS[0][0], content=CALLS[0][1].encode(), headers={"Content-Type": "application/json"}
        ).json()
    assert list(answer) == list(shown)
    same = ("task", "version", "kind", "label", "name", "emoji", "text", "data", "finish_reason")
    assert {name: answer[name] for name in same} == {name: shown[name] for name in same}
    assert set(answer["probs"]) == set(shown["probs"]) and set(answer["usage"]) == set(shown["usage"])


def test_every_path_is_listed(server: Live) -> None:
    """The table of the page has all that the server answers."""
    with server.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    for path in paths:
        if not path.startswith("/page"):
            start = "/".join(path.split("/")[:3]).replace("/{id}", "")
            assert start in PAGE, path
