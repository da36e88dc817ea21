from __future__ import annotations

import pytest

from allinone.backends.fake import FakeBackend
from allinone.engine.prefix_cache import NaivePrefixCache, Prefix, SharedPrefixCache
from allinone.errors import ModelError


def fill(backend: FakeBackend, prefix: Prefix, *, max_tokens: int = 4) -> Prefix:
    while not prefix.is_ready:
        chunk = prefix.next_chunk(max_tokens)
        backend.extend([chunk])
        prefix.num_filled += len(chunk.input_ids)
    return prefix


def test_shared_cache_gives_one_prefix_to_all_who_ask(fake_backend: FakeBackend) -> None:
    """Also while it is being filled: nobody prefills it a second time."""
    cache = SharedPrefixCache(fake_backend, max_tokens=100)
    first = cache.acquire((1, 2, 3))
    assert cache.acquire((1, 2, 3)) is first and first.num_users == 2
    assert cache.acquire((1, 2)) is not first
    assert (cache.stats.hits, cache.stats.misses, cache.stats.hit_tokens) == (1, 2, 3)
    cache.clear()


def test_shared_cache_evicts_the_least_recently_used_beyond_its_budget(fake_backend: FakeBackend) -> None:
    """Those in use stay, whatever the budget says, and go when they are released."""
    cache = SharedPrefixCache(fake_backend, max_tokens=10)
    a, b = (fill(fake_backend, cache.acquire(ids)) for ids in ((1,) * 4, (2,) * 4))
    cache.release(a), cache.release(b)
    cache.release(cache.acquire(a.ids))
    c = fill(fake_backend, cache.acquire((3,) * 4))
    assert cache.find(b.ids) is None and cache.find(a.ids) is a
    big = fill(fake_backend, cache.acquire((4,) * 50))
    assert cache.find(a.ids) is None and cache.find(c.ids) is c and cache.find(big.ids) is big
    with pytest.raises(ModelError, match="in use"):
        cache.evict(big)
    cache.release(c)
    cache.release(big)
    assert cache.prefixes() == () and cache.stats.evictions == 4
    cache.check_integrity()


def test_shared_cache_keeps_no_half_filled_prefix_without_users(fake_backend: FakeBackend) -> None:
    """A request cancelled during the prefill of its prefix leaves nothing that would never be finished."""
    cache = SharedPrefixCache(fake_backend, max_tokens=10)
    prefix = cache.acquire((1, 2, 3))
    fake_backend.extend([prefix.next_chunk(2)])
    prefix.num_filled = 2
    cache.release(prefix)
    assert cache.find((1, 2, 3)) is None and fake_backend.num_sequences() == 0


def test_discarded_prefix_is_not_found_and_its_users_release_it_in_peace(fake_backend: FakeBackend) -> None:
    """After a failed step; a new one with the same ids is another prefix and stays."""
    cache = SharedPrefixCache(fake_backend, max_tokens=10)
    broken = cache.acquire((1, 2, 3))
    cache.discard(broken)
    fresh = cache.acquire((1, 2, 3))
    assert fresh is not broken
    cache.release(broken)
    assert cache.find((1, 2, 3)) is fresh
    cache.clear()


def test_naive_cache_shares_nothing(fake_backend: FakeBackend) -> None:
    """The oracle."""
    cache = NaivePrefixCache(fake_backend)
    one, other = cache.acquire((1, 2)), cache.acquire((1, 2))
    assert one is not other and cache.find((1, 2)) is None and cache.num_tokens == 4
    cache.check_integrity()
    cache.release(one)
    cache.release(other)
    assert cache.least_recently_used() is None
    with pytest.raises(ModelError):
        cache.evict(one)


def test_check_integrity_notices_books_that_are_off(fake_backend: FakeBackend) -> None:
    """A check that cannot fail checks nothing."""
    cache = SharedPrefixCache(fake_backend, max_tokens=10)
    prefix = fill(fake_backend, cache.acquire((1, 2, 3)))
    cache.check_integrity()
    fake_backend.trim(prefix.sequence, 1)
    with pytest.raises(AssertionError, match="holds 1"):
        cache.check_integrity()
    prefix.num_filled = 1
    cache.check_integrity()
    prefix.num_users = 0
    with pytest.raises(AssertionError, match="half filled"):
        cache.check_integrity()
    cache.clear()
