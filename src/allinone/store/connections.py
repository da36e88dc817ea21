"""The database behind the store: one URL opened, short transactions, and what its failures become.

Owns the engine, its settings (what is durable, who waits how long) and the translation of database errors, which never
carry what users wrote. Knows no table. Above: `migrations` and the modules with the tables' meaning. SQLite and
PostgreSQL differ here and in one word of `migrations`, nowhere else.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, cast

from filelock import FileLock, Timeout
from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from allinone.errors import ConfigError, StoreError
from allinone.store.failures import describe_failure, raise_known

MAX_WAIT_S = 30
"""The longest that a transaction waits for those of other processes."""
_CONNECT_TIMEOUT_S = 10
_Mode = Literal["read", "write", "write lazily", "no transaction"]
_MODE = "allinone_mode"  # execution option of a connection: what its transaction is for


class Database:
    """One database, opened; thread-safe. Use `Database.connect`."""

    def __init__(self, engine: Engine, *, place: str, file: Path | None) -> None:
        self.place = place
        self._engine = engine
        self._file = file
        # SQLite has one writer at a time, and those who wait for it poll; within the process they queue up here
        self._turnstile: AbstractContextManager[Any] = nullcontext() if file is None else threading.Lock()

    @classmethod
    def connect(cls, url: str) -> Database:
        """Open a URL.

        Args:
            url: "sqlite:///relative.db", "sqlite:////absolute.db" or "postgresql://user:password@host/name".

        Raises:
            ConfigError: not such a URL, or the driver is not installed. StoreError: it cannot be opened.
        """
        parsed = _parse_url(url)
        try:
            if parsed.get_backend_name() == "postgresql":
                return cls(_postgresql(parsed), place=parsed.render_as_string(hide_password=True), file=None)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"PostgreSQL needs the package {error.name!r}.", hint="pip install 'qwen-allinone[postgres]'"
            ) from error
        file = Path(str(parsed.database)).absolute()  # whatever becomes the working directory later
        database = cls(_sqlite(parsed.set(database=str(file))), place=str(file), file=file)
        _make(file)
        with database.alone(), database._connection("no transaction") as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")  # kept in the file; readers do not wait for writers
        return database

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a file."""
        return self._file is not None

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """A transaction that only reads."""
        with self._connection("read") as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self, *, is_durable: bool = True) -> Generator[Connection]:
        """A transaction that writes; all of it or nothing.

        Args:
            is_durable: it is on the disk when the block ends. False: it survives the death of the process, but power
                loss may take the last moments; for what is written often and matters little.
        """
        mode: _Mode = "write" if is_durable else "write lazily"
        with self._turnstile, self._connection(mode) as connection, connection.begin():
            yield connection

    @contextmanager
    def alone(self) -> Generator[None]:
        """No other process opens this database meanwhile (`lock_for_opening` does the same for PostgreSQL)."""
        if self._file is None:
            yield
            return
        lock = FileLock(self._file.with_name(f"{self._file.name}.lock"), timeout=MAX_WAIT_S)
        try:
            lock.acquire()
        except Timeout as error:
            raise StoreError(
                f"The store {self.place} is being opened by another process for more than {MAX_WAIT_S} s.",
                hint="wait for it; a process that hangs has to be ended",
            ) from error
        except OSError as error:
            raise _cannot_open(self._file, error) from error
        try:
            yield
        finally:
            lock.release()

    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """An INSERT that knows ON CONFLICT, which both databases spell alike."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def lock_for_opening(self, connection: Connection) -> None:
        """Until this transaction ends, others who call this wait; on SQLite every writer waits anyway."""
        if not self.is_sqlite:
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(4710113042)")

    def close(self) -> None:
        """Close all connections. Idempotent."""
        self._engine.dispose()

    @contextmanager
    def _connection(self, mode: _Mode) -> Generator[Connection]:
        """A connection whose errors become ours; without their cause, which may hold what somebody wrote."""
        try:
            with self._engine.connect() as connection:
                connection.execution_options(**{_MODE: mode})
                yield connection
        except SQLAlchemyError as error:
            raise_known(error)
            reason, hint = describe_failure(error)
            raise StoreError(f"The store {self.place} failed: {reason}.", hint=hint) from None


def _make(file: Path) -> None:
    """Make the file where it is not there: only its owner may read what people write."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise _cannot_open(file, error) from error


def _cannot_open(file: Path, error: OSError) -> StoreError:
    return StoreError(
        f"The store {file} cannot be opened: {error.strerror or error}.",
        hint="the file and its folder must be writable for the user who runs this",
    )


def _parse_url(url: str) -> URL:
    hint = "write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the URL may hold a password: it is not repeated
        raise ConfigError("The address of the store is not a URL.", hint=hint) from None
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        if parsed.database in (None, "", ":memory:") or str(parsed.database).startswith("file:"):
            raise ConfigError("The store needs a file: what is in memory would be lost.", hint=hint)
        return parsed
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    raise ConfigError(f"The store cannot be of the kind {parsed.drivername!r}.", hint=hint)


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, hide_parameters=True, pool_size=8, max_overflow=8, pool_timeout=MAX_WAIT_S)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: object) -> None:
        connection.isolation_level = None  # sqlite3 begins no transactions; `begin` below does
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={MAX_WAIT_S * 1_000}")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA secure_delete=ON")  # what a user deletes is overwritten, not only unlinked
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        mode = _mode(connection)
        if mode == "read":
            connection.exec_driver_sql("BEGIN")
        elif mode != "no transaction":
            connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if mode == 'write' else 'NORMAL'}")
            # IMMEDIATE: a transaction that reads before it writes would fail, not wait, when another one was quicker
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _postgresql(url: URL) -> Engine:
    engine = create_engine(
        url,
        hide_parameters=True,
        pool_size=8,
        max_overflow=8,
        pool_timeout=MAX_WAIT_S,
        pool_pre_ping=True,  # the server may have been restarted
        connect_args={"connect_timeout": _CONNECT_TIMEOUT_S},
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        mode = _mode(connection)
        if mode != "read":
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{MAX_WAIT_S}s'")
            connection.exec_driver_sql(f"SET LOCAL synchronous_commit = {'on' if mode == 'write' else 'off'}")

    return engine


def _mode(connection: Connection) -> _Mode:
    return cast(_Mode, connection.get_execution_options()[_MODE])
