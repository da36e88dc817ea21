"""The batch budget is found by measuring, once."""

from __future__ import annotations

from collections.abc import Sequence

from tests.engine.conftest import RecordingBackend

from allinone.backends.base import Chunk, FloatArray
from allinone.backends.fake import ByteTokenizer, FakeBackend
from allinone.engine.budget import NUM_SAMPLES, SIZES, BatchBudget
from allinone.engine.engine import Engine
from allinone.engine.requests import ScoreRequest
from allinone.errors import ModelError


def measure(rate: dict[int, float]) -> tuple[BatchBudget, list[int]]:
    """A budget after full steps at these tokens a second for each size."""
    told: list[int] = []
    budget = BatchBudget(on_chosen=told.append)
    for _ in range(len(SIZES) * (NUM_SAMPLES + 1)):
        size = budget.size_for(10_000)
        budget.report(size, size / rate[size])
    return budget, told


def test_larger_steps_are_taken_only_where_they_are_faster() -> None:
    """Equal speed: the smallest, for the shortest wait. Twice the speed: the larger."""
    same, told = measure(dict.fromkeys(SIZES, 1000.0))
    assert (same.num_tokens, told) == (SIZES[0], [SIZES[0]])
    faster, told = measure({512: 1000.0, 1024: 1900.0, 2048: 1950.0})
    assert (faster.num_tokens, told) == (1024, [1024])


def test_steps_that_were_not_full_say_nothing() -> None:
    """Little work is no measurement."""
    budget = BatchBudget()
    for _ in range(1000):
        assert budget.size_for(1500) <= 1024, "a size is tried where there is enough to fill it"
        budget.report(100, 0.01)
    assert not budget.is_chosen and budget.num_tokens == SIZES[0]


def test_choice_made_before_is_kept() -> None:
    """Measured once per model and machine."""
    told: list[int] = []
    budget = BatchBudget(1024, on_chosen=told.append)
    budget.report(1024, 99.0)
    assert (budget.num_tokens, told) == (1024, [])


def test_engine_measures_while_it_works(backend: RecordingBackend, byte_tokenizer: ByteTokenizer) -> None:
    """Enough full steps of labels: the choice is made, and the stats show it."""
    budget = BatchBudget()
    with Engine(backend, byte_tokenizer, max_batch_tokens=budget, max_queue=10_000) as engine:
        tickets = [
            engine.submit(ScoreRequest(prefix_ids=(), input_ids=(i % 200,) * 60, label_ids={"a": (1,), "b": (2,)}))[0]
            for i in range(900)
        ]
        for ticket in tickets:
            ticket.result()
        assert budget.is_chosen
        assert engine.score(ScoreRequest(prefix_ids=(), input_ids=(1,), label_ids={"a": (1,), "b": (2,)}))
        assert engine.stats().max_batch_tokens == budget.num_tokens


def test_size_that_fails_is_not_chosen(byte_tokenizer: ByteTokenizer) -> None:
    """Out of memory in microseconds is not fast. (It once was, and was written down.)"""

    class Small(FakeBackend):
        def extend(self, batch: Sequence[Chunk]) -> list[FloatArray | None]:
            if sum(len(chunk.input_ids) for chunk in batch) > 1_100:
                raise MemoryError
            return super().extend(batch)

    budget, failed = BatchBudget(), 0
    with Engine(Small(), byte_tokenizer, max_batch_tokens=budget, max_queue=10_000) as engine:
        tickets = [
            engine.submit(ScoreRequest(prefix_ids=(), input_ids=(i % 200,) * 60, label_ids={"a": (1,), "b": (2,)}))[0]
            for i in range(900)
        ]
        for ticket in tickets:
            try:
                ticket.result()
            except ModelError:
                failed += 1
    assert budget.is_chosen and budget.num_tokens < 2048
    assert failed <= 2 * 2048 / 60
