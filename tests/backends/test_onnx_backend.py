"""The ONNX backend: answers are equal bit for bit, whoever shares the call; memory is shared and given back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import VARIANTS, compiled, small_config

import allinone.backends.onnx.backend as backend_module
import allinone.backends.onnx.compile as compile_module
from allinone.backends.base import Backend, Chunk, FloatArray, SequenceId, Wanted
from allinone.backends.cpu import CpuReport, detect_cpu
from allinone.backends.onnx.backend import OnnxBackend
from allinone.backends.onnx.manifest import MANIFEST_FILE, Quantization
from allinone.errors import InvalidInput, ModelError, RunError, WeightsMismatch, WeightsNotFound

VOCAB = 512
LABELS = (5, 77, 301)


@dataclass(frozen=True)
class Job:
    """One sequence's life: a prefix (None: its own), chunks of past, then a chunk whose numbers are wanted."""

    prefix: int | None
    past: tuple[tuple[int, ...], ...]
    ids: tuple[int, ...]
    wanted: Wanted


@pytest.fixture(scope="module", params=["qwen2_tied", "qwen2_grouped_untied", "qwen3"])
def int8_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled int8 model of each kind."""
    return compiled(tmp_path_factory.mktemp("model"), VARIANTS[request.param])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled int8 model."""
    return compiled(tmp_path_factory.mktemp("model"), small_config(num_kv_heads=2))


def random_ids(rng: np.random.Generator, count: int) -> tuple[int, ...]:
    return tuple(rng.integers(0, VOCAB, count).tolist())


def random_jobs(rng: np.random.Generator, count: int) -> list[Job]:
    """Mixed tasks, unequal lengths, pasts, single tokens, every kind of output."""
    kinds: list[Wanted] = ["last_logits", "token_logits", "tail_logits", "last_hidden"]
    jobs: list[Job] = []
    for _ in range(count):
        past = tuple(random_ids(rng, int(rng.choice([1, 2, 7, 30, 140]))) for _ in range(int(rng.integers(0, 3))))
        prefix = int(rng.integers(0, 4))
        ids = random_ids(rng, int(rng.choice([1, 1, 2, 3, 5, 16, 28, 61])))
        jobs.append(Job(None if prefix == 3 else prefix, past, ids, kinds[int(rng.integers(0, 4))]))
    return jobs


def run_jobs(backend: Backend, prefixes: Sequence[SequenceId], jobs: Sequence[Job]) -> list[FloatArray]:
    """All jobs side by side; then one more single token each, so that caches that were just written are read."""
    sequences = [backend.fork(None if job.prefix is None else prefixes[job.prefix]) for job in jobs]
    for turn in range(2):
        backend.extend(
            [
                Chunk(sequence=sequence, input_ids=job.past[turn])
                for sequence, job in zip(sequences, jobs, strict=True)
                if turn < len(job.past)
            ]
        )
    last = [
        Chunk(
            sequence=sequence,
            input_ids=job.ids,
            wanted=job.wanted,
            token_ids=LABELS if job.wanted == "token_logits" else (),
            num_rows=len(job.ids) // 2 + 1 if job.wanted == "tail_logits" else 1,
        )
        for sequence, job in zip(sequences, jobs, strict=True)
    ]
    first = backend.extend(last)
    second = backend.extend([Chunk(sequence=one, input_ids=(9,), wanted="last_logits") for one in sequences])
    for sequence in sequences:
        backend.free(sequence)
    return [
        np.concatenate([a.ravel(), b]) for a, b in zip(first, second, strict=True) if a is not None and b is not None
    ]


