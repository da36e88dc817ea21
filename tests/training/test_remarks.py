"""The everyday remarks the bundled model learns from: one polarity each, whole sentences, none from the tests."""

from __future__ import annotations

import random
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="the recipe needs Python 3.11 (tomllib)")


@pytest.fixture(autouse=True)
def _recipe_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.parametrize("language", ["zh", "en"])
def test_patterns_are_distinct_and_expand_to_whole_sentences(language: str) -> None:
    """No pattern has two polarities, and no bracket or double space is left over."""
    from training.remarks import load_patterns, remark_cases

    patterns = [pattern for found in load_patterns(language).values() for pattern in found]
    assert len(patterns) == len(set(patterns)) > 800
    for text, _ in remark_cases(random.Random(0), 4_000, language):
        assert not re.search(r"[\[\]|]|  ", text) and 1 < len(text) < 160, text


@pytest.mark.parametrize("language", ["zh", "en"])
def test_no_sentence_of_the_tests_is_learned(language: str) -> None:
    """What the tests ask must be new to the model: `corpus` drops such texts, and the grammar has none to drop."""
    from training.heldout import TEST_FILES, _test_texts
    from training.remarks import remark_cases
    from training.sources import normalise

    assert all(file.exists() for file in TEST_FILES)
    cases = remark_cases(random.Random(1), 6_000, language)
    assert not [text for text, _ in cases if normalise(text) in _test_texts()]
    shares = Counter(label for _, label in cases)
    assert 0.9 < shares["正面"] / shares["负面"] < 1.1
