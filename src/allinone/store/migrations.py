"""How the tables came to be: one function a version, run in order, all of them or none.

A migration that has been released is never changed; a new version appends one. It is plain SQL that both databases
understand, so that what `tables` says later does not change the past. A test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, delete, insert, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from allinone.errors import MigrationFailed, SchemaTooNew
from allinone.store.failures import describe_failure
from allinone.store.tables import schema

Migration = Callable[[Connection], None]


def conversations_and_feedback(connection: Connection) -> None:
    """Version 1: conversations with their turns, answers that were given, and what people think of them."""
    blob = "BYTEA" if connection.dialect.name == "postgresql" else "BLOB"
    for statement in (
        "CREATE TABLE conversations (id TEXT PRIMARY KEY NOT NULL, owner TEXT NOT NULL, title TEXT NOT NULL,"
        f" language TEXT NOT NULL, state {blob}, num_turns INTEGER NOT NULL,"
        " created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL)",
        "CREATE INDEX conversations_of_owner ON conversations (owner, updated_at, id)",
        "CREATE TABLE turns (id TEXT PRIMARY KEY NOT NULL,"
        " conversation_id TEXT NOT NULL, number INTEGER NOT NULL,"
        " text TEXT NOT NULL, reply TEXT NOT NULL, mood TEXT, finish_reason TEXT NOT NULL,"
        " task_version TEXT NOT NULL, answer_id TEXT NOT NULL, created_at BIGINT NOT NULL,"
        " FOREIGN KEY (conversation_id) REFERENCES conversations (id) ON DELETE CASCADE,"
        " UNIQUE (conversation_id, number))",
        "CREATE TABLE answers (id TEXT PRIMARY KEY NOT NULL, owner TEXT NOT NULL, task TEXT NOT NULL,"
        " version TEXT NOT NULL, kind TEXT NOT NULL, created_at BIGINT NOT NULL)",
        "CREATE INDEX answers_by_age ON answers (created_at)",
        "CREATE TABLE feedback (id TEXT PRIMARY KEY NOT NULL, owner TEXT NOT NULL, answer_id TEXT NOT NULL UNIQUE,"
        " task TEXT NOT NULL, version TEXT NOT NULL, rating TEXT NOT NULL, comment TEXT, correction TEXT,"
        " created_at BIGINT NOT NULL)",
        "CREATE INDEX feedback_of_owner ON feedback (owner, created_at)",
    ):
        connection.exec_driver_sql(statement)


def tokens_of_a_day(connection: Connection) -> None:
    """Version 2: how many tokens each owner used on each day, for all processes together."""
    connection.exec_driver_sql(
        "CREATE TABLE usage (owner TEXT NOT NULL, day DATE NOT NULL, num_tokens BIGINT NOT NULL,"
        " PRIMARY KEY (owner, day))"
    )


MIGRATIONS: tuple[Migration, ...] = (conversations_and_feedback, tokens_of_a_day)


def read_version(connection: Connection) -> int:
    """The version of the database; 0 where it is empty."""
    if not inspect(connection).has_table(schema.name):
        return 0
    return connection.execute(select(schema.c.version)).scalar_one()


def migrate(connection: Connection, *, place: str, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the database to the newest version, within the caller's transaction.

    Args:
        connection: in a transaction that writes, while no other process migrates.
        place: the database as messages name it.
        migrations: all of them, oldest first.

    Raises:
        SchemaTooNew: the database is newer. MigrationFailed: a migration failed; the transaction must be undone.
    """
    version = read_version(connection)
    if version > len(migrations):
        raise SchemaTooNew(
            f"The store {place} has schema version {version}; this program knows versions up to {len(migrations)}.",
            hint="update allinone, or put back a backup from before",
        )
    if version == len(migrations):
        return
    for number, migration in enumerate(migrations[version:], version + 1):
        try:
            migration(connection)
        except Exception as error:
            reason = describe_failure(error)[0] if isinstance(error, SQLAlchemyError) else type(error).__name__
            raise MigrationFailed(
                f"The store {place} could not be brought from version {number - 1} to {number}: {reason}.",
                hint="nothing was changed; the version that wrote it can still use it",
            ) from None
    schema.create(connection, checkfirst=True)
    connection.execute(delete(schema))
    connection.execute(insert(schema).values(version=len(migrations)))
