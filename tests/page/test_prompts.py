"""Prompts: a draft of a task file, its errors at their lines, trying it, saving it, and two people at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from .conftest import OpenPage
from .servers import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

PROMPT = """---
description: 紧急程度 · how urgent a ticket is
input: {schema: {text: string}}
allinone.kind: label
allinone.labels:
  紧急: {name: urgent, emoji: 🚨, description: 系统不可用}
  普通: {name: normal, description: 可以排队处理}
---
{{role "system"}}
判断工单的紧急程度，只输出一个标签：{{#each labels}}{{label}}（{{description}}）{{/each}}
{{role "user"}}
{{text}}
"""
CASES = """tests:
  - description: any of the two
    vars: {text: 服务器全部宕机}
    assert: [{type: regex, value: "紧急|普通"}]
  - description: never right
    vars: {text: 请问周末营业吗}
    assert: [{type: equals, value: 别的}]
"""
TURNED = PROMPT.replace("紧急: {name: urgent, emoji: 🚨, description: 系统不可用}", "甲: {name: urgent}").replace(
    "普通: {name: normal, description: 可以排队处理}", "乙: {name: normal}"
)
"""Other labels: every answer changes."""


@pytest.fixture
def task(server: Server) -> Iterator[str]:
    """A task in the server's folder."""
    (server.tasks / "urgency.prompt").write_text(PROMPT, encoding="utf-8")
    (server.tasks / "urgency.tests.yaml").write_text(CASES, encoding="utf-8")
    yield "urgency"
    for path in server.tasks.iterdir():
        path.unlink()


def open_prompt(open_page: OpenPage, server: Server, name: str) -> Page:
    page = open_page(f"{server.url}/#/prompts/{name}")
    page.locator(".editor-state.is-good, .editor-state.is-bad").wait_for()
    return page


def test_error_is_shown_at_its_line(server: Server, open_page: OpenPage, task: str) -> None:
    """While typing: the line is marked, the message stands at it and below, a press leads to it, saving is off."""
    from playwright.sync_api import expect

    page = open_prompt(open_page, server, task)
    editor = page.get_by_label("Prompt file")
    expect(editor).to_have_value(PROMPT)
    editor.fill(PROMPT.replace("allinone.kind", "allinone.knd"))
    errors = page.locator(".editor-errors:visible")
    expect(errors).to_contain_text("Line 4")
    expect(errors).to_contain_text("allinone.knd")
    expect(page.locator(".gutter:visible .is-wrong")).to_have_text("4")
    mark = page.locator(".mark:visible")
    expect(mark).to_contain_text("allinone.knd")
    box, area = mark.bounding_box(), editor.bounding_box()
    assert box is not None and area is not None
    assert box["y"] - area["y"] == pytest.approx(12 + 3 * 22, abs=2), "it stands where the fourth line is"
    expect(editor).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_role("button", name="Save")).to_be_disabled()
    errors.get_by_role("button", name="Line 4").click()
    expect(editor).to_be_focused()
    selected = editor.evaluate("(node) => node.value.slice(node.selectionStart, node.selectionEnd)")
    assert selected == "allinone.knd: label"
    page.get_by_role("tab", name="Cases").click()
    page.get_by_label("Cases (YAML)").fill("tests:\n  - vars: {txt: a}\n    assert: []\n")
    page.get_by_role("tab", name="Edit").click()
    editor.fill(PROMPT)
    expect(page.locator(".editor-state")).to_contain_text("1 error")
    page.get_by_role("tab", name="Cases").click()
    expect(page.locator(".editor-errors:visible")).to_contain_text("Line")


def test_draft_is_tried_saved_and_served_at_once(server: Server, open_page: OpenPage, task: str) -> None:
    """Nothing is served before it is saved; then everything is."""
    from playwright.sync_api import expect

    page = open_prompt(open_page, server, task)
    page.get_by_label("Prompt file").fill(TURNED)
    expect(page.locator("[aria-current=page] .badge")).to_have_text("draft")
    page.reload()
    expect(page.get_by_label("Prompt file")).to_have_value(TURNED)
    page.get_by_role("tab", name="Old and new").click()
    page.get_by_label("Texts to try").fill("服务器全部宕机\n请问周末营业吗\n")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".trial:visible .notice")).to_have_text("2 of 2 answers change")
    rows = page.locator(".compare-table tbody tr")
    expect(rows).to_have_count(2)
    for row in rows.all():
        expect(row).to_contain_text("changed")
        assert row.locator("td").nth(1).locator("bdi").inner_text() in ("紧急", "普通")
        assert row.locator("td").nth(2).locator("bdi").inner_text() in ("甲", "乙")
    assert server.call("POST", "/v1/tasks/urgency", {"text": "服务器全部宕机"})["label"] in ("紧急", "普通")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".toast")).to_contain_text("in use from now on")
    assert server.call("POST", "/v1/tasks/urgency", {"text": "服务器全部宕机"})["label"] in ("甲", "乙")
    assert (server.tasks / "urgency.prompt").read_text(encoding="utf-8") == TURNED
    expect(page.locator("[aria-current=page] .badge")).to_have_count(0)
    page.get_by_role("tab", name="Tasks").click()
    page.locator(".task-link[data-name=urgency]").click()
    expect(page.locator(".task-panel:visible .label-check")).to_contain_text(["甲", "乙"])


