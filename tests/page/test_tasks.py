"""Tasks: forms made from the tasks' declarations, answers of every kind."""

from __future__ import annotations

import pytest

from .conftest import OpenPage
from .servers import Server

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

MAIL = """---
description: answers a customer's mail
config: {temperature: 0, max_tokens: 12}
input:
  schema:
    text: string, the customer's mail
    tone(enum, how to sound): [friendly, formal]
    facts?(array, what we know): string
    is_short: boolean
    num_words: integer
    share?: number
  default: {tone: formal}
allinone.kind: text
---
{{tone}} {{#each facts}}{{this}} {{/each}}{{#if is_short}}short {{/if}}{{num_words}} {{share}}
{{text}}
"""


def test_every_task_has_its_form(server: Server, open_page: OpenPage) -> None:
    """All tasks of the server are listed, and each one opens."""
    from playwright.sync_api import expect

    page = open_page(f"{server.url}/#/tasks")
    names = [task["name"] for task in server.call("GET", "/v1/tasks")["tasks"]]
    assert len(names) >= 16
    for name in names:
        page.locator(f".task-link[data-name='{name}']").click()
        panel = page.locator(".task-panel:visible")
        expect(panel.locator(".task-head code")).to_have_text(name)
        expect(panel.get_by_label("Text", exact=True)).to_be_visible()


def test_label_task_shows_bars(server: Server, open_page: OpenPage) -> None:
    """Each label has a bar as long as its probability, and the probability in words."""
    from playwright.sync_api import expect

    page = open_page(f"{server.url}/#/tasks/sentiment", language="zh-CN")
    page.get_by_label("文字", exact=True).fill("这家店太棒了,下次还来")
    page.keyboard.press("Control+Enter")
    result = page.locator(".result")
    expect(result.locator(".label-best")).to_contain_text("正面")
    bars = result.locator(".bar")
    expect(bars).to_have_count(3)
    answer = server.call("POST", "/v1/tasks/sentiment", {"text": "这家店太棒了,下次还来"})
    for bar in bars.all():
        label = bar.locator("bdi").inner_text()
        width = bar.locator(".bar-fill").evaluate("(node) => parseFloat(node.style.width)")
        assert width == pytest.approx(max(0.5, 100 * answer["probs"][label]), abs=0.1)
        assert bar.locator(".bar-value").inner_text().endswith("%")
    page.get_by_role("button", name="回答得好").click()
    expect(page.get_by_role("button", name="回答得好")).to_have_attribute("aria-pressed", "true")


def test_labels_can_be_chosen_or_given(server: Server, open_page: OpenPage) -> None:
    """A subset of the labels; labels of one's own where the task takes them."""
    from playwright.sync_api import expect

    page = open_page(f"{server.url}/#/tasks/sentiment")
    page.get_by_label("Text", exact=True).fill("It is fine.")
    page.get_by_role("checkbox", name="中性").uncheck()
    page.get_by_role("button", name="Run").click()
    expect(page.locator(".result .bar")).to_have_count(2)
    page.goto(f"{server.url}/#/tasks/intent")
    panel = page.locator(".task-panel:visible")
    panel.get_by_label("Text", exact=True).fill("Where is my parcel?")
    panel.locator("summary").click()
    panel.get_by_label("Your labels").fill("delivery\npayment\nother")
    panel.get_by_role("button", name="Run").click()
    expect(panel.locator(".result .bar bdi")).to_have_count(3)
    assert set(panel.locator(".result .bar bdi").all_inner_texts()) == {"delivery", "payment", "other"}


def test_correction_shows_what_changed(server: Server, open_page: OpenPage) -> None:
    """Marked where it differs, the plain text behind a switch."""
    from playwright.sync_api import expect

    page = open_page(f"{server.url}/#/tasks/typo", language="zh-CN")
    said = "我门去公圆玩。"
    page.get_by_label("文字", exact=True).fill(said)
    page.get_by_role("button", name="运行").click()
    diff = page.locator(".result .diff")
    expect(diff).to_be_visible()
    text = server.call("POST", "/v1/tasks/typo", {"text": said})["text"]
    kept = diff.evaluate(
        "(node) => [...node.children].filter((part) => part.tagName !== 'INS').map((p) => p.textContent).join('')"
    )
    fresh = diff.evaluate(
        "(node) => [...node.children].filter((part) => part.tagName !== 'DEL').map((p) => p.textContent).join('')"
    )
    assert (kept, fresh) == (said, text)
    page.get_by_role("button", name="显示改动").click()
    expect(diff).to_be_hidden()
    expect(page.locator(".result .text-answer")).to_have_text(text)


def test_json_task_shows_json(server: Server, open_page: OpenPage) -> None:
    """Structured answers come indented."""
    page = open_page(f"{server.url}/#/tasks/keywords")
    page.get_by_label("Text", exact=True).fill("本文提出一种基于深度学习的图像识别方法。")
    page.get_by_role("button", name="Run").click()
    page.locator(".json-answer, .notice-bad").first.wait_for()
    shown = page.locator(".result-place").inner_text()
    assert '"keywords": [' in shown or "JSON" in shown  # a small model may run out of tokens, which is then said


def test_form_is_made_from_the_declaration(server: Server, open_page: OpenPage) -> None:
    """Choices, lists, flags, numbers, defaults; what is required is asked for, what is sent has its type."""
    from playwright.sync_api import expect

    (server.tasks / "mail.prompt").write_text(MAIL, encoding="utf-8")
    page = open_page(f"{server.url}/#/tasks/mail")
    panel = page.locator(".task-panel:visible")
    expect(panel.get_by_label("tone")).to_have_value("formal")
    panel.get_by_label("Text", exact=True).fill("Where is my order?")
    panel.get_by_role("button", name="Run").click()
    expect(panel.get_by_label("num_words")).to_be_focused()
    panel.get_by_label("num_words").fill("30")
    panel.get_by_label("tone").select_option("friendly")
    panel.get_by_label("facts").fill("sent on Monday\n\nby bike")
    panel.get_by_label("is_short").check()
    with page.expect_request("**/v1/tasks/mail") as sent:
        panel.get_by_role("button", name="Run").click()
    assert sent.value.post_data_json == {
        "text": "Where is my order?",
        "variables": {"tone": "friendly", "facts": ["sent on Monday", "by bike"], "is_short": True, "num_words": 30},
    }
    expect(panel.locator(".result")).to_be_visible()
    (server.tasks / "mail.prompt").unlink()


def test_error_is_told_and_a_long_run_can_be_stopped(server: Server, open_page: OpenPage) -> None:
    """The server's words where the answer would stand; the button stops what takes too long."""
    from playwright.sync_api import expect

    page = open_page(f"{server.url}/#/tasks/sentiment")
    page.get_by_label("Text", exact=True).fill("word " * 2_000)
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("alert")).to_contain_text("512")
    page.route("**/v1/tasks/sentiment", lambda route: None)
    page.get_by_role("button", name="Run").click()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Run")).to_be_visible()
    page.unroute_all(behavior="ignoreErrors")
