"""Where inputs come from: arguments, standard input, and .txt, .csv, .tsv or .jsonl files, read one by one.

A line that cannot be used is an entry of its own, with its place, so that the rest goes on. Knows no model and no task
beyond the names of its variables.
"""

from __future__ import annotations

import csv
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedReader, UnsupportedOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast

from allinone.cli.variables import parse_value
from allinone.errors import ConfigError, InvalidInput, StoreError, UsageError, did_you_mean

if TYPE_CHECKING:
    from allinone.prompts.schema import InputField

MAX_LINE_BYTES = 16 * 1024 * 1024
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_SNIFFED_BYTES = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One usable input.

    Attributes:
        number: 1-based line of the file, or position among the arguments.
        place: the same for people: "reviews.jsonl:61".
        variables: the text and further template variables.
        extra: keys that the task does not declare, carried to the output record.
    """

    number: int
    place: str
    variables: Mapping[str, Any]
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The text as it was given."""
        text = self.variables["text"]
        assert isinstance(text, str)
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLine:
    """One input that cannot be used, and why."""

    number: int
    place: str
    error: InvalidInput


Entry: TypeAlias = Line | BadLine
Reader: TypeAlias = Callable[["Source"], Iterator[Entry]]


@dataclass(slots=True, kw_only=True)
class Source:
    """An open stream of inputs.

    Attributes:
        name: how messages call it.
        format: one of `FORMATS`.
        column: key or column that holds the text.
        inputs: the task's variables; other keys are carried along.
        file: the regular file behind the stream; None for a pipe or a terminal.
        is_live: lines come in their own time, from a pipe or a terminal.
        num_bytes_read: so far.
    """

    name: str
    stream: BinaryIO
    format: str = "txt"
    column: str = "text"
    inputs: Mapping[str, InputField] = field(default_factory=dict)
    file: os.stat_result | None = None
    is_live: bool = False
    num_bytes_read: int = 0

    @property
    def size_bytes(self) -> int | None:
        """Of the whole, where known."""
        return self.file.st_size if self.file is not None else None

    def close(self) -> None:
        """Close the file; a live stream is closed at its end, by whoever waits in it (`live.py`)."""
        if self.file is not None:
            self.stream.close()

    def lines(self) -> Iterator[tuple[int, bytes | InvalidInput]]:
        """Numbered lines without their line ends; a line beyond `MAX_LINE_BYTES` is an error in its place."""
        number = 0
        while piece := self.stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            self.num_bytes_read += len(piece)
            if len(piece) <= MAX_LINE_BYTES or piece.endswith(b"\n"):
                raw = piece.removesuffix(b"\n").removesuffix(b"\r")
                yield number, raw.removeprefix(_UTF8_BOM) if number == 1 else raw
                continue
            while piece and not piece.endswith(b"\n"):
                piece = self.stream.readline(MAX_LINE_BYTES)
                self.num_bytes_read += len(piece)
            yield number, InvalidInput(f"The line is longer than {MAX_LINE_BYTES // 2**20} MiB.")
        if self.is_live:
            self.stream.close()


def from_arguments(texts: Sequence[str]) -> Iterator[Entry]:
    """One input per argument."""
    for number, text in enumerate(texts, start=1):
        yield Line(number=number, place=f"argument {number}", variables={"text": text})


