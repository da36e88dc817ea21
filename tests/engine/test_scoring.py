from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allinone.backends.base import Chunk, FloatArray
from allinone.backends.fake import ByteTokenizer, FakeBackend
from allinone.engine.engine import Engine
from allinone.engine.requests import ScoreRequest
from allinone.engine.scoring import LabelTrie, label_logprobs
from allinone.errors import ModelError, VerbalizerError

from .conftest import RecordingBackend

PROMPT = tuple(b"Is it good?")


def reference(
    backend: FakeBackend,
    label_ids: dict[str, tuple[int, ...]],
    stop_ids: frozenset[int],
    *,
    prompt: tuple[int, ...] = PROMPT,
) -> dict[str, float]:
    """The definition, computed one token at a time without any trie: P(ids [, stop]) over the full vocabulary."""

    def step(ids: tuple[int, ...]) -> np.ndarray:
        sequence = backend.fork()
        logits = backend.extend([Chunk(sequence=sequence, input_ids=ids, wanted="last_logits")])[0]
        backend.free(sequence)
        assert logits is not None
        values = logits.astype(np.float64)
        return values - np.logaddexp.reduce(values)

    totals = {}
    for label, ids in label_ids.items():
        total = sum(step(prompt + ids[:depth])[token] for depth, token in enumerate(ids))
        if any(other != ids and other[: len(ids)] == ids for other in label_ids.values()):
            total += np.logaddexp.reduce(step(prompt + ids)[sorted(stop_ids)])
        totals[label] = total
    norm = np.logaddexp.reduce(list(totals.values()))
    return {label: float(total - norm) for label, total in totals.items()}


label_sets = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple), min_size=1, max_size=6, unique=True
).map(lambda paths: {f"label{i}": path for i, path in enumerate(paths)})


@given(label_sets)
@settings(max_examples=60, deadline=None)
def test_scores_equal_the_definition(label_ids: dict[str, tuple[int, ...]]) -> None:
    """Trie, forks and batching give what plain teacher forcing of every label gives."""
    backend = FakeBackend()
    tokenizer = ByteTokenizer()
    with Engine(backend, tokenizer) as engine:
        scores = engine.score(ScoreRequest(prefix_ids=PROMPT[:4], input_ids=PROMPT[4:], label_ids=label_ids))
    assert backend.num_sequences() == 0
    expected = reference(backend, label_ids, tokenizer.stop_ids)
    assert list(scores.logprobs) == list(label_ids)
    for label, value in expected.items():
        assert scores.logprobs[label] == pytest.approx(value, abs=1e-9)
    assert math.fsum(scores.probs().values()) == pytest.approx(1, abs=1e-12)


def test_single_id_labels_are_the_softmax_of_their_logits() -> None:
    """No normaliser over the vocabulary is needed, or asked for: one forward, a few logits."""
    trie = LabelTrie.build({"a": (7,), "b": (3,), "c": (9,)})
    assert trie.branches == () and trie.first_ids == (7, 3, 9)
    logits = np.array([1.0, -2.0, 0.5], dtype=np.float32)
    expected = logits - np.logaddexp.reduce(logits.astype(np.float64))
    np.testing.assert_allclose(list(label_logprobs(trie, logits, {}, {0}).values()), expected, atol=1e-12)


@pytest.mark.parametrize("num_input", [5, 15, 16, 17, 31, 32, 33])
@pytest.mark.parametrize("num_branch", [1, 3, 15])
def test_single_branch_costs_no_second_step(byte_tokenizer: ByteTokenizer, num_input: int, num_branch: int) -> None:
    """One two-token label (中性) once made every sentiment wait for a second pass over the weights. Its first ids ride
    along with the input, wherever the cuts into chunks (here of 16) fall.
    """
    backend = RecordingBackend()
    ids = tuple(range(100, 100 + num_input))
    long = tuple(range(7, 8 + num_branch))
    label_ids = {"a": (1,), "b": (2,), "long": long}
    with Engine(backend, byte_tokenizer, max_batch_tokens=32) as engine:
        scores = engine.score(ScoreRequest(prefix_ids=(), input_ids=ids, label_ids=label_ids))
    fed = [tuple(chunk.input_ids) for batch in backend.batches for chunk in batch]
    whole = ids + long[:-1]
    assert fed == [whole[start : start + 16] for start in range(0, len(whole), 16)]
    assert len({chunk.sequence for batch in backend.batches for chunk in batch}) == 1
    expected = reference(RecordingBackend(), label_ids, byte_tokenizer.stop_ids, prompt=ids)
    assert scores.logprobs == pytest.approx(expected, abs=1e-9)
    assert scores.usage.num_prompt_tokens == num_input, "label ids are no part of the prompt"


