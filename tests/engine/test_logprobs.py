"""Log-probabilities of generated tokens: the model's own, whatever chose the token and whoever shares the step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from allinone.backends.base import Chunk
from allinone.backends.fake import FakeBackend
from allinone.engine import running_generate
from allinone.engine.engine import Engine
from allinone.engine.logprobs import token_logprobs
from allinone.engine.requests import Constraint, GenerateRequest, Generation, SamplingParams
from allinone.errors import InvalidInput

from .conftest import RecordingBackend

PREFIX = tuple(b"You are kind.")


def request(text: bytes = b"hello", **sampling: object) -> GenerateRequest:
    params: dict[str, object] = {"max_tokens": 6, "num_logprobs": 3} | sampling
    return GenerateRequest(
        prefix_ids=PREFIX,
        input_ids=tuple(text),
        sampling=SamplingParams(**params),  # type: ignore[arg-type]
    )


def log_softmax(backend: FakeBackend, ids: tuple[int, ...]) -> np.ndarray:
    """Of the backend's own logits after these ids, in float64."""
    sequence = backend.fork()
    (logits,) = backend.extend([Chunk(sequence=sequence, input_ids=ids, wanted="last_logits")])
    backend.free(sequence)
    assert logits is not None
    values = logits.astype(np.float64)
    return values - np.log(np.exp(values).sum())


def check_against(backend: FakeBackend, asked: GenerateRequest, generation: Generation, *, num_likeliest: int) -> None:
    """Every number of a generation, recomputed from the backend's logits."""
    ids = (*asked.prefix_ids, *asked.input_ids)
    assert len(generation.logprobs) == len(generation.top_logprobs) == len(generation.token_ids) > 0
    for token_id, logprob, likeliest in zip(
        generation.token_ids, generation.logprobs, generation.top_logprobs, strict=True
    ):
        expected = log_softmax(backend, ids)
        assert logprob == pytest.approx(expected[token_id], abs=1e-9)
        assert [one for one, _ in likeliest] == np.argsort(-expected, kind="stable")[:num_likeliest].tolist()
        for one, value in likeliest:
            assert value == pytest.approx(expected[one], abs=1e-9)
        ids = (*ids, token_id)


@pytest.mark.parametrize(
    "sampling",
    [
        {"num_logprobs": 0},
        {"num_logprobs": 5},
        {"temperature": 1.5, "seed": 3, "top_p": 0.9},
        {"temperature": 0.5, "seed": 3, "repetition_penalty": 1.3, "presence_penalty": 1.0, "frequency_penalty": 1.0},
        {"logit_bias": {65: 50.0}},
        {"constraint": Constraint(kind="regex", value="[a-c]+")},
    ],
    ids=lambda sampling: "+".join(sampling),
)
def test_logprobs_are_the_log_softmax_of_the_backends_logits(
    engine: Engine, backend: RecordingBackend, sampling: dict[str, object]
) -> None:
    """Temperature, penalties, bias and constraint choose the token; they do not change what the model thinks of it."""
    asked = request(**sampling)
    generation = engine.stream(asked).result()
    other = RecordingBackend()
    check_against(other, asked, generation, num_likeliest=int(sampling.get("num_logprobs", 3)))  # type: ignore[call-overload]


def test_logprobs_streamed_equal_whole_and_batched_equal_single(engine: Engine) -> None:
    """Bit for bit: ten side by side, each alone, and each read token by token."""
    asked = [request(b"text %02d" % place, temperature=1.0, seed=place) for place in range(10)]
    together = [stream.result() for stream in engine.submit(*asked)]  # type: ignore[union-attr]
    for one, whole in zip(asked, together, strict=True):
        assert engine.stream(one).result().logprobs == whole.logprobs  # type: ignore[union-attr]
        events = list(engine.stream(one))
        assert tuple(event.logprob for event in events) == whole.logprobs  # type: ignore[union-attr]
        assert tuple(event.top_logprobs for event in events) == whole.top_logprobs  # type: ignore[union-attr]


def test_logprobs_batched_equal_single_bit_for_bit_on_the_default_backend(onnx_engine: Engine) -> None:
    """Whoever shares the steps: the numbers a client is told are those of its own text."""
    asked = [request(bytes(b"%d " % place) * (3 * place + 1), temperature=1.0, seed=place) for place in range(6)]
    alone = [onnx_engine.stream(one).result() for one in asked]
    together = [stream.result() for stream in onnx_engine.submit(*asked, *reversed(asked))]  # type: ignore[union-attr]
    for place, whole in enumerate(alone):
        for other in (together[place], together[-1 - place]):
            assert (other.token_ids, other.logprobs, other.top_logprobs) == (  # type: ignore[union-attr]
                whole.token_ids,
                whole.logprobs,
                whole.top_logprobs,
            )


def test_logprobs_of_a_token_that_ends_the_reply_are_there(engine: Engine, backend: RecordingBackend) -> None:
    """A stop token is a token too: how likely it was tells how sure the end is."""
    asked = request(b"say it", logit_bias={258: 1000.0})
    generation = engine.stream(asked).result()
    assert (generation.token_ids, generation.text, generation.finish_reason) == ((258,), "", "stop")
    check_against(RecordingBackend(), asked, generation, num_likeliest=3)


def test_logprobs_change_nothing_else(engine: Engine) -> None:
    """Asking how likely a text is must not change the text."""
    asked = request(temperature=1.0, seed=11, max_tokens=20)
    plain = replace(asked, sampling=replace(asked.sampling, num_logprobs=None))
    with_logprobs, without = engine.stream(asked).result(), engine.stream(plain).result()
    assert with_logprobs.token_ids == without.token_ids
    assert (without.logprobs, without.top_logprobs) == ((), ())


def test_logprobs_are_not_computed_when_nobody_asks(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log-softmax over a large vocabulary costs as much as a small matrix product."""

    def refuse(*_: object) -> None:
        raise AssertionError("computed for nothing")

    monkeypatch.setattr(running_generate, "token_logprobs", refuse)
    engine.stream(request(num_logprobs=None)).result()


def test_token_logprobs_breaks_ties_by_id_and_knows_its_bounds() -> None:
    """The order of a list must be the same everywhere; more than the vocabulary has is all of it."""
    logits = np.array([1, 2, 2, 2, -np.inf], np.float32)
    logprob, likeliest = token_logprobs(logits, 0, 2)
    assert [token_id for token_id, _ in likeliest] == [1, 2]
    assert np.exp([logprob]) == pytest.approx(np.exp(1) / (np.exp(1) + 3 * np.exp(2)))
    _, everything = token_logprobs(logits, 0, 99)
    assert [token_id for token_id, _ in everything] == [1, 2, 3, 0, 4]
    assert everything[-1][1] == -np.inf
    assert token_logprobs(logits, 0, 0)[1] == ()


def test_num_logprobs_must_be_a_count(engine: Engine) -> None:
    """-1 means nothing."""
    with pytest.raises(InvalidInput, match="num_logprobs = -1"):
        engine.stream(request(num_logprobs=-1))
