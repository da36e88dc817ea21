from __future__ import annotations

import numpy as np
import pytest

from allinone.backends.base import FloatArray
from allinone.engine.requests import SamplingParams
from allinone.engine.sampling import Sampler, check_sampling
from allinone.errors import InvalidInput, ModelError

LOGITS = np.log(np.array([0.4, 0.3, 0.15, 0.1, 0.05], dtype=np.float32))


def sampler(params: SamplingParams, *, input_ids: tuple[int, ...] = (), forbidden: tuple[int, ...] = ()) -> Sampler:
    bias = np.zeros(len(LOGITS) if forbidden else 1, np.float32)  # one entry fits any number of logits
    bias[list(forbidden)] = -np.inf
    return Sampler(params, input_ids=input_ids, control_ids=frozenset({4}), bias=bias)


def draw(params: SamplingParams, *, num: int = 20_000, logits: FloatArray = LOGITS) -> np.ndarray:
    """Share of each id among many draws."""
    one = sampler(params)
    return np.bincount([one.sample(logits) for _ in range(num)], minlength=len(logits)) / num


def test_sampler_is_greedy_at_temperature_zero_and_takes_the_first_at_a_tie() -> None:
    """Repeatable answers are the default."""
    assert sampler(SamplingParams(top_k=2, seed=1)).sample(LOGITS) == 0
    assert sampler(SamplingParams()).sample(np.array([0, 3, 3, 1], dtype=np.float32)) == 1


def test_sampler_draws_from_the_softmax() -> None:
    """Frequencies match probabilities, at temperature 1 and 2."""
    np.testing.assert_allclose(draw(SamplingParams(temperature=1, seed=0)), np.exp(LOGITS), atol=0.015)
    warm = np.exp(LOGITS / 2)
    np.testing.assert_allclose(draw(SamplingParams(temperature=2, seed=0)), warm / warm.sum(), atol=0.015)


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        (SamplingParams(temperature=1, seed=0, top_k=2), [0, 1]),
        (SamplingParams(temperature=1, seed=0, top_p=0.7), [0, 1]),
        (SamplingParams(temperature=1, seed=0, top_p=0.71), [0, 1, 2]),
        (SamplingParams(temperature=1, seed=0, top_p=1e-9), [0]),
        (SamplingParams(temperature=1, seed=0, min_p=0.3), [0, 1, 2]),
        (SamplingParams(temperature=1, seed=0, top_k=4, top_p=0.99, min_p=0.2), [0, 1, 2, 3]),
        (SamplingParams(temperature=1, seed=0, top_k=99), [0, 1, 2, 3, 4]),
    ],
)
def test_sampler_keeps_what_top_k_top_p_and_min_p_say(params: SamplingParams, kept: list[int]) -> None:
    """Nothing else is ever drawn, and what is kept keeps its proportions."""
    shares = draw(params, num=5_000)
    assert np.flatnonzero(shares).tolist() == kept
    expected = np.exp(LOGITS[kept]) / np.exp(LOGITS[kept]).sum()
    np.testing.assert_allclose(shares[kept], expected, atol=0.03)


def test_sampler_repeats_itself_with_a_seed_and_not_without() -> None:
    """Each request has its own generator: neighbours cannot shift it."""
    logits = np.zeros(1000, dtype=np.float32)

    def ids(seed: int | None) -> list[int]:
        one = sampler(SamplingParams(temperature=1, seed=seed))
        return [one.sample(logits) for _ in range(20)]

    assert ids(5) == ids(5) != ids(6)
    assert ids(None) != ids(None)


def test_sampler_penalises_what_was_said_but_never_control_ids() -> None:
    """A turn must stay as easy to end as it was."""
    logits = np.array([2.0, 1.9, -1.0, -1.1, 1.95], dtype=np.float32)
    penal = SamplingParams(repetition_penalty=1.2)
    assert sampler(penal).sample(logits) == 0
    assert sampler(penal, input_ids=(0,)).sample(logits) == 4
    assert sampler(penal, input_ids=(0, 4)).sample(logits) == 4
    twice = sampler(penal)
    assert [twice.sample(logits), twice.sample(logits)] == [0, 4]
    negative = np.array([-1.0, -1.1, -9, -9, -9], dtype=np.float32)
    assert sampler(penal, input_ids=(0,)).sample(negative) == 1
    assert logits[0] == 2.0, "the logits belong to the backend and stay as they are"


def test_sampler_never_chooses_forbidden_or_masked_ids() -> None:
    """Control tokens stay out of answers, constraints hold at every temperature."""
    for params in (SamplingParams(), SamplingParams(temperature=5, seed=0, top_k=4)):
        one = sampler(params, forbidden=(0, 1))
        allowed = np.array([True, True, True, False, True])
        assert {one.sample(LOGITS, allowed) for _ in range(300)} <= {2, 4}


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_sampler_refuses_logits_that_are_not_numbers(bad: float) -> None:
    """A broken model must not quietly say token 0."""
    with pytest.raises(ModelError, match="No token can follow"):
        sampler(SamplingParams()).sample(np.full(5, bad, dtype=np.float32))


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=-0.1),
        SamplingParams(temperature=float("nan")),
        SamplingParams(top_k=-1),
        SamplingParams(top_p=0),
        SamplingParams(top_p=1.1),
        SamplingParams(min_p=-0.1),
        SamplingParams(repetition_penalty=0),
        SamplingParams(max_tokens=0),
        SamplingParams(seed=-1),
        SamplingParams(stop=("",)),
    ],
)
def test_check_sampling_names_the_parameter_and_its_range(params: SamplingParams) -> None:
    """Bad options are never swallowed."""
    changed = next(
        name for name in SamplingParams.__slots__ if getattr(params, name) != getattr(SamplingParams(), name)
    )
    with pytest.raises(InvalidInput, match=changed) as caught:
        check_sampling(params)
    assert caught.value.hint is not None and changed in caught.value.hint


