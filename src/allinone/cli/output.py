"""How things look: errors, records for programs, lines for people. Decides nothing and keeps no state.

Text that comes from a user or a model may hold terminal control characters; whatever goes to people passes `visible`.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from allinone.errors import AllInOneError
from allinone.types import Result

if TYPE_CHECKING:
    from rich.table import Table

_CONTROL = dict.fromkeys((*range(32), *range(127, 160)), "�")
_CONTROL.pop(ord("\n"))
_CONTROL.pop(ord("\t"))

_MAX_TEXT_COLUMNS = 120
_ANCHOR = re.compile(r"\[([^\[\]]+)\]\(#[^()\s]*\)")

RECORD_FIELDS = (
    "task", "version", "model", "kind", "label", "name", "probs", "p_max", "text", "data", "finish_reason", "usage",
    "timings", "cached",
)  # fmt: skip
"""The fields of `Result` that a JSON record carries: names are a contract."""


def visible(text: str) -> str:
    """`text` without characters that would move the cursor, recolour or retitle a terminal."""
    return text.translate(_CONTROL)


def one_line(text: str, *, max_cells: int | None = None) -> str:
    """`text` on one line, cut to `max_cells` terminal columns where given."""
    line = visible(" ".join(text.split()))
    if max_cells is None:
        return line
    from rich.cells import cell_len, set_cell_size

    return line if cell_len(line) <= max_cells else set_cell_size(line, max(max_cells - 1, 0)).rstrip() + "…"


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON as UTF-8 can carry it: a document with a lone surrogate, and no other, is written in ASCII escapes."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False, indent=indent)
    return text


def record(result: Result) -> dict[str, Any]:
    """A result as a JSON record."""
    fields = asdict(result)
    return {name: fields[name] for name in RECORD_FIELDS}


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print_line(to_json(value, indent=2))


def print_line(text: str = "") -> None:
    """One line on stdout, flushed, so that Ctrl-C or a crash later loses nothing that was said."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def report_error(error: AllInOneError, *, place: str | None = None, with_hint: bool = True) -> None:
    """One message on stderr, and its hint: for a line of input after its place, else after "error:"."""
    label = "error" if place is None else place
    if sys.stderr.isatty():
        label = typer.style(label, fg="red", bold=True)
    hint = f"\n  hint: {error.hint}" if error.hint and with_hint else ""
    note(f"{label}: {visible(error.message + hint)}")


def can_ask() -> bool:
    """Whether a person is there to answer a question."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> None:
    """A table for people, as wide as the terminal; wide enough for everything when stdout is not one."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number == 0)  # names stay whole, to be copied
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    width = None if sys.stdout.isatty() else _natural_width(table)
    Console(file=sys.stdout, width=width).print(table)


def print_facts(facts: Mapping[str, str]) -> None:
    """Names and values, one a line, aligned."""
    from rich.cells import cell_len

    width = max((cell_len(name) for name in facts), default=0)
    for name, value in facts.items():
        padding = " " * (width - cell_len(name))
        lines = visible(value).split("\n")
        print_line(f"{name}{padding}  " + f"\n{' ' * (width + 2)}".join(lines))


def print_markdown(text: str) -> None:
    """A document for people, as wide as the terminal but not wider than lines can be read.

    Links show where they lead; those to a place of the document itself, which lead nowhere here, are only text.
    """
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(file=sys.stdout)
    width = min(console.width, _MAX_TEXT_COLUMNS)
    text = _ANCHOR.sub(r"\1", visible(text))
    console.print(Markdown(text, hyperlinks=False), width=width)


def format_bytes(num_bytes: float) -> str:
    """A size for people: "24.3 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(num_bytes) < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def silence_broken_output() -> None:
    """Point stdout nowhere after a write to it failed, so that what is left in its buffer fails nobody again."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # not a real file: a test's buffer
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _natural_width(table: Table) -> int:
    from rich.console import Console

    wide = Console(width=10_000)
    return table.__rich_measure__(wide, wide.options).maximum
