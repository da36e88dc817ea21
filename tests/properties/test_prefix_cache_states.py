"""The shared prefix cache against the naive one: any order of uses, fills, releases and failures, the same numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from allinone.backends.base import Backend, Chunk, FloatArray
from allinone.backends.fake import FakeBackend
from allinone.engine.prefix_cache import NaivePrefixCache, Prefix, PrefixCache, SharedPrefixCache

MAX_TOKENS = 12
ids_strategy = st.lists(st.integers(0, 2), min_size=1, max_size=7).map(tuple)


def step(backend: Backend, prefix: Prefix) -> None:
    """Fill a little more, as the scheduler would."""
    if not prefix.is_ready:
        chunk = prefix.next_chunk(3)
        backend.extend([chunk])
        prefix.num_filled += len(chunk.input_ids)


def continue_with(backend: Backend, prefix: Prefix, ids: tuple[int, ...]) -> FloatArray:
    """What a request that forks the prefix reads."""
    fork = backend.fork(prefix.sequence)
    logits = backend.extend([Chunk(sequence=fork, input_ids=ids, wanted="last_logits")])[0]
    backend.free(fork)
    assert logits is not None
    return logits


class PrefixCaches(RuleBasedStateMachine):
    """Both caches, driven alike; a user is a pair of prefixes."""

    users = Bundle("users")

    def __init__(self) -> None:
        super().__init__()
        self.shared_backend, self.naive_backend = FakeBackend(), FakeBackend()
        self.shared: PrefixCache = SharedPrefixCache(self.shared_backend, max_tokens=MAX_TOKENS)
        self.naive: PrefixCache = NaivePrefixCache(self.naive_backend)
        self.num_users = 0

    @rule(target=users, ids=ids_strategy)
    def acquire(self, ids: tuple[int, ...]) -> tuple[Prefix, Prefix]:
        """A request comes."""
        had = self.shared.find(ids)
        pair = self.shared.acquire(ids), self.naive.acquire(ids)
        assert had is None or pair[0] is had
        assert pair[0].ids == pair[1].ids == ids
        self.num_users += 1
        return pair

    @rule(pair=users)
    def fill_some(self, pair: tuple[Prefix, Prefix]) -> None:
        """The scheduler runs a chunk of a prefix that is still in its cache."""
        if pair[0] in self.shared.prefixes():
            step(self.shared_backend, pair[0])
        step(self.naive_backend, pair[1])

    @rule(pair=users, ids=ids_strategy)
    def use(self, pair: tuple[Prefix, Prefix], ids: tuple[int, ...]) -> None:
        """Shared or not, the numbers are the same."""
        shared, naive = pair
        if shared not in self.shared.prefixes():
            return  # its prefill failed
        while not (shared.is_ready and naive.is_ready):
            step(self.shared_backend, shared)
            step(self.naive_backend, naive)
        np.testing.assert_array_equal(
            continue_with(self.shared_backend, shared, ids), continue_with(self.naive_backend, naive, ids)
        )

    @rule(pair=consumes(users))
    def release(self, pair: tuple[Prefix, Prefix]) -> None:
        """A request ends."""
        self.shared.release(pair[0])
        self.naive.release(pair[1])
        self.num_users -= 1

    @rule(pair=users)
    def fail(self, pair: tuple[Prefix, Prefix]) -> None:
        """The prefill of a prefix that is not ready fails."""
        if not pair[0].is_ready:
            self.shared.discard(pair[0])

    @rule()
    def evict(self) -> None:
        """Somebody else needs the memory."""
        prefix = self.shared.least_recently_used()
        if prefix is not None:
            self.shared.evict(prefix)
            assert self.shared.find(prefix.ids) is None

    @invariant()
    def books_are_right(self) -> None:
        """A real check, against the backends."""
        self.shared.check_integrity()
        self.naive.check_integrity()
        assert self.shared_backend.num_sequences() == len(self.shared.prefixes())
        assert self.naive_backend.num_sequences() == len(self.naive.prefixes()) == self.num_users
        assert self.shared.num_tokens <= self.naive.num_tokens + MAX_TOKENS

    def teardown(self) -> None:
        """Nothing stays."""
        self.shared.clear()
        self.naive.clear()
        assert self.shared_backend.num_sequences() == self.naive_backend.num_sequences() == 0


TestPrefixCaches = PrefixCaches.TestCase
TestPrefixCaches.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
