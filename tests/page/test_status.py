"""The status: numbers that move, asked for only while somebody looks, told in words too."""

from __future__ import annotations

import re

import pytest

from .conftest import OpenPage
from .servers import Server

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

PLOTS = [
    "Tokens per second", "Answers per second", "Requests", "Chats", "Time to a label",
    "Time to the first word", "Memory", "Tokens held",
    "Found in a cache",
]  # fmt: skip


def test_status_shows_the_server(server: Server, open_page: OpenPage) -> None:
    """Model and version as the server says; every plot has a line, its newest value and a text alternative."""
    from playwright.sync_api import expect

    server.call("POST", "/v1/tasks/sentiment", {"text": "太棒了"})
    server.call("POST", "/v1/tasks/typo", {"text": "我门"})
    page = open_page(f"{server.url}/#/status")
    status = server.call("GET", "/v1/status")
    expect(page.locator(".status-facts")).to_contain_text(status["model"]["name"])
    expect(page.locator(".status-facts")).to_contain_text(status["version"])
    for title in PLOTS:
        plot = page.get_by_role("figure", name=title)
        expect(plot.locator("svg")).to_have_attribute(
            "aria-label", re.compile(r"now .+, lowest .+, highest "), timeout=20_000
        )
        assert plot.locator(".plot-line").first.get_attribute("d")
    memory = page.get_by_role("figure", name="Memory")
    memory.locator("summary").click()
    expect(memory.locator("tbody td").first).to_contain_text("MB")


def test_status_is_asked_for_only_while_it_is_seen(server: Server, open_page: OpenPage) -> None:
    """Another view, or a browser tab in the background, and the server is left alone."""
    page = open_page(f"{server.url}/#/status")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/v1/status" in request.url else None)
    page.wait_for_timeout(4_500)
    assert len(asked) >= 2
    hide = """(isHidden) => {
      Object.defineProperty(document, "hidden", { value: isHidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    for leave, come_back in [
        (lambda: page.evaluate(hide, True), lambda: page.evaluate(hide, False)),
        (lambda: page.get_by_role("tab", name="Chat").click(), lambda: page.get_by_role("tab", name="Status").click()),
    ]:
        leave()
        page.wait_for_timeout(300)
        asked.clear()
        page.wait_for_timeout(3_000)
        assert not asked
        with page.expect_request("**/v1/status"):
            come_back()


def test_status_tells_when_the_server_is_away_and_goes_on(server: Server, open_page: OpenPage) -> None:
    """A failed poll is told and is not the last one."""
    from playwright.sync_api import expect

    page = open_page(f"{server.url}/#/status")
    expect(page.locator(".status-facts")).to_contain_text("onnx")
    page.route("**/v1/status", lambda route: route.abort())
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    page.unroute_all()
    expect(page.get_by_role("alert")).to_have_count(0)
