"""One suite for every backend: what `Backend` promises, and what the engine builds on.

To add a backend: one entry in `BACKENDS`. `exact` says which equalities hold bit for bit there; the others hold within
`tolerance` (largest difference of logits whose standard deviation is about one). `is_exact_by_row`: the logits of one
position are the same bits however many positions are wanted; torch multiplies one row by another kernel than many.
llama.cpp keeps keys and values as float16, so sums in another order differ in its last bits.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from allinone.backends.base import Backend, Chunk, FloatArray, SequenceId, Wanted
from allinone.backends.fake import FakeBackend
from allinone.backends.onnx.manifest import Quantization
from allinone.errors import ContextLengthExceeded, InvalidInput, UsageError
from allinone.models.random_weights import RandomWeights
from gguf_files import write_gguf

Builder = Callable[[RandomWeights, Path], Backend]


@dataclass(frozen=True)
class Spec:
    """How to make a backend from the tiny weights, and how exact it is."""

    build: Builder
    tolerance: float
    is_exact: bool
    is_exact_by_row: bool = True


def _fake(weights: RandomWeights, folder: Path) -> Backend:
    config = weights.config
    return FakeBackend(vocab_size=config.vocab_size, max_context_tokens=config.max_context_tokens)


def _onnx_float32(weights: RandomWeights, folder: Path) -> Backend:
    return _onnx(weights, folder, "float32")


def _onnx_int8(weights: RandomWeights, folder: Path) -> Backend:
    return _onnx(weights, folder, "int8")


def _onnx(weights: RandomWeights, folder: Path, quantization: Quantization) -> Backend:
    from allinone.backends.onnx.backend import OnnxBackend
    from allinone.backends.onnx.compile import compile_weights

    compile_weights(weights, folder, quantization=quantization)
    return OnnxBackend.load(folder)


def _transformers(weights: RandomWeights, folder: Path) -> Backend:
    from allinone.backends.transformers import TransformersBackend

    return TransformersBackend.from_source(weights)


def _llamacpp(weights: RandomWeights, folder: Path) -> Backend:
    from allinone.backends.llamacpp.backend import LlamaCppBackend

    return LlamaCppBackend.load(write_gguf(weights, folder / "tiny.gguf"))


BACKENDS = {
    "fake": pytest.param(Spec(_fake, 0.0, True), id="fake"),
    "onnx-float32": pytest.param(Spec(_onnx_float32, 1e-4, True), id="onnx-float32"),
    "onnx-int8": pytest.param(Spec(_onnx_int8, 0.1, True), id="onnx-int8"),
    "transformers": pytest.param(
        Spec(_transformers, 1e-4, True, is_exact_by_row=False), id="transformers", marks=pytest.mark.real_model
    ),
    "llamacpp": pytest.param(Spec(_llamacpp, 1e-2, False), id="llamacpp", marks=pytest.mark.llamacpp),
}


@pytest.fixture(scope="module", params=BACKENDS.values())
def spec(request: pytest.FixtureRequest) -> Spec:
    """The backend under test."""
    return request.param


@pytest.fixture(scope="module")
def shared_backend(spec: Spec, tiny_weights: RandomWeights, tmp_path_factory: pytest.TempPathFactory) -> Backend:
    """Built once per kind of backend: building may take a second."""
    return spec.build(tiny_weights, tmp_path_factory.mktemp("model"))


@pytest.fixture
def backend(shared_backend: Backend) -> Backend:
    """Every test gives back what it forked."""
    assert shared_backend.num_sequences() == 0
    return shared_backend


IDS = tuple(int(i) for i in np.random.default_rng(7).integers(0, 256, 200))


def feed(
    backend: Backend, sequence: SequenceId, ids: Sequence[int], wanted: Wanted = "last_logits", num_rows: int = 1
) -> FloatArray:
    """One chunk alone; its numbers."""
    output = backend.extend([Chunk(sequence=sequence, input_ids=tuple(ids), wanted=wanted, num_rows=num_rows)])[0]
    assert output is not None
    return output


def fresh_logits(backend: Backend, *chunks: Sequence[int]) -> FloatArray:
    """Last logits after these chunks, in a sequence of their own that is given back."""
    sequence = backend.fork()
    for ids in chunks[:-1]:
        backend.extend([Chunk(sequence=sequence, input_ids=tuple(ids))])
    logits = feed(backend, sequence, chunks[-1])
    backend.free(sequence)
    return logits


def assert_close(spec: Spec, left: FloatArray, right: FloatArray) -> None:
    """Equal within the backend's tolerance; exactly equal where that is zero."""
    np.testing.assert_allclose(left, right, rtol=0, atol=spec.tolerance)


