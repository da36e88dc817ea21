"""Inputs that come in their own time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from allinone.cli import live
from allinone.cli.inputs import Line
from allinone.cli.live import read_groups
from allinone.errors import UsageError

MINUTE_S = 60.0


def line(number: int) -> Line:
    """An entry."""
    return Line(number=number, place=f"stdin:{number}", variables={"text": str(number)})


def test_group_ends_where_the_next_entry_has_to_be_awaited() -> None:
    """What came is handed over before the writer goes on: here it goes on only when it was."""
    was_taken = threading.Event()

    def entries() -> Iterator[Line]:
        yield line(1)
        yield line(2)
        assert was_taken.wait(MINUTE_S), "the reader waited for an entry that was not there"
        yield line(3)

    numbers: list[int] = []
    for group in read_groups(entries()):
        numbers += [entry.number for entry in group]
        if 2 in numbers:
            was_taken.set()
    assert numbers == [1, 2, 3]


def test_entries_that_are_there_are_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast pipe keeps its batches, also beyond what is read ahead."""
    monkeypatch.setattr(live, "_PATIENCE_S", MINUTE_S)
    groups = [[entry.number for entry in group] for group in read_groups(map(line, range(1000)))]
    assert groups == [list(range(1000))]


def test_no_entries_are_no_group() -> None:
    """An empty pipe."""
    assert list(read_groups([])) == []


def test_error_comes_after_what_was_read_before_it() -> None:
    """Nothing that could be answered is lost."""

    def entries() -> Iterator[Line]:
        yield line(1)
        raise UsageError("no")

    numbers: list[int] = []
    with pytest.raises(UsageError, match="no"):
        for group in read_groups(entries()):
            numbers += [entry.number for entry in group]
    assert numbers == [1]
