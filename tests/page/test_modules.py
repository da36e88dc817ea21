"""The page's own algorithms, each in the browser that runs it: CSV, differences, event streams."""

from __future__ import annotations

import csv
import io
import random
from typing import Any

import pytest

from .conftest import OpenPage
from .servers import Server

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

_IMPORT = """async ([module, code, argument]) => {
  const base = document.querySelector("script[type=module]").src.replace(/main\\.js$/, "");
  const loaded = await import(base + module);
  return CALLS[code](loaded, argument);
}"""


def _call(page: Any, module: str, code: str, argument: Any) -> Any:
    """Run `(loaded, argument) => …` with a module of the page."""
    source = _IMPORT.replace("CALLS[code]", f"({code})")
    return page.evaluate(source, [module, "", argument])


def test_csv_is_read_as_python_reads_it(server: Server, open_page: OpenPage) -> None:
    """Quotes, doubled quotes, line ends in quotes, empty cells, every kind of line end."""
    page = open_page(server.url)
    code = "(csv, text) => [...csv.parseCsv(text)].map(({ line, cells, error }) => error ?? [line, cells])"
    rng = random.Random(7)
    alphabet = ["a", '"', ",", "\n", "\r\n", "中", " ", "x,y", "😄"]
    for _ in range(60):
        rows = [["".join(rng.choices(alphabet, k=rng.randrange(4))) for _ in range(3)] for _ in range(4)]
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator=rng.choice(["\n", "\r\n"])).writerows(rows)
        assert [cells for _, cells in _call(page, "tasks/csv.js", code, buffer.getvalue())] == rows
    text = 'a,b\n"1\n2",x\n\n"un"closed,y\n3,4\n"never ends,5\n6,7\n'
    assert _call(page, "tasks/csv.js", code, text) == [
        [1, ["a", "b"]], [2, ["1\n2", "x"]], "csv.after", [6, ["3", "4"]], "csv.open", [8, ["6", "7"]],
    ]  # fmt: skip


def test_csv_is_written_so_that_python_reads_it(server: Server, open_page: OpenPage) -> None:
    """What is saved comes back the same."""
    page = open_page(server.url)
    rows = [['say "hi"', "a,b", "two\nlines", " edge ", "中文😄"], ["", "1", "-2", "=3", "'"]]
    code = "(csv, rows) => rows.map(csv.formatRow).join('')"
    assert list(csv.reader(io.StringIO(_call(page, "tasks/csv.js", code, rows), newline=""))) == rows


def test_difference_leads_from_one_text_to_the_other(server: Server, open_page: OpenPage) -> None:
    """Without what is new it is the old text, without what is gone the new one; Chinese goes by characters."""
    page = open_page(server.url)
    code = "(module, [a, b]) => module.diff(a, b)"
    rng = random.Random(11)
    words = ["我们", "公园", "he ", "goes ", "don't ", "。", "😄", "\n", "Ünïcode ", "1234"]
    for _ in range(80):
        before = "".join(rng.choices(words, k=rng.randrange(12)))
        after = "".join(rng.choices(words, k=rng.randrange(12)))
        parts = _call(page, "diff.js", code, [before, after])
        assert "".join(part["text"] for part in parts if part["kind"] != "new") == before
        assert "".join(part["text"] for part in parts if part["kind"] != "gone") == after
    parts = _call(page, "diff.js", code, ["我门去公圆玩。", "我们去公园玩。"])
    assert [(part["kind"], part["text"]) for part in parts] == [
        ("same", "我"), ("gone", "门"), ("new", "们"), ("same", "去公"),
        ("gone", "圆"), ("new", "园"), ("same", "玩。"),
    ]  # fmt: skip
    parts = _call(page, "diff.js", code, ["He go to school.", "He goes to school."])
    assert [(part["kind"], part["text"]) for part in parts] == [
        ("same", "He "), ("gone", "go"), ("new", "goes"), ("same", " to school."),
    ]  # fmt: skip
    assert _call(page, "diff.js", "(module, [a, b]) => module.countChanges(module.diff(a, b))", ["a b c", "x b y"]) == 2


def test_event_stream_may_be_cut_anywhere(server: Server, open_page: OpenPage) -> None:
    """Whatever the pieces in which bytes arrive, the events are the same."""
    page = open_page(server.url)
    text = ': ping\n\nid: a:0\nevent: label\ndata: {"x":1}\n\n'
    text += "id: a:1\r\nevent: token\r\ndata: 一\r\ndata: 二\r\n\r\ndata\n\n"
    code = """(sse, pieces) => {
      const parser = new sse.EventParser();
      return pieces.flatMap((piece) => [...parser.push(piece)]);
    }"""
    wanted = [
        {"type": "label", "id": "a:0", "data": '{"x":1}'},
        {"type": "token", "id": "a:1", "data": "一\n二"},
        {"type": "message", "id": None, "data": ""},
    ]
    for size in (1, 2, 3, 7, len(text)):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        assert _call(page, "sse.js", code, pieces) == wanted
