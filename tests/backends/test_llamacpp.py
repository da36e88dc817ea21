"""llama.cpp against the reference, beyond the contract suite: numbers, growth, many sequences, refusals, silence."""

from __future__ import annotations

import builtins
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allinone.backends.base import Chunk, FloatArray, SequenceId
from allinone.backends.llamacpp.backend import MAX_SEQUENCES, LlamaCppBackend
from allinone.backends.llamacpp.library import require_llama_cpp
from allinone.errors import CacheFull, ModelError, WeightsMismatch, WeightsNotFound
from allinone.models.random_weights import RandomWeights
from allinone.models.weights import ModelConfig
from conftest import tiny_config
from gguf_files import write_gguf

IDS = tuple(range(3, 60))


@pytest.fixture(scope="module")
def tiny_file(tiny_weights: RandomWeights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a GGUF."""
    return write_gguf(tiny_weights, tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture
def backend(tiny_file: Path) -> Iterator[LlamaCppBackend]:
    """On the tiny model, for one test."""
    backend = LlamaCppBackend.load(tiny_file, num_threads=1)
    yield backend
    backend.close()


def logits(backend: Any, sequence: SequenceId, ids: tuple[int, ...] = (9, 8, 7)) -> FloatArray:
    """Last logits after these ids."""
    (found,) = backend.extend([Chunk(sequence=sequence, input_ids=ids, wanted="last_logits")])
    assert found is not None
    return found


@pytest.mark.llamacpp
@pytest.mark.parametrize(
    "model",
    [
        tiny_config(),
        tiny_config(tie_word_embeddings=False, num_kv_heads=4),
        tiny_config(architecture="qwen3", head_dim=32),
    ],
    ids=["qwen2-grouped", "qwen2-untied", "qwen3"],
)
def test_logits_and_hidden_states_equal_those_of_the_onnx_graph(model: ModelConfig, tmp_path: Path) -> None:
    """Two engines that share no code, one model: as near as float16 keys and values allow."""
    from allinone.backends.onnx.backend import OnnxBackend
    from allinone.backends.onnx.compile import compile_weights

    weights = RandomWeights(model)
    (tmp_path / "compiled").mkdir()
    compile_weights(weights, tmp_path / "compiled", quantization="float32")
    found: list[tuple[FloatArray, FloatArray]] = []
    for backend in (
        LlamaCppBackend.load(write_gguf(weights, tmp_path / "tiny.gguf")),
        OnnxBackend.load(tmp_path / "compiled"),
    ):
        sequence = backend.fork()
        chunk = Chunk(sequence=sequence, input_ids=IDS, wanted="tail_logits", num_rows=len(IDS))
        (rows,) = backend.extend([chunk])
        (hidden,) = backend.extend([Chunk(sequence=sequence, input_ids=(5,), wanted="last_hidden")])
        assert rows is not None and hidden is not None
        found.append((rows, hidden))
        backend.close()
    np.testing.assert_allclose(found[0][0], found[1][0], atol=0.03)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=0.03)


@pytest.mark.llamacpp
def test_cache_grows_and_keeps_what_is_in_it(backend: LlamaCppBackend) -> None:
    """It starts small; a prefix and its forks live on in the larger one, bit by bit."""
    prefix = backend.fork()
    backend.extend([Chunk(sequence=prefix, input_ids=IDS)])
    before = logits(backend, backend.fork(prefix))
    early = backend.fork(prefix)
    backend.extend([Chunk(sequence=early, input_ids=IDS)])
    num_cells = backend._context._num_cells
    rng = np.random.default_rng(0)
    while backend._context._num_cells == num_cells:
        ids = tuple(int(i) for i in rng.integers(0, 256, 400))
        backend.extend([Chunk(sequence=backend.fork(prefix), input_ids=ids)])
    np.testing.assert_array_equal(logits(backend, backend.fork(prefix)), before)
    assert backend.num_cached_tokens(early) == 2 * len(IDS)
    fresh = backend.fork()
    backend.extend([Chunk(sequence=fresh, input_ids=IDS + IDS)])
    np.testing.assert_allclose(logits(backend, early), logits(backend, fresh), atol=1e-2)


@pytest.mark.llamacpp
def test_waiting_forks_need_no_sequence_of_llama_cpp(backend: LlamaCppBackend) -> None:
    """llama.cpp has 256; a burst of a thousand admitted requests must not fail, as only some run in a step."""
    prefix = backend.fork()
    backend.extend([Chunk(sequence=prefix, input_ids=IDS)])
    waiting = [backend.fork(prefix) for _ in range(1000)]
    expected = logits(backend, backend.fork(prefix))
    for sequence in waiting:
        np.testing.assert_array_equal(logits(backend, sequence), expected)
        backend.free(sequence)


@pytest.mark.llamacpp
def test_too_many_extended_sequences_are_refused_and_nothing_changes(backend: LlamaCppBackend) -> None:
    """A clear error that may work later; the sequences there are go on."""
    sequences = [backend.fork() for _ in range(MAX_SEQUENCES)]
    for start in range(0, MAX_SEQUENCES, 64):
        backend.extend([Chunk(sequence=one, input_ids=(1, 2)) for one in sequences[start : start + 64]])
    one_more = backend.fork()
    with pytest.raises(CacheFull, match="256 sequences"):
        backend.extend([Chunk(sequence=sequences[0], input_ids=(3,)), Chunk(sequence=one_more, input_ids=(1,))])
    assert backend.num_cached_tokens(sequences[0]) == 2 and backend.num_cached_tokens(one_more) == 0
    backend.free(sequences[1])
    assert logits(backend, one_more).shape == (backend.info.vocab_size,)


@pytest.mark.llamacpp
def test_a_step_that_fails_changes_nothing(backend: LlamaCppBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two passes fails: what the first one wrote is taken back."""
    sequence = backend.fork()
    backend.extend([Chunk(sequence=sequence, input_ids=IDS)])
    decode, calls = backend._library.llama_decode, [0]

    def fail_second(*arguments: Any) -> int:
        calls[0] += 1
        return -3 if calls[0] == 2 else decode(*arguments)

    fork = backend.fork(sequence)
    expected = logits(backend, fork)
    with monkeypatch.context() as patch:
        patch.setattr(backend._library, "llama_decode", fail_second)
        with pytest.raises(ModelError, match="status -3"):
            backend.extend([Chunk(sequence=sequence, input_ids=(1, 2, 3, 4), wanted="last_hidden")])
    assert calls[0] == 2 and backend.num_cached_tokens(sequence) == len(IDS)
    np.testing.assert_array_equal(logits(backend, sequence), expected)


@pytest.mark.llamacpp
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "BF16"])
def test_other_quantisations_run(tiny_weights: RandomWeights, tmp_path: Path, kind: str) -> None:
    """Whatever llama.cpp reads: near the float weights, as near as so many bits are."""
    found: list[FloatArray] = []
    for one in ("F32", kind):
        backend = LlamaCppBackend.load(write_gguf(tiny_weights, tmp_path / f"{one}.gguf", kind=one))
        found.append(logits(backend, backend.fork(), IDS))
        backend.close()
    assert 0 < np.abs(found[0] - found[1]).mean() < (0.5 if kind == "Q4_0" else 0.05)


