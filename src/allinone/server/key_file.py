"""Keys at rest: a JSON file of hashed secrets with what each key may do. Written whole, atomically, mode 0600.

A secret is 256 random bits and is shown once; the file holds its argon2 hash only. Knows no HTTP. Above: `keys.py`,
which verifies, and `cli/keys.py`, which makes, lists and revokes.
"""

from __future__ import annotations

import os
import re
import secrets
import string
import tempfile
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from argon2 import PasswordHasher
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from allinone.errors import ConfigError, NotFound, StoreError

KEY_PATTERN = re.compile(r"aio_(?P<id>[a-z0-9]{12})_(?P<secret>[A-Za-z0-9_-]{43})")
_ID_ALPHABET = string.ascii_lowercase + string.digits
HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
"""19 MiB and two passes: the least that OWASP names. The secret is random, so nothing is gained by more."""


class KeyRecord(BaseModel):
    """One key as the file keeps it.

    Attributes:
        id: the public part of the key.
        owner: whose conversations and answers are seen with it; the id, unless the key replaces another.
        hash: argon2id of the secret part.
        revoked_at: when it stopped working; None while it works.
        allowed_tasks: names of tasks; None for all of them and the bare model.
        max_requests_per_minute, max_streams, max_tokens_per_day: None for no limit of its own.
        is_admin: may edit prompts and read the metrics.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[a-z0-9]{12}$")
    name: str = Field(min_length=1, max_length=100)
    owner: str = Field(min_length=1, max_length=100)
    hash: str = Field(repr=False)
    created_at: datetime
    revoked_at: datetime | None = None
    allowed_tasks: tuple[str, ...] | None = None
    max_requests_per_minute: int | None = Field(default=None, ge=1)
    max_streams: int | None = Field(default=None, ge=1)
    max_tokens_per_day: int | None = Field(default=None, ge=1)
    is_admin: bool = False


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: tuple[KeyRecord, ...] = ()


class KeyFile:
    """The file; every change reads it, changes it and replaces it under a lock between processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> tuple[KeyRecord, ...]:
        """All keys, revoked ones too; none where there is no file.

        Raises:
            ConfigError: it is not such a file. StoreError: it cannot be read.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise StoreError(f"The key file {str(self.path)!r} cannot be read: {error.strerror or error}.") from error
        try:
            return _Content.model_validate_json(content).keys
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "the file"
            raise ConfigError(f"The key file {str(self.path)!r} is wrong at {place}: {first['msg']}.") from None

    def signature(self) -> tuple[int, int, int] | None:
        """What changes when the file does; None where there is none."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_size, status.st_ino)

    def add(
        self,
        name: str,
        *,
        owner: str | None = None,
        allowed_tasks: tuple[str, ...] | None = None,
        max_requests_per_minute: int | None = None,
        max_streams: int | None = None,
        max_tokens_per_day: int | None = None,
        is_admin: bool = False,
    ) -> tuple[KeyRecord, str]:
        """Make a key; the second value is the key itself, which nothing keeps."""
        key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(12))
        secret = secrets.token_urlsafe(32)
        record = KeyRecord(
            id=key_id,
            name=name,
            owner=owner or key_id,
            hash=HASHER.hash(secret),
            created_at=datetime.now(timezone.utc),
            allowed_tasks=allowed_tasks,
            max_requests_per_minute=max_requests_per_minute,
            max_streams=max_streams,
            max_tokens_per_day=max_tokens_per_day,
            is_admin=is_admin,
        )
        self._change(lambda records: (*records, record))
        return record, f"aio_{key_id}_{secret}"

    def revoke(self, id_or_name: str) -> KeyRecord:
        """Let a key work no more; a running server notices within a second.

        Raises:
            NotFound: no working key has this id or name, or more than one has the name.
        """
        revoked: list[KeyRecord] = []

        def change(records: tuple[KeyRecord, ...]) -> tuple[KeyRecord, ...]:
            found = [r for r in records if r.revoked_at is None and id_or_name in (r.id, r.name)]
            if len(found) != 1:
                what = "No working key has" if not found else f"{len(found)} working keys have"
                raise NotFound(f"{what} the id or name {id_or_name!r}.", hint="`allinone keys list` shows them")
            revoked.append(found[0].model_copy(update={"revoked_at": datetime.now(timezone.utc)}))
            return tuple(revoked[0] if record.id == found[0].id else record for record in records)

        self._change(change)
        return revoked[0]

    def _change(self, change: Callable[[tuple[KeyRecord, ...]], tuple[KeyRecord, ...]]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_name(self.path.name + ".lock"), mode=0o600):
                _replace(self.path, _Content(keys=change(self.load())).model_dump_json(indent=2) + "\n")
        except OSError as error:
            raise StoreError(
                f"The key file {str(self.path)!r} cannot be written: {error.strerror or error}."
            ) from error


def _replace(path: Path, text: str) -> None:
    """Write a file beside the old one, readable by its owner only, and swap it in."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
