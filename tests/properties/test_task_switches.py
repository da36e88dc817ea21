"""1,000 random task switches in one engine: each answer is bit-equal to that of a fresh engine.

No cache, no neighbour and no order of requests may show in an answer: that is what makes sharing harmless.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeAlias

import pytest

from allinone.backends.base import Backend
from allinone.backends.fake import ByteTokenizer, FakeBackend
from allinone.backends.onnx.backend import OnnxBackend
from allinone.backends.onnx.compile import compile_weights
from allinone.engine.engine import Engine
from allinone.engine.requests import (
    Constraint,
    GenerateRequest,
    Generation,
    LabelScores,
    PrefillRequest,
    SamplingParams,
    ScoreRequest,
)
from allinone.models.random_weights import RandomWeights

Answer: TypeAlias = tuple[object, ...]
TOKENIZER = ByteTokenizer()
TASKS = [
    tuple(TOKENIZER.tokenize(f"<|im_start|>system\n{text}<|im_end|>\n<|im_start|>user\n", control=True))
    for text in ("You judge moods.", "Translate.", "You are a warm companion. " * 3, "Title", "", "Keywords as JSON")
]
LABELS = (
    {"good": (1,), "bad": (2,)},
    {"yes": (10, 11), "no": (10, 12), "maybe": (10,)},
    {"happy": (20, 21, 22), "sad": (23,), "angry": (20, 24)},
)
SCHEMA = {"type": "object", "properties": {"k": {"type": "integer"}}, "required": ["k"], "additionalProperties": False}


def random_request(rng: random.Random) -> ScoreRequest | GenerateRequest:
    """A label, a greedy text, a sampled text or a JSON, of any task and any text."""
    prefix_ids = rng.choice(TASKS)
    input_ids = tuple(rng.randrange(256) for _ in range(rng.choice((1, 2, 7, 15, 16, 17, 40, 90))))
    if rng.random() < 0.5:
        return ScoreRequest(prefix_ids=prefix_ids, input_ids=input_ids, label_ids=rng.choice(LABELS))
    sampling = rng.choice(
        (
            SamplingParams(max_tokens=rng.randint(1, 8)),
            SamplingParams(max_tokens=6, temperature=0.9, top_p=0.9, repetition_penalty=1.1, seed=rng.randrange(99)),
            SamplingParams(max_tokens=6, constraint=Constraint(kind="json_schema", value=SCHEMA)),
        )
    )
    return GenerateRequest(prefix_ids=prefix_ids, input_ids=input_ids, sampling=sampling)


def answer_of(result: LabelScores | Generation | None) -> Answer:
    """Everything but counts and times, floats to the last bit."""
    if isinstance(result, LabelScores):
        return tuple((label, value.hex()) for label, value in result.logprobs.items())
    assert isinstance(result, Generation)
    return result.text, result.token_ids, result.finish_reason


def ask(engine: Engine, requests: Sequence[ScoreRequest | GenerateRequest]) -> list[Answer]:
    return [answer_of(ticket.result()) for ticket in engine.submit(*requests)]


def check_switches(make_backend: Callable[[], Backend], *, count: int, seed: int) -> None:
    """`count` random requests in one engine with small budgets, some together, against a fresh engine for each."""
    rng = random.Random(seed)
    backend = make_backend()
    with Engine(
        backend, TOKENIZER, max_prefix_tokens=200, max_cached_tokens=600, max_batch_tokens=rng.choice((96, 512))
    ) as engine:
        done = 0
        while done < count:
            requests = [random_request(rng) for _ in range(rng.choice((1, 1, 2, 5)))]
            answers = ask(engine, requests)
            for request, answer in zip(requests, answers, strict=True):
                with Engine(make_backend(), TOKENIZER, max_batch_tokens=512) as fresh:
                    assert ask(fresh, [request]) == [answer], f"request {done}: {request}"
                done += 1
        assert count < 100 or engine.stats().prefix_evictions > 0, "the budget was meant to be tight"
    assert backend.num_sequences() == 0


def test_thousand_task_switches_on_the_fake_backend() -> None:
    """A fresh backend for every single answer."""
    check_switches(FakeBackend, count=1_000, seed=11)


@pytest.fixture(scope="module", params=["float32", "int8"])
def onnx_backend(
    request: pytest.FixtureRequest, tiny_weights: RandomWeights, tmp_path_factory: pytest.TempPathFactory
) -> Backend:
    """The product's own backend on a tiny model: real attention, real kernels."""
    folder = tmp_path_factory.mktemp("tiny")
    compile_weights(tiny_weights, folder, quantization=request.param)
    return OnnxBackend.load(folder)


def test_task_switches_on_onnx(onnx_backend: Backend) -> None:
    """All 1,000 on what users run, enough to notice a leak on the float graph."""
    check_switches(lambda: onnx_backend, count=1_000 if onnx_backend.info.quantization == "int8" else 200, seed=13)


def test_conversation_among_task_switches_equals_the_same_conversation_alone(onnx_backend: Backend) -> None:
    """A session keeps its own sequence: neighbours leave no trace in it, turn after turn."""

    def talk(engine: Engine, rng: random.Random | None) -> list[Answer]:
        answers: list[Answer] = []
        with engine.open_session(TASKS[2]) as session:
            for turn in range(12):
                text = tuple(b"turn %d, what do you say?" % turn)
                sampling = SamplingParams(temperature=0.8, seed=turn, max_tokens=9)
                score = ScoreRequest(prefix_ids=TASKS[0], input_ids=text, label_ids=LABELS[2])
                others = [] if rng is None else [random_request(rng) for _ in range(rng.randint(0, 3))]
                tickets = engine.submit(*others, score, PrefillRequest(session=session, input_ids=text))
                answers.append(answer_of(tickets[-2].result()))
                reply = engine.submit(*others, GenerateRequest(session=session, input_ids=(10,), sampling=sampling))[-1]
                answers.append(answer_of(reply.result()))
            answers.append(session.ids)
        return answers

    with Engine(onnx_backend, TOKENIZER) as engine:
        alone = talk(engine, None)
    with Engine(onnx_backend, TOKENIZER) as engine:
        assert talk(engine, random.Random(5)) == alone
    assert onnx_backend.num_sequences() == 0


@pytest.mark.real_model
def test_task_switches_on_transformers(tiny_weights: RandomWeights) -> None:
    """The reference backend, one sequence at a time."""
    from allinone.backends.transformers import TransformersBackend

    backend = TransformersBackend.from_source(tiny_weights)
    check_switches(lambda: backend, count=12, seed=12)
