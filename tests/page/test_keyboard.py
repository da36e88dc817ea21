"""Everything without a mouse: skip link, tabs, menus, dialogs; the focus is always somewhere and always visible."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .conftest import OpenPage
from .servers import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

_FOCUSED = """() => {
  const node = document.activeElement, style = getComputedStyle(node), box = node.getBoundingClientRect();
  const around = getComputedStyle(node.closest(".composer-box, .editor-box, .drop-holder, .label-check") ?? node);
  const drop = node.matches("input[type=file]") ? getComputedStyle(node.nextElementSibling) : around;
  const seen = [style, around, drop].some((one) => one.outlineStyle !== "none" && parseFloat(one.outlineWidth) > 0);
  const text = (node.getAttribute("aria-label") ?? node.textContent ?? "").trim().slice(0, 40);
  return { tag: node.tagName, text, seen, inView: box.bottom > 0 && box.top < innerHeight };
}"""


def walk(page: Page, key: str = "Tab", most: int = 80) -> list[dict[str, object]]:
    """Where the focus goes with each press, until it comes back to the document."""
    steps: list[dict[str, object]] = []
    for _ in range(most):
        page.keyboard.press(key)
        steps.append(page.evaluate(_FOCUSED))
        if steps[-1]["tag"] == "BODY":
            break
    return steps


@pytest.mark.parametrize("view", ["chat", "tasks", "prompts", "status"])
def test_focus_is_always_visible(server: Server, open_page: OpenPage, view: str) -> None:
    """Each press of Tab leads to something that can be seen and that shows that it has the focus."""
    page = open_page(f"{server.url}/#/{view}")
    page.wait_for_load_state("networkidle" if view != "status" else "load")
    page.locator("[role=tabpanel]:visible > *").first.wait_for()
    page.evaluate("() => document.activeElement.blur()")
    steps = walk(page)
    assert len(steps) >= 6
    for step in steps:
        assert step["tag"] == "BODY" or (step["seen"] and step["inView"]), step


def test_whole_chat_by_keyboard(server: Server, open_page: OpenPage) -> None:
    """Skip link, tabs, message, chip, rating, menu, dialog: no mouse at all."""
    from playwright.sync_api import expect

    page = open_page(server.url)
    page.evaluate("() => document.activeElement.blur()")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#composer")).to_be_focused()
    page.keyboard.type("I am so happy today!")
    page.keyboard.press("Enter")
    turn = page.locator(".turn").last
    turn.locator(".tools button").first.wait_for()
    expect(page.locator("#composer")).to_be_focused()
    for _ in range(8):
        page.keyboard.press("Shift+Tab")
        if page.locator(".chip").evaluate("(node) => node === document.activeElement"):
            break
    expect(turn.locator("[role=tooltip]")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(turn.get_by_role("button", name="Good answer")).to_be_focused()
    page.keyboard.press("Space")
    expect(turn.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "true")

    entry = page.locator(".conversation-item", has=page.locator("[aria-current=page]"))
    entry.get_by_role("button").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("menuitem", name="Rename")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("menuitem", name="Export")).to_be_focused()
    page.keyboard.press("End")
    expect(page.get_by_role("menuitem", name="Delete")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("menu")).to_have_count(0)
    expect(entry.get_by_role("button")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("menuitem", name="Rename")).to_be_focused()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Delete")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(entry).to_have_count(1)


def test_tabs_follow_the_arrows(server: Server, open_page: OpenPage) -> None:
    """One stop for all tabs, arrows between them, the selected one is told."""
    from playwright.sync_api import expect

    page = open_page(server.url)
    tabs = page.locator("#tabs")
    expect(tabs.get_by_role("tab")).to_have_count(4)
    tabs.get_by_role("tab", name="Chat").focus()
    for name in ("Tasks", "Prompts", "Status", "Chat"):
        page.keyboard.press("ArrowRight")
        tab = tabs.get_by_role("tab", name=name)
        expect(tab).to_be_focused()
        expect(tab).to_have_attribute("aria-selected", "true")
        panel = page.locator(f"#{tab.get_attribute('aria-controls')}")
        expect(panel).to_be_visible()
        expect(page.locator("#main > [role=tabpanel]:visible")).to_have_count(1)
        assert page.title().startswith(name)
    page.keyboard.press("End")
    expect(tabs.get_by_role("tab", name="Status")).to_be_focused()
    assert len(tabs.locator("[tabindex='0']").all()) == 1


@pytest.mark.parametrize("view", ["tasks", "prompts"])
def test_skip_link_leads_past_the_list(server: Server, open_page: OpenPage, view: str) -> None:
    """Nobody has to go through all tasks to get to the one that is shown."""
    from playwright.sync_api import expect

    page = open_page(f"{server.url}/#/{view}")
    page.locator(".segments:visible").wait_for()
    page.get_by_role("link", name="Skip to the content").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".segments:visible [aria-selected=true]")).to_be_focused()
