"""The small talk the bundled model learns from: labels, moods and sentences that fit together."""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EMOTIONS_OF = {"正面": {"快乐", "惊讶"}, "负面": {"悲伤", "愤怒", "恐惧", "惊讶"}, "中性": {"平静", "惊讶"}}
pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="the recipe needs Python 3.11 (tomllib)")


@pytest.fixture(autouse=True)
def _recipe_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def every_expansion(pattern: str) -> list[str]:
    """All sentences of a pattern."""
    found = re.search(r"\[([^\[\]]*)\]", pattern)
    if not found:
        return [pattern]
    tails = every_expansion(pattern[found.end() :])
    return [pattern[: found.start()] + choice + tail for choice in found.group(1).split("|") for tail in tails]


def test_situations_are_well_formed() -> None:
    """One name, a known mood and emotion that agree, sentences without leftovers."""
    from training.smalltalk import load_situations

    situations = load_situations()
    names = [(s.language, s.name) for s in situations]
    repeated = {name for language, name in names if names.count((language, name)) > 1}
    assert repeated == {"crisis"}, "a crisis is said in many ways; any other situation has one place"
    assert {s.language for s in situations} == {"zh", "en"}
    for situation in situations:
        assert situation.emotion in EMOTIONS_OF[situation.mood], situation.name
        for pattern in situation.user + situation.reply:
            assert not re.search(r"[\[\]]", re.sub(r"\[[^\[\]]*\]", "", pattern)), pattern


def test_replies_fit_their_mood() -> None:
    """No cheer for bad news, no condolence for good news, help in a crisis, an end mark, no bare label."""
    from training.evaluate_chat import load_rules
    from training.smalltalk import load_situations

    rules = load_rules()
    unfit = {"负面": rules.cheer, "正面": rules.condolence}
    for situation in load_situations():
        for reply in (text for pattern in situation.reply for text in every_expansion(pattern)):
            assert re.search(r"[。！？.!?]$", reply), reply
            rule = unfit.get(situation.mood)
            assert not rules.label.fullmatch(reply), reply
            assert rule is None or not rule.search(reply), (situation.name, reply, rule.search(reply))
            assert situation.name != "crisis" or rules.help.search(reply), reply
            assert bool(re.search(r"[\u4e00-\u9fff]", reply)) == (situation.language == "zh"), reply


def test_utterances_are_clean() -> None:
    """Every sentence that the grammar can say is free of brackets and gaps; Chinese is Chinese."""
    from training.smalltalk import load_situations, sample_turn

    for situation in load_situations():
        for pattern in situation.user:
            texts = every_expansion(pattern)
            for text in texts:
                text = text.replace("  ", " ") if situation.language == "en" else text  # as `vary` does
                assert text == text.strip(), (situation.name, text)
                assert text, (situation.name, pattern)
                assert not re.search(r"  |[，,]{2}|[？?][？?]{3}| [,.!?]|。，|！，", text), (situation.name, text)
                assert situation.language == "zh" or not re.search(r"[\u4e00-\u9fff]", text), text
            if situation.language == "zh" and situation.name not in {"greeting", "gibberish"}:
                assert all(re.search(r"[\u4e00-\u9fff]", text) for text in texts), pattern
    rng = random.Random(0)
    for _ in range(500):
        turn = sample_turn(rng)
        assert not re.search(r"[\[\]|]|  ", turn.text + turn.reply), turn