def test_several_branches_are_one_second_step(backend: RecordingBackend, engine: Engine) -> None:
    """They cannot all follow the input in one sequence: one forked batch, and few logits in the first step."""
    label_ids = {"a": (1, 2), "b": (3, 4, 5), "c": (6,)}
    engine.score(ScoreRequest(prefix_ids=(), input_ids=PROMPT, label_ids=label_ids))
    assert [[tuple(chunk.input_ids) for chunk in batch] for batch in backend.batches] == [[PROMPT], [(1,), (3, 4)]]
    assert [chunk.wanted for chunk in backend.batches[0]] == ["token_logits"]


def test_subset_of_labels_is_renormalised(fake_backend: FakeBackend, byte_tokenizer: ByteTokenizer) -> None:
    """`--labels` restricts and renormalises: proportions among the labels that stay do not change."""
    label_ids = {"x": (1, 2), "y": (1, 3), "z": (4,), "w": (5, 6, 7)}
    with Engine(fake_backend, byte_tokenizer) as engine:
        whole = engine.score(ScoreRequest(prefix_ids=(), input_ids=PROMPT, label_ids=label_ids)).logprobs
        for kept in itertools.combinations(label_ids, 2):
            subset = {label: label_ids[label] for label in kept}
            part = engine.score(ScoreRequest(prefix_ids=(), input_ids=PROMPT, label_ids=subset)).logprobs
            assert part[kept[0]] - part[kept[1]] == pytest.approx(whole[kept[0]] - whole[kept[1]], abs=1e-9)


def test_order_of_labels_changes_no_number(fake_backend: FakeBackend, byte_tokenizer: ByteTokenizer) -> None:
    """Labels are a set with names; results come in task order."""
    label_ids = {"a": (1,), "b": (1, 2), "c": (1, 2, 3), "d": (9, 9)}
    with Engine(fake_backend, byte_tokenizer) as engine:
        one = engine.score(ScoreRequest(prefix_ids=(), input_ids=PROMPT, label_ids=label_ids)).logprobs
        turned = dict(reversed(label_ids.items()))
        other = engine.score(ScoreRequest(prefix_ids=(), input_ids=PROMPT, label_ids=turned)).logprobs
    assert list(other) == list(turned)
    assert all(one[label] == pytest.approx(other[label], abs=1e-12) for label in one)


@pytest.mark.parametrize(
    ("label_ids", "message"),
    [({}, "no labels"), ({"a": ()}, "'a' has no token ids"), ({"a": (1, 2), "b": (1, 2)}, "'a' and 'b' have the same")],
)
def test_labels_that_cannot_be_told_apart_are_refused(label_ids: dict[str, tuple[int, ...]], message: str) -> None:
    """Before anything runs, and naming the labels."""
    with pytest.raises(VerbalizerError, match=message):
        LabelTrie.build(label_ids)


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_logits_that_are_not_numbers_are_an_error(byte_tokenizer: ByteTokenizer, bad: float) -> None:
    """A broken model must not quietly choose the first label."""

    class Broken(FakeBackend):
        def _logits(self, node: Any) -> FloatArray:
            return np.full(self.info.vocab_size, bad, dtype=np.float32)

    with Engine(Broken(), byte_tokenizer) as engine:
        for label_ids in ({"a": (1,), "b": (2,)}, {"a": (1, 2), "b": (1, 3)}):
            with pytest.raises(ModelError, match="not numbers"):
                engine.score(ScoreRequest(prefix_ids=(), input_ids=PROMPT, label_ids=label_ids))
