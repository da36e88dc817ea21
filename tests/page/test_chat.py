"""The chat, as people use it: against a real server with the bundled model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from .conftest import OpenPage
from .servers import Server

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

WORDS = {
    "zh-CN": {
        "said": ["今天的实验终于成功了，太棒了！", "我今天心情不好"],
        "labels": ["正面", "负面"],
        "retry": "重新回答",
        "up": "回答得好",
        "down": "回答得不好",
        "comment": "问题在哪里（可不填）",
        "send": "提交",
        "chart": "对话中的心情变化",
    },
    "en-US": {
        "said": ["I finally passed the exam!", "I feel so sad and lonely today."],
        "labels": ["positive", "negative"],
        "retry": "Try again",
        "up": "Good answer",
        "down": "Bad answer",
        "comment": "What is wrong with it (optional)",
        "send": "Send",
        "chart": "Mood over the conversation",
    },
}


def say(page: Page, text: str) -> Locator:
    """Send a message and wait for the end of its reply; the turn."""
    page.locator("#composer").fill(text)
    page.keyboard.press("Enter")
    turn = page.locator(".turn").last
    turn.locator(".tools button").first.wait_for()
    return turn


@pytest.mark.parametrize("language", list(WORDS))
def test_chat_flow(server: Server, open_page: OpenPage, language: str) -> None:
    """Say something, see the mood before the reply, rate, retry; everything is there again after a reload."""
    from playwright.sync_api import expect

    words = WORDS[language]
    page = open_page(server.url, language=language)
    for text, label in zip(words["said"], words["labels"], strict=True):
        turn = say(page, text)
        expect(turn.locator(".said")).to_contain_text(text)
        expect(turn.locator(".chip")).to_contain_text(label)
        expect(turn.locator(".reply")).not_to_be_empty()
    chart = page.get_by_role("img", name=words["chart"])
    expect(chart.locator("circle")).to_have_count(2)
    assert words["labels"][0] in (chart.get_attribute("aria-label") or "")

    turn = page.locator(".turn").last
    turn.get_by_role("button", name=words["up"]).click()
    expect(turn.get_by_role("button", name=words["up"])).to_have_attribute("aria-pressed", "true")
    turn.get_by_role("button", name=words["down"]).click()
    page.get_by_label(words["comment"]).fill("too short")
    page.get_by_role("dialog").get_by_role("button", name=words["send"]).click()
    expect(turn.get_by_role("button", name=words["down"])).to_have_attribute("aria-pressed", "true")
    stored = server.last_turns()
    newest = server.call("GET", "/v1/feedback?limit=1")["feedback"][0]
    assert (newest["answer_id"], newest["rating"], newest["comment"]) == (stored[-1]["answer_id"], "down", "too short")

    turn.get_by_role("button", name=words["retry"]).click()
    expect(turn.get_by_role("button", name=words["down"])).to_have_attribute("aria-pressed", "false")
    expect(page.locator(".turn")).to_have_count(2)
    again = server.last_turns()
    assert [turn["text"] for turn in again] == words["said"]
    assert again[-1]["answer_id"] != stored[-1]["answer_id"]

    page.reload()
    expect(page.locator(".turn")).to_have_count(2)
    expect(page.locator(".turn").last.locator(".reply")).to_have_text(again[-1]["reply"])
    expect(page.locator("[aria-current=page]")).to_contain_text(words["said"][0][:10])


def test_chat_shows_the_mood_before_the_reply(slow_server: Server, open_page: OpenPage) -> None:
    """The chip is there while nothing has been said yet."""
    page = open_page(slow_server.url)
    page.evaluate(
        """() => {
          window.order = [];
          new MutationObserver(() => {
            const chip = document.querySelector(".chip"), reply = document.querySelector(".reply");
            if (chip && !window.order.length) window.order.push("chip", reply.textContent);
            if (reply?.textContent && window.order.length === 2) window.order.push("text", chip.textContent);
          }).observe(document.body, { subtree: true, childList: true, characterData: true });
        }"""
    )
    page.locator("#composer").fill("I finally passed the exam!")
    page.keyboard.press("Enter")
    page.locator(".reply:not(:empty)").wait_for()
    page.get_by_role("button", name="Stop the reply").click()
    page.locator(".is-running").wait_for(state="detached")
    order = page.evaluate("window.order")
    assert order[:3] == ["chip", "", "text"] and "positive" in order[3]


def test_mood_is_told_on_hover_on_focus_and_aloud(server: Server, open_page: OpenPage) -> None:
    """The probability is there for mouse, keyboard and screen reader; Escape takes the tip away."""
    from playwright.sync_api import expect

    page = open_page(server.url)
    turn = say(page, "I love this, what a wonderful day!")
    chip, tip = turn.locator(".chip"), turn.locator("[role=tooltip]")
    expect(tip).to_be_hidden()
    chip.hover()
    expect(tip).to_be_visible()
    expect(tip).to_contain_text("%", use_inner_text=True)
    expect(tip.locator("li")).to_have_count(3)
    page.mouse.move(5, 5)
    expect(tip).to_be_hidden()
    chip.focus()
    expect(tip).to_be_visible()
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    name = " ".join((chip.text_content() or "").split())
    assert name.startswith("Mood:") and name.endswith("%")
    assert chip.get_attribute("aria-describedby") == tip.get_attribute("id")


def test_reply_is_announced_once_and_whole(server: Server, open_page: OpenPage) -> None:
    """A live region that repeats every token makes a screen reader useless."""
    page = open_page(server.url)
    page.evaluate(
        """() => {
          window.heard = [];
          const region = document.getElementById("announcer");
          new MutationObserver(() => region.textContent && window.heard.push(region.textContent))
            .observe(region, { childList: true });
        }"""
    )
    turn = say(page, "Hello there, how are you?")
    reply = turn.locator(".reply").text_content()
    page.wait_for_timeout(300)
    heard = page.evaluate("window.heard")
    assert heard[-1] == reply and len(heard) <= 2, heard
    assert page.locator(".log").get_attribute("aria-live") == "off"


def test_stop_keeps_what_was_said(slow_server: Server, open_page: OpenPage) -> None:
    """The same button stops; the text so far stays, here and in the store."""
    from playwright.sync_api import expect

    page = open_page(slow_server.url)
    page.locator("#composer").fill("Tell me everything.")
    page.keyboard.press("Enter")
    page.locator(".reply:not(:empty)").wait_for()
    page.get_by_role("button", name="Stop the reply").click()
    expect(page.locator(".turn-hint")).to_contain_text("Stopped")
    expect(page.locator("#composer")).to_be_focused()
    (stored,) = slow_server.last_turns()
    assert stored["finish_reason"] == "cancelled" and stored["reply"]
    assert page.locator(".reply").text_content() == stored["reply"]


def test_reply_goes_on_in_another_conversation(slow_server: Server, open_page: OpenPage) -> None:
    """Looking at something else neither stops a reply nor mixes it into what is shown."""
    from playwright.sync_api import expect

    page = open_page(slow_server.url)
    page.locator("#composer").fill("First, a long story please.")
    page.keyboard.press("Enter")
    page.locator(".reply:not(:empty)").wait_for()
    address = page.url
    page.get_by_role("link", name="New conversation").click()
    expect(page.locator(".turn")).to_have_count(0)
    page.wait_for_timeout(500)
    expect(page.locator(".turn")).to_have_count(0)
    page.goto(address)
    length = len(page.locator(".reply").text_content() or "")
    page.wait_for_timeout(500)
    assert len(page.locator(".reply").text_content() or "") > length
    page.get_by_role("button", name="Stop the reply").click()
    page.locator(".is-running").wait_for(state="detached")


def test_enter_sends_unless_it_belongs_to_an_input_method(server: Server, open_page: OpenPage) -> None:
    """Enter that confirms a Chinese candidate must not send; Shift+Enter is a new line."""
    from playwright.sync_api import expect

    page = open_page(server.url, language="zh-CN")
    composer = page.locator("#composer")
    composer.click()
    session = page.context.new_cdp_session(page)
    session.send("Input.imeSetComposition", {"text": "ni hao", "selectionStart": 6, "selectionEnd": 6})
    session.send(
        "Input.dispatchKeyEvent",
        {"type": "rawKeyDown", "key": "Process", "code": "Enter", "windowsVirtualKeyCode": 229},
    )
    press = "(init) => document.getElementById('composer').dispatchEvent(new KeyboardEvent('keydown', init))"
    page.evaluate(press, {"key": "Enter", "isComposing": True, "bubbles": True, "cancelable": True})
    page.evaluate(press, {"key": "Enter", "keyCode": 229, "bubbles": True, "cancelable": True})
    session.send("Input.insertText", {"text": "你好"})
    expect(page.locator(".turn")).to_have_count(0)
    expect(composer).to_have_value("你好")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("世界")
    expect(composer).to_have_value("你好\n世界")
    page.keyboard.press("Enter")
    expect(page.locator(".turn .said p")).to_have_text("你好\n世界")
    page.locator(".turn .tools button").first.wait_for()


def test_draft_survives_a_reload(server: Server, open_page: OpenPage) -> None:
    """What was typed and not sent is there again, each conversation's own."""
    from playwright.sync_api import expect

    page = open_page(server.url)
    page.locator("#composer").fill("not yet sent")
    page.reload()
    expect(page.locator("#composer")).to_have_value("not yet sent")
    say(page, "Hello!")
    page.locator("#composer").fill("for this one only")
    page.reload()
    expect(page.locator("#composer")).to_have_value("for this one only")
    page.get_by_role("link", name="New conversation").click()
    expect(page.locator("#composer")).to_have_value("")