def assert_same(spec: Spec, left: FloatArray, right: FloatArray) -> None:
    """Bit-equal where the backend promises it."""
    if spec.is_exact:
        np.testing.assert_array_equal(left, right)
    else:
        assert_close(spec, left, right)


def test_outputs_have_the_shapes_and_types_that_were_asked_for(backend: Backend) -> None:
    """Everything above reads these arrays without checking them."""
    vocab, hidden = backend.info.vocab_size, backend.info.hidden_size
    sequences = [backend.fork() for _ in range(6)]
    wishes: list[tuple[Wanted, tuple[int, ...], int]] = [
        ("nothing", (), 1), ("last_logits", (), 1), ("token_logits", (3, 1, 200), 1), ("tail_logits", (), 6),
        ("tail_logits", (), 1), ("last_hidden", (), 1),
    ]  # fmt: skip
    batch = [
        Chunk(sequence=s, input_ids=IDS[:6], wanted=w, token_ids=t, num_rows=n)
        for s, (w, t, n) in zip(sequences, wishes, strict=True)
    ]
    outputs = backend.extend(batch)
    shapes = [None if output is None else output.shape for output in outputs]
    assert shapes == [None, (vocab,), (3,), (6, vocab), (1, vocab), (hidden,)]
    assert all(output is None or output.dtype == np.float32 for output in outputs)
    assert all(output is None or np.isfinite(output).all() for output in outputs)
    for sequence in sequences:
        backend.free(sequence)


def test_logits_depend_on_every_id_before(backend: Backend) -> None:
    """Otherwise all the equalities below would prove nothing."""
    whole = fresh_logits(backend, IDS[:40])
    for changed in (0, 20, 39):
        ids = [*IDS[:changed], (IDS[changed] + 1) % 256, *IDS[changed + 1 : 40]]
        assert np.abs(fresh_logits(backend, ids) - whole).max() > 1e-3, f"id {changed} does not matter"
    assert np.abs(fresh_logits(backend, IDS[39::-1]) - whole).max() > 1e-3, "order does not matter"


def test_same_question_gives_the_same_bits(backend: Backend, spec: Spec) -> None:
    """Repeatable: what the result cache and every other equality rests on."""
    assert_same(spec, fresh_logits(backend, IDS[:50]), fresh_logits(backend, IDS[:50]))


def test_cached_equals_uncached(backend: Backend, spec: Spec) -> None:
    """A prefix that is there already changes nothing: the claim the whole product is built on."""
    prefix = backend.fork()
    backend.extend([Chunk(sequence=prefix, input_ids=IDS[:64])])
    cold = fresh_logits(backend, IDS[:64], IDS[64:92])
    for _ in range(3):
        fork = backend.fork(prefix)
        assert backend.num_cached_tokens(fork) == 64
        assert_same(spec, feed(backend, fork, IDS[64:92]), cold)
        backend.free(fork)
    assert_close(spec, cold, fresh_logits(backend, IDS[:92]))
    backend.free(prefix)


