"""The schema over time: what older versions left is read, what newer ones left is refused, failures change nothing."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, inspect, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection

from allinone.errors import MigrationFailed, SchemaTooNew
from allinone.store.database import Store
from allinone.store.migrations import MIGRATIONS
from allinone.store.tables import metadata

from .conftest import Open, turn

EXAMPLES = Path(__file__).with_name("examples")


def _connect(url: str) -> Any:
    """A plain connection, beside the store."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return sqlite3.connect(str(parsed.database), isolation_level=None)
    import psycopg

    query = f"dbname={parsed.database} user={parsed.username} host={parsed.query['host']}"
    return psycopg.connect(query, autocommit=True)


def _content(url: str) -> dict[str, list[Any]]:
    """Every table and every row."""
    engine = create_engine(make_url(url).set(drivername="sqlite" if url.startswith("sqlite") else "postgresql+psycopg"))
    with engine.connect() as connection:
        tables = sorted(inspect(connection).get_table_names())
        rows = {name: connection.exec_driver_sql(f"SELECT * FROM {name}").all() for name in tables}
    engine.dispose()
    return {name: sorted(map(repr, found)) for name, found in rows.items()}


def _load_example(url: str, number: int) -> None:
    """Fill an empty database with what a version left, in the database's own words."""
    text = (EXAMPLES / f"version_{number}.sql").read_text(encoding="utf-8")
    connection: DBAPIConnection = _connect(url)
    if url.startswith("sqlite"):
        connection.cursor().executescript(text)  # type: ignore[attr-defined] # of sqlite3
    else:
        text = re.sub(r"X'([0-9A-F]*)'", r"'\\x\1'", text).replace(" BLOB", " BYTEA").replace("char(16)", "chr(16)")
        connection.cursor().execute(text.replace("BEGIN TRANSACTION;", ""))
    connection.close()


@pytest.mark.parametrize("number", range(1, len(MIGRATIONS)))
def test_store_of_an_older_version_is_brought_up_to_date(url: str, open_store: Open, number: int) -> None:
    """What people said under an older version is all there, and goes on."""
    _load_example(url, number)
    store = open_store()
    (conversation,) = store.conversations.list("ann", limit=9)
    turns = store.conversations.turns("ann", conversation.id)
    assert [said.text for said in turns] == ["今天的实验终于成功了，太棒了！", "a\x00b'; --"]
    assert turns[0].mood is not None and turns[0].mood["probs"] == {"正面": 0.75, "负面": 0.25}
    assert store.conversations.get("ann", conversation.id).state == b"\x00\x02"
    assert [given.comment for given in store.feedback.list("ann", limit=9)] == ["好"]
    store.conversations.add_turn("ann", conversation.id, expected_num_turns=2, **turn())
    assert _content(url)["allinone_schema"] == [f"({len(MIGRATIONS)},)"]


def test_every_older_version_has_an_example() -> None:
    """Whoever adds a migration keeps a database of the version before it."""
    assert {path.name for path in EXAMPLES.iterdir()} == {f"version_{i}.sql" for i in range(1, len(MIGRATIONS))}


def test_migrations_lead_to_the_tables_that_the_program_uses(url: str, open_store: Open, tmp_path: Path) -> None:
    """Tables, columns, types, keys and indexes: `tables` and `migrations` say the same."""
    open_store()
    drivername = "sqlite" if url.startswith("sqlite") else "postgresql+psycopg"
    migrated = create_engine(make_url(url).set(drivername=drivername))
    found = _describe(migrated)
    with migrated.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.exec_driver_sql(f"DROP TABLE {table.name}")
    metadata.create_all(migrated)
    assert found == _describe(migrated)
    migrated.dispose()


def _describe(engine: Any) -> dict[str, Any]:
    seen = inspect(engine)
    return {
        name: {
            "columns": [(c["name"], repr(c["type"]), c["nullable"]) for c in seen.get_columns(name)],
            "primary key": seen.get_pk_constraint(name)["constrained_columns"],
            "indexes": sorted((index["name"] or "", index["column_names"]) for index in seen.get_indexes(name)),
            "unique": sorted(unique["column_names"] for unique in seen.get_unique_constraints(name)),
            "foreign keys": [
                (key["constrained_columns"], key["referred_table"], key["referred_columns"], key["options"])
                for key in seen.get_foreign_keys(name)
            ],
        }
        for name in seen.get_table_names()
    }


def _add_column(connection: Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE conversations ADD COLUMN colour TEXT")
    connection.exec_driver_sql("DELETE FROM turns")


def _break(connection: Connection) -> None:
    connection.exec_driver_sql("INSERT INTO answers (id) VALUES ('secret')")


def _raise(connection: Connection) -> None:
    raise ZeroDivisionError("secret")


@pytest.mark.parametrize("last", [_break, _raise])
def test_failing_migration_leaves_the_database_as_it_was(open_store: Open, url: str, last: Any) -> None:
    """Also the part that went well is undone, and the program from before goes on with it."""
    store = open_store()
    begun = store.conversations.create("ann", language="zh")
    store.conversations.add_turn("ann", begun.id, expected_num_turns=0, **turn())
    store.close()
    before = _content(url)
    with pytest.raises(MigrationFailed, match=f"from version {len(MIGRATIONS) + 1} to") as failure:
        open_store(migrations=(*MIGRATIONS, _add_column, last))
    assert "secret" not in str(failure.value) and failure.value.hint
    assert _content(url) == before
    assert len(open_store().conversations.turns("ann", begun.id)) == 1
    assert not open_store(migrations=(*MIGRATIONS, _add_column)).conversations.turns("ann", begun.id)


def test_first_migration_that_fails_leaves_an_empty_database(open_store: Open, url: str) -> None:
    """Not even the table of versions."""
    with pytest.raises(MigrationFailed):
        open_store(migrations=(*MIGRATIONS, _raise))
    assert _content(url) == {}


def test_newer_schema_is_refused_and_not_touched(open_store: Open, url: str) -> None:
    """Going back to an older program must not destroy what the newer one wrote."""
    open_store(migrations=(*MIGRATIONS, _add_column)).close()
    before = _content(url)
    with pytest.raises(SchemaTooNew, match=f"schema version {len(MIGRATIONS) + 1}.*up to {len(MIGRATIONS)}") as refusal:
        open_store()
    assert "update" in str(refusal.value.hint) and _content(url) == before


def test_store_is_made_once(url: str) -> None:
    """Opening what is up to date changes nothing."""
    Store.open(url).close()
    before = _content(url)
    Store.open(url).close()
    assert _content(url) == before
