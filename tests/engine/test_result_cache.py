from __future__ import annotations

import threading

import pytest

from allinone.engine.result_cache import ResultCache
from allinone.errors import ConfigError


def test_cache_counts_hits_and_misses() -> None:
    """The rate is shown to users."""
    cache = ResultCache[str](max_entries=2)
    assert cache.get("a") is None
    cache.put("a", "x", num_bytes=1)
    assert cache.get("a") == "x"
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.hit_rate, stats.num_entries) == (1, 1, 0.5, 1)
    assert ResultCache[str]().stats().hit_rate == 0


def test_cache_drops_the_least_recently_used() -> None:
    """Reading counts as use."""
    cache = ResultCache[int](max_entries=2)
    cache.put("a", 1, num_bytes=1)
    cache.put("b", 2, num_bytes=1)
    cache.get("a")
    cache.put("c", 3, num_bytes=1)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    assert cache.stats().evictions == 1


def test_cache_is_bounded_in_bytes_too() -> None:
    """A thousand summaries are not a thousand labels; replacing an entry does not count it twice."""
    cache = ResultCache[int](max_entries=100, max_bytes=10)
    for key in range(5):
        cache.put(key, key, num_bytes=4)
    assert cache.stats().num_entries == 2 and cache.stats().num_bytes == 8
    cache.put(4, 0, num_bytes=6)
    assert cache.stats().num_bytes == 10
    cache.put("huge", 0, num_bytes=11)
    assert cache.get("huge") is None and cache.stats().num_entries == 2
    cache.clear()
    assert cache.stats().num_entries == cache.stats().num_bytes == 0


def test_cache_of_no_entries_keeps_nothing() -> None:
    """`--no-cache`."""
    cache = ResultCache[int](max_entries=0)
    cache.put("a", 1, num_bytes=0)
    assert cache.get("a") is None
    with pytest.raises(ConfigError):
        ResultCache[int](max_entries=-1)


def test_cache_keeps_its_books_under_threads() -> None:
    """Server threads share one cache."""
    cache = ResultCache[int](max_entries=50, max_bytes=300)

    def work(seed: int) -> None:
        for i in range(2_000):
            key = (i * seed) % 97
            if cache.get(key) is None:
                cache.put(key, key, num_bytes=key % 11)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (3, 5, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = cache.stats()
    assert stats.hits + stats.misses == 8_000
    assert stats.num_entries <= 50 and stats.num_bytes <= 300
    assert all(cache.get(key) in (None, key) for key in range(97))
