"""How much one key may use, counted with a clock that the test turns."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from datetime import date
from pathlib import Path

import pytest

from allinone.errors import ServerBusy, StoreError, TooManyRequests
from allinone.server.keys import LOCAL, Access, KeyLimits
from allinone.server.limits import RECOUNT_S, Limits
from allinone.store.database import Store
from allinone.types import Usage

TODAY, TOMORROW = date(2030, 1, 1), date(2030, 1, 2)
SPENT = Usage(num_prompt_tokens=60, num_cached_tokens=50, num_output_tokens=40)


class Tokens:
    """A store of counts that may refuse to write."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, date]] = Counter()
        self.is_broken = False
        self.num_asked = 0

    def add(self, owner: str, day: date, num_tokens: int) -> None:
        """As the store does, unless it is broken."""
        if self.is_broken:
            raise StoreError("the disk is full")
        self.counts[owner, day] += num_tokens

    def get(self, owner: str, day: date) -> int:
        """As the store does, counting how often."""
        self.num_asked += 1
        return self.counts[owner, day]


class Bench:
    """Limits with a clock and a calendar."""

    def __init__(self, *, max_streams: int = 100) -> None:
        self.now, self.day, self.tokens = 0.0, TODAY, Tokens()
        self.limits = Limits(self.tokens, max_streams=max_streams, clock=lambda: self.now, today=lambda: self.day)

    def admits(self, access: Access, num_items: int = 1) -> bool:
        """Whether a request is let in."""
        try:
            self.limits.admit(access, num_items=num_items)
        except TooManyRequests:
            return False
        return True


def _key(owner: str = "ann", **limits: int) -> Access:
    return Access(owner=owner, limits=KeyLimits(**limits))


def test_rate_is_a_bucket_that_fills_again() -> None:
    """Sixty a minute: sixty at once, then one a second; the refusal says how long to wait."""
    bench, access = Bench(), _key(max_requests_per_minute=60)
    assert [bench.admits(access) for _ in range(61)] == [True] * 60 + [False]
    with pytest.raises(TooManyRequests) as refusal:
        bench.limits.admit(access)
    assert refusal.value.retry_after_s == pytest.approx(1.0)
    bench.now += 1.0
    assert [bench.admits(access) for _ in range(2)] == [True, False]
    bench.now += 3_600
    assert [bench.admits(access) for _ in range(61)] == [True] * 60 + [False]


def test_rate_is_each_keys_own() -> None:
    """One key's haste is nobody else's wait."""
    bench = Bench()
    ann, bob = _key("ann", max_requests_per_minute=1), _key("bob", max_requests_per_minute=1)
    assert bench.admits(ann) and not bench.admits(ann) and bench.admits(bob)
    assert all(bench.admits(LOCAL) for _ in range(10_000))


def test_many_inputs_count_as_many() -> None:
    """A batch larger than the rate is taken when nothing is owed, and paid for afterwards."""
    bench, access = Bench(), _key(max_requests_per_minute=60)
    assert bench.admits(access, num_items=180)
    with pytest.raises(TooManyRequests) as refusal:
        bench.limits.admit(access)
    assert refusal.value.retry_after_s == pytest.approx(121)
    bench.now += 120.5
    assert not bench.admits(access)
    bench.now += 0.5
    assert bench.admits(access)


def test_streams_are_counted_while_they_are_open() -> None:
    """Also when one of them fails."""

    async def scenario() -> None:
        bench, access = Bench(), _key(max_streams=2)
        async with AsyncExitStack() as stack:
            for _ in range(2):
                await stack.enter_async_context(bench.limits.stream(access))
            with pytest.raises(TooManyRequests, match="2 streams"):
                await stack.enter_async_context(bench.limits.stream(access))
            await stack.enter_async_context(bench.limits.stream(_key("bob", max_streams=2)))
            assert bench.limits.num_streams == 3
        assert bench.limits.num_streams == 0
        with pytest.raises(ZeroDivisionError):
            async with bench.limits.stream(access):
                raise ZeroDivisionError
        assert bench.limits.num_streams == 0

    asyncio.run(scenario())


def test_streams_of_all_are_bounded() -> None:
    """Whoever comes when the server is full hears that it is the server, not the key."""

    async def scenario() -> None:
        bench = Bench(max_streams=1)
        async with bench.limits.stream(LOCAL):
            with pytest.raises(ServerBusy):
                async with bench.limits.stream(_key()):
                    pass

    asyncio.run(scenario())


def test_tokens_of_a_day_are_used_up_and_come_back() -> None:
    """Prompt and output count; a new day begins at midnight UTC."""

    async def scenario() -> None:
        bench, access = Bench(), _key(max_tokens_per_day=200)
        await bench.limits.recount(access)
        assert bench.admits(access)
        bench.limits.add_tokens(access, SPENT)
        assert bench.admits(access)
        bench.limits.add_tokens(access, SPENT)
        with pytest.raises(TooManyRequests, match="200 tokens of today") as refusal:
            bench.limits.admit(access)
        assert 0 < refusal.value.retry_after_s <= 86_400
        bench.day = TOMORROW
        await bench.limits.recount(access)
        assert bench.admits(access)

    asyncio.run(scenario())


def test_tokens_that_other_processes_used_count() -> None:
    """What they wrote is seen within seconds, and the store is not asked at every request."""

    async def scenario() -> None:
        bench, access = Bench(), _key(max_tokens_per_day=200)
        for _ in range(10):
            await bench.limits.recount(access)
        assert bench.tokens.num_asked == 1
        bench.tokens.add("ann", TODAY, 500)
        assert bench.admits(access)
        bench.now += RECOUNT_S
        await bench.limits.recount(access)
        assert not bench.admits(access)
        await bench.limits.recount(LOCAL)
        assert bench.tokens.num_asked == 2

    asyncio.run(scenario())


def test_counts_are_written_once() -> None:
    """And what was written is neither forgotten nor counted twice before the store is asked again."""

    async def scenario() -> None:
        bench, access = Bench(), _key(max_tokens_per_day=101)
        await bench.limits.recount(access)
        bench.limits.add_tokens(access, SPENT)
        bench.limits.add_tokens(LOCAL, Usage())
        await bench.limits.flush()
        await bench.limits.flush()
        assert bench.tokens.counts == {("ann", TODAY): 100}
        assert bench.admits(access)
        bench.limits.add_tokens(access, SPENT)
        assert not bench.admits(access)

    asyncio.run(scenario())


def test_counts_that_cannot_be_written_are_kept() -> None:
    """A full disk must not make tokens free."""

    async def scenario() -> None:
        bench, access = Bench(), _key(max_tokens_per_day=100)
        bench.limits.add_tokens(access, SPENT)
        bench.tokens.is_broken = True
        with pytest.raises(StoreError):
            await bench.limits.flush()
        assert not bench.admits(access)
        bench.tokens.is_broken = False
        await bench.limits.flush()
        assert bench.tokens.counts == {("ann", TODAY): 100}

    asyncio.run(scenario())


def test_limits_work_on_the_real_store(tmp_path: Path) -> None:
    """Two processes' worth of limits share one file."""

    async def scenario(store: Store) -> None:
        first, second = (Limits(store.usage, max_streams=9) for _ in range(2))
        access = _key(max_tokens_per_day=150)
        for limits in (first, second):
            limits.add_tokens(access, SPENT)
            await limits.flush()
        await first.recount(access)
        with pytest.raises(TooManyRequests):
            first.admit(access)

    with Store.open(f"sqlite:///{tmp_path / 'store.db'}") as store:
        asyncio.run(scenario(store))
