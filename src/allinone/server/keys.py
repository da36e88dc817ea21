"""Who asks: keys verified in constant time, at the price of one hash table look-up once a key has been seen.

A key is looked up by a keyed BLAKE2b digest, never in clear. Only an unseen key costs an argon2 computation: in a
thread, few at a time, the rest refused, so that wrong keys cannot use up the CPU. A key with an unknown id costs the
same as one with a wrong secret. Knows no request; above: `guard.py` and `context.py`. Below: `key_file.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from argon2.exceptions import InvalidHashError, VerificationError

from allinone.errors import AllInOneError, AuthenticationRequired, ServerBusy
from allinone.server.key_file import HASHER, KEY_PATTERN, KeyFile, KeyRecord

RECHECK_S = 1.0
"""How often the key file is looked at; a revoked key works no longer than this."""
_MAX_REMEMBERED = 4_096
_log = logging.getLogger("allinone.server")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """What one key may use; None for no limit of its own."""

    max_requests_per_minute: int | None = None
    max_streams: int | None = None
    max_tokens_per_day: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who asks, checked.

    Attributes:
        owner: stable id of the key, and of whatever belongs to it; "local" where the server runs without keys.
        allowed_tasks: None for all.
        is_admin: may edit prompts and see the metrics.
    """

    owner: str
    allowed_tasks: frozenset[str] | None = None
    is_admin: bool = False
    limits: KeyLimits = field(default_factory=KeyLimits)

    def allows(self, task: str) -> bool:
        """Whether the key may use a task; a task that is allowed brings its variants (`sentiment.en`)."""
        return self.allowed_tasks is None or task in self.allowed_tasks or task.split(".")[0] in self.allowed_tasks


LOCAL = Access(owner="local", is_admin=True)
"""Whoever can reach a server without keys: the people of this machine."""


class KeyRing:
    """The keys of one server. Used from one event loop.

    Args:
        api_key: a single key that the operator chose; it may do everything.
        file: keys in a file; read again when it changes.
        max_checks: argon2 computations at once.
        max_waiting: checks that may wait for one; more are refused.

    Raises:
        ConfigError, StoreError: the file is there and cannot be used.
    """

    def __init__(
        self, *, api_key: str | None = None, file: KeyFile | None = None, max_checks: int = 2, max_waiting: int = 32
    ) -> None:
        self.is_required = api_key is not None or file is not None
        self._digest_key = secrets.token_bytes(32)
        self._api_digest = None if api_key is None else self._digest(api_key)
        self._file = file
        self._dummy_hash = HASHER.hash(secrets.token_urlsafe(32)) if file is not None else ""
        self._executor = ThreadPoolExecutor(max_checks, thread_name_prefix="allinone-keys")
        self._max_under_way = max_checks + max_waiting
        self._under_way: dict[bytes, asyncio.Task[Access | None]] = {}
        self._known: OrderedDict[bytes, Access | None] = OrderedDict()
        self._signature = None if file is None else file.signature()
        self._records = _working(() if file is None else file.load())
        self._checked_at = time.monotonic()

    @property
    def num_working(self) -> int:
        """Keys that open this server."""
        return len(self._records) + (self._api_digest is not None)

    async def authenticate(self, key: str | None) -> Access:
        """Whose key this is.

        Raises:
            AuthenticationRequired: keys are required, and this is none that works.
            ServerBusy: too many unseen keys are being checked.
        """
        if not self.is_required:
            return LOCAL
        if not key:
            raise AuthenticationRequired(
                "This server wants a key.", hint="send the header `Authorization: Bearer KEY`, or `X-API-Key: KEY`"
            )
        self._reload()
        digest = self._digest(key)
        if self._api_digest is not None and hmac.compare_digest(digest, self._api_digest):
            return Access(owner="api-key", is_admin=True)
        if digest in self._known:
            self._known.move_to_end(digest)
            access = self._known[digest]
        else:
            access = await self._check(key, digest)
        if access is None:
            raise AuthenticationRequired("This key is not known here.", hint="`allinone keys new` makes one")
        return access

    def close(self) -> None:
        """Stop the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _digest(self, key: str) -> bytes:
        return hashlib.blake2b(key.encode("utf-8", errors="surrogatepass"), key=self._digest_key).digest()

    async def _check(self, key: str, digest: bytes) -> Access | None:
        """The argon2 way, once for all requests that bring the same key at the same time."""
        match = KEY_PATTERN.fullmatch(key)
        if match is None or self._file is None:  # the shape is public: nothing is learned from a quick answer
            return None
        check = self._under_way.get(digest)
        if check is None:
            if len(self._under_way) >= self._max_under_way:
                raise ServerBusy("Too many new keys are being checked at the moment.", hint="try again in a second")
            check = asyncio.create_task(self._verify(match["id"], match["secret"], digest))
            self._under_way[digest] = check
        return await asyncio.shield(check)

    async def _verify(self, key_id: str, secret: str, digest: bytes) -> Access | None:
        records = self._records
        record = records.get(key_id)
        hashed = self._dummy_hash if record is None else record.hash
        try:
            is_right = await asyncio.get_running_loop().run_in_executor(self._executor, _matches, hashed, secret)
        finally:
            del self._under_way[digest]
        access = None if record is None or not is_right else _access_of(record)
        if records is self._records:  # not reloaded in the meantime
            self._known[digest] = access
            if len(self._known) > _MAX_REMEMBERED:
                self._known.popitem(last=False)
        return access

    def _reload(self) -> None:
        """Take in a changed file; one that cannot be read leaves the keys as they were, and is reported."""
        now = time.monotonic()
        if self._file is None or now - self._checked_at < RECHECK_S:
            return
        self._checked_at = now
        signature = self._file.signature()
        if signature == self._signature:
            return
        self._signature = signature
        if signature is None:
            _log.error("the key file is gone; the keys that were in it stay in use")
            return
        try:
            self._records = _working(self._file.load())
        except AllInOneError as error:
            _log.error("the key file cannot be used; the keys before stay in use: %s", error.message)
            return
        self._known.clear()


def _working(records: Iterable[KeyRecord]) -> dict[str, KeyRecord]:
    return {record.id: record for record in records if record.revoked_at is None}


def _matches(hashed: str, secret: str) -> bool:
    try:
        return HASHER.verify(hashed, secret)
    except (VerificationError, InvalidHashError):
        return False


def _access_of(record: KeyRecord) -> Access:
    return Access(
        owner=record.owner,
        allowed_tasks=None if record.allowed_tasks is None else frozenset(record.allowed_tasks),
        is_admin=record.is_admin,
        limits=KeyLimits(
            max_requests_per_minute=record.max_requests_per_minute,
            max_streams=record.max_streams,
            max_tokens_per_day=record.max_tokens_per_day,
        ),
    )
