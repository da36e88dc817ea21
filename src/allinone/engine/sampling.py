"""How the next token is chosen from its logits. One `Sampler` per request, with its own random generator.

Knows no backend, no text and no schedule: logits and an optional mask in, one token id out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from allinone.backends.base import FloatArray
from allinone.engine.requests import SamplingParams
from allinone.errors import InvalidInput, ModelError

BoolArray = NDArray[np.bool_]

MAX_LOOKUP_TOKENS = 32
"""Each guess is a row of logits, and of attention over the whole past."""

_COLDEST = 1e-4
"""Below this temperature only the best token is left over, and dividing by it would leave the range of float32."""
LEAST_TEMPERATURE = 1e-5
"""Below, the likeliest token is the only one: float32 could not tell what is left of the others."""
_ROUNDING = 1e-6
"""Relative error of a sum of float32 weights: a share of the probability missed by less counts as reached."""


def check_sampling(params: SamplingParams) -> None:
    """Refuse parameters that mean nothing.

    Raises:
        InvalidInput: names the parameter, its value and its range.
    """
    lookup = params.prompt_lookup_num_tokens
    rules = (
        ("temperature", params.temperature, params.temperature >= 0, ">= 0"),
        ("top_k", params.top_k, params.top_k >= 0, ">= 0"),
        ("top_p", params.top_p, 0 < params.top_p <= 1, "in (0, 1]"),
        ("min_p", params.min_p, 0 <= params.min_p <= 1, "in [0, 1]"),
        ("repetition_penalty", params.repetition_penalty, 0.01 <= params.repetition_penalty <= 100, "in [0.01, 100]"),
        ("presence_penalty", params.presence_penalty, math.isfinite(params.presence_penalty), "a number"),
        ("frequency_penalty", params.frequency_penalty, math.isfinite(params.frequency_penalty), "a number"),
        ("logit_bias", params.logit_bias, all(map(math.isfinite, params.logit_bias.values())), "made of numbers"),
        ("num_logprobs", params.num_logprobs, params.num_logprobs is None or params.num_logprobs >= 0, ">= 0"),
        ("max_tokens", params.max_tokens, params.max_tokens >= 1, ">= 1"),
        ("prompt_lookup_num_tokens", lookup, 0 <= lookup <= MAX_LOOKUP_TOKENS, f"in [0, {MAX_LOOKUP_TOKENS}]"),
        ("seed", params.seed, params.seed is None or params.seed >= 0, ">= 0"),
        ("stop", params.stop, all(params.stop), "made of strings that are not empty"),
    )
    for name, value, is_valid, allowed in rules:
        if not is_valid:
            raise InvalidInput(f"{name} = {value!r} is not possible.", hint=f"{name} must be {allowed}.")


class Sampler:
    """Chooses token ids for one request; its choices depend on its own logits and seed only.

    Args:
        params: temperature 0 (or next to it) is greedy, and then top_k, top_p, min_p and seed change nothing.
        input_ids: ids the repetition penalty counts as said before, beside those chosen.
        control_ids: never penalised: a turn must stay as easy to end as it was.
        bias: float32 (vocab_size,), added to all logits: -inf for what is never chosen (control tokens other than the
            stop ids, ids without a token), 0 elsewhere.
    """

    def __init__(
        self,
        params: SamplingParams,
        *,
        input_ids: Iterable[int],
        control_ids: frozenset[int],
        bias: FloatArray,
    ) -> None:
        self._params = params
        self._control_ids = control_ids
        self._bias = bias
        self._said = set(input_ids) - control_ids
        self._num_said: Counter[int] = Counter()  # of the output alone
        self._random = np.random.default_rng(params.seed)

    def sample(self, logits: FloatArray, allowed: BoolArray | None = None) -> int:
        """The next token id.

        Args:
            logits: float32 (vocab_size,), unchanged.
            allowed: (vocab_size,), True where the request's constraint lets a token be.

        Raises:
            ModelError: the logits are not numbers, or nothing is allowed.
        """
        values = self._penalised(logits)
        if allowed is not None:
            values[~allowed] = -np.inf
        best = int(values.argmax())
        if not np.isfinite(values[best]):
            raise ModelError(
                f"No token can follow: the best logit is {values[best]}.",
                hint="The model computed NaN or infinity, or the constraint allows nothing here.",
            )
        token_id = best if self._params.temperature < _COLDEST else self._draw(values)
        if token_id not in self._control_ids:
            self._said.add(token_id)
            self._num_said[token_id] += 1
        return token_id

    def _penalised(self, logits: FloatArray) -> FloatArray:
        """A copy without what is forbidden, and with what was said made less likely (Keskar et al., 2019)."""
        values = logits + self._bias
        penalty = np.float32(self._params.repetition_penalty)
        if penalty != 1 and self._said:
            said = np.fromiter(self._said, dtype=np.int64, count=len(self._said))
            old = values[said]
            values[said] = np.where(old > 0, old / penalty, old * penalty)
        if self._num_said and (self._params.presence_penalty or self._params.frequency_penalty):
            ids = np.fromiter(self._num_said.keys(), dtype=np.int64, count=len(self._num_said))
            counts = np.fromiter(self._num_said.values(), dtype=np.float32, count=len(self._num_said))
            values[ids] -= counts * np.float32(self._params.frequency_penalty) + self._params.presence_penalty
        return values

    def _draw(self, values: FloatArray) -> int:
        """One id from the softmax of what temperature, top_k, top_p and min_p leave over, applied in this order."""
        params = self._params
        scaled = (values - values.max()) / np.float32(params.temperature)
        ids, weights = self._candidates(scaled)
        if params.min_p > 0:
            ids, weights = ids[weights >= params.min_p], weights[weights >= params.min_p]
        cumulative = np.cumsum(weights)
        place = int(np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right"))
        return int(ids[min(place, len(ids) - 1)])

    def _candidates(self, scaled: FloatArray) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Ids that top_k and top_p keep, and their weights exp(scaled), of which the largest is 1.

        Where an order matters it is by weight, ties by id, so that a seed gives the same ids everywhere. Sorting a
        large vocabulary for every token would cost more than computing its logits: only the likely part is sorted, and
        more of it when that does not hold top_p of the probability.
        """
        top_k, top_p = self._params.top_k, self._params.top_p
        if 0 < top_k < len(scaled):
            floor = np.partition(scaled, len(scaled) - top_k)[len(scaled) - top_k]
            ids, weights = _sorted_above(scaled, floor)
            ids, weights = ids[:top_k], weights[:top_k]
            return _nucleus(ids, weights, top_p * weights.sum())
        if top_p == 1:
            ids = np.flatnonzero(np.isfinite(scaled))
            return ids, np.exp(scaled[ids], dtype=np.float64)
        mass, floor = (1 - _ROUNDING) * top_p * np.exp(scaled).sum(dtype=np.float64), -8.0
        ids, weights = _sorted_above(scaled, floor)
        while weights.sum() < mass and floor > -1024:
            floor *= 2
            ids, weights = _sorted_above(scaled, floor)
        return _nucleus(ids, weights, mass)


def _sorted_above(scaled: FloatArray, floor: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ids whose scaled logit is finite and at least `floor`, likeliest first, and their weights."""
    ids = np.flatnonzero(scaled >= max(floor, float(np.finfo(np.float32).min)))
    # floats that are not negative sort like their bits; with the place below them, one fast sort of integers is stable
    keys = (0 - scaled[ids]).view(np.int32).astype(np.int64) << 32 | np.arange(len(ids))
    ids = ids[np.sort(keys) & 0xFFFFFFFF]
    return ids, np.exp(scaled[ids], dtype=np.float64)


def _nucleus(
    ids: NDArray[np.int64], weights: NDArray[np.float64], mass: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The shortest beginning whose weights reach `mass`; all of it where they do not."""
    keep = int(np.searchsorted(np.cumsum(weights), mass)) + 1
    return ids[:keep], weights[:keep]