def make_prefixes(backend: Backend, rng: np.random.Generator) -> list[SequenceId]:
    prefixes = [backend.fork() for _ in range(3)]
    for prefix, length in zip(prefixes, (17, 64, 90), strict=True):
        backend.extend([Chunk(sequence=prefix, input_ids=random_ids(rng, length))])
    return prefixes


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_batched_equals_single_bit_for_bit(int8_folder: Path, num_threads: int) -> None:
    """Mixed tasks, unequal lengths, sequences with a past: neighbours and order change no bit."""
    backend = OnnxBackend.load(int8_folder, num_threads=num_threads)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        prefixes, jobs = make_prefixes(backend, rng), random_jobs(rng, 14)
        together = run_jobs(backend, prefixes, jobs)
        order = rng.permutation(len(jobs))
        shuffled = run_jobs(backend, prefixes, [jobs[index] for index in order])
        halves = run_jobs(backend, prefixes, jobs[:7]) + run_jobs(backend, prefixes, jobs[7:])
        for index, job in enumerate(jobs):
            (alone,) = run_jobs(backend, prefixes, [job])
            assert np.array_equal(together[index], alone), job
            assert np.array_equal(halves[index], alone), job
        for place, index in enumerate(order):
            assert np.array_equal(shuffled[place], together[index])
        for prefix in prefixes:
            backend.free(prefix)
    assert backend.num_sequences() == 0


def test_float_graph_batched_equals_single_bit_for_bit(tmp_path: Path) -> None:
    """The float graph has the same guarantee: it never multiplies a single row."""
    backend = OnnxBackend.load(compiled(tmp_path, VARIANTS["qwen2_tied"], "float32"), num_threads=2)
    rng = np.random.default_rng(5)
    prefixes, jobs = make_prefixes(backend, rng), random_jobs(rng, 12)
    for together, job in zip(run_jobs(backend, prefixes, jobs), jobs, strict=True):
        assert np.array_equal(together, run_jobs(backend, prefixes, [job])[0]), job


def test_cold_process_equals_warm_one(folder: Path) -> None:
    """A prefix that served a hundred others gives the same bits as one that was just prefilled elsewhere."""
    rng = np.random.default_rng(6)
    ids, text = random_ids(rng, 50), random_ids(rng, 20)

    def answer(backend: OnnxBackend, prefix: SequenceId) -> FloatArray | None:
        fork = backend.fork(prefix)
        (logits,) = backend.extend([Chunk(sequence=fork, input_ids=text, wanted="last_logits")])
        backend.free(fork)
        return logits

    warm = OnnxBackend.load(folder, num_threads=2)
    prefix = warm.fork()
    warm.extend([Chunk(sequence=prefix, input_ids=ids)])
    others = make_prefixes(warm, rng)
    run_jobs(warm, others, random_jobs(rng, 20))
    cold = OnnxBackend.load(folder, num_threads=2)
    cold_prefix = cold.fork()
    cold.extend([Chunk(sequence=cold_prefix, input_ids=ids)])
    assert np.array_equal(answer(warm, prefix), answer(cold, cold_prefix))


def test_sequence_does_not_notice_its_forks(folder: Path) -> None:
    """Where a sequence was forked, its own keys stay one piece; freezing must not show in any number."""
    backend = OnnxBackend.load(folder, num_threads=2)
    rng = np.random.default_rng(7)
    never_forked, forked = backend.fork(), backend.fork()
    for chunk in (
        random_ids(rng, 70),
        random_ids(rng, 12),
        random_ids(rng, 1),
        random_ids(rng, 64),
        random_ids(rng, 1),
    ):
        first, second = backend.extend(
            [Chunk(sequence=one, input_ids=chunk, wanted="last_logits") for one in (never_forked, forked)]
        )
        assert np.array_equal(first, second)
        fork = backend.fork(forked)
        backend.extend([Chunk(sequence=fork, input_ids=(1, 2, 3))])
        if len(chunk) > 1:
            backend.free(fork)


def test_trimmed_sequence_is_frozen_anew(folder: Path) -> None:
    """A fork made after a trim and new text must not read what was frozen before."""
    backend = OnnxBackend.load(folder, num_threads=1)
    rng = np.random.default_rng(14)
    start, old, new = (random_ids(rng, count) for count in (20, 30, 30))
    sequence, witness = backend.fork(), backend.fork()
    backend.extend([Chunk(sequence=sequence, input_ids=start), Chunk(sequence=witness, input_ids=start)])
    backend.extend([Chunk(sequence=sequence, input_ids=old)])
    backend.fork(sequence)
    backend.trim(sequence, len(start))
    backend.extend([Chunk(sequence=one, input_ids=new) for one in (sequence, witness)])
    forks = [backend.fork(one) for one in (sequence, witness)]
    outputs = backend.extend([Chunk(sequence=one, input_ids=(7,), wanted="last_logits") for one in forks])
    assert np.array_equal(*outputs)


