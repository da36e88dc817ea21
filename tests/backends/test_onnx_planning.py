"""Which tokens share a call: nothing is lost, and what must stay apart does."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from allinone.backends.onnx.kv_cache import LayerCache, Prefix, SequenceCache
from allinone.backends.onnx.planning import MAX_CALL_TOKENS, MAX_PIECE_TOKENS, cut_into_rounds, plan_calls

PREFIXES = [None, *(Prefix([LayerCache.of(np.zeros((2, 1, 1, 1, 16, 4), np.float32))], 16) for _ in range(3))]

chunks = st.lists(
    st.tuples(st.sampled_from([1, 1, 2, 5, 30, 100, 257, 700]), st.sampled_from([0, 1, 40, 500]), st.integers(0, 3)),
    min_size=1,
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(chunks)
def test_plan_computes_every_token_once_and_in_order(sizes: list[tuple[int, int, int]]) -> None:
    """Each chunk's pieces come in order, one a round; single tokens never share a call with wider pieces."""
    batch = [
        (SequenceCache(prefix=PREFIXES[prefix], num_own_tokens=own), tuple(range(length)))
        for length, own, prefix in sizes
    ]
    done: dict[int, list[int]] = {index: [] for index in range(len(batch))}
    for pieces in cut_into_rounds(batch):
        assert max(Counter(piece.chunk for piece in pieces).values()) == 1
        calls = plan_calls(pieces)
        assert sorted(piece.chunk for call in calls for piece in call) == sorted(piece.chunk for piece in pieces)
        for call in calls:
            assert len({piece.is_step for piece in call}) == 1
            assert max(len(piece.input_ids) for piece in call) <= MAX_PIECE_TOKENS
            assert len(call) == 1 or sum(len(piece.input_ids) for piece in call) <= MAX_CALL_TOKENS
            for piece in call:
                done[piece.chunk].extend(piece.input_ids)
                assert piece.num_left == len(batch[piece.chunk][1]) - len(done[piece.chunk])
    assert done == {index: list(ids) for index, (_, ids) in enumerate(batch)}


def test_one_task_with_many_texts_takes_few_calls() -> None:
    """Thirty-two short texts of one task: calls are filled to their limit, so weights are read a few times only."""
    batch = [(SequenceCache(prefix=PREFIXES[1]), tuple(range(28))) for _ in range(32)]
    (pieces,) = cut_into_rounds(batch)
    assert len(plan_calls(pieces)) == -(-32 // (MAX_CALL_TOKENS // 28))


def test_two_tasks_share_a_call() -> None:
    """The mood and the reply are one pass over the weights."""
    batch = [(SequenceCache(prefix=prefix), tuple(range(20))) for prefix in PREFIXES[1:3]]
    (pieces,) = cut_into_rounds(batch)
    assert len(plan_calls(pieces)) == 1
