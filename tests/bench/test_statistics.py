"""Intervals that hold what they promise, and verdicts that tell a change from noise."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from allinone.bench.statistics import MIN_CHANGE, Rounds, compare, compute_interval, compute_quantile


def _draw(seed: int, *, mean: float = 1.0, num_rounds: int = 6, between: float = 0.0, within: float = 0.05) -> Rounds:
    """Rounds of 20 samples; `between` is how much whole rounds differ, `within` how much samples of one do."""
    rng = np.random.default_rng(seed)
    return [(mean * (1 + rng.normal(0, between)) * (1 + rng.normal(0, within, 20))).tolist() for _ in range(num_rounds)]


def test_quantiles_are_of_all_samples_together() -> None:
    """Rounds of unequal length weigh as many samples as they have."""
    assert compute_quantile([[1, 2], [3, 4, 5]], 0.5) == 3
    assert compute_quantile([[1.0], [2.0], [11.0]], 0.9) == pytest.approx(9.2)


def test_interval_is_repeatable_and_around_the_value() -> None:
    """The same samples must not give another interval each time they are read."""
    rounds = _draw(0)
    low, high = compute_interval(rounds, 0.5)
    assert compute_interval(rounds, 0.5) == (low, high)
    assert low < compute_quantile(rounds, 0.5) < high


def test_interval_holds_the_true_median_about_as_often_as_it_says() -> None:
    """95 % of the intervals of 100 experiments; a bootstrap of six rounds falls a little short of it."""
    intervals = [compute_interval(_draw(seed, between=0.03), 0.5) for seed in range(100)]
    share = sum(low <= 1 <= high for low, high in intervals) / len(intervals)
    assert 0.85 <= share <= 1


def test_interval_grows_with_the_difference_between_rounds() -> None:
    """A plain bootstrap of all samples would see 120 of them and promise far too much."""
    calm, shaken = (compute_interval(_draw(1, between=between), 0.5) for between in (0.0, 0.2))
    assert shaken[1] - shaken[0] > 4 * (calm[1] - calm[0])


def test_single_sample_has_no_width() -> None:
    """And no failure."""
    assert compute_interval([[2.0]], 0.5) == (2.0, 2.0)


@pytest.mark.parametrize(
    ("factor", "better", "verdict"),
    [
        (1.3, "lower", "worse"),
        (1.3, "higher", "better"),
        (0.7, "lower", "better"),
        (0.7, "higher", "worse"),
        (1.0, "lower", "noise"),
    ],
)
def test_change_is_told_from_noise(factor: float, better: Literal["lower", "higher"], verdict: str) -> None:
    """30 % is far outside of what samples vary by; the same distribution again is not."""
    change = compare(_draw(2), _draw(3, mean=factor), 0.5, better=better)
    assert change.verdict == verdict
    assert change.low <= change.change <= change.high
    assert change.change == pytest.approx(factor - 1, abs=0.03)


def test_change_smaller_than_the_rounds_differ_is_noise() -> None:
    """5 % more, where each half-minute of the machine differs by 20 %."""
    assert compare(_draw(4, between=0.2), _draw(5, mean=1.05, between=0.2), 0.5, better="lower").verdict == "noise"


def test_tiny_change_is_noise_however_sure() -> None:
    """Memory of two processes differs by a page and never varies: nobody wants to read that."""
    before = [[1.0, 1.0]] * 2
    assert compare(before, [[1 + MIN_CHANGE / 2] * 2] * 2, 0.5, better="lower").verdict == "noise"
    assert compare(before, [[1 + MIN_CHANGE * 2] * 2] * 2, 0.5, better="lower").verdict == "worse"


def test_two_samples_decide_nothing() -> None:
    """However far apart."""
    assert compare([[1.0], [1.0]], [[9.0], [9.0], [9.0]], 0.5, better="lower").verdict == "too few samples"


def test_one_round_decides_nothing() -> None:
    """Fifty samples of one second say nothing about the next."""
    assert compare([[1.0] * 50], [[9.0] * 50, [9.0] * 50], 0.5, better="lower").verdict == "too few samples"


def test_same_program_is_rarely_called_changed() -> None:
    """60 pairs of runs of one program whose rounds differ by 3 %: at most a few verdicts may be wrong."""
    wrong = sum(
        compare(_draw(2 * n, between=0.03), _draw(2 * n + 1, between=0.03), 0.5, better="lower").verdict != "noise"
        for n in range(60)
    )
    assert wrong <= 3