@pytest.mark.llamacpp
def test_damaged_file_is_refused_in_llama_cpps_words(tiny_file: Path, tmp_path: Path) -> None:
    """Its log is silent, but what it says about an error reaches the user."""
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_file.read_bytes()[:-4096])
    with pytest.raises(WeightsMismatch, match=r"cannot read .*cut\.gguf: .{10}"):
        LlamaCppBackend.load(cut)
    with pytest.raises(WeightsNotFound, match=r"no\.gguf"):
        LlamaCppBackend.load(tmp_path / "no.gguf")


@pytest.mark.llamacpp
@pytest.mark.parametrize(("debug", "is_silent"), [("0", True), ("1", False)])
def test_library_is_silent_unless_debugging(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch, debug: str, is_silent: bool
) -> None:
    """A hundred lines about tensors are not what somebody who asked for a mood wants to read."""
    monkeypatch.setenv("ALLINONE_DEBUG", debug)
    code = f"from allinone.backends.llamacpp.backend import LlamaCppBackend as B; B.load({str(tiny_file)!r}).close()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "" and (done.stderr == "") is is_silent


def test_missing_library_is_a_model_error_with_the_command_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named; nobody sees an ImportError."""
    real_import = builtins.__import__

    def without_llama_cpp(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "llama_cpp":
            raise ModuleNotFoundError("No module named 'llama_cpp'", name="llama_cpp")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(importlib, "import_module", lambda name: without_llama_cpp(name))
    require_llama_cpp.cache_clear()
    with pytest.raises(ModelError, match="needs llama_cpp") as caught:
        LlamaCppBackend.load("model.gguf")
    assert caught.value.hint is not None and "make llamacpp" in caught.value.hint
