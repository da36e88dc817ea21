"""Medians, percentiles and bootstrap intervals of repeated measurements, and whether two of them differ.

Samples come in rounds that are spread over a run: what one round has in common (a neighbour's work, a cold clock) is
drawn together, so a slow half-minute is not taken for a slower program. Knows numbers only.

Source: percentile bootstrap (Efron and Tibshirani, 1993, chapter 13), drawn in two stages: rounds, then their samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Rounds: TypeAlias = Sequence[Sequence[float]]
Verdict = Literal["better", "worse", "noise", "too few samples"]

NUM_DRAWS = 2_000
LEVEL = 0.95
CHANGE_LEVEL = 0.99
"""Of the interval of a change: wider, because some twenty figures are judged at once."""
MIN_CHANGE = 0.02
"""A change of less than this is called noise whatever its interval says: two runs of one program differ by as much."""
MIN_SAMPLES, MIN_ROUNDS = 3, 2
"""Fewer say nothing about how much they vary, within a round and from one to the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How a figure moved. `change`, `low` and `high` are relative: 0.1 is 10 % more."""

    change: float
    low: float
    high: float
    verdict: Verdict


def compute_quantile(rounds: Rounds, quantile: float) -> float:
    """The quantile of all samples together."""
    return float(np.quantile(np.concatenate([np.asarray(samples, np.float64) for samples in rounds]), quantile))


def compute_interval(rounds: Rounds, quantile: float, *, level: float = LEVEL) -> tuple[float, float]:
    """The percentile bootstrap interval of a quantile.

    Args:
        rounds: at least one, none empty.
        quantile: 0.5 for the median.
        level: share of the bootstrap distribution within the interval.
    """
    return _middle(_draw_quantiles(rounds, quantile, seed=0), level)


def compare(before: Rounds, after: Rounds, quantile: float, *, better: Literal["lower", "higher"]) -> Change:
    """Whether `after` differs from `before` by more than both of them vary.

    Args:
        before: samples of one figure in the earlier run, all above zero.
        after: those of the later run.
        quantile: 0.5 for the median.
        better: which direction is an improvement.
    """
    change = compute_quantile(after, quantile) / compute_quantile(before, quantile) - 1
    drawn = _draw_quantiles(after, quantile, seed=1) / _draw_quantiles(before, quantile, seed=2) - 1
    low, high = _middle(drawn, CHANGE_LEVEL)
    if any(sum(map(len, rounds)) < MIN_SAMPLES or len(rounds) < MIN_ROUNDS for rounds in (before, after)):
        verdict: Verdict = "too few samples"
    elif low <= 0 <= high or abs(change) < MIN_CHANGE:
        verdict = "noise"
    else:
        verdict = "better" if (change > 0) == (better == "higher") else "worse"
    return Change(change=change, low=low, high=high, verdict=verdict)


def _draw_quantiles(rounds: Rounds, quantile: float, *, seed: int) -> NDArray[np.float64]:
    """float64 (NUM_DRAWS,): the quantile of samples drawn again, with replacement.

    Each draw takes as many rounds as there are, and of each the mean number of samples.
    """
    rng = np.random.default_rng(seed)  # the same samples always give the same interval
    counts = np.array([len(samples) for samples in rounds])
    table = np.zeros((len(rounds), int(counts.max())))
    for row, samples in zip(table, rounds, strict=True):
        row[: len(samples)] = samples
    chosen = rng.integers(len(rounds), size=(NUM_DRAWS, len(rounds), 1))
    num_each = max(1, round(float(counts.mean())))
    places = (rng.random((NUM_DRAWS, len(rounds), num_each)) * counts[chosen]).astype(np.int64)
    drawn: NDArray[np.float64] = table[chosen, places].reshape(NUM_DRAWS, -1)
    return np.quantile(drawn, quantile, axis=1)


def _middle(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