def test_long_chunk_equals_itself_among_others(folder: Path) -> None:
    """Chunks are cut by their own length, so company does not move the cuts."""
    backend = OnnxBackend.load(folder, num_threads=2)
    rng = np.random.default_rng(8)
    long_ids, short_ids = random_ids(rng, 600), random_ids(rng, 30)
    alone, first, second, third = (backend.fork() for _ in range(4))
    (expected,) = backend.extend([Chunk(sequence=alone, input_ids=long_ids, wanted="tail_logits", num_rows=600)])
    found, tail, _ = backend.extend(
        [
            Chunk(sequence=first, input_ids=long_ids, wanted="tail_logits", num_rows=600),
            Chunk(sequence=second, input_ids=long_ids, wanted="tail_logits", num_rows=300),
            Chunk(sequence=third, input_ids=short_ids, wanted="last_logits"),
        ]
    )
    assert expected is not None
    assert expected.shape == (600, VOCAB)
    assert np.array_equal(expected, found)
    assert tail is not None and np.array_equal(tail, expected[300:])


def test_decoding_streams_that_come_and_go_equal_streams_alone(folder: Path) -> None:
    """Caches move when the company changes; no bit of an answer does."""
    backend = OnnxBackend.load(folder, num_threads=2)
    rng = np.random.default_rng(9)
    prompts = [random_ids(rng, int(rng.integers(2, 40))) for _ in range(6)]

    def decode(starts: Sequence[int], num_steps: int) -> list[list[int]]:
        sequences = {index: backend.fork() for index in starts}
        replies: dict[int, list[int]] = {index: [] for index in starts}
        for step in range(num_steps):
            active = [index for index in starts if index <= step and len(replies[index]) < 12 + 3 * index]
            chunks = [
                Chunk(
                    sequence=sequences[index],
                    input_ids=replies[index][-1:] or prompts[index],
                    wanted="last_logits",
                )
                for index in active
            ]
            for index, logits in zip(active, backend.extend(chunks), strict=True):
                assert logits is not None
                replies[index].append(int(logits.argmax()))
        for sequence in sequences.values():
            backend.free(sequence)
        return [replies[index] for index in starts]

    together = decode(range(6), 40)
    assert together == [decode([index], 40)[0] for index in range(6)]
    assert len({tuple(reply) for reply in together}) == 6


@pytest.mark.parametrize("variant", VARIANTS)
def test_token_logits_equal_the_entries_of_last_logits(variant: str, tmp_path: Path) -> None:
    """Labels are read from a few columns of the head; they are the same numbers, however many rows are asked for."""
    backend = OnnxBackend.load(compiled(tmp_path, VARIANTS[variant]), num_threads=2)
    rng = np.random.default_rng(10)
    texts = [random_ids(rng, 20) for _ in range(5)]
    label_sets = [(3, 4), (500, 3), (7,), (4, 3, 2, 1), LABELS]
    whole = backend.extend([Chunk(sequence=backend.fork(), input_ids=text, wanted="last_logits") for text in texts])
    some = backend.extend(
        [
            Chunk(sequence=backend.fork(), input_ids=text, wanted="token_logits", token_ids=labels)
            for text, labels in zip(texts, label_sets, strict=True)
        ]
    )
    for logits, found, labels in zip(whole, some, label_sets, strict=True):
        assert logits is not None
        assert np.array_equal(logits[list(labels)], found)


