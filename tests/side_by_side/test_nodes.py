"""The profile of a step holds every node of the graph, and the product goes on without the profiler."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest

from allinone.backends.onnx.backend import OnnxBackend
from allinone.backends.onnx.compile import compile_weights
from allinone.models.random_weights import QWEN1_5_0_5B, RandomWeights

TINY = replace(
    QWEN1_5_0_5B, vocab_size=512, hidden_size=64, intermediate_size=128, num_layers=2, num_heads=4, num_kv_heads=4
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small compiled model."""
    folder = tmp_path_factory.mktemp("tiny")
    compile_weights(RandomWeights(TINY), folder)
    return folder


def test_profile_has_every_node_of_every_call(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Calls are told apart, products are among the operators, and no node is lost."""
    from benchmarks.nodes import PRODUCT, prepare, print_work, profiling

    original = onnxruntime.InferenceSession
    with profiling(tmp_path) as profiled:
        backend = OnnxBackend.load(folder, num_threads=1)
        run = prepare(backend, 3, 28)
        spent = [run() for _ in range(4)]
        calls = list(profiled.read())
        backend.close()
    assert onnxruntime.InferenceSession is original
    assert all(lasted > 0 for lasted in spent)
    assert len(calls) == 1 + 4  # the prefix, and what was measured
    assert {num_nodes for _, _, num_nodes in calls[1:]} == {calls[1][2]}
    assert calls[1][2] > 50
    for lasted, by_operator, _ in calls:
        assert any(PRODUCT in operator for operator in by_operator)
        assert sum(by_operator.values()) <= lasted
    print_work("labels", 1.0, calls[1:], num_runs=4)
    assert "products" in capsys.readouterr().out


def test_streams_grow_and_labels_do_not(folder: Path) -> None:
    """A decoding step goes on from the last one; a label starts at the prefix again."""
    from benchmarks.nodes import NUM_PREFIX, prepare

    for num_ids, grown in ((1, 2), (28, 0)):
        backend = OnnxBackend.load(folder, num_threads=1)
        run = prepare(backend, 2, num_ids)
        run()
        run()
        lengths = [backend.num_cached_tokens(sequence) for sequence in list(backend._sequences)[1:]]
        assert lengths == [NUM_PREFIX + grown] * 2
        backend.close()