def open_source(
    path: str | None,
    *,
    format: str | None = None,
    column: str = "text",
    inputs: Mapping[str, InputField] | None = None,
) -> Source:
    """Open a file, or standard input where `path` is None or "-".

    Args:
        path: of a regular file or a named pipe.
        format: one of `FORMATS`; None goes by the ending of the path, and takes one text per line for other endings.
        column: key or column that holds the text.
        inputs: the task's variables.

    Raises:
        ConfigError: there is no such file or format, or it is not text.
        StoreError: it cannot be read.
    """
    name = "stdin" if path is None or path == "-" else path
    chosen = _choose_format(name, format)
    try:
        stream = _open_stdin() if name == "stdin" else open(name, "rb")  # noqa: SIM115 - `Source` closes it
    except FileNotFoundError as error:
        raise ConfigError(f"There is no file {path!r}.", hint="check the path given with --file") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path!r} is a folder.", hint="give one .txt, .csv or .jsonl file") from error
    except OSError as error:
        raise StoreError(f"{path!r} cannot be read: {error.strerror}.") from error
    status = _file_status(stream)
    is_file = status is not None and stat.S_ISREG(status.st_mode)
    source = Source(
        name=name,
        stream=stream,
        format=chosen,
        column=column,
        inputs=inputs or {},
        file=status if is_file else None,
        is_live=status is not None and not is_file,
    )
    try:
        if is_file:
            _require_text(name, stream.peek(_SNIFFED_BYTES)[:_SNIFFED_BYTES])
    except BaseException:
        source.close()
        raise
    return source


def read_entries(source: Source) -> Iterator[Entry]:
    """The inputs of a source.

    Raises:
        UsageError: a CSV file without the column.
    """
    return FORMATS[source.format](source)


def _open_stdin() -> BufferedReader:
    """Standard input through a reader of our own: Python closes `sys.stdin` as it ends, and a thread may be in it."""
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except UnsupportedOperation:  # it is not a real file: a test's buffer
        return cast("BufferedReader", sys.stdin.buffer)


def _file_status(stream: BufferedReader) -> os.stat_result | None:
    try:
        return os.fstat(stream.fileno())
    except UnsupportedOperation:
        return None


def _choose_format(name: str, given: str | None) -> str:
    ending = Path(name).suffix.lower().removeprefix(".")
    if given is not None:
        if given not in FORMATS:
            raise ConfigError(f"Unknown format {given!r}. {did_you_mean(given, FORMATS)}")
        return given
    if ending == "json":
        raise ConfigError(
            f"{name!r} is one JSON document; one object a line (.jsonl) is needed.",
            hint=f"jq -c '.[]' {name} | allinone run TASK --format jsonl",
        )
    return ending if ending in FORMATS else "txt"


def _read_texts(source: Source) -> Iterator[Entry]:
    """One text per line; blank lines are skipped."""
    for number, raw in source.lines():
        place = f"{source.name}:{number}"
        try:
            text = _decode(raw)
        except InvalidInput as error:
            yield BadLine(number=number, place=place, error=error)
            continue
        if text.strip():
            yield Line(number=number, place=place, variables={"text": text})


def _read_jsonl(source: Source) -> Iterator[Entry]:
    """One JSON object per line; blank lines are skipped."""
    for number, raw in source.lines():
        place = f"{source.name}:{number}"
        try:
            text = _decode(raw)
            if text.strip():
                yield _line_of(source, number, place, _parse_object(text))
        except InvalidInput as error:
            yield BadLine(number=number, place=place, error=error)


def _read_csv(source: Source) -> Iterator[Entry]:
    """One row per input, named by the header; a quoted field may span lines."""
    csv.field_size_limit(MAX_LINE_BYTES)
    bad: list[BadLine] = []
    delimiter = "\t" if source.format == "tsv" else ","
    rows = csv.reader(_decode_rows(source, bad), strict=True, delimiter=delimiter)
    header: list[str] | None = None
    while True:
        number = rows.line_num + 1
        place = f"{source.name}:{number}"
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield BadLine(number=number, place=place, error=InvalidInput(f"Not valid CSV: {error}."))
            continue
        yield from bad
        bad.clear()
        if row is None:
            return
        if header is None and row:
            _require_column(source, row)
            header = row
        elif header is not None and row:
            try:
                yield _line_of(source, number, place, _name_cells(source, header, row))
            except InvalidInput as error:
                yield BadLine(number=number, place=place, error=error)