def test_unchanged_answers_are_not_marked(server: Server, open_page: OpenPage, task: str) -> None:
    """A draft that says the same changes nothing."""
    from playwright.sync_api import expect

    page = open_prompt(open_page, server, task)
    page.get_by_role("tab", name="Old and new").click()
    page.get_by_role("button", name="Take those of the cases").click()
    expect(page.get_by_label("Texts to try")).to_have_value("服务器全部宕机\n请问周末营业吗")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".trial:visible .notice")).to_have_text("0 of 2 answers change")
    expect(page.locator(".compare-table .is-changed")).to_have_count(0)


def test_cases_are_run_on_the_draft(server: Server, open_page: OpenPage, task: str) -> None:
    """What passes and what fails, with the answer and the reason; edited cases count, and are saved."""
    from playwright.sync_api import expect

    page = open_prompt(open_page, server, task)
    page.get_by_role("tab", name="Cases").click()
    page.get_by_role("button", name="Run the cases").click()
    expect(page.locator(".trial:visible .notice")).to_have_text("1 of 2 pass")
    failed = page.locator(".case.is-failed")
    expect(failed).to_contain_text("never right")
    expect(failed).to_contain_text("equals '别的': got")
    page.get_by_label("Cases (YAML)").fill(CASES.replace("{type: equals, value: 别的}", '{type: regex, value: "."}'))
    page.get_by_role("button", name="Run the cases").click()
    expect(page.locator(".trial:visible .notice")).to_have_text("2 of 2 pass")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".toast")).to_contain_text("Saved")
    assert "别的" not in (server.tasks / "urgency.tests.yaml").read_text(encoding="utf-8")


def test_conflict_is_explained_and_nobodys_work_is_lost(server: Server, open_page: OpenPage, task: str) -> None:
    """Somebody else saved first: both versions are shown, and people choose."""
    from playwright.sync_api import expect

    page = open_prompt(open_page, server, task)
    mine, theirs = PROMPT.replace("判断工单", "请判断工单"), PROMPT.replace("只输出一个标签", "只回答一个标签")
    page.get_by_label("Prompt file").fill(mine)
    (server.tasks / "urgency.prompt").write_text(theirs, encoding="utf-8")
    page.get_by_role("button", name="Save").click()
    conflict = page.locator(".conflict")
    expect(conflict).to_contain_text("Somebody else has saved this file")
    expect(conflict.locator("del")).to_contain_text("只回答一个标签")
    expect(conflict.locator("ins")).to_contain_text("请判断工单")
    assert (server.tasks / "urgency.prompt").read_text(encoding="utf-8") == theirs
    expect(page.get_by_label("Prompt file")).to_have_value(mine)
    conflict.get_by_role("button", name="Go on with mine").click()
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".toast")).to_contain_text("Saved")
    assert (server.tasks / "urgency.prompt").read_text(encoding="utf-8") == mine


def test_builtin_task_is_copied_into_the_folder(server: Server, open_page: OpenPage, task: str) -> None:
    """A copy under another name is a new task; discarding a draft leaves the file as it is."""
    from playwright.sync_api import expect

    page = open_prompt(open_page, server, "sentiment")
    page.get_by_role("button", name="Copy as…").click()
    page.get_by_label("Name of the new task").fill("mood")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="mood.prompt")).to_be_visible()
    expect(page.locator(".editor-state")).to_contain_text("No errors")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".toast")).to_contain_text("Saved")
    assert server.call("POST", "/v1/tasks/mood", {"text": "太棒了"})["label"] == "正面"
    page.get_by_label("Prompt file").fill("gone")
    page.get_by_role("button", name="Discard").click()
    page.get_by_role("dialog").get_by_role("button", name="Discard the draft").click()
    expect(page.get_by_label("Prompt file")).not_to_have_value("gone")
    expect(page.get_by_role("button", name="Save")).to_be_disabled()


def test_prompts_are_absent_where_they_may_not_be_edited(slow_server: Server, open_page: OpenPage) -> None:
    """Without --edit-prompts there is no such tab."""
    from playwright.sync_api import expect

    page = open_page(slow_server.url)
    page.wait_for_load_state("networkidle")
    expect(page.get_by_role("tab", name="Prompts")).to_have_count(0)
    expect(page.get_by_role("tab")).to_have_count(3)
