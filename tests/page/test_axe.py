"""axe's rules for accessibility: nothing serious in any view, theme or language, with content in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import OpenPage
from .servers import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

_RUN = """async () => {
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations.map(({ id, impact, help, nodes }) => ({
    id, impact, help,
    nodes: nodes.slice(0, 4).map(({ html, failureSummary }) => `${html.slice(0, 200)} ${failureSummary}`),
  }));
}"""


def check(page: Page, axe: Path, where: str) -> None:
    """No serious or critical finding."""
    if not page.evaluate("() => 'axe' in window"):
        page.add_script_tag(path=str(axe))
    found: list[dict[str, Any]] = page.evaluate(_RUN)
    bad = [one for one in found if one["impact"] in ("serious", "critical")]
    lines = [f"{one['impact']} {one['id']}: {one['help']}\n  " + "\n  ".join(one["nodes"]) for one in bad]
    assert not bad, f"{where}\n" + "\n".join(lines)


def fill_chat(page: Page) -> None:
    """Two turns, the tip open."""
    for text in ("今天的实验终于成功了，太棒了！", "I am so sad today."):
        page.locator("#composer").fill(text)
        page.keyboard.press("Enter")
        page.locator(".turn").last.locator(".tools button").first.wait_for()
    page.locator(".chip").last.focus()


def fill_tasks(page: Page) -> None:
    """An answer with bars."""
    page.locator(".task-panel:visible .task-text").fill("味道很好")
    page.keyboard.press("Control+Enter")
    page.locator(".result").wait_for()


def fill_prompts(page: Page) -> None:
    """An error at a line."""
    editor = page.locator(".editor-area:visible")
    page.locator(".editor-state.is-good").wait_for()
    editor.fill(editor.input_value().replace("config:", "configs:"))
    page.locator(".editor-errors:visible").wait_for()


def fill_status(page: Page) -> None:
    """Some points in the plots."""
    page.locator(".status-facts dd").first.wait_for()
    page.locator("summary").first.click()


VIEWS = {"chat": fill_chat, "tasks/sentiment": fill_tasks, "prompts/sentiment": fill_prompts, "status": fill_status}


def test_axe_finds_what_is_wrong(server: Server, open_page: OpenPage, axe_path: Path) -> None:
    """A check that can never fail would prove nothing: words that cannot be read, a button without a name."""
    page = open_page(server.url, bypass_csp=True)
    page.evaluate(
        """() => {
          document.querySelector(".welcome-title").style.color = "#eee";
          document.querySelector(".tool-language").textContent = "";
          document.querySelector(".tool-language").removeAttribute("title");
        }"""
    )
    with pytest.raises(AssertionError, match=r"(?s)color-contrast.*button-name|button-name.*color-contrast"):
        check(page, axe_path, "chat")


@pytest.mark.parametrize("language", ["zh-CN", "en-US"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_serious_finding(server: Server, open_page: OpenPage, axe_path: Path, theme: str, language: str) -> None:
    """All four views, with something in them."""
    page = open_page(server.url, language=language, theme=theme, bypass_csp=True)
    for view, fill in VIEWS.items():
        page.goto(f"{server.url}/#/{view}")
        page.locator("[role=tabpanel]:visible > *").first.wait_for()
        fill(page)
        check(page, axe_path, f"{view} {theme} {language}")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_serious_finding_in_what_opens_later(
    server: Server, open_page: OpenPage, axe_path: Path, theme: str
) -> None:
    """Dialogs, menus, batches, differences, comparisons, cases, the drawer of a small window."""
    page = open_page(server.url, theme=theme, bypass_csp=True)
    page.locator("#composer").fill("Hello!")
    page.keyboard.press("Enter")
    turn = page.locator(".turn").last
    turn.locator(".tools button").first.wait_for()
    check(page, axe_path, "chat")
    turn.get_by_role("button", name="Bad answer").click()
    check(page, axe_path, "feedback dialog")
    page.keyboard.press("Escape")
    page.locator(".conversation-item .tool").first.click()
    check(page, axe_path, "menu")
    page.get_by_role("menuitem", name="Delete").click()
    check(page, axe_path, "delete dialog")
    page.keyboard.press("Escape")
    page.goto(f"{server.url}/#/tasks/typo")
    page.locator(".task-panel:visible .task-text").fill("我门去公圆玩。")
    page.keyboard.press("Control+Enter")
    page.locator(".result .diff").wait_for()
    check(page, axe_path, "difference")
    page.goto(f"{server.url}/#/tasks/emotion")
    panel = page.locator(".task-panel:visible")
    panel.get_by_role("tab", name="A whole file").click()
    file = {"name": "a.csv", "mimeType": "", "buffer": "text,n\n太棒了,1\n气死我了,2\nbad\n".encode()}
    panel.locator("input[type=file]").set_input_files(file)  # type: ignore[arg-type]
    check(page, axe_path, "file chosen")
    page.get_by_role("button", name="Start").click()
    page.get_by_text("Done", exact=True).wait_for()
    check(page, axe_path, "batch")
    page.goto(f"{server.url}/#/prompts/sentiment")
    page.get_by_role("tab", name="Old and new").click()
    page.get_by_label("Texts to try").fill("太棒了\n太差了")
    page.get_by_role("button", name="Compare").click()
    page.locator(".compare-table").wait_for()
    check(page, axe_path, "comparison")
    page.get_by_role("tab", name="Cases").click()
    page.get_by_role("button", name="Run the cases").click()
    page.locator(".case").first.wait_for()
    check(page, axe_path, "cases")
    page.set_viewport_size({"width": 360, "height": 640})
    page.goto(f"{server.url}/#/chat")
    page.get_by_role("button", name="Conversations").click()
    check(page, axe_path, "drawer")
