"""Which answers were given, so that feedback can refer to them: written before the answer is sent, many at a time.

Answers that are ready at the same moment share one transaction, so a busy server does not pay one for each. Above: the
API modules. Below: the store.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from typing import Protocol

from allinone.prompts.prompt_file import PromptFile
from allinone.server.keys import Access

Row = tuple[str, str, str, str]


class AnswerStore(Protocol):
    """Answers as `store.answers` keeps them. Methods block."""

    def add_many(self, owner: str, rows: Iterable[Row]) -> None:
        """Remember answers, each as (id, task, version, kind)."""
        ...


def new_answer_id() -> str:
    """The id of an answer: 128 random bits."""
    return f"ans_{secrets.token_urlsafe(16)}"


class AnswerLog:
    """Writes what was answered. Used from one event loop."""

    def __init__(self, store: AnswerStore) -> None:
        self._store = store
        self._rows: dict[str, list[Row]] = {}
        self._written: asyncio.Future[None] | None = None
        self._writer: asyncio.Task[None] | None = None

    async def add(self, access: Access, prompt: PromptFile, num_answers: int = 1) -> list[str]:
        """Remember answers of one task and return their ids; they are in the store then.

        It may run while the answer is still computed: an id that nobody is told does no harm.

        Raises:
            StoreError: the store does not take them.
        """
        rows = [(new_answer_id(), prompt.full_name, prompt.version, prompt.kind) for _ in range(num_answers)]
        if rows:
            self._rows.setdefault(access.owner, []).extend(rows)
            if self._written is None:
                self._written = asyncio.get_running_loop().create_future()
            written = self._written
            if self._writer is None or self._writer.done():
                self._writer = asyncio.create_task(self._write())
            await asyncio.shield(written)
        return [row[0] for row in rows]

    async def _write(self) -> None:
        """Write until nothing is left; what comes in meanwhile is the next transaction."""
        while self._written is not None:
            rows, self._rows = self._rows, {}
            written, self._written = self._written, None
            try:
                await asyncio.to_thread(self._add, rows)
            except Exception as error:  # whoever waits for it gets it
                written.set_exception(error)
                written.exception()  # and if nobody waits any more, nobody is told
            else:
                written.set_result(None)

    def _add(self, rows: dict[str, list[Row]]) -> None:
        for owner, own in rows.items():
            self._store.add_many(owner, own)
