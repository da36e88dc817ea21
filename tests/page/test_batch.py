"""A file as a batch: read in the browser, run in pieces, taken home with its own columns."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import OpenPage
from .servers import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

LONG = "word " * 900


def choose(page: Page, name: str, content: bytes | Path) -> None:
    """Give a file to the panel that is shown."""
    page.get_by_role("tab", name="A whole file").click()
    chooser = page.locator(".task-panel:visible input[type=file]")
    if isinstance(content, Path):
        chooser.set_input_files(content)
    else:
        chooser.set_input_files({"name": name, "mimeType": "", "buffer": content})  # type: ignore[arg-type]


def run(page: Page) -> None:
    """Start and wait for the end."""
    page.get_by_role("button", name="Start").click()
    page.get_by_text("Done", exact=True).wait_for()


def save(page: Page, format: str) -> str:
    """The downloaded file's text."""
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Save as {format}").click()
    assert download.value.suggested_filename.endswith(f".{format.lower()}")
    return download.value.path().read_bytes().decode("utf-8")


def test_csv_with_bad_lines(server: Server, open_page: OpenPage) -> None:
    """BOM, quotes, line ends in cells; bad lines are told by number, keep their place and stop nobody else."""
    from playwright.sync_api import expect

    rows = [
        ["id", "text", "where, from"],
        ["1", "这家店太棒了, 还会再来", "北京"],
        ["2", 'two\nlines "quoted"', "上海"],
    ]
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    content = (
        "\ufeff" + buffer.getvalue() + f"3,{LONG},x\r\n4,too few\r\n" + "".join(f"{i},很好,y\r\n" for i in range(5, 80))
    )
    page = open_page(f"{server.url}/#/tasks/sentiment")
    choose(page, "评论.csv", content.encode())
    expect(page.locator(".file-head")).to_contain_text("78 rows")
    expect(page.locator(".file-head")).to_contain_text("1 line cannot be read")
    expect(page.get_by_label("Column with the text")).to_have_value("text")
    requests: list[int] = []
    page.on(
        "request",
        lambda request: requests.append(len(request.post_data_json["inputs"])) if request.method == "POST" else None,
    )
    run(page)
    assert requests == [32, 32, 14]
    errors = page.locator(".batch-errors li")
    expect(errors).to_have_count(2)
    expect(errors.nth(0)).to_contain_text("评论.csv:5")
    expect(errors.nth(0)).to_contain_text("512")
    expect(errors.nth(1)).to_contain_text("评论.csv:6 The line has 2 fields, the header 3.")

    table = list(csv.DictReader(io.StringIO(save(page, "CSV").removeprefix("\ufeff"), newline="")))
    assert list(table[0]) == ["id", "text", "where, from", "label", "p_max", "probs", "error"]
    assert len(table) == 79
    assert [table[1][name] for name in rows[0]] == rows[2]
    assert table[0]["label"] == "正面" and json.loads(table[0]["probs"])["正面"] == float(table[0]["p_max"])
    assert "评论.csv:5: " in table[2]["error"] and table[2]["label"] == ""
    assert table[3]["error"].startswith("评论.csv:6: ")
    records = [json.loads(line) for line in save(page, "JSONL").splitlines()]
    assert len(records) == 79 and records[1]["text"] == rows[2][1] and "error" in records[2]


