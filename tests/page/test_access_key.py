"""A server that wants a key: the page asks once, keeps it in this tab only, and forgets it when told to."""

from __future__ import annotations

import pytest

from .conftest import OpenPage
from .servers import run_server

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

KEY = "a-key-of-at-least-16-characters"


def test_key_is_asked_for_kept_and_forgotten(tmp_path_factory: pytest.TempPathFactory, open_page: OpenPage) -> None:
    """A wrong key is asked for again; the right one opens everything, and is nowhere but in the tab's storage."""
    from playwright.sync_api import expect

    with run_server(tmp_path_factory.mktemp("keyed"), options=(), key=KEY) as server:
        page = open_page(server.url)
        dialog = page.get_by_role("dialog", name="This server needs a key")
        expect(dialog).to_have_count(1)
        dialog.get_by_label("Key").fill("not-the-right-key-at-all")
        page.keyboard.press("Enter")
        expect(page.get_by_text("did not take this key")).to_be_visible()
        dialog.get_by_label("Key").fill(KEY)
        page.keyboard.press("Enter")
        expect(dialog).to_have_count(0)
        page.locator("#composer").fill("Hello!")
        page.keyboard.press("Enter")
        page.locator(".turn .tools button").first.wait_for()
        stored = "() => [JSON.stringify(sessionStorage), JSON.stringify(localStorage), document.cookie, location.href]"
        kept, *elsewhere = page.evaluate(stored)
        assert KEY in kept and not any(KEY in text for text in elsewhere)
        page.reload()
        expect(page.locator(".conversation-item")).to_have_count(1)
        expect(dialog).to_have_count(0)
        page.get_by_role("button", name="Forget the key").click()
        expect(dialog).to_have_count(1)
        expect(page.locator(".conversation-item")).to_have_count(0)
        assert KEY not in "".join(page.evaluate(stored))
        dialog.get_by_role("button", name="Cancel").click()
        expect(page.locator(".toast-bad").first).to_be_visible()
