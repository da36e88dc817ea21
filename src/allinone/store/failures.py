"""Words for database errors: what happened and what to do, never a value that was to be stored.

SQLite's messages name tables and columns, PostgreSQL's may quote values: of those only the kind and code are shown.
"""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from allinone.errors import AllInOneError

_HINTS: tuple[tuple[str, str], ...] = (
    ("lock", "another process holds it for long; try again"),
    ("not a database", "the file is something else, or damaged: put a backup in its place (docs/store.md)"),
    ("malformed", "the file is damaged: put a backup in its place (docs/store.md)"),
    ("readonly", "the file and its folder must be writable for the user who runs this"),
    ("unable to open", "its folder must exist and be writable for the user who runs this"),
    ("full", "make room on its disk"),
    ("i/o error", "look at the disk and its file system; docs/store.md says how to go back to a backup"),
    ("timeout", "the database holds another transaction for long; try again"),
    ("connection", "is the database server running, and are address, user and password right?"),
)
_ANY_HINT = "docs/store.md says how to check the database and how to go back to a backup"


def describe_failure(error: SQLAlchemyError) -> tuple[str, str]:
    """(what happened, what to do) of an error of the database or of SQLAlchemy."""
    if isinstance(error, PoolTimeout):
        return "all connections are in use", "too many ask at once; try again"
    reason = _reason(error)
    return reason, next((hint for needle, hint in _HINTS if needle in reason.lower()), _ANY_HINT)


def raise_known(error: SQLAlchemyError) -> None:
    """Raise the error of ours that SQLAlchemy wrapped, if it is one: a value that a column refused."""
    if isinstance(error, StatementError) and isinstance(error.orig, AllInOneError):
        raise error.orig from None


def _reason(error: SQLAlchemyError) -> str:
    original = error.orig if isinstance(error, DBAPIError) else None
    if original is None:
        return type(error).__name__
    if type(original).__module__.startswith("sqlite3"):
        return f"{original}"
    code = getattr(original, "sqlstate", None)
    if code is not None:
        return f"{type(original).__name__} ({code})"
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return "the connection was lost"
    lines = str(original).strip().splitlines()
    return f"no connection: {lines[0].rstrip('.')}" if lines else "no connection"
