"""Answers that were given before: least recently used out first, bounded by number and by bytes, safe between threads.

Knows nothing of what it keeps: the layer above makes the key (model, quantisation, task version, variables) and says
how large a value is. Only what is repeatable belongs in here: labels and greedy outputs.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from allinone.errors import ConfigError

V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultCacheStats:
    """Counts since the start, and what is held now."""

    hits: int
    misses: int
    evictions: int
    num_entries: int
    num_bytes: int

    @property
    def hit_rate(self) -> float:
        """Share of look-ups that found their answer; 0 before the first."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0


class ResultCache(Generic[V]):
    """An LRU map.

    Args:
        max_entries: most answers held; 0 keeps none.
        max_bytes: most bytes held, keys and values, as told to `put`.
    """

    def __init__(self, *, max_entries: int = 10_000, max_bytes: int = 64 * 2**20) -> None:
        if max_entries < 0 or max_bytes < 0:
            raise ConfigError(f"A result cache of {max_entries} entries and {max_bytes} bytes is not possible.")
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._entries: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        self._lock = threading.Lock()
        self._num_bytes = self._hits = self._misses = self._evictions = 0

    @property
    def keeps_nothing(self) -> bool:
        """It has no room for any answer."""
        return self._max_entries == 0

    def get(self, key: Hashable) -> V | None:
        """The answer, or None; counts a hit or a miss."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                self._misses += 1
                return None
            self._entries.move_to_end(key)
            self._hits += 1
            return entry[0]

    def put(self, key: Hashable, value: V, *, num_bytes: int) -> None:
        """Keep an answer; one larger than the whole cache is not kept."""
        with self._lock:
            self._remove(key)
            if self._max_entries == 0 or num_bytes > self._max_bytes:
                return
            self._entries[key] = (value, num_bytes)
            self._num_bytes += num_bytes
            while len(self._entries) > self._max_entries or self._num_bytes > self._max_bytes:
                _, (_, freed) = self._entries.popitem(last=False)
                self._num_bytes -= freed
                self._evictions += 1

    def clear(self) -> None:
        """Forget all answers; the counts stay."""
        with self._lock:
            self._entries.clear()
            self._num_bytes = 0

    def stats(self) -> ResultCacheStats:
        """Counts and sizes of this moment."""
        with self._lock:
            return ResultCacheStats(
                hits=self._hits,
                misses=self._misses,
                evictions=self._evictions,
                num_entries=len(self._entries),
                num_bytes=self._num_bytes,
            )

    def _remove(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._num_bytes -= entry[1]
