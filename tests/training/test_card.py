"""The card shows what was measured, and replies that nobody picked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.training,
    pytest.mark.skipif(sys.version_info < (3, 11), reason="the recipe needs Python 3.11"),
]


def row(key: str, value: float | None, holds: str, **more: Any) -> dict[str, Any]:
    return {"key": key, "title": f"title of {key}", "value": value, "must": 0.8, "aim": 0.9, "holds": holds,
            "cases": 2990, "note": "", **more}  # fmt: skip


def answered(topic: str, text: str, reply: str, language: str = "zh") -> dict[str, Any]:
    return {"prompt": {"language": language, "topic": topic, "text": text}, "mood": "neutral", "reply": reply}


NEW = {
    "model": "bundled-9/int8",
    "rows": [row("clinc", 0.9057, "aim"), row("sighan13", 0.1, "MISSED"), row("chat-leaks", 0.0, "aim", must=None)],
    "replies": [answered("joy", "一", "第一"), answered("joy", "二", "第二"), answered("joy", "three", "a|b", "en")],
}
OLD = {"model": "bundled-8/int8", "rows": [row("clinc", 0.8, "must")], "replies": []}


def test_table_has_bars_figures_and_what_stands_beside() -> None:
    from training.card import table

    head, _, clinc, sighan, leaks = table(NEW, OLD).splitlines()
    assert "bundled-9" in head
    assert "bundled-8" in head
    assert clinc.startswith("| title of clinc | 0.8 | 0.9 | 0.906 | aim | 0.800 | 0.86")
    assert "| 0.100 | **no** |  |" in sighan
    assert "|  | 0.9 | 0 | aim |" in leaks


def test_replies_are_the_first_of_each_topic_and_language() -> None:
    from training.card import replies

    assert replies(NEW).splitlines()[2:] == ["| 一 | neutral | 第一 |", "| three | neutral | a\\|b |"]


def test_card_is_filled_between_its_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training import card

    report, target = tmp_path / "report.json", tmp_path / "CARD.md"
    report.write_text(json.dumps(NEW), encoding="utf-8")
    target.write_text("# m\n<!-- table -->\nstale\n<!-- /table -->\nby hand\n<!-- replies --><!-- /replies -->\nend\n")
    monkeypatch.setattr(sys, "argv", ["card", "--report", str(report), "--into", str(target)])
    card.main()
    written = target.read_text(encoding="utf-8")
    assert "stale" not in written
    assert "\nby hand\n" in written
    assert written.endswith("<!-- /replies -->\nend\n")
    assert "0.906" in written
    target.write_text("# no marks\n")
    with pytest.raises(SystemExit, match="no place for the table"):
        card.main()


def test_published_card_is_filled_by_the_recipe() -> None:
    """The card in the package has the marks, and names the file beside it."""
    from training.card import fill

    package = Path(__file__).parents[2] / "src" / "allinone" / "models" / "bundled"
    text = (package / "CARD.md").read_text(encoding="utf-8")
    assert fill(text, {"table": "T", "replies": "R"}).count("\nT\n") == 1
    assert text.startswith(f"# {next(package.glob('*.gguf')).stem}\n")
