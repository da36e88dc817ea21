"""What a first visit costs, and that it needs nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .conftest import OpenPage
from .servers import Server

if TYPE_CHECKING:
    from playwright.sync_api import Response

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

MAX_FIRST_LOAD_BYTES = 200_000


@pytest.mark.parametrize("view", ["", "#/tasks", "#/prompts", "#/status"])
def test_first_load_is_small(server: Server, open_page: OpenPage, view: str) -> None:
    """Everything that an empty browser fetches for a view, uncompressed, the API's answers included."""
    page = open_page(server.url)
    page.goto("about:blank")
    sizes: dict[str, int] = {}

    def note(response: Response) -> None:
        sizes[response.url] = len(response.body())

    page.context.clear_cookies()
    session = page.context.new_cdp_session(page)
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    page.on("response", note)
    page.goto(f"{server.url}/{view}")
    page.locator("[role=tabpanel]:visible > *").first.wait_for()
    page.wait_for_load_state("networkidle")
    assert len(sizes) > 10
    assert sum(sizes.values()) <= MAX_FIRST_LOAD_BYTES, sizes


def test_second_load_takes_the_files_from_the_cache(server: Server, open_page: OpenPage) -> None:
    """Only the start page and the API are asked again."""
    page = open_page(server.url)
    page.wait_for_load_state("networkidle")
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    asked: dict[str, str] = {}
    cached: set[str] = set()
    session.on("Network.requestWillBeSent", lambda event: asked.update({event["requestId"]: event["request"]["url"]}))
    session.on("Network.requestServedFromCache", lambda event: cached.add(event["requestId"]))
    session.on(
        "Network.responseReceived",
        lambda event: cached.add(event["requestId"]) if event["response"]["fromDiskCache"] else None,
    )
    page.goto(f"{server.url}/?again")
    page.get_by_role("tab").first.wait_for()
    page.wait_for_load_state("networkidle")
    files = {id for id, url in asked.items() if "/page/" in url}
    assert len(files) > 20 and files <= cached, {asked[id] for id in files - cached}


def test_old_page_says_that_there_is_a_new_one(server: Server, open_page: OpenPage) -> None:
    """A view that can no longer be loaded (the server was upgraded) is told in words, not by an empty page."""
    from playwright.sync_api import expect

    page = open_page(server.url)
    page.route("**/js/status/view.js", lambda route: route.fulfill(status=404, body=""))
    page.get_by_role("tab", name="Status").click()
    expect(page.locator(".toast-bad")).to_contain_text("load the page again")
