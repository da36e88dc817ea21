"""How much one key may use: requests a minute, streams at once, tokens a day; and streams of all keys together.

Rates and streams are counted in this process; tokens are counted in the store, which all processes share, and written
there in the background. Knows no HTTP: it raises what `problems.py` turns into 429. Above: `context.py` and the API
modules.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Protocol

from allinone.errors import ServerBusy, TooManyRequests
from allinone.server.keys import Access
from allinone.types import Usage

RECOUNT_S = 2.0
"""How old this process's idea of a key's tokens may be; others may have used some."""


class UsageStore(Protocol):
    """Tokens by owner and day, as `store.usage` keeps them. Methods block."""

    def add(self, owner: str, day: date, num_tokens: int) -> None:
        """Count more tokens."""
        ...

    def get(self, owner: str, day: date) -> int:
        """Tokens so far."""
        ...


@dataclass(slots=True)
class _Bucket:
    """A token bucket; it may run into debt, so that one large request is taken and then paid for."""

    level: float
    filled_at: float

    def take(self, amount: float, *, per_minute: int, now: float) -> float:
        """Take `amount` if anything is left; else seconds until something will be."""
        rate = per_minute / 60
        self.level = min(float(per_minute), self.level + (now - self.filled_at) * rate)
        self.filled_at = now
        if self.level < 1:
            return (1 - self.level) / rate
        self.level -= amount
        return 0.0


@dataclass(slots=True)
class _Day:
    """One owner's tokens of one day: what the store said last, and when."""

    day: date
    num_stored: int
    counted_at: float


class Limits:
    """Used from one event loop.

    Args:
        usage: where tokens of the day are kept.
        max_streams: of all clients together.
        clock: monotonic seconds.
        today: the day in UTC.
    """

    def __init__(
        self,
        usage: UsageStore,
        *,
        max_streams: int,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], date] = lambda: datetime.now(timezone.utc).date(),
    ) -> None:
        self._usage = usage
        self._max_streams = max_streams
        self._clock, self._today = clock, today
        self._buckets: dict[str, _Bucket] = {}
        self._streams: Counter[str] = Counter()
        self._days: dict[str, _Day] = {}
        self._unwritten: Counter[tuple[str, date]] = Counter()
        self._flushing = asyncio.Lock()

    @property
    def num_streams(self) -> int:
        """Streams open now."""
        return sum(self._streams.values())

    async def recount(self, access: Access) -> None:
        """Ask the store for the tokens of a key that has a daily limit, unless that was done just now."""
        if access.limits.max_tokens_per_day is None:
            return
        day, known = self._today(), self._days.get(access.owner)
        if known is None or known.day != day or self._clock() - known.counted_at >= RECOUNT_S:
            num_tokens = await asyncio.to_thread(self._usage.get, access.owner, day)
            self._days[access.owner] = _Day(day, num_tokens, self._clock())

    def admit(self, access: Access, *, num_items: int = 1) -> None:
        """Let a request in, counting `num_items` against the rate.

        Raises:
            TooManyRequests: the key's rate or its tokens of the day are used up; says when to come back.
        """
        self._require_tokens(access)
        per_minute = access.limits.max_requests_per_minute
        if per_minute is None:
            return
        now = self._clock()
        bucket = self._buckets.setdefault(access.owner, _Bucket(float(per_minute), now))
        wait_s = bucket.take(num_items, per_minute=per_minute, now=now)
        if wait_s > 0:
            raise TooManyRequests(
                f"This key may ask {per_minute} times a minute.", hint="ask more slowly", retry_after_s=wait_s
            )

    @asynccontextmanager
    async def stream(self, access: Access) -> AsyncGenerator[None]:
        """A stream, counted while it is open.

        Raises:
            TooManyRequests: the key has as many open as it may. ServerBusy: all clients together have.
        """
        most = access.limits.max_streams
        if most is not None and self._streams[access.owner] >= most:
            raise TooManyRequests(
                f"This key may have {most} streams open at once.", hint="wait for one to end", retry_after_s=1.0
            )
        if self.num_streams >= self._max_streams:
            raise ServerBusy(f"{self._max_streams} streams are open, which is the most.", hint="try again in a moment")
        self._streams[access.owner] += 1
        try:
            yield
        finally:
            self._streams[access.owner] -= 1
            if not self._streams[access.owner]:
                del self._streams[access.owner]

    def add_tokens(self, access: Access, usage: Usage) -> None:
        """Count an answer's tokens; they are written to the store in the background."""
        num_tokens = usage.num_prompt_tokens + usage.num_output_tokens
        if num_tokens:
            self._unwritten[access.owner, self._today()] += num_tokens

    async def flush(self) -> None:
        """Write what was counted. What could not be written is kept for the next time.

        Raises:
            StoreError: the store did not take it.
        """
        async with self._flushing:
            for (owner, day), num_tokens in list(self._unwritten.items()):
                await asyncio.to_thread(self._usage.add, owner, day, num_tokens)
                self._unwritten[owner, day] -= num_tokens
                if not self._unwritten[owner, day]:
                    del self._unwritten[owner, day]
                known = self._days.get(owner)
                if known is not None and known.day == day:
                    known.num_stored += num_tokens

    def _require_tokens(self, access: Access) -> None:
        most = access.limits.max_tokens_per_day
        if most is None:
            return
        day, known = self._today(), self._days.get(access.owner)
        num_stored = known.num_stored if known is not None and known.day == day else 0
        if num_stored + self._unwritten[access.owner, day] >= most:
            raise TooManyRequests(
                f"This key has used its {most:,} tokens of today.",
                hint="they are counted anew at midnight UTC",
                retry_after_s=_seconds_until_midnight(),
            )


def _seconds_until_midnight() -> float:
    now = datetime.now(timezone.utc)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - now).total_seconds()
