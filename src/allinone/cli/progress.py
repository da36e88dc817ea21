"""The progress bar of a long run, on stderr. It counts lines; for a file it knows how much of it was read."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

from allinone.cli.inputs import Source
from allinone.cli.output import report_error
from allinone.errors import AllInOneError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class LineProgress:
    """Lines done so far; draws nothing unless wanted.

    Args:
        source: what is read; None for arguments.
        wanted: True draws, False does not, None draws where stderr is a terminal that shows nothing else.
        is_quiet_output: answers go to a file, not to stdout.

    Attributes:
        num_done: lines that were answered or named as failed.
    """

    def __init__(self, source: Source | None, *, wanted: bool | None, is_quiet_output: bool) -> None:
        is_free = is_quiet_output or not sys.stdout.isatty()
        self._is_drawn = wanted if wanted is not None else sys.stderr.isatty() and is_free and source is not None
        self._source = source
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self.num_done = 0
        self._hints: set[str] = set()

    def advance(self) -> None:
        """One more line is done."""
        self.num_done += 1
        if self._bar is not None and self._task is not None:
            num_bytes = self._source.num_bytes_read if self._source and self._source.size_bytes else None
            self._bar.update(self._task, completed=num_bytes, description=f"{self.num_done:,} lines")

    def report(self, error: AllInOneError, *, place: str) -> None:
        """Name a line that failed; the same hint is given once."""
        report_error(error, place=place, with_hint=error.hint not in self._hints)
        if error.hint:
            self._hints.add(error.hint)

    def __enter__(self) -> LineProgress:
        if self._is_drawn:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(file=sys.stderr), redirect_stdout=False)
            self._task = self._bar.add_task("0 lines", total=self._source.size_bytes if self._source else None)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
