"""Memory of keys and values: what is left of a batch does not keep the whole of it."""

from __future__ import annotations

import gc
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from onnx_models import compiled, small_config

from allinone.backends.base import Chunk
from allinone.backends.onnx.backend import OnnxBackend
from allinone.backends.onnx.kv_cache import KVBlock

NUM_IDLE = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled int8 model."""
    return compiled(tmp_path_factory.mktemp("model"), small_config())


def held_bytes() -> int:
    """Of all blocks that are alive and belong to sequences."""
    gc.collect()
    blocks = [one for one in gc.get_objects() if type(one) is KVBlock and not one.is_frozen]
    return sum(layer.both.nbytes for block in blocks for layer in block.layers)


def test_idle_sequences_hold_their_own_tokens_only(folder: Path) -> None:
    """Conversations that once shared a batch with long ones pinned its whole grid: memory grew past every budget."""
    before = held_bytes()
    rng = np.random.default_rng(0)
    with closing(OnnxBackend.load(folder)) as backend:
        idle = []
        for _ in range(NUM_IDLE):
            sequences = [backend.fork() for _ in range(8)]
            lengths = [12, *rng.integers(100, 120, 7).tolist()]
            for step in range(3):  # together: one grid as wide as the longest
                sizes = lengths if step == 0 else [1] * 8
                backend.extend(
                    [
                        Chunk(sequence=sequence, input_ids=tuple(rng.integers(0, 512, size).tolist()))
                        for sequence, size in zip(sequences, sizes, strict=True)
                    ]
                )
            idle.append(sequences[0])
            for sequence in sequences[1:]:
                backend.free(sequence)
        tokens = sum(backend.num_cached_tokens(sequence) for sequence in idle)
        assert tokens == NUM_IDLE * 14
        assert held_bytes() - before <= 4 * tokens * backend.info.kv_bytes_per_token
        for sequence in idle:
            backend.free(sequence)
    assert held_bytes() <= before


def test_sequences_that_stay_behind_hold_little_more_than_their_tokens(folder: Path) -> None:
    """Five of eight streams end and wait for their next turn while the others go on: their old grid was kept for them.

    Such grids came to 700 MB in a server with 500 clients, against a budget of 300.
    """
    before = held_bytes()
    rng = np.random.default_rng(1)
    with closing(OnnxBackend.load(folder)) as backend:
        speaking = [backend.fork() for _ in range(8)]
        everybody = list(speaking)
        sizes = rng.integers(40, 60, 8).tolist()
        while speaking:
            for step in range(40):
                backend.extend(
                    [
                        Chunk(
                            sequence=sequence, input_ids=tuple(rng.integers(0, 512, size if step == 0 else 1).tolist())
                        )
                        for sequence, size in zip(speaking, sizes, strict=False)
                    ]
                )
            speaking = speaking[5:]
        tokens = sum(-(-backend.num_cached_tokens(sequence) // 16) * 16 for sequence in everybody)
        assert held_bytes() - before <= 1.3 * tokens * backend.info.kv_bytes_per_token
        for sequence in everybody:
            backend.free(sequence)
    assert held_bytes() <= before


def test_sequence_that_was_moved_computes_as_if_it_had_not_been(folder: Path) -> None:
    """Bit for bit: the numbers of a sequence do not depend on where its past lies."""
    rng = np.random.default_rng(1)
    ids = tuple(rng.integers(0, 512, 20).tolist())
    with closing(OnnxBackend.load(folder)) as backend:

        def logits(*, in_company: bool) -> np.ndarray:
            own = backend.fork()
            others = [backend.fork() for _ in range(6 * in_company)]
            backend.extend(
                [Chunk(sequence=own, input_ids=ids)]
                + [Chunk(sequence=one, input_ids=tuple(rng.integers(0, 512, 90).tolist())) for one in others]
            )
            backend.extend([Chunk(sequence=one, input_ids=(7,)) for one in (own, *others)])
            fork = backend.fork(own)
            for one in others:
                backend.free(one)  # what is left is moved
            outputs = backend.extend([Chunk(sequence=one, input_ids=(9,), wanted="last_logits") for one in (own, fork)])
            backend.free(own)
            backend.free(fork)
            assert outputs[0] is not None and outputs[1] is not None
            assert np.array_equal(outputs[0], outputs[1])
            return outputs[0].copy()

        assert np.array_equal(logits(in_company=True), logits(in_company=False))
