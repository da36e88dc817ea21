"""The pictures of docs/web.md, taken from the page as it is, with `ALLINONE_SCREENSHOTS=1`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import OpenPage
from .servers import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.e2e,
    pytest.mark.skipif(os.environ.get("ALLINONE_SCREENSHOTS") != "1", reason="needs ALLINONE_SCREENSHOTS=1"),
]

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
MAX_PICTURE_BYTES = 250_000
REVIEWS = [
    "这家店太棒了,下次还来", "等了一个小时,太失望了", "包装还可以,物流一般", "味道很好,会再来", "客服态度很差",
    "颜色和图片一样", "质量不错,性价比高", "完全不值这个价", "今天收到了", "孩子非常喜欢",
]  # fmt: skip


def take(page: Page, name: str) -> None:
    """Save what is seen."""
    page.wait_for_timeout(400)
    path = PICTURES / f"web-{name}.png"
    page.screenshot(path=path)
    assert path.stat().st_size <= MAX_PICTURE_BYTES


def talk(page: Page, *texts: str) -> None:
    """Say something, and wait for each reply."""
    for text in texts:
        page.locator("#composer").fill(text)
        page.keyboard.press("Enter")
        page.locator(".turn").last.locator(".tools button").first.wait_for()


@contextmanager
def traffic(server: Server) -> Iterator[None]:
    """Other people who use the server."""
    is_over = threading.Event()

    def ask() -> None:
        number = 0
        while not is_over.wait(0.25):
            number += 1
            texts = [{"text": f"{review} {number}"} for review in REVIEWS[: 1 + number % 9]]
            server.call("POST", "/v1/tasks/sentiment", {"inputs": texts})
            server.call("POST", "/v1/tasks/emotion", {"text": f"终于放假了 {number % 20}"})
            if number % 3 == 0:
                server.call("POST", "/v1/tasks/empathy", {"text": f"我今天很累 {number}"})

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_take_pictures_of_the_chat(server: Server, open_page: OpenPage) -> None:
    """Light and wide in Chinese, dark and small in English."""
    for record in server.call("GET", "/v1/conversations")["conversations"]:
        server.call("DELETE", f"/v1/conversations/{record['id']}")
    page = open_page(server.url, language="zh-CN", size=(1280, 860))
    talk(page, "你好呀")
    page.get_by_role("link", name="新对话").click()
    talk(page, "周末去哪里玩好呢？", "好的")
    page.get_by_role("link", name="新对话").click()
    talk(page, "今天的实验终于成功了，太棒了！", "我今天心情不好", "嗯嗯，聊聊别的吧")
    page.locator(".chip").last.hover()
    take(page, "chat")
    small = open_page(server.url, language="en-US", theme="dark", size=(390, 760))
    talk(small, "I finally passed the exam!", "I feel so sad and lonely today.")
    take(small, "chat-dark")


def test_take_pictures_of_the_tasks(server: Server, open_page: OpenPage) -> None:
    """An answer with bars, a batch with a bad line."""
    page = open_page(f"{server.url}/#/tasks/emotion", language="zh-CN")
    page.get_by_label("文字", exact=True).fill("他居然骗了我，气死我了")
    page.keyboard.press("Control+Enter")
    page.locator(".result").wait_for()
    page.mouse.click(1200, 400)
    page.locator(".page:visible").evaluate("(node) => node.scrollTo(0, 200)")
    take(page, "tasks")
    page.goto(f"{server.url}/#/tasks/sentiment")
    panel = page.locator(".task-panel:visible")
    panel.get_by_role("tab", name="整个文件").click()
    rows = [f'{i},"{REVIEWS[i % 10]}",店铺 {i % 7}' for i in range(1, 301)]
    rows.insert(60, "61,这一行少了一列")
    content = "编号,text,来源\n" + "\n".join(rows)
    panel.locator("input[type=file]").set_input_files(
        {"name": "评论.csv", "mimeType": "text/csv", "buffer": content.encode()}  # type: ignore[arg-type]
    )
    page.get_by_role("button", name="开始").click()
    page.get_by_text("完成", exact=True).wait_for()
    page.locator(".page:visible").evaluate("(node) => node.scrollTo(0, 300)")
    take(page, "batch")


def test_take_pictures_of_the_prompts(server: Server, open_page: OpenPage) -> None:
    """An error at its line; old and new side by side."""
    page = open_page(f"{server.url}/#/prompts/sentiment", language="zh-CN")
    editor = page.get_by_label("提示词文件")
    page.locator(".editor-state.is-good").wait_for()
    text = editor.input_value()
    editor.fill(text.replace("temperature", "temperatue"))
    page.locator(".editor-errors:visible").wait_for()
    take(page, "prompts")
    two = text.replace(", 中性]", "]").replace(
        "  中性: {name: neutral, emoji: 😐, description: 陈述事实，没有情绪}\n", ""
    )
    assert two.count("\n") == text.count("\n") - 1
    editor.fill(two)
    page.locator(".editor-state.is-good").wait_for()
    page.get_by_role("tab", name="新旧对比").click()
    page.get_by_label("用来试的文字").fill(
        "\n".join([*REVIEWS[:2], "会议定于星期三下午两点在三楼举行。", *REVIEWS[3:5], "今天收到了"])
    )
    page.get_by_role("button", name="对比", exact=True).click()
    page.locator(".compare-table").wait_for()
    page.mouse.click(1240, 120)
    page.locator(".page:visible").evaluate("(node) => node.scrollTo(0, 330)")
    take(page, "compare")
    page.get_by_role("button", name="放弃").click()
    page.get_by_role("dialog").get_by_role("button", name="放弃草稿").click()


def test_take_pictures_of_the_status(server: Server, open_page: OpenPage) -> None:
    """A minute and a half of work."""
    page = open_page(f"{server.url}/#/status", language="zh-CN", size=(1280, 1230))
    with traffic(server):
        page.wait_for_timeout(100_000)
        take(page, "status")
