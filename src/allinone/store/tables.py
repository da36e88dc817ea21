"""The tables as they are now, and how values lie in them. How they came to be so: `migrations`."""

from __future__ import annotations

import json
import secrets
from datetime import datetime, timedelta, timezone
from typing import Any, Literal, cast

from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

from allinone.errors import InvalidInput

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def new_id(prefix: Literal["conv", "turn", "ans", "fb"]) -> str:
    """A new id that nobody can guess: 128 random bits."""
    return f"{prefix}_{secrets.token_urlsafe(16)}"


class UserText(TypeDecorator[str]):
    """Text as users send it. PostgreSQL takes no NUL, so it is written as DLE 0, and DLE itself twice."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """The text as it is stored.

        Raises:
            InvalidInput: it holds a lone surrogate, which is no character.
        """
        if value is None:
            return None
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidInput("The text holds half a surrogate pair, which is no character.") from None
        return value.replace("\x10", "\x10\x10").replace("\x00", "\x100")

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """The text as it was given."""
        if value is None or "\x10" not in value:
            return value
        return "\x10".join(part.replace("\x100", "\x00") for part in value.split("\x10\x10"))


class Moment(TypeDecorator[datetime]):
    """A point in time, to the microsecond, in UTC."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Microseconds since 1970."""
        return None if value is None else (value - _EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """With its time zone, UTC."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class JsonObject(TypeDecorator[dict[str, Any]]):
    """A JSON object, as ASCII."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: dict[str, Any] | None, dialect: Dialect) -> str | None:
        """JSON text."""
        return None if value is None else json.dumps(value, allow_nan=False)

    def process_result_value(self, value: str | None, dialect: Dialect) -> dict[str, Any] | None:
        """The object."""
        return None if value is None else cast("dict[str, Any]", json.loads(value))


metadata = MetaData()

schema = Table("allinone_schema", metadata, Column("version", Integer, nullable=False))

conversations = Table(
    "conversations",
    metadata,
    Column("id", UserText, primary_key=True),
    Column("owner", UserText, nullable=False),
    Column("title", UserText, nullable=False),
    Column("language", UserText, nullable=False),
    Column("state", LargeBinary),
    Column("num_turns", Integer, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Index("conversations_of_owner", "owner", "updated_at", "id"),
)

turns = Table(
    "turns",
    metadata,
    Column("id", UserText, primary_key=True),
    Column("conversation_id", UserText, ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("text", UserText, nullable=False),
    Column("reply", UserText, nullable=False),
    Column("mood", JsonObject),
    Column("finish_reason", UserText, nullable=False),
    Column("task_version", UserText, nullable=False),
    Column("answer_id", UserText, nullable=False),
    Column("created_at", Moment, nullable=False),
    UniqueConstraint("conversation_id", "number"),
)

answers = Table(
    "answers",
    metadata,
    Column("id", UserText, primary_key=True),
    Column("owner", UserText, nullable=False),
    Column("task", UserText, nullable=False),
    Column("version", UserText, nullable=False),
    Column("kind", UserText, nullable=False),
    Column("created_at", Moment, nullable=False),
    Index("answers_by_age", "created_at"),
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", UserText, primary_key=True),
    Column("owner", UserText, nullable=False),
    Column("answer_id", UserText, nullable=False, unique=True),
    Column("task", UserText, nullable=False),
    Column("version", UserText, nullable=False),
    Column("rating", UserText, nullable=False),
    Column("comment", UserText),
    Column("correction", UserText),
    Column("created_at", Moment, nullable=False),
    Index("feedback_of_owner", "owner", "created_at"),
)

usage = Table(
    "usage",
    metadata,
    Column("owner", UserText, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("num_tokens", BigInteger, nullable=False),
)
