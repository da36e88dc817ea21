"""How many tokens each owner used on each day, counted by all processes together."""

from __future__ import annotations

from datetime import date

from sqlalchemy import select

from allinone.store.connections import Database
from allinone.store.tables import usage


class Usage:
    """Tokens of a day. Thread-safe; all methods block."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, owner: str, day: date, num_tokens: int) -> None:
        """Count `num_tokens` more. Power loss may take the last moments of these."""
        statement = self._database.insert(usage).values(owner=owner, day=day, num_tokens=num_tokens)
        more = {"num_tokens": usage.c.num_tokens + statement.excluded.num_tokens}
        with self._database.writing(is_durable=False) as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["owner", "day"], set_=more))

    def get(self, owner: str, day: date) -> int:
        """What the owner used on that day; 0 where nothing is known."""
        wanted = select(usage.c.num_tokens).where((usage.c.owner == owner) & (usage.c.day == day))
        with self._database.reading() as connection:
            return connection.execute(wanted).scalar_one_or_none() or 0