@pytest.mark.parametrize("sizes", [(1,) * 12, (5, 1, 6), (11, 1), (16, 16, 1, 1, 7), (33, 64)])
def test_chunked_prefill_equals_one_shot(backend: Backend, spec: Spec, sizes: tuple[int, ...]) -> None:
    """Long prompts are fed in pieces; where the cuts are must not matter."""
    ends = np.cumsum(sizes).tolist()
    chunks = [IDS[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    assert_close(spec, fresh_logits(backend, *chunks), fresh_logits(backend, IDS[: ends[-1]]))


def test_batched_equals_single_for_mixed_prefixes_lengths_and_pasts(backend: Backend, spec: Spec) -> None:
    """A request's numbers do not depend on its neighbours, whatever their task, length and past."""
    rng = np.random.default_rng(3)
    prefixes = [backend.fork() for _ in range(3)]
    for prefix, length in zip(prefixes, (17, 64, 40), strict=True):
        backend.extend([Chunk(sequence=prefix, input_ids=IDS[:length])])
    plans = [(int(rng.integers(3)), int(rng.integers(3)) * 13, int(rng.integers(2, 60))) for _ in range(12)]
    plans += [(1, 33, 1), (0, 5, 1), (2, 0, 1)]  # decode steps among prefills

    def chunk(prefix: int, past: int, length: int) -> Chunk:
        sequence = backend.fork(prefixes[prefix])
        if past:
            backend.extend([Chunk(sequence=sequence, input_ids=IDS[100 : 100 + past])])
        return Chunk(sequence=sequence, input_ids=IDS[140 - length : 140], wanted="last_logits")

    single = [chunk(*plan) for plan in plans]
    alone = [backend.extend([one])[0] for one in single]
    batch = [chunk(*plan) for plan in plans]
    together = backend.extend(batch)
    for one, many in zip(alone, together, strict=True):
        assert one is not None and many is not None
        assert_same(spec, one, many)
    _free(backend, *prefixes, *(one.sequence for one in (*single, *batch)))


def test_order_of_a_batch_is_irrelevant(backend: Backend, spec: Spec) -> None:
    """The scheduler orders by arrival and length; answers must not."""
    lengths = (3, 50, 1, 16, 17, 1, 31)

    def run(order: Sequence[int]) -> dict[int, FloatArray | None]:
        batch = [Chunk(sequence=backend.fork(), input_ids=IDS[: lengths[i]], wanted="last_logits") for i in order]
        outputs = dict(zip(order, backend.extend(batch), strict=True))
        _free(backend, *(chunk.sequence for chunk in batch))
        return outputs

    forwards, backwards = run(range(7)), run(range(6, -1, -1))
    for place in range(7):
        one, other = forwards[place], backwards[place]
        assert one is not None and other is not None
        assert_same(spec, one, other)


def test_decode_batch_equals_single_decode(backend: Backend, spec: Spec) -> None:
    """Streams that run together say what each would say alone."""

    def decode(together: bool) -> list[FloatArray]:
        sequences = [backend.fork() for _ in range(4)]
        for place, sequence in enumerate(sequences):
            backend.extend([Chunk(sequence=sequence, input_ids=IDS[: 9 + 20 * place])])
        outputs: list[FloatArray] = []
        for step in range(3):
            batch = [Chunk(sequence=s, input_ids=(IDS[step],), wanted="last_logits") for s in sequences]
            rounds = [batch] if together else [[one] for one in batch]
            outputs += [output for part in rounds for output in backend.extend(part) if output is not None]
        for sequence in sequences:
            backend.free(sequence)
        return outputs

    for one, many in zip(decode(False), decode(True), strict=True):
        assert_same(spec, one, many)


@pytest.mark.parametrize("num_past", [0, 3, 50])
def test_draft_equals_single_steps(backend: Backend, spec: Spec, num_past: int) -> None:
    """Drafted tokens get the numbers that they would get one by one, and can be taken back."""
    prefix = backend.fork()
    backend.extend([Chunk(sequence=prefix, input_ids=IDS[:20])])
    drafted, single = backend.fork(prefix), backend.fork(prefix)
    for sequence in (drafted, single):
        if num_past:
            backend.extend([Chunk(sequence=sequence, input_ids=IDS[20 : 20 + num_past])])
    ids = IDS[100:106]
    chunk = Chunk(sequence=drafted, input_ids=ids, wanted="tail_logits", num_rows=6, is_draft=True)
    (rows,) = backend.extend([chunk])
    assert rows is not None and rows.shape == (6, backend.info.vocab_size)
    expected = np.stack([feed(backend, single, (one,)) for one in ids])
    for sequence in (drafted, single):
        backend.trim(sequence, 20 + num_past + 4)
    pairs = ((rows, expected), (feed(backend, drafted, IDS[120:121]), feed(backend, single, IDS[120:121])))
    for found, one_by_one in pairs:
        assert_close(spec, found, one_by_one)
        if backend.info.has_exact_drafts:
            np.testing.assert_array_equal(found, one_by_one)
    for sequence in (drafted, single, prefix):
        backend.free(sequence)


def test_token_logits_are_entries_of_last_logits(backend: Backend, spec: Spec) -> None:
    """Label tasks ask for a few logits only; they must be the same numbers."""
    tokens = (5, 250, 0, 5)
    whole = fresh_logits(backend, IDS[:30])
    sequence = backend.fork()
    some = backend.extend([Chunk(sequence=sequence, input_ids=IDS[:30], wanted="token_logits", token_ids=tokens)])[0]
    assert some is not None
    assert_same(spec, some, whole[list(tokens)])
    backend.free(sequence)


def test_tail_logits_are_the_last_logits_of_each_position(backend: Backend, spec: Spec) -> None:
    """The row of a position is what last_logits says there; asking for fewer rows changes none of them."""
    sequence = backend.fork()
    rows = feed(backend, sequence, IDS[:20], "tail_logits", 20)
    backend.free(sequence)
    for length in (1, 7, 20):
        assert_close(spec, rows[length - 1], fresh_logits(backend, IDS[:length]))
    assert_rows = assert_same if spec.is_exact_by_row else assert_close
    assert_rows(spec, rows[19], fresh_logits(backend, IDS[:20]))
    for num_rows in (1, 2, 5):
        sequence = backend.fork()
        assert_rows(spec, feed(backend, sequence, IDS[:20], "tail_logits", num_rows), rows[-num_rows:])
        backend.free(sequence)


def test_trim_then_extend_equals_fresh(backend: Backend, spec: Spec) -> None:
    """A turn taken back leaves nothing behind, also when the cut is inside a shared prefix."""
    prefix = backend.fork()
    backend.extend([Chunk(sequence=prefix, input_ids=IDS[:40])])
    for keep in (70, 55, 40, 23, 1, 0):
        sequence = backend.fork(prefix)
        backend.extend([Chunk(sequence=sequence, input_ids=IDS[40:55])])
        backend.extend([Chunk(sequence=sequence, input_ids=IDS[55:70])])
        backend.trim(sequence, keep)
        assert backend.num_cached_tokens(sequence) == keep
        logits = feed(backend, sequence, IDS[100:120])
        assert_close(spec, logits, fresh_logits(backend, [*IDS[:keep], *IDS[100:120]]))
        backend.free(sequence)
    assert backend.num_cached_tokens(prefix) == 40
    backend.free(prefix)


def test_source_and_fork_do_not_touch_each_other(backend: Backend, spec: Spec) -> None:
    """Extend, trim and free on either side of a fork, in both directions, also of forks of forks."""
    source = backend.fork()
    backend.extend([Chunk(sequence=source, input_ids=IDS[:30])])
    backend.extend([Chunk(sequence=source, input_ids=IDS[30:45])])
    expected = fresh_logits(backend, IDS[:30], IDS[30:45], IDS[60:70])
    fork = backend.fork(source)
    grandchild = backend.fork(fork)
    backend.extend([Chunk(sequence=source, input_ids=IDS[120:140])])
    assert_same(spec, feed(backend, fork, IDS[60:70]), expected)
    backend.trim(fork, 12)
    backend.trim(source, 45)
    assert_same(spec, feed(backend, source, IDS[60:70]), expected)
    backend.free(source)
    backend.free(fork)
    assert backend.num_cached_tokens(grandchild) == 45
    assert_same(spec, feed(backend, grandchild, IDS[60:70]), expected)
    backend.free(grandchild)


def test_free_gives_everything_back(backend: Backend) -> None:
    """No sequence and no memory stays: a server runs for months."""
    import tracemalloc

    def work() -> None:
        source = backend.fork()
        backend.extend([Chunk(sequence=source, input_ids=IDS[:100])])
        forks = [backend.fork(source) for _ in range(4)]
        backend.extend([Chunk(sequence=fork, input_ids=IDS[100:120]) for fork in forks])
        for sequence in (source, *forks):
            backend.free(sequence)

    work()
    gc.collect()
    tracemalloc.start()
    work()
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(20):
        work()
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert backend.num_sequences() == 0
    fed = 20 * 180 * backend.info.kv_bytes_per_token
    assert grown < fed / 4, f"{grown} bytes stay after 20 rounds of {fed // 20}"


def test_context_overflow_is_refused_and_changes_nothing(backend: Backend, spec: Spec) -> None:
    """The whole batch is refused before any sequence grows, so the engine can go on."""
    context = backend.info.max_context_tokens
    long, short = backend.fork(), backend.fork()
    filler = [IDS[i % 200] for i in range(context - 3)]
    backend.extend([Chunk(sequence=long, input_ids=filler), Chunk(sequence=short, input_ids=IDS[:8])])
    with pytest.raises(ContextLengthExceeded, match=str(context)):
        backend.extend([Chunk(sequence=short, input_ids=IDS[8:12]), Chunk(sequence=long, input_ids=IDS[:4])])
    assert backend.num_cached_tokens(short) == 8
    assert backend.num_cached_tokens(long) == context - 3
    assert_close(spec, feed(backend, short, IDS[8:12]), fresh_logits(backend, IDS[:12]))
    assert feed(backend, long, IDS[:3]).shape == (backend.info.vocab_size,)
    _free(backend, long, short)


def test_impossible_requests_are_refused(backend: Backend) -> None:
    """A programming error above must not become wrong numbers below."""
    sequence = backend.fork()
    backend.extend([Chunk(sequence=sequence, input_ids=IDS[:4])])
    gone = backend.fork()
    backend.free(gone)
    with pytest.raises(UsageError):
        backend.extend([Chunk(sequence=sequence, input_ids=())])
    with pytest.raises(UsageError):
        backend.extend([Chunk(sequence=sequence, input_ids=(1,)), Chunk(sequence=sequence, input_ids=(2,))])
    for bad in (
        Chunk(sequence=sequence, input_ids=(backend.info.vocab_size,)),
        Chunk(sequence=sequence, input_ids=(1,), wanted="token_logits"),
        Chunk(sequence=sequence, input_ids=(1,), wanted="token_logits", token_ids=(-1,)),
        Chunk(sequence=sequence, input_ids=(1, 2), wanted="tail_logits", num_rows=3),
        Chunk(sequence=sequence, input_ids=(1, 2), wanted="tail_logits", num_rows=0),
        Chunk(sequence=sequence, input_ids=(1, 2), wanted="last_logits", num_rows=2),
    ):
        with pytest.raises(InvalidInput):
            backend.extend([bad])
    with pytest.raises(UsageError):
        backend.trim(sequence, 5)
    for use in (
        lambda: backend.extend([Chunk(sequence=gone, input_ids=(1,))]),
        lambda: backend.fork(gone),
        lambda: backend.trim(gone, 0),
        lambda: backend.free(gone),
        lambda: backend.num_cached_tokens(gone),
    ):
        with pytest.raises(UsageError):
            use()
    assert backend.num_cached_tokens(sequence) == 4
    backend.free(sequence)


def test_empty_batch_is_nothing(backend: Backend) -> None:
    """A step without work is harmless."""
    assert backend.extend([]) == []


def _free(backend: Backend, *sequences: SequenceId) -> None:
    for sequence in sequences:
        backend.free(sequence)
