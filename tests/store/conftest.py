"""Every test of the store runs on SQLite and on PostgreSQL: the two behave alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from allinone.store.database import Store

from . import postgres

Open = Callable[..., Store]
"""Opens the test's store; once more, with other options, if wanted."""


class Clock:
    """A clock that a test moves; each look at it is a millisecond later."""

    def __init__(self) -> None:
        self.now = datetime(2026, 2, 28, 23, 59, 59, tzinfo=timezone.utc)

    def __call__(self) -> datetime:
        """What time it is."""
        self.now += timedelta(milliseconds=1)
        return self.now


@pytest.fixture(scope="session")
def postgres_cluster() -> Generator[postgres.Cluster]:
    """A server for the whole run; skips where there can be none, but CI must have it."""
    reason = postgres.why_not()
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(f"{reason}; CI has to test the store on PostgreSQL")
        pytest.skip(reason)
    with postgres.cluster() as cluster:
        yield cluster


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A file that is not there yet."""
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def postgres_url(postgres_cluster: postgres.Cluster) -> str:
    """An empty database."""
    return postgres_cluster.new_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """One after the other."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))


@pytest.fixture
def clock() -> Clock:
    """A clock of the test's own."""
    return Clock()


@pytest.fixture
def open_store(url: str, clock: Clock) -> Generator[Open]:
    """Opens the store, any number of times; all are closed at the end."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Store.open(url, **({"clock": clock} | options)))


@pytest.fixture
def store(open_store: Open) -> Store:
    """An empty store."""
    return open_store()


def turn(text: str = "今天的实验终于成功了", reply: str = "恭喜你！", **changes: Any) -> dict[str, Any]:
    """What `add_turn` wants, beside owner, conversation and number."""
    told: dict[str, Any] = {
        "text": text,
        "reply": reply,
        "mood": {"label": "正面", "name": "positive", "probs": {"正面": 0.75, "负面": 0.25}},
        "finish_reason": "stop",
        "answer_id": "ans_1",
        "task_version": "0123456789ab",
        "state": b"\x00state\xff",
    }
    return told | changes
