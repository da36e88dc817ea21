"""Languages, themes and small windows."""

from __future__ import annotations

import pytest

from .conftest import OpenPage
from .servers import Server

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

VIEWS = ("chat", "tasks", "prompts", "status")


def test_language_follows_the_browser_and_the_switch_is_remembered(server: Server, open_page: OpenPage) -> None:
    """Chinese for Chinese browsers; switching rewrites the page in place and loses nothing."""
    from playwright.sync_api import expect

    page = open_page(server.url, language="zh-TW")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(page.get_by_role("tab", name="聊天")).to_be_visible()
    page.locator("#composer").fill("半句话")
    page.get_by_role("button", name="English").click()
    expect(page.get_by_role("tab", name="Chat")).to_be_visible()
    expect(page.locator("#composer")).to_have_value("半句话")
    expect(page.locator("#composer")).to_have_attribute("placeholder", "Say something…")
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.get_by_role("tab", name="Chat")).to_be_visible()


@pytest.mark.parametrize("language", ["zh-CN", "en-US"])
def test_no_text_is_left_in_the_other_language(server: Server, open_page: OpenPage, language: str) -> None:
    """Every view, drawn in one language and switched to the other and back, says the same as before."""
    page = open_page(server.url, language=language)
    texts = "() => [...document.querySelectorAll('[data-i18n]')].map((node) => node.textContent)"
    for view in VIEWS:
        page.goto(f"{server.url}/#/{view}")
        page.locator(f"#view-{view} > *").wait_for()
        page.wait_for_timeout(400)
    before = page.evaluate(texts)
    switch = page.locator(".tool-language")
    switch.click()
    other = page.evaluate(texts)
    switch.click()
    assert page.evaluate(texts) == before
    same = {a for a, b in zip(before, other, strict=True) if a == b}
    assert same <= {"Ctrl+Enter"} | {text for text in same if not text.isascii() and "version" not in text}, same


def test_theme_follows_the_system_until_it_is_chosen(server: Server, open_page: OpenPage) -> None:
    """Dark by the system's wish; the switch goes system, light, dark and is remembered."""
    page = open_page(server.url, theme="dark")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Theme: as the system").click()
    light = page.evaluate(ground)
    assert light != dark
    page.reload()
    assert page.evaluate(ground) == light
    page.get_by_role("button", name="Theme: light").click()
    assert page.evaluate(ground) == dark
    page.emulate_media(color_scheme="light")
    assert page.evaluate(ground) == dark
    page.get_by_role("button", name="Theme: dark").click()
    assert page.evaluate(ground) == light


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("language", ["zh-CN", "en-US"])
def test_small_window_needs_no_sideways_scrolling(
    server: Server, open_page: OpenPage, view: str, language: str
) -> None:
    """At 360 pixels everything is there, nothing sticks out, and what can be pressed is large enough."""
    page = open_page(f"{server.url}/#/{view}", language=language, size=(360, 640))
    page.locator(f"#view-{view} > *").wait_for()
    page.wait_for_timeout(500)
    wide = page.evaluate(
        """() => [...document.querySelectorAll("body *")].filter((node) => {
          const box = node.getBoundingClientRect();
          const clipped = node.closest(
            ".table-wrap, .editor-body, .segments, .tip, .visually-hidden, pre, .mood-chart, svg");
          return node.checkVisibility() && box.width > 0 && (box.right > 361 || box.left < -1) && !clipped;
        }).map((node) => node.className || node.tagName)"""
    )
    assert not wide
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, a, [role=tab]")].filter((node) => {
          const box = node.getBoundingClientRect();
          const isSmall = box.width > 0 && (box.width < 24 || box.height < 24);
          return node.checkVisibility() && isSmall && !node.closest(".skip-link");
        }).map((node) => node.className)"""
    )
    assert not small, "WCAG 2.5.8 asks for 24 pixels"


def test_conversations_open_in_a_drawer_on_a_small_window(server: Server, open_page: OpenPage) -> None:
    """The list lies over the chat, Escape closes it and gives the focus back."""
    from playwright.sync_api import expect

    page = open_page(server.url, size=(360, 640))
    opener = page.get_by_role("button", name="Conversations")
    expect(page.get_by_role("link", name="New conversation")).to_be_hidden()
    opener.click()
    expect(opener).to_have_attribute("aria-expanded", "true")
    expect(page.get_by_role("link", name="New conversation")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("link", name="New conversation")).to_be_hidden()
    expect(opener).to_be_focused()