def test_jsonl_keeps_its_keys_and_uses_declared_variables(server: Server, open_page: OpenPage) -> None:
    """Keys that the task declares are variables, the others are carried along; ours never overwrite them."""
    lines: list[Any] = [
        {"text": "你啥时候来", "style": "正式", "answer": "theirs", "n": [1, {"a": None}]},
        {"text": "再说一遍"},
        {"text": 7},
        {"other": "x"},
    ]
    content = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n{broken\n[1]\n\n"
    page = open_page(f"{server.url}/#/tasks/rewrite")
    choose(page, "lines.jsonl", content.encode())
    page.locator(".batch-setup").get_by_label("style").fill("幽默")
    with page.expect_request("**/v1/tasks/rewrite") as sent:
        run(page)
    assert sent.value.post_data_json["inputs"] == [
        {"text": "你啥时候来", "variables": {"style": "正式"}},
        {"text": "再说一遍", "variables": {"style": "幽默"}},
    ]
    records = [json.loads(line) for line in save(page, "JSONL").splitlines()]
    assert {key: records[0][key] for key in lines[0]} == lines[0]
    assert isinstance(records[0]["answer_2"], str) and records[0]["finish_reason"]
    assert [record.get("error", "").split(": ")[0] for record in records] == [
        "",
        "",
        *(f"lines.jsonl:{n}" for n in (3, 4, 5, 6)),
    ]


def test_other_files(server: Server, open_page: OpenPage, tmp_path: Path) -> None:
    """Lines of text, tabs, the encodings of Chinese spreadsheets; what cannot be used is refused in words."""
    from playwright.sync_api import expect

    page = open_page(f"{server.url}/#/tasks/sentiment")
    choose(page, "a.txt", "很好\r\n\r\n太差了\n".encode())
    expect(page.locator(".file-head")).to_contain_text("2 rows")
    choose(page, "a.csv", "编号,text\n1,味道不错\n".encode("gb18030"))
    expect(page.locator(".file-head")).to_contain_text("read as GB18030")
    expect(page.locator(".preview")).to_contain_text("味道不错")
    choose(page, "a.tsv", "content\tn\n太棒了\t1\n".encode("utf-16"))
    expect(page.locator(".file-head")).to_contain_text("read as UTF-16LE")
    expect(page.get_by_label("Column with the text")).to_have_value("content")
    run(page)
    expect(page.locator(".batch-run td .chip")).to_contain_text("正面")
    alert = page.get_by_role("alert")
    large = tmp_path / "large.txt"
    large.write_bytes(b"x" * (20 * 2**20 + 1))
    for name, content, words in [
        ("a.json", b"[]", "one object a line"),
        ("a.csv", b"text,text\n", "twice"),
        ("a.csv", b'"text\n', "never closed"),
        ("a.txt", b"\x00\x01\x02" * 50, "not a text file"),
        ("a.txt", b" \n", "nothing in this file"),
        (large.name, large, "larger than 20 MB"),
    ]:
        choose(page, name, content)
        expect(alert).to_contain_text(words)


def test_dropped_file_is_taken(server: Server, open_page: OpenPage) -> None:
    """Dropping does what choosing does."""
    from playwright.sync_api import expect

    page = open_page(f"{server.url}/#/tasks/sentiment")
    page.get_by_role("tab", name="A whole file").click()
    page.evaluate(
        """() => {
          const transfer = new DataTransfer();
          transfer.items.add(new File(["太棒了\\n"], "dropped.txt"));
          const drop = new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
          document.querySelector(".drop").dispatchEvent(drop);
        }"""
    )
    expect(page.locator(".file-head")).to_contain_text("dropped.txt")


def test_busy_server_is_waited_for(server: Server, open_page: OpenPage) -> None:
    """429 and 503 are asked again when the server says so; nothing is lost and nothing is answered twice."""
    from playwright.sync_api import expect

    page = open_page(f"{server.url}/#/tasks/sentiment")
    answers = iter([503, 429, 200, 503])

    def busy(route: Route) -> None:
        status = next(answers, 200)
        if status == 200:
            route.continue_()
        else:
            route.fulfill(status=status, headers={"Retry-After": "1"}, json={"title": "busy", "status": status})

    page.route("**/v1/tasks/sentiment", busy)
    choose(page, "many.txt", "\n".join(f"第{i}条很好" for i in range(70)).encode())
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".notice-warn")).to_contain_text("Going on in 1 s")
    page.get_by_text("Done", exact=True).wait_for()
    expect(page.locator(".batch-count")).to_contain_text("70 of 70")
    assert len(save(page, "JSONL").splitlines()) == 70


def test_too_large_request_is_halved(server: Server, open_page: OpenPage) -> None:
    """Lines beyond the server's limit on bodies go in smaller pieces, and one that is too long fails alone."""
    from playwright.sync_api import expect

    page = open_page(f"{server.url}/#/tasks/sentiment")
    lines = ["x" * 100_000] * 20 + ["太棒了"] * 3 + ["y" * 1_100_000]
    choose(page, "large.txt", "\n".join(lines).encode())
    run(page)
    expect(page.locator(".batch-count")).to_contain_text("21 failed")
    records = [json.loads(line) for line in save(page, "JSONL").splitlines()]
    assert [("label" in record) for record in records] == [False] * 20 + [True] * 3 + [False]


def test_batch_can_be_stopped_saved_and_continued(server: Server, open_page: OpenPage) -> None:
    """Cancel keeps what is there; going on begins after it; another view does not disturb it."""
    from playwright.sync_api import expect

    page = open_page(f"{server.url}/#/tasks/sentiment")
    is_open = False

    def hold(route: Route) -> None:
        if is_open or len(asked) < 1:
            asked.append(1)
            route.continue_()

    asked: list[int] = []
    page.route("**/v1/tasks/sentiment", hold)
    choose(page, "many.txt", "\n".join(f"第{i}条很好" for i in range(100)).encode())
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".batch-count")).to_contain_text("32 of 100")
    page.get_by_role("tab", name="Status").click()
    page.get_by_role("tab", name="Tasks").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".batch-count")).to_contain_text("Stopped")
    assert len(save(page, "JSONL").splitlines()) == 32
    is_open = True
    page.get_by_role("button", name="Go on").click()
    page.get_by_text("Done", exact=True).wait_for()
    assert len(save(page, "JSONL").splitlines()) == 100
    page.unroute_all(behavior="ignoreErrors")


def test_lost_server_interrupts_and_can_be_resumed(server: Server, open_page: OpenPage) -> None:
    """A refusal that waiting does not mend is told; what was answered stays."""
    from playwright.sync_api import expect

    page = open_page(f"{server.url}/#/tasks/sentiment")
    page.route(
        "**/v1/tasks/sentiment", lambda route: route.fulfill(status=500, json={"title": "Broken", "status": 500})
    )
    choose(page, "few.txt", "太棒了\n太差了".encode())
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".batch-count")).to_contain_text("Interrupted")
    expect(page.locator(".notice-warn")).to_contain_text("Broken")
    page.unroute_all()
    page.get_by_role("button", name="Go on").click()
    page.get_by_text("Done", exact=True).wait_for()
    expect(page.locator(".batch-count")).to_contain_text("2 of 2")
