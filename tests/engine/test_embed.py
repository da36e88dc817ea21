"""Embeddings: the hidden state at the last token, the same in any company, and nothing of it stays behind."""

from __future__ import annotations

import numpy as np
import pytest

from allinone.backends.base import Chunk
from allinone.engine.engine import Engine
from allinone.engine.requests import EmbedRequest, GenerateRequest, SamplingParams, ScoreRequest
from allinone.errors import Cancelled, ContextLengthExceeded, DeadlineExceeded, InvalidInput, ModelError

from .conftest import RecordingBackend

TEXTS = [bytes(b"%d: " % place + b"word " * length) for place, length in enumerate((1, 3, 9, 27, 60, 2, 5, 80))]


def test_embedding_is_the_backends_hidden_state(engine: Engine) -> None:
    """At the last token, whatever the length: longer texts are fed in several chunks."""
    for length in (1, 255, 256, 257, 600):
        ids = tuple(place % 256 for place in range(length))
        (ticket,) = engine.submit(EmbedRequest(input_ids=ids))
        embedding = ticket.result()
        reference = RecordingBackend()
        (expected,) = reference.extend([Chunk(sequence=reference.fork(), input_ids=ids, wanted="last_hidden")])
        assert expected is not None
        np.testing.assert_array_equal(embedding.vector, expected)
        assert embedding.usage.num_prompt_tokens == length and embedding.usage.num_cached_tokens == 0


def test_embedding_batched_equals_single_bit_for_bit(onnx_engine: Engine) -> None:
    """Beside other texts, labels and streams: no bit changes."""
    requests = [EmbedRequest(input_ids=tuple(text)) for text in TEXTS]
    alone = [onnx_engine.submit(request)[0].result().vector for request in requests]
    stream = onnx_engine.stream(GenerateRequest(input_ids=tuple(b"talk"), sampling=SamplingParams(max_tokens=40)))
    score = ScoreRequest(prefix_ids=tuple(b"judge"), input_ids=tuple(b"fine"), label_ids={"a": (1,), "b": (2,)})
    tickets = onnx_engine.submit(*requests, score, *reversed(requests))
    together = [ticket.result() for ticket in tickets]
    stream.result()
    for place, vector in enumerate(alone):
        assert vector.dtype == np.float32 and np.isfinite(vector).all()
        np.testing.assert_array_equal(together[place].vector, vector)  # type: ignore[union-attr]
        np.testing.assert_array_equal(together[-1 - place].vector, vector)  # type: ignore[union-attr]
    assert len({vector.tobytes() for vector in alone}) == len(alone), "different texts, different vectors"


def test_embedding_leaves_nothing_in_the_prefix_cache(engine: Engine, backend: RecordingBackend) -> None:
    """A user's text is never shared, not even with its own second request."""
    for _ in range(2):
        engine.submit(EmbedRequest(input_ids=tuple(b"my secret")))[0].result()
    assert backend.num_fed == 2 * len(b"my secret")
    assert engine.stats().num_prefixes == 0 and engine.stats().prefix_hits == 0


def test_embedding_goes_behind_labels_not_before_them(engine: Engine, backend: RecordingBackend) -> None:
    """It may be a whole document: a label that came later runs first."""
    backend.hold()
    (first,) = engine.submit(EmbedRequest(input_ids=(1,) * 40))
    assert backend.entered.wait(30)
    (document,) = engine.submit(EmbedRequest(input_ids=(2,) * 600))
    (label,) = engine.submit(ScoreRequest(prefix_ids=(), input_ids=(3,), label_ids={"a": (1,), "b": (2,)}))
    backend.go()
    label.result()
    document.result()
    first.result()
    fed = [{chunk.input_ids[0] for chunk in batch} for batch in backend.batches]
    assert 3 in fed[1], fed


def test_embedding_can_be_cancelled_and_be_late(engine: Engine, backend: RecordingBackend) -> None:
    """As every other request; its sequence is given back (the fixture counts)."""
    backend.hold()
    (running,) = engine.submit(EmbedRequest(input_ids=(1,) * 40))
    assert backend.entered.wait(30)
    (waiting,) = engine.submit(EmbedRequest(input_ids=(1,) * 600))
    waiting.cancel()
    (late,) = engine.submit(EmbedRequest(input_ids=(1,), deadline_s=0))
    backend.go()
    with pytest.raises(Cancelled):
        waiting.result()
    with pytest.raises(DeadlineExceeded):
        late.result()
    assert running.result().vector.shape == (16,)


def test_embedding_refuses_what_cannot_be(engine: Engine, backend: RecordingBackend) -> None:
    """Nothing, too much, ids of another model."""
    with pytest.raises(InvalidInput, match="empty"):
        engine.submit(EmbedRequest(input_ids=()))
    with pytest.raises(ContextLengthExceeded, match="8193"):
        engine.submit(EmbedRequest(input_ids=(1,) * 8193))
    with pytest.raises(InvalidInput, match="70000"):
        engine.submit(EmbedRequest(input_ids=(70_000,)))


def test_embedding_that_is_no_number_is_an_error(engine: Engine, backend: RecordingBackend) -> None:
    """NaN in JSON would break whoever reads it."""
    numbers = backend._numbers
    backend._numbers = lambda node, count: numbers(node, count) * np.float32(np.nan)  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="hidden state"):
        engine.submit(EmbedRequest(input_ids=(1,)))[0].result()
