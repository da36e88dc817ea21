"""Guesses how an output goes on, for tasks that repeat much of their input: what followed the same words before.

Speculative decoding without a second model ("prompt lookup"): the backend computes a few guessed tokens in the step
that computes the next one, and keeps those that the sampler would have chosen itself. Knows ids only; whether a guess
was right is decided in `running_generate`.
"""

from __future__ import annotations

from collections.abc import Sequence

_LONGEST_NGRAM = 3
_FIRST_GUESSES = 4
_LEAST_GUESSES = 2
_RESTING_TOKENS = 16
"""After guesses of the least size that were wrong at once: a step with guesses costs more, most after a long text."""


class PromptLookup:
    """The ids of one request, and where they said the same before.

    Three sources, the likeliest first: what followed the latest place with the same three or two ids; the place where
    the last guess was taken from, one further, because a corrected word stands in the place of a wrong one; before the
    first guess, what followed the same id. How many are guessed follows how many were right: twice as many after a
    guess that was right to its end, half as many where less than a quarter was, and none for a while once two ids were
    both wrong.

    Args:
        input_ids: what may be repeated.
        max_tokens: most ids in a guess.
    """

    def __init__(self, input_ids: Sequence[int], *, max_tokens: int) -> None:
        self._ids: list[int] = []
        self._places: dict[tuple[int, ...], int] = {}  # n-gram -> where its latest successor stands
        self._source: int | None = None
        self._most = max_tokens
        self._size = min(_FIRST_GUESSES, max_tokens)
        self._num_resting = 0
        for token_id in input_ids:
            self.push(token_id)

    def push(self, token_id: int) -> None:
        """One id more: of the input, or chosen by the sampler."""
        for length in range(1, min(_LONGEST_NGRAM, len(self._ids)) + 1):
            self._places[tuple(self._ids[-length:])] = len(self._ids)
        self._ids.append(token_id)
        if self._source is not None:
            self._source += 1
        self._num_resting = max(0, self._num_resting - 1)

    def guess(self, max_tokens: int) -> tuple[int, ...]:
        """The ids that may follow; none where nothing like it was said before.

        Args:
            max_tokens: most ids that are of use now.
        """
        size = min(self._size, max_tokens)
        if size <= 0 or self._num_resting:
            return ()
        place = self._find()
        if place is None:
            return ()
        self._source = place
        period = len(self._ids) - place  # what ends the text may go on repeating itself
        return tuple(self._ids[place + step % period] for step in range(size))

    def learn(self, *, num_guessed: int, num_right: int) -> None:
        """How the last guess turned out."""
        if num_right == num_guessed:
            self._size = min(self._most, 2 * self._size)
        elif num_right == 0 and self._size <= _LEAST_GUESSES:
            self._num_resting = _RESTING_TOKENS
        elif num_right * 4 < num_guessed:
            self._size = max(_LEAST_GUESSES, self._size // 2)

    def _find(self) -> int | None:
        """Where the next id may have stood before."""
        for length in range(min(_LONGEST_NGRAM, len(self._ids)), 0, -1):
            if length == 1 and self._source is not None:
                return self._source
            place = self._places.get(tuple(self._ids[-length:]))
            if place is not None:
                return place
        return None
