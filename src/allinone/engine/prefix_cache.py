"""The prefix cache: operator text is prefilled once per ids, frozen, and forked by every request that starts with it.

Owns the backend sequences of prefixes. Knows no requests: the engine acquires a prefix, lets the scheduler fill it,
forks it while it holds it, and releases it. User text never gets in here. `NaivePrefixCache` shares nothing and is the
oracle of `SharedPrefixCache` in the tests.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from allinone.backends.base import Backend, Chunk, SequenceId
from allinone.errors import ModelError


@dataclass(eq=False, slots=True, kw_only=True)
class Prefix:
    """A frozen leading run of ids and the backend sequence that holds it.

    Attributes:
        num_filled: how many of `ids` the sequence holds; the prefix may be forked when it is all of them.
        num_users: requests and sessions that hold it; never evicted while there are any.
        last_used: tick of the clock that caches and sessions share.
        num_skipped: steps in a row in which it was to be filled and got no place.
    """

    ids: tuple[int, ...]
    sequence: SequenceId
    num_filled: int = 0
    num_users: int = 0
    last_used: int = 0
    num_skipped: int = 0

    @property
    def is_ready(self) -> bool:
        """All of it is prefilled."""
        return self.num_filled == len(self.ids)

    def next_chunk(self, max_tokens: int) -> Chunk:
        """What to prefill next; chunks start at multiples of `max_tokens`, so a prefix is always filled alike."""
        return Chunk(sequence=self.sequence, input_ids=self.ids[self.num_filled : self.num_filled + max_tokens])


@dataclass(slots=True, kw_only=True)
class PrefixStats:
    """Counts since the start: `hits` found their prefix there (or being prefilled), `misses` had it prefilled."""

    hits: int = 0
    misses: int = 0
    hit_tokens: int = 0
    evictions: int = 0
    num_prefixes: int = 0
    num_tokens: int = 0


class PrefixCache(Protocol):
    """Who shares what. Not thread-safe: the engine thread owns it."""

    @property
    def stats(self) -> PrefixStats:
        """Counts."""
        ...

    @property
    def num_tokens(self) -> int:
        """Tokens of all prefixes held, filled or being filled."""
        ...

    def find(self, ids: tuple[int, ...]) -> Prefix | None:
        """The prefix with exactly these ids, if a new user would share it."""
        ...

    def acquire(self, ids: tuple[int, ...]) -> Prefix:
        """A prefix of exactly these ids with one more user; new and empty if there is none to share."""
        ...

    def release(self, prefix: Prefix) -> None:
        """One user less."""
        ...

    def discard(self, prefix: Prefix) -> None:
        """Forget a prefix whose prefill failed; its users still release it."""
        ...

    def least_recently_used(self, *, spare: Prefix | None = None) -> Prefix | None:
        """The prefix without users, other than `spare`, that was used the longest ago."""
        ...

    def evict(self, prefix: Prefix) -> None:
        """Free a prefix that has no users."""
        ...

    def prefixes(self) -> Sequence[Prefix]:
        """All prefixes held, oldest first."""
        ...

    def clear(self) -> None:
        """Free everything, users or not; for closing."""
        ...

    def check_integrity(self) -> None:
        """Raise AssertionError when the books do not match the backend."""
        ...


@dataclass(slots=True)
class _Books:
    """What both caches keep: which prefixes exist. A list is enough: there are as many as there are tasks."""

    backend: Backend
    clock: Iterator[int]
    entries: list[Prefix] = field(default_factory=list[Prefix])
    stats: PrefixStats = field(default_factory=PrefixStats)

    def open(self, ids: tuple[int, ...]) -> Prefix:
        prefix = Prefix(ids=ids, sequence=self.backend.fork())
        self.entries.append(prefix)
        self.stats.misses += 1
        return prefix

    def use(self, prefix: Prefix) -> Prefix:
        prefix.num_users += 1
        prefix.last_used = next(self.clock)
        self._count()
        return prefix

    def close(self, prefix: Prefix) -> None:
        self.entries.remove(prefix)
        self.backend.free(prefix.sequence)
        self._count()

    def num_tokens(self) -> int:
        return sum(len(prefix.ids) for prefix in self.entries)

    def _count(self) -> None:
        self.stats.num_prefixes, self.stats.num_tokens = len(self.entries), self.num_tokens()

    def check(self) -> None:
        for prefix in self.entries:
            assert prefix.num_users >= 0, f"{prefix.num_users} users"
            held = self.backend.num_cached_tokens(prefix.sequence)
            assert held == prefix.num_filled <= len(prefix.ids), f"holds {held}, says {prefix.num_filled}"
        sequences = [prefix.sequence for prefix in self.entries]
        assert len(set(sequences)) == len(sequences), "two prefixes share a sequence"
        assert self.stats.num_tokens == self.num_tokens(), "token count is off"


class SharedPrefixCache:
    """One prefix per ids, kept after its last user within a budget, least recently used evicted first.

    Args:
        max_tokens: budget of prefixes; those in use may exceed it for as long as they are used.
        clock: ticks that order uses, shared with whoever else evicts.
    """

    def __init__(self, backend: Backend, *, max_tokens: int, clock: Iterator[int] | None = None) -> None:
        self._books = _Books(backend, clock or itertools.count())
        self._by_ids: dict[tuple[int, ...], Prefix] = {}
        self._max_tokens = max_tokens

    @property
    def stats(self) -> PrefixStats:
        """Counts."""
        return self._books.stats

    @property
    def num_tokens(self) -> int:
        """Tokens of all prefixes held."""
        return self._books.num_tokens()

    def find(self, ids: tuple[int, ...]) -> Prefix | None:
        """The prefix with exactly these ids."""
        return self._by_ids.get(ids)

    def acquire(self, ids: tuple[int, ...]) -> Prefix:
        """See `PrefixCache.acquire`."""
        prefix = self._by_ids.get(ids)
        if prefix is None:
            prefix = self._by_ids[ids] = self._books.open(ids)
        else:
            self.stats.hits += 1
            self.stats.hit_tokens += len(ids)
        self._books.use(prefix)
        self._evict_to_budget()
        return prefix

    def release(self, prefix: Prefix) -> None:
        """See `PrefixCache.release`. A prefix that nobody waits for any more is not kept half filled."""
        prefix.num_users -= 1
        if prefix.num_users == 0 and not prefix.is_ready and self.find(prefix.ids) is prefix:
            self._close(prefix)
        self._evict_to_budget()

    def discard(self, prefix: Prefix) -> None:
        """See `PrefixCache.discard`."""
        if self.find(prefix.ids) is prefix:
            self._close(prefix)

    def least_recently_used(self, *, spare: Prefix | None = None) -> Prefix | None:
        """See `PrefixCache.least_recently_used`."""
        unused = [prefix for prefix in self._books.entries if prefix.num_users == 0 and prefix is not spare]
        return min(unused, key=lambda prefix: prefix.last_used, default=None)

    def evict(self, prefix: Prefix) -> None:
        """See `PrefixCache.evict`."""
        if prefix.num_users:
            raise ModelError(f"A prefix of {len(prefix.ids)} tokens is in use by {prefix.num_users} and stays.")
        self.stats.evictions += 1
        self._close(prefix)

    def prefixes(self) -> Sequence[Prefix]:
        """All prefixes held, oldest first."""
        return tuple(self._books.entries)

    def clear(self) -> None:
        """Free everything."""
        for prefix in self.prefixes():
            self._close(prefix)

    def check_integrity(self) -> None:
        """See `PrefixCache.check_integrity`."""
        self._books.check()
        assert {id(p) for p in self._by_ids.values()} == {id(p) for p in self._books.entries}, "index and list differ"
        assert all(ids == prefix.ids for ids, prefix in self._by_ids.items()), "a prefix is filed under other ids"
        unused = sum(len(p.ids) for p in self._books.entries if p.num_users == 0)
        used = self.num_tokens - unused
        assert unused == 0 or used + unused <= self._max_tokens, "unused prefixes exceed the budget"
        assert all(p.is_ready for p in self._books.entries if p.num_users == 0), "an unused prefix is half filled"

    def _evict_to_budget(self) -> None:
        while self.num_tokens > self._max_tokens and (prefix := self.least_recently_used()) is not None:
            self.evict(prefix)

    def _close(self, prefix: Prefix) -> None:
        del self._by_ids[prefix.ids]
        self._books.close(prefix)


class NaivePrefixCache:
    """Shares nothing: every user has its prefix prefilled anew and takes it along. The oracle."""

    def __init__(self, backend: Backend, *, clock: Iterator[int] | None = None) -> None:
        self._books = _Books(backend, clock or itertools.count())

    @property
    def stats(self) -> PrefixStats:
        """Counts."""
        return self._books.stats

    @property
    def num_tokens(self) -> int:
        """Tokens of all prefixes held."""
        return self._books.num_tokens()

    def find(self, ids: tuple[int, ...]) -> Prefix | None:
        """Nothing is ever shared."""
        return None

    def acquire(self, ids: tuple[int, ...]) -> Prefix:
        """A prefix of the caller's own."""
        return self._books.use(self._books.open(ids))

    def release(self, prefix: Prefix) -> None:
        """Free it with its only user."""
        prefix.num_users -= 1
        self.discard(prefix)

    def discard(self, prefix: Prefix) -> None:
        """Free it, if that has not been done."""
        if prefix in self._books.entries:
            self._books.close(prefix)

    def least_recently_used(self, *, spare: Prefix | None = None) -> Prefix | None:
        """None: every prefix here has its user."""
        return None

    def evict(self, prefix: Prefix) -> None:
        """Not possible: every prefix here has its user."""
        raise ModelError(f"A prefix of {len(prefix.ids)} tokens is in use and stays.")

    def prefixes(self) -> Sequence[Prefix]:
        """All prefixes held, oldest first."""
        return tuple(self._books.entries)

    def clear(self) -> None:
        """Free everything."""
        for prefix in self.prefixes():
            self._books.close(prefix)

    def check_integrity(self) -> None:
        """See `PrefixCache.check_integrity`."""
        self._books.check()
        assert all(prefix.num_users == 1 for prefix in self._books.entries), "a prefix is shared, or nobody's"
