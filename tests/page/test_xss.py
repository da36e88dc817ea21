"""Whatever people or models say stands there as it was said: no dialog, no new element, no request to elsewhere.

`open_page` fails a test whose page opened a dialog, asked another origin or broke the content security policy; the
tests here see to it that every string of the corpus is shown, letter by letter, in every place where text can end up.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import OpenPage
from .servers import Server
from .xss_corpus import CORPUS

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

_NUM_AT_ONCE = 20
_KINDS = "script, iframe, object, embed, base, link, meta, style, template, math, video, audio, body"
_SPIES = f"""() => [
  document.querySelectorAll("{_KINDS}").length,
  document.querySelectorAll("img").length,
  [...document.querySelectorAll("*")].flatMap((node) => node.getAttributeNames())
    .filter((name) => /^on/.test(name)).length,
  [...document.querySelectorAll("[href], [src], [action]")].flatMap((node) => [...node.attributes])
    .filter(({{ name, value }}) => /^(href|src|action)$/.test(name) && /javascript:|evil\\./.test(value)).length,
  typeof window.__xss,
]"""


def chunks(strings: Sequence[str], size: int = _NUM_AT_ONCE) -> list[Sequence[str]]:
    return [strings[at : at + size] for at in range(0, len(strings), size)]


def elements(page: Page) -> list[Any]:
    """How many elements of the kinds that attacks make, and whether one came to life."""
    found: list[Any] = page.evaluate(_SPIES)
    assert found[2:] == [0, 0, "undefined"]
    return found


def answer(**changes: Any) -> dict[str, Any]:
    """An answer of the API, as a hostile model might give it."""
    usage = {"num_prompt_tokens": 1, "num_cached_tokens": 0, "num_output_tokens": 1, "truncated_tokens": 0}
    return {
        "id": "ans_x", "task": "t", "version": "v", "model": "m", "kind": "text", "label": None, "name": None,
        "emoji": None, "probs": None, "p_max": None, "text": None, "data": None, "finish_reason": "stop",
        "usage": usage,
        "timings": {"queue_s": 0, "ttft_s": 0, "total_s": 0}, "cached": False,
    } | changes  # fmt: skip


def test_chat_shows_what_people_say(server: Server, open_page: OpenPage) -> None:
    """Messages and titles, through the whole server and back after a reload."""
    page = open_page(server.url)
    before = elements(page)
    for strings in chunks(CORPUS):
        said = "\n".join(strings)
        page.locator("#composer").fill(said)
        page.keyboard.press("Enter")
        page.locator(".turn").last.locator(".tools button").first.wait_for()
        assert page.locator(".said p").last.text_content() == said
        if page.locator(".turn").count() >= 3:
            page.get_by_role("link", name="New conversation").click()
    assert elements(page)[0] == before[0]


def test_titles_are_shown_as_they_are(server: Server, open_page: OpenPage) -> None:
    """Every string as the title of a conversation: in the list, in menus, in dialogs."""
    ids = [server.call("POST", "/v1/conversations", {"title": text, "language": "en"})["id"] for text in CORPUS]
    page = open_page(server.url)
    for shown in range(50, len(CORPUS), 50):
        page.locator(".conversation-item").nth(shown - 1).wait_for()
        page.get_by_role("button", name="Show more").click()
    page.locator(".conversation-item").nth(len(CORPUS) - 1).wait_for()
    titles = page.locator(".conversation-title").all_text_contents()
    assert set(CORPUS) <= set(titles)
    page.goto(f"{server.url}/#/chat/{ids[3]}")
    page.locator(f".conversation-item:has([data-id='{ids[3]}']) .tool").click()
    page.get_by_role("menuitem", name="Delete").click()
    assert CORPUS[3] in (page.get_by_role("dialog").text_content() or "")
    page.keyboard.press("Escape")
    elements(page)
    for id in ids:
        server.call("DELETE", f"/v1/conversations/{id}")


def test_chat_shows_what_models_say(server: Server, open_page: OpenPage) -> None:
    """Labels, emoji, replies and errors of a model that has gone bad."""
    page = open_page(server.url)
    before = elements(page)

    def reply(route: Route) -> None:
        text = route.request.post_data_json["text"]
        label = {
            "id": "ans_x",
            "conversation": None,
            "label": text,
            "name": text,
            "emoji": text,
            "probs": {text: 1.0},
            "p_max": 1.0,
        }
        events = [
            ("label", label),
            ("token", {"text": text}),
            ("done", {"text": text, "finish_reason": "stop", "turn": None}),
        ]
        if CORPUS.index(text) % 3 == 0:
            events[-1] = ("error", {"status": 500, "title": text, "detail": text, "hint": text})
        body = "".join(
            f"id: ans_x:{n}\nevent: {name}\ndata: {json.dumps(data)}\n\n" for n, (name, data) in enumerate(events)
        )
        route.fulfill(status=200, content_type="text/event-stream", body=body)

    page.route("**/v1/reply", reply)
    for text in CORPUS:
        page.locator("#composer").fill(text)
        page.keyboard.press("Enter")
        turn = page.locator(".turn").last
        turn.locator(".tools button").first.wait_for()
        assert turn.locator(".reply").text_content() == text
        assert turn.locator(".chip bdi").text_content() == text
        if page.locator(".turn").count() == _NUM_AT_ONCE:
            page.get_by_role("link", name="New conversation").click()
    assert elements(page) == before


def test_tasks_show_what_models_answer(server: Server, open_page: OpenPage) -> None:
    """Labels with bars, texts with differences, JSON, errors."""
    page = open_page(f"{server.url}/#/tasks/sentiment")
    page.locator(".task-panel:visible").wait_for()
    before = elements(page)
    made = {
        "sentiment": lambda text: answer(
            kind="label", label=text, name=text, emoji=text, probs={text: 0.6, "b": 0.4}, p_max=0.6
        ),
        "typo": lambda text: answer(text=f"x {text}"),
        "keywords": lambda text: answer(kind="json", data={text: [text]}),
    }
    places = {"sentiment": ".label-best bdi", "typo": ".diff ins", "keywords": ".json-answer"}

    def run(route: Route) -> None:
        name = route.request.url.rsplit("/", 1)[1]
        text = route.request.post_data_json["text"]
        route.fulfill(json=made[name](text))

    page.route("**/v1/tasks/*", run)
    for name, place in places.items():
        page.goto(f"{server.url}/#/tasks/{name}")
        panel = page.locator(".task-panel:visible")
        for text in CORPUS[:: 1 if name == "sentiment" else 4]:
            panel.get_by_label("Text", exact=True).fill(text)
            with page.expect_response("**/v1/tasks/*"):
                page.keyboard.press("Control+Enter")
            panel.get_by_role("button", name="Run").wait_for()
            shown = panel.locator(".result-place").text_content() or ""
            wanted = json.dumps(text, ensure_ascii=False) if name == "keywords" else text
            assert wanted in shown.replace("x ", "") or wanted in shown, (place, text)
    assert elements(page) == before


def test_files_are_shown_as_they_are(server: Server, open_page: OpenPage) -> None:
    """Names of files, columns, cells and answers of a batch."""
    from playwright.sync_api import expect

    page = open_page(f"{server.url}/#/tasks/sentiment")
    page.get_by_role("tab", name="A whole file").click()
    before = elements(page)
    chooser = page.locator(".task-panel:visible input[type=file]")
    for text in CORPUS:
        name = f"{text}.jsonl"
        content = json.dumps({"text": text, text: text}).encode()
        chooser.set_input_files({"name": name, "mimeType": "", "buffer": content})  # type: ignore[arg-type]
        column = page.locator(".preview thead th").last
        expect(column).to_have_text(text)
        assert column.text_content() == text
        assert page.locator(".preview tbody td").last.text_content() == text
        assert page.locator(".file-head bdi").text_content() == name
    content = "\n".join(json.dumps({"text": text}) for text in CORPUS[:50]).encode()
    chooser.set_input_files({"name": f"{CORPUS[0]}.jsonl", "mimeType": "", "buffer": content})  # type: ignore[arg-type]
    page.get_by_role("button", name="Start").click()
    page.get_by_text("Done", exact=True).wait_for()
    cells = page.locator(".batch-run tbody td:nth-child(2)").all_text_contents()
    assert cells == [text[:300] for text in CORPUS[:50]]
    assert elements(page) == before


def test_prompts_are_shown_as_they_are(server: Server, open_page: OpenPage) -> None:
    """Descriptions, labels, errors and cases of task files that came from somewhere."""
    for number, texts in enumerate(chunks(CORPUS)):
        labels = "".join(f"  {json.dumps(text)}: {{name: l{i}}}\n" for i, text in enumerate(texts))
        head = f"---\ndescription: {json.dumps(texts[0])}\ninput: {{schema: {{text: string}}}}\nallinone.kind: label\n"
        body = f"{head}allinone.labels:\n{labels}---\n{{{{text}}}}\n"
        (server.tasks / f"hostile{number}.prompt").write_text(body, encoding="utf-8")
    try:
        page = open_page(f"{server.url}/#/prompts/hostile0")
        page.locator(".editor-state.is-good, .editor-state.is-bad").wait_for()
        before = elements(page)
        editor = page.get_by_label("Prompt file")
        for text in CORPUS[::10]:
            editor.fill(f"---\ndescription: x\n{json.dumps(text)}: 1\n---\n{{{{text}}}}\n")
            page.locator(".editor-errors:visible").get_by_text(text, exact=False).first.wait_for()
        editor.fill("---\n")
        page.goto(f"{server.url}/#/tasks/hostile0")
        for number, texts in enumerate(chunks(CORPUS)):
            page.goto(f"{server.url}/#/tasks/hostile{number}")
            panel = page.locator(".task-panel:visible")
            panel.locator(".task-head code").get_by_text(f"hostile{number}", exact=True).wait_for()
            assert panel.locator(".label-check bdi").all_text_contents() == list(texts)
        assert elements(page) == before
    finally:
        for path in server.tasks.glob("hostile*"):
            path.unlink()


def test_addresses_are_no_way_in(server: Server, open_page: OpenPage) -> None:
    """What stands behind the # comes from whoever made the link."""
    page = open_page(server.url)
    for text in CORPUS[::4]:
        for view in ("tasks", "prompts", "chat"):
            page.evaluate(
                "([view, text]) => { location.hash = `#/${view}/${encodeURIComponent(text)}`; }", [view, text]
            )
    page.wait_for_load_state("networkidle")
    elements(page)
