"""Who asks: what a right, a wrong and an unknown key cost, and what is remembered of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from allinone.errors import AuthenticationRequired, ConfigError, ServerBusy
from allinone.server import keys as keys_module
from allinone.server.key_file import HASHER, KeyFile
from allinone.server.keys import LOCAL, Access, KeyRing

from .live import logged

SECRET = "x" * 43


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    """A key file."""
    return KeyFile(tmp_path / "keys.json")


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The hashes that argon2 was asked about, in order; it is really asked."""
    asked: list[str] = []
    verify = PasswordHasher.verify

    def counting(self: PasswordHasher, hash: str | bytes, password: str | bytes) -> bool:
        asked.append(str(hash))
        return verify(self, hash, password)

    monkeypatch.setattr(PasswordHasher, "verify", counting)
    yield asked


async def _is_refused(ring: KeyRing, key: str | None) -> bool:
    try:
        await ring.authenticate(key)
    except AuthenticationRequired:
        return True
    return False


def test_without_keys_everybody_is_local() -> None:
    """A key that a client sends all the same (OpenAI's insist on one) does not matter."""
    ring = KeyRing()
    assert not ring.is_required
    assert asyncio.run(ring.authenticate(None)) == asyncio.run(ring.authenticate("whatever")) == LOCAL


def test_the_operators_own_key_may_do_everything(checks: list[str]) -> None:
    """It is kept as a digest only, and costs no argon2."""

    async def scenario() -> None:
        ring = KeyRing(api_key="a-key-of-the-operator")
        assert ring.is_required and ring.num_working == 1
        access = await ring.authenticate("a-key-of-the-operator")
        assert access.is_admin and access.allows("anything") and access.owner == "api-key"
        for wrong in (None, "", "a-key-of-the-operatoR", "a-key-of-the-operator ", "\ud800"):
            assert await _is_refused(ring, wrong), wrong
        assert "a-key-of-the-operator" not in str(vars(ring))

    asyncio.run(scenario())
    assert not checks


def test_a_key_costs_argon2_once(file: KeyFile, checks: list[str]) -> None:
    """Otherwise each request would take tens of milliseconds of CPU before anything is done."""
    record, key = file.add("phone", allowed_tasks=("sentiment",), max_streams=2, is_admin=True)

    async def scenario() -> None:
        ring = KeyRing(file=file)
        accesses = [await ring.authenticate(key) for _ in range(50)]
        assert accesses[0].owner == record.id and accesses[0].limits.max_streams == 2 and accesses[0].is_admin
        assert all(access == accesses[0] for access in accesses)
        ring.close()

    asyncio.run(scenario())
    assert checks == [record.hash]


def test_many_requests_with_one_unseen_key_share_a_check(file: KeyFile, checks: list[str]) -> None:
    """A client that opens fifty connections at once must not be refused for it."""
    _, key = file.add("phone")

    async def scenario() -> None:
        ring = KeyRing(file=file, max_checks=1, max_waiting=1)
        await asyncio.gather(*(ring.authenticate(key) for _ in range(50)))
        ring.close()

    asyncio.run(scenario())
    assert len(checks) == 1


def test_an_unknown_key_costs_the_same_as_a_wrong_one(file: KeyFile, checks: list[str]) -> None:
    """The time of a refusal must not tell which ids exist: argon2 runs once either way, with the same parameters."""
    record, _ = file.add("phone")

    async def scenario() -> None:
        ring = KeyRing(file=file)
        assert await _is_refused(ring, f"aio_{record.id}_{SECRET}")
        assert await _is_refused(ring, f"aio_{'z' * 12}_{SECRET}")
        ring.close()

    asyncio.run(scenario())
    wrong, unknown = checks
    assert wrong == record.hash and unknown != record.hash
    assert wrong.split("$")[1:4] == unknown.split("$")[1:4]  # variant, version, parameters
    assert not HASHER.check_needs_rehash(unknown)


def test_a_wrong_key_is_not_checked_twice(file: KeyFile, checks: list[str]) -> None:
    """A client that goes on knocking with an old key costs nothing."""
    record, _ = file.add("phone")

    async def scenario() -> None:
        ring = KeyRing(file=file)
        for _ in range(5):
            assert await _is_refused(ring, f"aio_{record.id}_{SECRET}")
        ring.close()

    asyncio.run(scenario())
    assert len(checks) == 1


