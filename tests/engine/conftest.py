"""A fake backend that tells what it was fed, and can be made to wait or to fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from allinone.backends.base import Chunk, FloatArray
from allinone.backends.fake import ByteTokenizer, FakeBackend
from allinone.backends.onnx.backend import OnnxBackend
from allinone.backends.onnx.compile import compile_weights
from allinone.engine.engine import Engine
from allinone.models.random_weights import RandomWeights


class RecordingBackend(FakeBackend):
    """`batches`: the chunks of every call. `hold` makes calls wait; `error` makes the next one fail;
    `step_s` makes all slow, for requests that must still be running when a test comes to them.

    It never ends a reply by itself, so that lengths in tests are what they say.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.batches: list[list[Chunk]] = []
        self.error: Exception | None = None
        self.step_s = 0.0
        self.entered = threading.Event()
        self._open = threading.Event()
        self._open.set()

    def extend(self, batch: Sequence[Chunk]) -> list[FloatArray | None]:
        """Record, wait while held, then run or fail."""
        self.batches.append(list(batch))
        self.entered.set()
        assert self._open.wait(30), "held for too long"
        time.sleep(self.step_s)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return super().extend(batch)

    def _logits(self, node: Any) -> FloatArray:
        logits = super()._logits(node)
        logits[256:] -= 100
        return logits

    def hold(self) -> None:
        """Let the next call wait; `entered` is set when it does."""
        self.entered.clear()
        self._open.clear()

    def go(self) -> None:
        """Let calls through."""
        self._open.set()

    @property
    def num_fed(self) -> int:
        """Tokens fed so far."""
        return sum(len(chunk.input_ids) for batch in self.batches for chunk in batch)


@pytest.fixture
def backend() -> Iterator[RecordingBackend]:
    """Whoever used it must have given every sequence back."""
    recording = RecordingBackend()
    yield recording
    recording.go()
    assert recording.num_sequences() == 0, "sequences were leaked"


@pytest.fixture
def engine(backend: RecordingBackend, byte_tokenizer: ByteTokenizer) -> Iterator[Engine]:
    """An engine with its default limits, closed after the test."""
    with Engine(backend, byte_tokenizer) as engine:
        yield engine
        backend.go()


@pytest.fixture(scope="module")
def onnx_engine(tiny_weights: RandomWeights, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The default backend with random weights."""
    folder = tmp_path_factory.mktemp("model")
    compile_weights(tiny_weights, folder)
    backend = OnnxBackend.load(folder, num_threads=2)
    with Engine(backend, ByteTokenizer()) as engine:
        yield engine
    assert backend.num_sequences() == 0, "sequences were leaked"
