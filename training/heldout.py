"""Which texts are kept out of training: one in fifty for calibration, and the sentences that the tests ask.

A rule by hash, not a list: it needs no state, and a text that occurs in several files is kept out of all of them.
Above: the corpus builder leaves `is_heldout` texts out; `calibrate` fits temperatures on `is_calibration_text`.
"""

import hashlib
import json
from functools import lru_cache

from training.settings import ROOT
from training.sources import normalise

ONE_IN = 50
TEST_FILES = tuple(ROOT / "tests" / "bundled" / name for name in ("chat_prompts.jsonl", "everyday.jsonl"))


def is_calibration_text(text: str) -> bool:
    """One text in fifty, by the hash of its letters and digits: the same for other punctuation, width or case."""
    letters = normalise(text)
    digest = hashlib.sha256(letters.encode()).digest()
    return bool(letters) and int.from_bytes(digest[:8], "big") % ONE_IN == 0


def is_heldout(text: str) -> bool:
    """Must not be trained on, neither whole nor in pieces: ask before a text is cut or put into a prompt."""
    return is_calibration_text(text) or normalise(text) in _test_texts()


@lru_cache(maxsize=1)
def _test_texts() -> frozenset[str]:
    lines = [line for file in TEST_FILES for line in file.read_text(encoding="utf-8").splitlines()]
    return frozenset(normalise(json.loads(line)["text"]) for line in lines)