def test_conversations_can_be_renamed_exported_and_deleted(server: Server, open_page: OpenPage) -> None:
    """The menu of a conversation does what it says, here and in the store."""
    from playwright.sync_api import expect

    page = open_page(server.url)
    say(page, "Hello! A conversation to be deleted.")
    id = page.url.rsplit("/", 1)[1]
    entry = page.locator(".conversation-item", has=page.locator(f"[data-id='{id}']"))
    menu = entry.get_by_role("button", name="What to do with")
    menu.click()
    page.get_by_role("menuitem", name="Rename").click()
    page.get_by_role("dialog").get_by_label("Title").fill("A better name")
    page.keyboard.press("Enter")
    expect(page.locator(".chat-title")).to_have_text("A better name")
    expect(entry).to_contain_text("A better name")
    menu.click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="Export").click()
    exported = json.loads(download.value.path().read_text(encoding="utf-8"))
    assert exported["title"] == "A better name" and len(exported["turns"]) == 1
    with page.expect_download() as download:
        page.get_by_role("button", name="Export everything").click()
    assert id in [one["id"] for one in json.loads(download.value.path().read_text(encoding="utf-8"))["conversations"]]
    menu.click()
    page.get_by_role("menuitem", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(entry).to_have_count(0)
    expect(page.locator(".turn")).to_have_count(0)
    ids = [one["id"] for one in server.call("GET", "/v1/conversations")["conversations"]]
    assert id not in ids


def test_refusal_is_shown_and_can_be_tried_again(server: Server, open_page: OpenPage) -> None:
    """A text beyond the limit: the server's words stand at the turn, nothing is stored, the retry button is there."""
    from playwright.sync_api import expect

    page = open_page(server.url)
    page.locator("#composer").fill("far too long " * 3_000)
    page.keyboard.press("Enter")
    expect(page.locator(".turn-hint")).to_contain_text("tokens")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    assert page.url.endswith("/") or page.url.endswith("#/chat")