def test_unsigned_weights_give_the_same_bits(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU without exact signed products gets other kernels, not other answers."""
    cpu = detect_cpu()
    report = CpuReport(
        name=cpu.name, machine=cpu.machine, features=(), kernel="", weight_type="uint8", num_physical_cores=1
    )
    monkeypatch.setattr(compile_module, "detect_cpu", lambda: report)
    unsigned = OnnxBackend.load(compiled(tmp_path / "unsigned", small_config(num_kv_heads=2)), num_threads=1)
    signed = OnnxBackend.load(folder, num_threads=1)
    assert (unsigned.manifest.weight_type, signed.manifest.weight_type) == ("uint8", cpu.weight_type)
    ids = random_ids(np.random.default_rng(11), 40)
    for wanted in ("tail_logits", "token_logits"):
        labels = LABELS if wanted == "token_logits" else ()
        rows = len(ids) if wanted == "tail_logits" else 1
        first, second = (
            backend.extend(
                [Chunk(sequence=backend.fork(), input_ids=ids, wanted=wanted, token_ids=labels, num_rows=rows)]
            )[0]
            for backend in (unsigned, signed)
        )
        assert np.array_equal(first, second)


def test_fork_of_a_prefilled_sequence_copies_nothing(folder: Path) -> None:
    """A thousand requests of a task read one frozen prefix."""
    backend = OnnxBackend.load(folder)
    prefix = backend.fork()
    backend.extend([Chunk(sequence=prefix, input_ids=tuple(range(64)))])
    forks = [backend.fork(prefix) for _ in range(1000)]
    caches = [backend._sequences[fork] for fork in forks]
    shared = backend._sequences[prefix].frozen
    assert shared is not None
    assert all(cache.prefix is shared and cache.cell is None for cache in caches)
    assert shared.num_users == 1001
    for fork in forks:
        backend.free(fork)
    assert shared.num_users == 1


def test_fork_with_an_own_past_copies_only_when_written(folder: Path) -> None:
    """Both keep what they had; each then goes its own way."""
    backend = OnnxBackend.load(folder, num_threads=2)
    rng = np.random.default_rng(12)
    prefix, text = backend.fork(), random_ids(rng, 25)
    backend.extend([Chunk(sequence=prefix, input_ids=random_ids(rng, 30))])
    first = backend.fork(prefix)
    backend.extend([Chunk(sequence=first, input_ids=text)])
    second = backend.fork(first)
    assert backend._sequences[second].cell is not None
    assert backend._sequences[second].cell is backend._sequences[first].cell
    witness = backend.fork(prefix)
    backend.extend([Chunk(sequence=witness, input_ids=text)])
    backend.extend([Chunk(sequence=second, input_ids=(1, 2, 3))])
    outputs = backend.extend([Chunk(sequence=one, input_ids=(4,), wanted="last_logits") for one in (first, witness)])
    assert np.array_equal(*outputs)


def test_decoding_seldom_moves_the_past(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step writes its own token only; the past moves when its room is full, which grows with it."""
    backend = OnnxBackend.load(folder, num_threads=1)
    moves: list[int] = []
    gather = backend_module.gather_block

    def count(*arguments: Any) -> object:
        moves.append(1)
        return gather(*arguments)

    monkeypatch.setattr(backend_module, "gather_block", count)
    sequence = backend.fork()
    backend.extend([Chunk(sequence=sequence, input_ids=tuple(range(100)))])
    for _ in range(200):
        backend.extend([Chunk(sequence=sequence, input_ids=(1,))])
    assert 1 <= len(moves) <= 10


def test_freed_prefixes_are_not_kept_in_the_stack(folder: Path) -> None:
    """Several prefixes meet in one call as a stack; it goes when one of them goes."""
    backend = OnnxBackend.load(folder, num_threads=1)
    prefixes = make_prefixes(backend, np.random.default_rng(13))
    forks = [backend.fork(prefix) for prefix in prefixes]
    backend.extend([Chunk(sequence=fork, input_ids=(1, 2), wanted="last_logits") for fork in forks])
    assert any(any(key) for key in backend._stacks._stacks)
    for sequence in (forks[0], prefixes[0]):
        backend.free(sequence)
    assert not any(any(key) for key in backend._stacks._stacks)


def test_groups_of_prefixes_that_take_turns_are_stacked_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order of the batch; the answers are those of a backend that sees them for the first time."""
    from allinone.backends.onnx.kv_cache import PrefixStacks

    made: list[int] = []
    make = PrefixStacks._stack
    monkeypatch.setattr(PrefixStacks, "_stack", lambda self, key: (made.append(len(key)), make(self, key))[1])
    backend = OnnxBackend.load(folder, num_threads=1)
    prefixes = make_prefixes(backend, np.random.default_rng(13))
    assert len(prefixes) >= 3
    answers: dict[tuple[int, ...], list[bytes]] = {}
    for chosen in [(0, 1), (1, 2), (1, 0), (2, 1), (0, 1)]:
        forks = [backend.fork(prefixes[index]) for index in chosen]
        outputs = backend.extend([Chunk(sequence=fork, input_ids=(1, 2), wanted="last_logits") for fork in forks])
        found = [output.tobytes() for _, output in sorted(zip(chosen, outputs, strict=True)) if output is not None]
        assert answers.setdefault(tuple(sorted(chosen)), found) == found
        for fork in forks:
            backend.free(fork)
    assert [size for size in made if size > 1] == [2, 2]


@pytest.mark.parametrize(
    "chunk",
    [
        Chunk(sequence=SequenceId(1), input_ids=()),
        Chunk(sequence=SequenceId(1), input_ids=(VOCAB,)),
        Chunk(sequence=SequenceId(1), input_ids=(-1,)),
        Chunk(sequence=SequenceId(1), input_ids=(1,), wanted="token_logits"),
        Chunk(sequence=SequenceId(1), input_ids=(1,), wanted="token_logits", token_ids=(VOCAB,)),
        Chunk(sequence=SequenceId(99), input_ids=(1,)),
    ],
)
def test_bad_chunk_is_refused_and_changes_nothing(chunk: Chunk, folder: Path) -> None:
    """Ids index files and arrays: nothing outside the vocabulary may get that far."""
    backend = OnnxBackend.load(folder, num_threads=1)
    sequence = backend.fork()
    with pytest.raises(InvalidInput):
        backend.extend([chunk])
    assert backend.num_cached_tokens(sequence) == 0


def test_closed_backend_says_so(folder: Path) -> None:
    """Closing twice is fine; using it afterwards is an error with words."""
    backend = OnnxBackend.load(folder, num_threads=1)
    backend.close()
    backend.close()
    with pytest.raises(RunError, match="closed"):
        backend.extend([Chunk(sequence=backend.fork(), input_ids=(1,))])


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    """The message names the folder and what to do."""
    with pytest.raises(WeightsNotFound, match="import"):
        OnnxBackend.load(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "graph.onnx", "weights.bin", "embeddings.bin"])
def test_truncated_file_is_refused(name: str, tmp_path: Path) -> None:
    """Half a file never becomes half an answer."""
    folder = compiled(tmp_path, small_config())
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsMismatch, match="import"):
        OnnxBackend.load(folder)


def test_other_format_version_is_refused(tmp_path: Path) -> None:
    """A folder of a newer version is named, not misread."""
    folder = compiled(tmp_path, small_config())
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest | {"format_version": 99}))
    with pytest.raises(WeightsMismatch, match="99"):
        OnnxBackend.load(folder)


def test_inexact_int8_kernel_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that was carried to another CPU must not answer with saturated sums."""

    def refuse(weight_type: str) -> None:
        raise ModelError("wrong sums")

    monkeypatch.setattr(backend_module, "require_exact_int8", refuse)
    with pytest.raises(ModelError, match="wrong sums"):
        OnnxBackend.load(folder)


@pytest.mark.parametrize("quantization", ["int8", "float32"])
def test_info_describes_the_model(quantization: Quantization, tmp_path: Path) -> None:
    """What the engine plans memory with."""
    info = OnnxBackend.load(compiled(tmp_path, small_config(), quantization), num_threads=1).info
    assert (info.name, info.quantization, info.num_threads) == ("onnx", quantization, 1)
    assert info.kv_bytes_per_token == 2 * 4 * 3 * 4 * 16
    assert (info.vocab_size, info.hidden_size, info.max_context_tokens) == (512, 64, 1024)
