"""How many tokens a step takes at most: found by measuring this machine while it works, then kept.

A larger step is worth its longer wait only where it is faster. Full steps of each size are timed; the smallest size
within `WORTH_IT` of the fastest is chosen. No answer depends on it: chunks are cut by their request alone.
Neighbours: `engine` reports its steps, `loading` remembers the choice for model and machine.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

SIZES = (512, 1024, 2048)
NUM_SAMPLES = 5
FULL = 0.8
"""A step counts as full from this share of its size on."""
WORTH_IT = 0.05
"""A larger step must be faster by this share."""


class BatchBudget:
    """Most tokens in one step.

    Args:
        num_tokens: a fixed budget (or the one that was chosen before); None measures.
        on_chosen: told once, when the measuring has ended.
    """

    def __init__(self, num_tokens: int | None = None, *, on_chosen: Callable[[int], None] | None = None) -> None:
        self._chosen = num_tokens
        self._on_chosen = on_chosen
        self._rates: dict[int, list[float]] = {size: [] for size in SIZES}

    @property
    def num_tokens(self) -> int:
        """Most tokens in the next step: the choice, or the size that is measured next."""
        if self._chosen is not None:
            return self._chosen
        return min(SIZES, key=lambda size: (len(self._rates[size]), size))

    @property
    def is_chosen(self) -> bool:
        """Nothing is measured any more."""
        return self._chosen is not None

    def report(self, num_tokens: int, seconds: float) -> None:
        """A step without single-token work took this long; does nothing once chosen, or where it was not full."""
        size = self.num_tokens
        if self._chosen is not None or num_tokens < FULL * size or seconds <= 0:
            return
        self._rates[size].append(num_tokens / seconds)
        if min(map(len, self._rates.values())) < NUM_SAMPLES:
            return
        rates = {size: median(found[1:]) for size, found in self._rates.items()}  # the first one warms caches up
        fastest = max(rates.values())
        self._chosen = next(size for size in SIZES if rates[size] >= (1 - WORTH_IT) * fastest)
        if self._on_chosen is not None:
            self._on_chosen(self._chosen)
