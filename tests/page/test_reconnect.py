"""The connection breaks in the middle of a reply: nothing is lost, nothing is said twice, and people are told."""

from __future__ import annotations

import pytest

from .conftest import OpenPage
from .proxy import Proxy
from .servers import Server

pytestmark = [pytest.mark.browser, pytest.mark.e2e]


def test_reply_goes_on_after_the_connection_was_cut(slow_server: Server, proxy: Proxy, open_page: OpenPage) -> None:
    """Cut twice, once with the server out of reach for a while; the reply is the stored one, letter by letter."""
    from playwright.sync_api import expect

    page = open_page(proxy.url)
    page.locator("#composer").fill("Tell me a long story.")
    page.keyboard.press("Enter")
    page.locator(".reply:not(:empty)").wait_for()
    proxy.is_closed = True
    proxy.cut()
    expect(page.locator(".turn-hint")).to_contain_text("Reconnecting")
    seen = page.locator(".reply").text_content() or ""
    proxy.is_closed = False
    expect(page.locator(".turn-hint")).to_be_hidden()
    page.wait_for_timeout(500)
    proxy.cut()
    page.wait_for_timeout(1_500)
    assert len(page.locator(".reply").text_content() or "") > len(seen)
    page.get_by_role("button", name="Stop the reply").click()
    page.locator(".is-running").wait_for(state="detached")
    (stored,) = slow_server.last_turns()
    assert page.locator(".reply").text_content() == stored["reply"]


def test_reply_goes_on_after_a_reload(slow_server: Server, open_page: OpenPage) -> None:
    """The page is loaded again while it is being answered: it takes up the reply from its beginning."""
    page = open_page(slow_server.url)
    page.locator("#composer").fill("Tell me another story.")
    page.keyboard.press("Enter")
    page.locator(".reply:not(:empty)").wait_for()
    page.reload()
    page.locator(".is-running .reply:not(:empty)").wait_for()
    page.get_by_role("button", name="Stop the reply").click()
    page.locator(".is-running").wait_for(state="detached")
    (stored,) = slow_server.last_turns()
    assert page.locator(".reply").text_content() == stored["reply"]
    assert page.locator(".turn").count() == 1


def test_message_that_never_arrived_can_be_sent_again(slow_server: Server, proxy: Proxy, open_page: OpenPage) -> None:
    """No server, no reply: the message stays, and goes out once with the retry."""
    from playwright.sync_api import expect

    page = open_page(proxy.url)
    before = len(slow_server.call("GET", "/v1/conversations")["conversations"])
    proxy.is_closed = True
    proxy.cut()
    page.locator("#composer").fill("Is anybody there?")
    page.keyboard.press("Enter")
    expect(page.locator(".turn-hint")).to_contain_text("cannot be reached")
    proxy.is_closed = False
    page.get_by_role("button", name="Try again").click()
    page.locator(".reply:not(:empty)").wait_for()
    page.get_by_role("button", name="Stop the reply").click()
    page.locator(".is-running").wait_for(state="detached")
    expect(page.locator(".turn")).to_have_count(1)
    assert len(slow_server.call("GET", "/v1/conversations")["conversations"]) == before + 1
