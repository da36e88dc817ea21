"""The bundled model on ONNX Runtime against `transformers` FP32 on the same weights, on 500 real texts."""

from __future__ import annotations

import math

import pytest

from allinone import AllInOne
from allinone.types import Result

from .conftest import read_public

pytestmark = [pytest.mark.real_model, pytest.mark.slow]


def real_texts() -> list[str]:
    sets = ["sent_zh_chnsenticorp_dev", "sent_zh_waimai_public_2k", "sent_en_sst2_dev", "sent_en_tweeteval_val"]
    return [record["text"][:200] for name in sets for record in read_public(name)[:125]]


def logprobs(result: Result) -> list[float]:
    assert result.probs is not None
    return [math.log(max(value, 1e-30)) for value in result.probs.values()]


def test_labels_agree_with_transformers_on_500_texts() -> None:
    """Float graph: the same log-probabilities. Int8 graph: the same label wherever the margin is above 0.3 nats."""
    texts = real_texts()
    with AllInOne.load(backend="transformers", cache=False) as ai:
        reference = list(ai.map("sentiment", texts))
    with AllInOne.load(quantization="float32", cache=False) as ai:
        exact = list(ai.map("sentiment", texts))
    with AllInOne.load(quantization="int8", cache=False) as ai:
        int8 = list(ai.map("sentiment", texts))
    assert len(reference) == 500
    moved: list[float] = []
    for expected, float_graph, int8_graph in zip(reference, exact, int8, strict=True):
        wanted = logprobs(expected)
        assert max(abs(a - b) for a, b in zip(wanted, logprobs(float_graph), strict=True)) <= 1e-3
        moved += [abs(a - b) for a, b in zip(wanted, logprobs(int8_graph), strict=True)]
        best, second = sorted(wanted, reverse=True)[:2]
        if best - second > 0.3:
            assert int8_graph.label == expected.label
    assert sum(moved) / len(moved) <= 0.03