def _decode_rows(source: Source, bad: list[BadLine]) -> Iterator[str]:
    """Lines for the CSV reader; bytes that are not UTF-8 stay recognisable, and are refused cell by cell later."""
    for number, raw in source.lines():
        if isinstance(raw, InvalidInput):
            bad.append(BadLine(number=number, place=f"{source.name}:{number}", error=raw))
            raw = b""  # an empty line is skipped
        yield raw.decode("utf-8", errors="surrogateescape") + "\n"


def _require_column(source: Source, header: Sequence[str]) -> None:
    if source.column not in header:
        raise UsageError(
            f"{source.name} has no column {source.column!r}; its columns: {', '.join(header)}.",
            hint="name the column that holds the text with --column",
        )


def _name_cells(source: Source, header: Sequence[str], row: Sequence[str]) -> dict[str, Any]:
    """A row by column; cells of the task's variables get their declared type, an empty one counts as not given."""
    if len(row) != len(header):
        message = f"The row has {len(row)} fields, the header {len(header)}."
        raise InvalidInput(message, hint="quote fields that hold commas")
    fields: dict[str, Any] = dict(zip(header, row, strict=True))
    for name, cell in zip(header, row, strict=True):
        try:
            cell.encode()
        except UnicodeEncodeError as error:
            raise _not_utf8(cell.encode("utf-8", errors="surrogateescape")) from error
        if name in source.inputs and name not in ("text", source.column):
            fields[name] = parse_value(source.inputs[name], cell) if cell else None
    return fields


def _line_of(source: Source, number: int, place: str, fields: Mapping[str, Any]) -> Line:
    """Split an object into the text, the task's variables, and the rest."""
    if source.column not in fields:
        known = ", ".join(map(repr, fields)) or "none"
        raise InvalidInput(f"There is no key {source.column!r}; keys: {known}.", hint="name the key with --column")
    text = fields[source.column]
    if not isinstance(text, str):
        raise InvalidInput(f"The value of {source.column!r} is not a string but {type(text).__name__}.")
    variables: dict[str, Any] = {"text": text}
    extra: dict[str, Any] = {}
    for name, value in fields.items():
        if name != source.column:
            (variables if name in source.inputs and name != "text" else extra)[name] = value
    return Line(number=number, place=place, variables=variables, extra=extra)


def _parse_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise InvalidInput("Not usable JSON: nested too deeply.") from error
    except ValueError as error:
        raise InvalidInput(f"Not valid JSON: {error}.", hint='each line is one object such as {"text": "…"}') from error
    if not isinstance(value, dict):
        raise InvalidInput(
            f"Not a JSON object but {type(value).__name__}.", hint='each line is one object such as {"text": "…"}'
        )
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _decode(raw: bytes | InvalidInput) -> str:
    if isinstance(raw, InvalidInput):
        raise raw
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(raw) from error


def _not_utf8(raw: bytes) -> InvalidInput:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"byte 0x{raw[error.start]:02x} at position {error.start}"
        return InvalidInput(f"Not valid UTF-8: {where}.", hint="convert the file: iconv -f GB18030 -t UTF-8 FILE")
    return InvalidInput("Not valid UTF-8.")


def _require_text(path: str, head: bytes) -> None:
    """Refuse files that are not UTF-8 text as a whole, rather than every one of their lines."""
    if head.startswith(_UTF16_BOMS):
        raise ConfigError(f"{path!r} is UTF-16, not UTF-8.", hint="convert it: iconv -f UTF-16 -t UTF-8 FILE")
    num_control = sum(byte < 0x20 and byte not in b"\t\n\r\f\x1b" for byte in head)
    if num_control >= 16 and num_control > len(head) // 20:
        raise ConfigError(f"{path!r} is not a text file.", hint="give one .txt, .csv or .jsonl file in UTF-8")


FORMATS: Mapping[str, Reader] = {
    "txt": _read_texts,
    "jsonl": _read_jsonl,
    "ndjson": _read_jsonl,
    "csv": _read_csv,
    "tsv": _read_csv,
}
"""What a file can be, by the ending of its name."""
