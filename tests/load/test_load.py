"""The load of `driver`, small: what holds for 10,000 requests is checked with a hundred on every change."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from allinone import AllInOne

from .driver import Answers, run_load, seeded_tasks, settle
from .traffic import Wish, sample_fates, sample_wishes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wishes() -> list[Wish]:
    chosen = sample_wishes(random.Random(12), 26, max_characters=2_500)
    assert len({wish.task.removesuffix(".en") for wish in chosen}) == 13, "all built-in tasks"
    return chosen


@pytest.fixture(scope="module")
def tasks() -> Iterator[Path]:
    with seeded_tasks() as folder:
        yield folder


@pytest.fixture(scope="module")
def answers(wishes: list[Wish], tasks: Path) -> Answers:
    with AllInOne.load(tasks=tasks, cache=False) as ai:
        return Answers.collect(ai, wishes)


@pytest.mark.parametrize("cache", [False, True])
def test_mixed_load_answers_as_if_alone_and_leaves_nothing(
    wishes: list[Wish], answers: Answers, tasks: Path, cache: bool
) -> None:
    """Nothing is lost, crossed or leaked: sequences, memory of keys and values, threads."""
    rng = random.Random(6)
    with AllInOne.load(tasks=tasks, cache=cache) as ai:
        usages = []
        for _ in range(2):
            fates = sample_fates(rng, wishes, 50)
            outcome = run_load(ai, fates, answers, num_threads=32)
            assert outcome.wrong == []
            assert outcome.endings.total() == len(fates)
            usages.append(settle(ai))
            assert usages[-1].num_sequences == ai.stats().num_prefixes, "only prefixes are kept"
            assert usages[-1].num_kv_tokens == ai.stats().num_prefix_tokens
        assert usages[0].num_threads == usages[1].num_threads
        stats = ai.stats()
        assert stats.num_failed < stats.num_ended and stats.num_waiting == stats.num_running == 0


def test_wrong_answers_are_noticed(wishes: list[Wish], answers: Answers, tasks: Path) -> None:
    """A driver that finds nothing must be able to."""
    shifted = [*list(answers.alone.values())[1:], next(iter(answers.alone.values()))]
    swapped = Answers(dict(zip(answers.alone, shifted, strict=True)), answers.talks)
    with AllInOne.load(tasks=tasks, cache=False) as ai:
        outcome = run_load(ai, sample_fates(random.Random(1), wishes, 15), swapped, num_threads=8)
    assert outcome.wrong
