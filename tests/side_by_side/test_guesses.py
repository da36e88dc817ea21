"""The benchmark of guesses: it compares the ids itself, and times what it says it times."""

from __future__ import annotations

from pathlib import Path

import pytest

from allinone import AllInOne
from allinone.backends.onnx.backend import OnnxBackend
from allinone.backends.onnx.compile import compile_weights
from allinone.models.random_weights import RandomWeights


def test_comparison_counts_the_steps_that_guesses_save() -> None:
    """On the bundled model: fewer steps for the same ids, and every step accounted for."""
    from benchmarks.guesses import compare

    with AllInOne.load() as ai:
        found = compare(ai, "typo", "请大家按时参加会议,并提前准备好相关才料。", rounds=1)
    assert found.num_plain_steps == found.num_tokens
    assert found.num_guessed_steps == found.num_plain_steps - found.num_right
    assert 0 < found.num_right <= found.num_guesses
    assert found.plain_ms > 0 and found.guessed_ms > 0


def test_an_answer_that_changed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure of two different answers would say nothing."""
    from benchmarks import guesses

    answers = iter(range(8))
    monkeypatch.setattr(guesses, "_run", lambda _ai, _request: ((next(answers),), 1.0, 1, 0, 0))
    with AllInOne.load() as ai, pytest.raises(RuntimeError, match="Guesses changed the answer of typo"):
        guesses.compare(ai, "typo", "我门去公圆玩。", rounds=1)


def test_every_size_is_timed_from_the_same_past(tiny_weights: RandomWeights, tmp_path: Path) -> None:
    """Nothing of one size is left for the next."""
    from benchmarks.guesses import SIZES, step_times

    compile_weights(tiny_weights, tmp_path)
    backend = OnnxBackend.load(tmp_path, num_threads=1)
    for num_past in (1, 40):
        found = dict(step_times(backend, num_past, calls=2))
        assert tuple(found) == SIZES and all(lasted > 0 for lasted in found.values())
    assert backend.num_sequences() == 0
    backend.close()