def plainly_sampled(logits: FloatArray, params: SamplingParams, number: float) -> int:
    """The definition, by sorting everything; `number` in [0, 1) decides."""
    order = np.argsort(-logits, kind="stable") if params.top_k or params.top_p < 1 else np.arange(len(logits))
    order = order[: params.top_k or None]
    probs = np.exp((logits[order].astype(np.float64) - logits.max()) / params.temperature)
    kept = np.cumsum(probs) - probs < params.top_p * probs.sum() if params.top_p < 1 else probs > 0
    kept &= probs >= params.min_p
    return int(order[kept][np.searchsorted(np.cumsum(probs[kept]), number * probs[kept].sum(), side="right")])


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 3.0, 50.0])
@pytest.mark.parametrize("limits", [{}, {"top_k": 40}, {"top_p": 0.9}, {"top_p": 0.9999}, {"top_k": 7, "top_p": 0.5}])
@pytest.mark.parametrize("min_p", [0.0, 0.05])
def test_sampler_equals_the_plain_definition(temperature: float, limits: dict[str, float], min_p: float) -> None:
    """Only the likely part of a large vocabulary is sorted; nobody may notice."""
    params = SamplingParams(temperature=temperature, min_p=min_p, seed=4, **limits)  # type: ignore[arg-type]
    one, numbers = sampler(params), np.random.default_rng(4)
    for seed in range(30):
        logits = (np.random.default_rng(seed).standard_normal(3_000) * 4).astype(np.float32).round(1)
        assert one.sample(logits) == plainly_sampled(logits, params, numbers.random())


def test_penalties_of_the_output_count_what_was_said() -> None:
    """Presence once, frequency each time; what the input says costs nothing, and control tokens never cost."""
    params = SamplingParams(temperature=1, seed=0, presence_penalty=0.5, frequency_penalty=0.25)
    one = sampler(params, input_ids=(0, 1, 2))
    start = one._penalised(LOGITS)
    np.testing.assert_array_equal(start, LOGITS)
    only = np.zeros((5, 5), np.float32) - np.inf
    np.fill_diagonal(only, 0)
    for token_id in (3, 1, 3, 4, 3):
        one.sample(only[token_id])
    np.testing.assert_allclose(one._penalised(LOGITS) - LOGITS, [0, -0.75, 0, -1.25, 0], atol=1e-6)


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
def test_penalties_keep_a_greedy_reply_from_repeating_itself(name: str) -> None:
    """The same logits again and again: without a penalty the same token, with one all of them in turn."""
    one = sampler(SamplingParams(**{name: 1.0}))  # type: ignore[arg-type]
    assert [one.sample(LOGITS) for _ in range(3)] == [0, 1, 2]
    plain = sampler(SamplingParams())
    assert [plain.sample(LOGITS) for _ in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(presence_penalty=float("nan")),
        SamplingParams(frequency_penalty=float("inf")),
        SamplingParams(logit_bias={1: float("nan")}),
    ],
)
def test_check_sampling_refuses_penalties_that_are_no_numbers(params: SamplingParams) -> None:
    """They would turn all logits into NaN."""
    with pytest.raises(InvalidInput, match="not possible"):
        check_sampling(params)


@pytest.mark.parametrize("temperature", [1e-300, 1e-45, 1e-38, 1e-5])
def test_next_to_zero_is_greedy(temperature: float) -> None:
    """Divided by such a temperature, logits would leave the range of float32."""
    logits = np.array([-3, 1, 2, 1], np.float32)
    one = sampler(SamplingParams(temperature=temperature, seed=1))
    assert [one.sample(logits) for _ in range(3)] == [2, 2, 2]


@pytest.mark.parametrize("penalty", [5e-324, 1e-40, 0.001, 101.0, float("inf"), float("nan")])
def test_check_sampling_refuses_a_repetition_penalty_that_leaves_no_logit_finite(penalty: float) -> None:
    """Divided by it, a logit would be infinite."""
    with pytest.raises(InvalidInput, match="repetition_penalty"):
        check_sampling(SamplingParams(repetition_penalty=penalty))


@pytest.mark.parametrize("temperature", [5e-324, 1e-40, 1e-6, 1e-5])
def test_sampler_with_hardly_any_temperature_is_greedy(temperature: float) -> None:
    """Dividing by it must not overflow: a client may send any number."""
    assert [sampler(SamplingParams(temperature=temperature, seed=1)).sample(LOGITS) for _ in range(5)] == [0] * 5
