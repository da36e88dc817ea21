"""Drafted tokens get the bits that they would get one by one: what makes speculative decoding exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from onnx_models import VARIANTS, compiled

from allinone.backends.base import Chunk, FloatArray, SequenceId
from allinone.backends.onnx.backend import OnnxBackend
from allinone.backends.onnx.manifest import Quantization

IDS = tuple(int(i) for i in np.random.default_rng(11).integers(0, 512, 400))


@pytest.fixture(scope="module", params=[(name, kind) for name in VARIANTS for kind in ("int8", "float32")], ids=str)
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OnnxBackend:
    """Every variant of the family, in both kinds of weights."""
    name, quantization = request.param
    kind: Quantization = quantization
    return OnnxBackend.load(compiled(tmp_path_factory.mktemp("model"), VARIANTS[name], kind))


def steps(backend: OnnxBackend, sequence: SequenceId, ids: Sequence[int]) -> FloatArray:
    """Logits after each id, fed one by one."""
    rows = [backend.extend([Chunk(sequence=sequence, input_ids=(one,), wanted="last_logits")])[0] for one in ids]
    return np.stack([row for row in rows if row is not None])


def draft(backend: OnnxBackend, sequence: SequenceId, ids: Sequence[int]) -> FloatArray:
    """The same, fed as one draft."""
    chunk = Chunk(sequence=sequence, input_ids=tuple(ids), wanted="tail_logits", num_rows=len(ids), is_draft=True)
    (rows,) = backend.extend([chunk])
    assert rows is not None
    return rows


@pytest.mark.parametrize(("num_prefix", "num_past"), [(0, 0), (0, 7), (40, 0), (40, 1), (17, 30), (64, 200), (0, 300)])
@pytest.mark.parametrize("num_drafted", [2, 5, 16, 40])
def test_a_draft_equals_single_steps(backend: OnnxBackend, num_prefix: int, num_past: int, num_drafted: int) -> None:
    """With and without prefix and past, short and long; and what follows, once part of the draft was taken back."""
    prefix = backend.fork()
    if num_prefix:
        backend.extend([Chunk(sequence=prefix, input_ids=IDS[:num_prefix])])
    one_by_one, drafted = backend.fork(prefix), backend.fork(prefix)
    past, rest = IDS[num_prefix : num_prefix + num_past], IDS[num_prefix + num_past :]
    for sequence in (one_by_one, drafted):
        if past:
            backend.extend([Chunk(sequence=sequence, input_ids=past)])
    np.testing.assert_array_equal(
        draft(backend, drafted, rest[:num_drafted]), steps(backend, one_by_one, rest[:num_drafted])
    )
    kept = num_prefix + num_past + num_drafted // 2
    for sequence in (one_by_one, drafted):
        backend.trim(sequence, kept)
    other = rest[50:54]
    np.testing.assert_array_equal(steps(backend, drafted, other), steps(backend, one_by_one, other))
    np.testing.assert_array_equal(draft(backend, drafted, rest[60:63]), steps(backend, one_by_one, rest[60:63]))
    for sequence in (prefix, one_by_one, drafted):
        backend.free(sequence)


def test_a_draft_leaves_its_neighbours_alone(backend: OnnxBackend) -> None:
    """Beside streams that share a block with it, beside another draft and a prefill, in one batch."""
    prefix = backend.fork()
    backend.extend([Chunk(sequence=prefix, input_ids=IDS[:20])])
    streams = [backend.fork(prefix) for _ in range(3)]
    alone = [backend.fork(prefix) for _ in range(3)]
    for place, (left, right) in enumerate(zip(streams, alone, strict=True)):
        past = IDS[30 : 40 + place]
        backend.extend([Chunk(sequence=left, input_ids=past)])
        backend.extend([Chunk(sequence=right, input_ids=past)])
    backend.extend([Chunk(sequence=one, input_ids=(5,)) for one in streams])  # now they sit side by side
    for one in alone:
        backend.extend([Chunk(sequence=one, input_ids=(5,))])
    batch = [
        Chunk(sequence=streams[0], input_ids=IDS[50:56], wanted="tail_logits", num_rows=6, is_draft=True),
        Chunk(sequence=streams[1], input_ids=IDS[60:61], wanted="last_logits"),
        Chunk(sequence=streams[2], input_ids=IDS[70:74], wanted="tail_logits", num_rows=4, is_draft=True),
    ]
    mixed = backend.extend(batch)
    for one, rows, ids in zip(alone, mixed, (IDS[50:56], IDS[60:61], IDS[70:74]), strict=True):
        assert rows is not None
        np.testing.assert_array_equal(np.atleast_2d(rows), steps(backend, one, ids))
    for left, right in zip(streams, alone, strict=True):
        np.testing.assert_array_equal(steps(backend, left, IDS[80:83]), steps(backend, right, IDS[80:83]))
    for one in (prefix, *streams, *alone):
        backend.free(one)
