"""What goes wrong with databases: said in words, with a hint, and without what anybody wrote."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import threading
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from allinone.errors import ConfigError, StoreError
from allinone.store import connections
from allinone.store.database import Store

from .conftest import Open, turn

SECRET = "my secret"


@pytest.mark.parametrize(
    "url",
    [
        "not a url",
        "mysql://me:my secret@host/name",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory&uri=true",
        "postgresql+asyncpg://host/name",
    ],
)
def test_address_that_is_no_store_is_refused(url: str) -> None:
    """In memory, everything would be lost; others we do not test. The password is not repeated."""
    with pytest.raises(ConfigError) as refusal:
        Store.open(url)
    assert "sqlite:///FILE" in str(refusal.value.hint) and SECRET not in str(refusal.value)


def test_postgresql_without_its_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver is an extra."""

    def fail(url: object) -> None:
        raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")

    monkeypatch.setattr(connections, "_postgresql", fail)
    with pytest.raises(ConfigError, match="psycopg") as refusal:
        Store.open("postgresql://host/name")
    assert "pip install" in str(refusal.value.hint)


def test_server_that_is_not_there_is_named_without_the_password() -> None:
    """What an operator sees first when the two are started in the wrong order."""
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError) as failure:
        Store.open(f"postgresql://ann:{SECRET}@127.0.0.1:9/name")
    said = "".join(traceback.format_exception(failure.value))
    assert "127.0.0.1" in str(failure.value) and SECRET not in said and "my%20secret" not in said
    assert "running" in str(failure.value.hint)


@pytest.mark.parametrize("content", [b"text, and long enough to be a database" * 99, b"SQLite format 3\x00" * 99])
def test_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    """It is somebody's file: refused, and left as it is."""
    path = tmp_path / "store.db"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"store\.db") as failure:
        Store.open(f"sqlite:///{path}")
    assert "backup" in str(failure.value.hint) and path.read_bytes() == content


def test_damaged_file_is_told_when_it_is_read(tmp_path: Path) -> None:
    """Every page but the first overwritten: an error in words, at the latest when the page is needed."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    with Store.open(url) as store:
        begun = store.conversations.create("ann", language="zh")
        for number in range(50):
            store.conversations.add_turn("ann", begun.id, expected_num_turns=number, **turn(f"{number} " * 100))
    path = tmp_path / "store.db"
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xa5" * (len(data) - 4096))
    with pytest.raises(StoreError) as failure, Store.open(url) as store:
        store.conversations.turns("ann", begun.id)
    assert "damaged" in str(failure.value.hint)


def test_place_that_cannot_be_a_file_is_told(tmp_path: Path) -> None:
    """A typing error in the path."""
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "file").touch()
    for name in ("file/store.db", "folder.db"):
        with pytest.raises(StoreError, match=name) as failure:
            Store.open(f"sqlite:///{tmp_path / name}")
        assert failure.value.hint


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_new_file_is_readable_for_its_owner_only(tmp_path: Path) -> None:
    """Other users of the machine have no business with what people say; a mode that was changed stays."""
    path = tmp_path / "new" / "folder" / "store.db"
    with Store.open(f"sqlite:///{path}") as store:
        store.conversations.create("ann", language="zh")
        for file in path.parent.glob("store.db*"):
            assert file.name.endswith(".lock") or file.stat().st_mode & 0o077 == 0, file
    assert path.parent.stat().st_mode & 0o077 == 0
    path.chmod(0o640)
    Store.open(f"sqlite:///{path}").close()
    assert path.stat().st_mode & 0o777 == 0o640


@contextmanager
def _unprivileged() -> Generator[None]:
    """What may not be written, root may; so be somebody else meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_folder_that_cannot_be_written_is_told() -> None:
    """With and without a store in it: SQLite needs two more files beside the database."""
    folder = Path(tempfile.mkdtemp(prefix="readonly"))
    url = f"sqlite:///{folder / 'store.db'}"
    try:
        for is_there in (False, True):
            if is_there:
                folder.chmod(0o755)
                Store.open(url).close()
                for path in folder.iterdir():
                    path.chmod(0o444)
            folder.chmod(0o555)
            with _unprivileged(), pytest.raises(StoreError, match=r"store\.db") as failure:
                Store.open(url)
            assert "writable" in str(failure.value.hint)
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_store_that_became_unwritable_is_told(tmp_path: Path) -> None:
    """The file was closed to writing while the program ran: reading goes on, writing says why not."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    with Store.open(url) as store, store.database._connection("no transaction") as connection:
        connection.exec_driver_sql("PRAGMA query_only=ON")
        connection.close()
        with pytest.raises(StoreError) as failure:
            store.conversations.create("ann", language="zh")
        assert "writable" in str(failure.value.hint)
        assert not store.conversations.list("ann", limit=9)


def test_errors_hold_nothing_that_was_to_be_stored(open_store: Open, url: str) -> None:
    """Neither the message nor a logged traceback: databases like to quote what they refuse."""
    store = open_store()
    begun = store.conversations.create("ann", language="zh")
    with store.database.writing() as connection:
        connection.exec_driver_sql("CREATE UNIQUE INDEX one_text ON turns (text)")
    told: dict[str, Any] = turn(SECRET, SECRET)
    store.conversations.add_turn("ann", begun.id, expected_num_turns=0, **told)
    with pytest.raises(StoreError) as failure:
        store.conversations.add_turn("ann", begun.id, expected_num_turns=1, **told)
    assert SECRET not in "".join(traceback.format_exception(failure.value)) and failure.value.hint
    assert store.conversations.get("ann", begun.id).num_turns == 1, "half a transaction was kept"


def test_lock_that_is_held_for_long_is_told(
    open_store: Open, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another process that hangs in a transaction: an error after a while, not a server that hangs as well."""
    monkeypatch.setattr(connections, "MAX_WAIT_S", 1)
    store, other = open_store(), open_store()
    begun = store.conversations.create("ann", language="zh")
    with other.database.writing() as connection:
        connection.exec_driver_sql("UPDATE conversations SET title = 'x'")
        with pytest.raises(StoreError) as failure:
            store.conversations.rename("ann", begun.id, "y")
        assert store.conversations.get("ann", begun.id).title == "", "readers wait for writers"
    assert "try again" in str(failure.value.hint)
    assert store.conversations.rename("ann", begun.id, "y").title == "y"