def test_what_has_not_the_shape_of_a_key_costs_nothing(file: KeyFile, checks: list[str]) -> None:
    """The shape is public, so nothing is learned from a quick refusal."""
    file.add("phone")

    async def scenario() -> None:
        ring = KeyRing(file=file)
        for wrong in ("sk-123", "aio_", f"aio_{'z' * 11}_{SECRET}", "aio_" + "z" * 100_000, "键" * 56):
            assert await _is_refused(ring, wrong)
        ring.close()

    asyncio.run(scenario())
    assert not checks


def test_wrong_keys_cannot_use_up_the_cpu(file: KeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few are checked at once, a few wait, the rest is told to come back; known keys do not notice."""
    _, key = file.add("phone")
    at_once = [0, 0]

    def slow(hashed: str, secret: str) -> bool:
        at_once[0] += 1
        at_once[1] = max(at_once)
        time.sleep(0.02)
        at_once[0] -= 1
        return False

    async def scenario() -> None:
        ring = KeyRing(file=file, max_checks=2, max_waiting=3)
        await ring.authenticate(key)
        monkeypatch.setattr(keys_module, "_matches", slow)
        wrong = [f"aio_{number:012d}_{SECRET}" for number in range(40)]
        outcomes = asyncio.gather(*(ring.authenticate(other) for other in wrong), return_exceptions=True)
        await asyncio.sleep(0)
        assert (await ring.authenticate(key)).owner  # in the middle of it
        kinds = [type(outcome) for outcome in await outcomes]
        assert kinds.count(AuthenticationRequired) == 5 and kinds.count(ServerBusy) == 35
        ring.close()

    asyncio.run(scenario())
    assert at_once[1] <= 2


def test_nothing_is_remembered_in_clear(file: KeyFile) -> None:
    """A dump of the process's memory is no list of keys: what is looked up are keyed digests."""
    _, key = file.add("phone")

    async def scenario() -> tuple[str, str]:
        ring, other = KeyRing(file=file), KeyRing(file=file)
        for each in (ring, other):
            await each.authenticate(key)
            each.close()
        return str(vars(ring)), str(vars(other))

    first, second = asyncio.run(scenario())
    assert key not in first and key.rsplit("_", 1)[1] not in first
    assert first.split("_known")[1] != second.split("_known")[1]  # the digest's key is each process's own


def test_a_revoked_key_stops_working_while_the_server_runs(file: KeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that leaked is turned off without a restart; a new one works at once."""
    monkeypatch.setattr(keys_module, "RECHECK_S", 0)
    record, key = file.add("phone")

    async def scenario() -> None:
        ring = KeyRing(file=file)
        await ring.authenticate(key)
        file.revoke(record.id)
        assert await _is_refused(ring, key)
        _, newer = file.add("phone", owner=record.owner)
        assert (await ring.authenticate(newer)).owner == record.owner
        assert await _is_refused(ring, key)
        ring.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("harm", ["broken", "gone"])
def test_a_file_that_breaks_leaves_the_keys_in_use(file: KeyFile, monkeypatch: pytest.MonkeyPatch, harm: str) -> None:
    """An editor's half-saved file must neither lock everybody out nor let everybody in; the log says so."""
    monkeypatch.setattr(keys_module, "RECHECK_S", 0)
    _, key = file.add("phone")

    async def scenario() -> None:
        ring = KeyRing(file=file)
        if harm == "broken":
            file.path.write_text("{", encoding="utf-8")
        else:
            file.path.unlink()
        assert (await ring.authenticate(key)).owner
        assert await _is_refused(ring, f"aio_{'z' * 12}_{SECRET}")
        ring.close()

    with logged() as lines:
        asyncio.run(scenario())
    assert any("stay in use" in line for line in lines)


def test_a_file_with_no_working_key_opens_for_nobody(file: KeyFile) -> None:
    """Revoking the last key must not turn a server with keys into one without."""
    record, key = file.add("phone")
    file.revoke(record.id)
    ring = KeyRing(file=file)
    assert ring.is_required and ring.num_working == 0
    assert asyncio.run(_is_refused(ring, key)) and asyncio.run(_is_refused(ring, None))
    ring.close()


def test_a_broken_file_is_refused_at_the_start(file: KeyFile) -> None:
    """Before anything listens."""
    file.path.write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError):
        KeyRing(file=file)


def test_a_task_brings_its_variants() -> None:
    """Who may use `sentiment` may use `sentiment.en`, not `sentimental`."""
    access = Access(owner="x", allowed_tasks=frozenset({"sentiment", "chat.en"}))
    assert access.allows("sentiment") and access.allows("sentiment.en") and access.allows("chat.en")
    assert not access.allows("chat") and not access.allows("sentimental") and not access.allows("model")
