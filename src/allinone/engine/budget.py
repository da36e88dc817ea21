"""How many tokens a step takes at most: found by measuring this machine while it works, then kept.

A larger step is worth its longer wait only where it is faster. Full steps of each size are timed; the smallest size
within `WORTH_IT` of the fastest is chosen. No answer depends on it: chunks are cut by their request alone.
Neighbours: `engine` reports its steps, the runtime remembers the choice for model and machine.
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

    Attributes:
        num_tokens: what was chosen; while measuring, the smallest size.
    """

    def __init__(self, num_tokens: int | None = None, *, on_chosen: Callable[[int], None] | None = None) -> None:
        self.num_tokens = SIZES[0] if num_tokens is None else num_tokens
        self.is_chosen = num_tokens is not None
        self._on_chosen = on_chosen
        self._rates: dict[int, list[float]] = {size: [] for size in SIZES}
        self._size = self.num_tokens  # of the step that was asked for last

    @property
    def max_ahead_tokens(self) -> int:
        """How far ahead of the steps requests are admitted: two of the largest size that may come."""
        return 2 * (self.num_tokens if self.is_chosen else max(self._rates))

    def size_for(self, num_ready: int) -> int:
        """Most tokens of the next step.

        Args:
            num_ready: tokens that wait to be prefilled: a size is measured only where they fill it.
        """
        self._size = self.num_tokens
        if not self.is_chosen:
            fillable = [size for size in self._rates if size <= num_ready]
            self._size = min(fillable, key=lambda size: (len(self._rates[size]), size), default=self.num_tokens)
        return self._size

    def report(self, num_tokens: int, seconds: float) -> None:
        """A step without single-token work took this long; does nothing once chosen, or where it was not full."""
        if self.is_chosen or num_tokens < FULL * self._size or seconds <= 0:
            return
        self._rates[self._size].append(num_tokens / seconds)
        if min(map(len, self._rates.values())) >= NUM_SAMPLES:
            rates = {size: median(found[1:]) for size, found in self._rates.items()}  # the first one warms caches up
            self._choose(min(size for size, rate in rates.items() if rate >= (1 - WORTH_IT) * max(rates.values())))

    def step_failed(self) -> None:
        """A step ended with an error: a size that may have been too much is not tried again."""
        if not self.is_chosen and self._size > SIZES[0]:
            self._rates = {size: rates for size, rates in self._rates.items() if size < self._size}

    def _choose(self, size: int) -> None:
        self.num_tokens, self.is_chosen = size, True
        if self._on_chosen is not None:
            self._on_chosen(size)