def test_writer_that_reads_first_is_not_overtaken(sqlite_url: str) -> None:
    """SQLite refuses to write when another one wrote since the first read; so who will write waits before it reads."""
    with Store.open(sqlite_url) as store, Store.open(sqlite_url) as other:
        begun = store.conversations.create("ann", language="zh", title="0")
        quicker = threading.Thread(target=lambda: other.conversations.rename("ann", begun.id, "quicker"))
        with store.database.writing() as connection:
            assert connection.exec_driver_sql("SELECT title FROM conversations").scalar_one() == "0"
            quicker.start()
            quicker.join(0.5)
            connection.exec_driver_sql("UPDATE conversations SET title = title || '1'")
        quicker.join()
        assert store.conversations.get("ann", begun.id).title == "quicker"


def test_opening_waits_for_another_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says so when that one takes too long."""
    monkeypatch.setattr(connections, "MAX_WAIT_S", 0.2)
    url = f"sqlite:///{tmp_path / 'store.db'}"
    with Store.open(url) as store, store.database.alone():
        outcome: list[Exception] = []

        def open_another() -> None:
            try:
                Store.open(url)
            except StoreError as error:
                outcome.append(error)

        thread = threading.Thread(target=open_another)
        thread.start()
        thread.join()
        assert "opened by another process" in str(outcome[0])
    Store.open(url).close()


def test_what_is_acknowledged_is_on_the_disk(open_store: Open, url: str) -> None:
    """The settings that make a turn survive power loss, as the database itself reports them; also after lazy writes."""
    store = open_store()
    is_sqlite = url.startswith("sqlite")
    asked = "PRAGMA synchronous" if is_sqlite else "SHOW synchronous_commit"
    for is_durable in (False, True, False, True):
        with store.database.writing(is_durable=is_durable) as connection:
            found = str(connection.exec_driver_sql(asked).scalar_one())
        assert (found in ("2", "on")) is is_durable, found
    if is_sqlite:
        with store.database.reading() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1


def test_what_is_deleted_is_gone_from_the_file(tmp_path: Path) -> None:
    """SQLite by itself only forgets where it was."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    secret = "unmistakable"
    with Store.open(url) as store:
        begun = store.conversations.create("ann", language="zh", title=secret)
        store.conversations.create("ann", language="zh")
        store.conversations.add_turn("ann", begun.id, expected_num_turns=0, **turn(secret * 1000, secret))
        assert any(secret.encode() in path.read_bytes() for path in tmp_path.iterdir())
        store.conversations.delete("ann", begun.id)
    assert not any(secret.encode() in path.read_bytes() for path in tmp_path.iterdir())


def test_backup_of_an_open_store_is_whole(tmp_path: Path) -> None:
    """As docs/store.md says: while turns are added, the copy has all that were acknowledged before it began."""
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}") as store:
        begun = store.conversations.create("ann", language="zh")
        store.conversations.add_turn("ann", begun.id, expected_num_turns=0, **turn())
        source, copy = sqlite3.connect(tmp_path / "store.db"), sqlite3.connect(tmp_path / "copy.db")
        source.backup(copy)
        source.close()
        copy.close()
    with Store.open(f"sqlite:///{tmp_path / 'copy.db'}") as copied:
        assert len(copied.conversations.turns("ann", begun.id)) == 1
