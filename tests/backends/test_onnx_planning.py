"""Which tokens share a call: nothing is lost, and what must stay apart does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from allinone.backends.onnx.kv_cache import LayerCache, Prefix, SequenceCache
from allinone.backends.onnx.planning import (
    MAX_CALL_TOKENS,
    MAX_PADDING,
    MAX_PIECE_TOKENS,
    Piece,
    cut_into_rounds,
    plan_calls,
)

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
            if not call[0].is_step:
                assert padding(call) <= max(MAX_PADDING, sum(len(piece.input_ids) for piece in call) // 8)
            for piece in call:
                done[piece.chunk].extend(piece.input_ids)
                assert piece.num_left == len(batch[piece.chunk][1]) - len(done[piece.chunk])
    assert done == {index: list(ids) for index, (_, ids) in enumerate(batch)}


def padding(call: Sequence[Piece]) -> int:
    """Tokens of the grid that are nobody's."""
    members = Counter(id(piece.cache.prefix) for piece in call)
    lengths = [len(piece.input_ids) for piece in call]
    return len(members) * max(members.values()) * max(lengths) - sum(lengths)


def plan_labels(*num_by_task: int) -> list[Counter[int]]:
    """The calls for so many labels of each task, all of 28 tokens: how many of each task are in each."""
    prefixes = [Prefix([LayerCache.of(np.zeros((2, 1, 1, 1, 16, 4), np.float32))], 16) for _ in num_by_task]
    batch = [
        (SequenceCache(prefix=prefix), tuple(range(28)))
        for prefix, number in zip(prefixes, num_by_task, strict=True)
        for _ in range(number)
    ]
    (pieces,) = cut_into_rounds(batch)
    places = {id(prefix): place for place, prefix in enumerate(prefixes)}
    return [Counter(places[id(piece.cache.prefix)] for piece in call) for call in plan_calls(pieces)]


def test_many_tasks_are_dealt_out_so_that_hardly_a_cell_stays_empty() -> None:
    """Two of each of eight tasks and two more: not three cells for each. Four of each: the same eight tasks twice."""
    assert [sorted(call.values()) for call in plan_labels(3, 3, 2, 2, 2, 2, 2, 2)] == [[2] * 8, [1, 1]]
    assert [sorted(call.values()) for call in plan_labels(*[4] * 8)] == [[2] * 8] * 2
    assert [sorted(call.values()) for call in plan_labels(2, 2, 2, 2, 2, 2, 2, 1)] == [[1, *[2] * 7]]
    assert plan_labels(1, 1, 1) == [Counter({0: 1, 1: 1, 2: 1})]


def test_single_steps_stay_together_however_long_their_pasts_are() -> None:
    """A call of their own would read all weights for a few columns of padding."""
    pasts = ((1, 100), (1, 180), (2, 150), (2, 160), (2, 190))
    batch = [(SequenceCache(prefix=PREFIXES[prefix], num_own_tokens=own), (7,)) for prefix, own in pasts]
    (pieces,) = cut_into_rounds(batch)
    assert len(plan_calls(pieces)) == 1


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
