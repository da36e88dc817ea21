"""`Store`: everything that outlives the process, behind one URL.

Conversations, answers, feedback and counts of tokens; what each of them is stands in its own module. Knows no model and
no HTTP. Above: the server. Below, in this room: `connections` (SQLite and PostgreSQL), `migrations`, `tables`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from types import TracebackType

from sqlalchemy import delete

from allinone.store.connections import Database
from allinone.store.conversations import Conversations
from allinone.store.feedback import Answers, Feedback
from allinone.store.migrations import MIGRATIONS, Migration, migrate
from allinone.store.tables import answers, conversations, feedback, usage
from allinone.store.usage import Usage


def _now() -> datetime:
    return datetime.now(timezone.utc)


class Store:
    """An open store. Thread-safe; all methods block; several processes may open the same one. Use `Store.open`."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = _now) -> None:
        self.database = database
        self.conversations = Conversations(database, clock)
        self.answers = Answers(database, clock)
        self.feedback = Feedback(database, self.answers, clock)
        self.usage = Usage(database)

    @classmethod
    def open(
        cls, url: str, *, clock: Callable[[], datetime] = _now, migrations: Sequence[Migration] = MIGRATIONS
    ) -> Store:
        """Open a store; one that is not there is made, an older one is brought up to date.

        Args:
            url: "sqlite:///FILE" or "postgresql://USER:PASSWORD@HOST/DATABASE".
            clock: says what time it is, in UTC.
            migrations: versions of the schema, oldest first.

        Raises:
            ConfigError: not such a URL. StoreError: it cannot be read or written.
            SchemaTooNew: a newer program wrote it. MigrationFailed: it stays as it was.
        """
        database = Database.connect(url)
        try:
            with database.alone(), database.writing() as connection:
                database.lock_for_opening(connection)
                migrate(connection, place=database.place, migrations=migrations)
            store = cls(database, clock=clock)
            store.answers.prune()
        except BaseException:
            database.close()
            raise
        return store

    def delete_owner(self, owner: str) -> None:
        """Delete all that is kept of one owner."""
        with self.database.writing() as connection:
            for table in (conversations, answers, feedback, usage):  # turns go with their conversations
                connection.execute(delete(table).where(table.c.owner == owner))

    def close(self) -> None:
        """Close all connections. Idempotent."""
        self.database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
