"""What may reach a terminal, and what JSON may hold."""

from __future__ import annotations

import json

import pytest

from allinone.cli.output import format_bytes, one_line, print_facts, print_markdown, print_table, to_json, visible


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0)])
def test_no_control_character_reaches_the_terminal(code: int) -> None:
    """C0, DEL and C1: only line feed and tab are harmless."""
    expected = chr(code) if chr(code) in "\n\t" else "\N{REPLACEMENT CHARACTER}"
    assert visible(f"a{chr(code)}b") == f"a{expected}b"


def test_one_line_is_cut_by_columns_not_characters() -> None:
    """A Chinese character takes two columns; the ellipsis counts too."""
    assert one_line("今天\n天气  好") == "今天 天气 好"
    assert one_line("今天天气好", max_cells=10) == "今天天气好"
    assert one_line("今天天气好啊", max_cells=7) == "今天天…"


def test_json_is_readable_and_always_encodable() -> None:
    """Chinese stays Chinese; a lone surrogate, which UTF-8 cannot carry, is escaped; NaN is refused."""
    assert to_json({"a": "好"}) == '{"a": "好"}'
    text = to_json({"a": "\ud800好"})
    assert text.isascii() and json.loads(text) == {"a": "\ud800好"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(float("nan"))


def test_table_outside_a_terminal_is_as_wide_as_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    """`allinone tasks list | grep` must not cut names at column 80."""
    print_table(("a", "b"), [("x" * 150, "\x1b[2J")])
    out = capsys.readouterr().out
    assert "x" * 150 in out and "\x1b" not in out


def test_facts_are_aligned_by_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """Also with Chinese names, and over several lines."""
    print_facts({"模型": "a\nb", "x": "c"})
    assert capsys.readouterr().out == "模型  a\n      b\nx     c\n"


def test_markdown_is_laid_out(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Headings, tables and Chinese text for people: no marks, no dead anchors, links that say where they lead."""
    monkeypatch.setenv("COLUMNS", "60")
    print_markdown(
        "# 标题\n\n**粗体** [below](#there), [site](https://example.org)\n\n| a | b |\n| --- | --- |\n| 1 | 二 |\n"
    )
    shown = capsys.readouterr().out
    assert "标题" in shown and "粗体 below, site (https://example.org)" in shown and "二" in shown
    assert not set("#*|") & set(shown) and max(map(len, shown.splitlines())) <= 60


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (24_300_000, "24.3 MB"), (5e12, "5.0 TB")]
)
def test_format_bytes(num_bytes: float, text: str) -> None:
    """Decimal units, as disks and hubs state them."""
    assert format_bytes(num_bytes) == text
