"""Where answers go: stdout or a file, as JSON Lines or as lines for people; and how an interrupted file is continued.

Every answer is written whole and at once: what was printed before Ctrl-C, a crash or a full disk is complete lines.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, BinaryIO

from allinone.cli.inputs import BadLine, Entry, Line, Source
from allinone.cli.output import note, one_line, print_line, record, to_json, visible
from allinone.errors import ConfigError, StoreError, UsageError
from allinone.types import Result


class AnswerSink:
    """Writes answers in input order.

    Attributes:
        is_json: JSON Lines rather than lines for people.
        num_missing: inputs before the point of resumption that have no answer (they failed in an earlier run).
    """

    def __init__(self, file: BinaryIO | None, *, name: str, is_json: bool, answered: Mapping[int, Answered]) -> None:
        self.is_json = is_json
        self.num_missing = 0
        self._file = file
        self._name = name
        self._answered = answered

    def write(self, line: Line, result: Result) -> None:
        """Write one answer and flush it.

        Raises:
            StoreError: the file cannot take it; it then ends with the answer before.
        """
        text = (
            to_json(answer_record(line, result))
            if self.is_json
            else answer_text(line, result, is_file=bool(self._file))
        )
        with _whole():
            if self._file is None:
                print_line(text)
            else:
                self._append(self._file, (text + "\n").encode("utf-8", errors="backslashreplace"))

    def skip_answered(self, entries: Iterable[Entry], *, task: str, version: str, model: str) -> Iterator[Entry]:
        """The entries after the last one that was answered.

        Raises:
            ConfigError: the answers are another task's, prompt's or model's, or of another input.
        """
        if not self._answered:
            yield from entries
            return
        wanted = {"task": task, "version": version, "model": model}
        last = max(self._answered)
        note(f"Resuming after line {last}: {len(self._answered)} answers are there.")
        for entry in entries:
            if entry.number > last:
                yield entry
            elif (answered := self._answered.get(entry.number)) is None:
                self.num_missing += 1
            else:
                answered.require_same(wanted, entry, self._name)

    def _append(self, file: BinaryIO, data: bytes) -> None:
        start = file.seek(0, os.SEEK_END)
        try:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
        except OSError as error:
            file.truncate(start)
            raise StoreError(
                f"{self._name} cannot be written: {error.strerror}.",
                hint="make room and continue with --resume; every answer in it is complete",
            ) from error

    def __enter__(self) -> AnswerSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self.num_missing and kind is None:
            note(f"{self.num_missing} earlier lines have no answer: they failed before.")


class Answered:
    """What an output file says of one input."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._origin = {name: fields[name] for name in ("task", "version", "model")}
        self._digest = _digest(fields["input"])

    def require_same(self, wanted: Mapping[str, str], entry: Entry, name: str) -> None:
        """Refuse to mix answers of different tasks, prompts, models or inputs in one file."""
        for key, value in wanted.items():
            if self._origin[key] != value:
                raise ConfigError(
                    f"{name} was written with {key} {self._origin[key]!r}; this run has {value!r}.",
                    hint="write to another --output, or replace it with --overwrite",
                )
        if isinstance(entry, BadLine) or _digest(entry.text) != self._digest:
            raise ConfigError(
                f"{entry.place} is not the text that {name} has the answer to.",
                hint="the input changed: write to another --output, or replace it with --overwrite",
            )


def check_output(path: str | None, *, resume: bool, overwrite: bool) -> None:
    """Refuse what could not be written before a model is loaded; touches nothing.

    Raises:
        UsageError: options that do not go together, or a file that would lose what is in it.
        ConfigError: there is no such folder.
    """
    if resume and overwrite:
        raise UsageError("--resume and --overwrite contradict each other.")
    if path is None:
        if resume or overwrite:
            raise UsageError("--resume and --overwrite need --output FILE.")
        return
    target = Path(path)
    if not target.parent.is_dir():
        raise ConfigError(f"There is no folder {str(target.parent)!r}.", hint="make it, or choose another --output")
    if target.is_dir():
        raise ConfigError(f"{path!r} is a folder.", hint="name a file in it with --output")
    num_bytes = target.stat().st_size if target.is_file() else 0
    if num_bytes and not resume and not overwrite:
        raise UsageError(
            f"{path} has {num_bytes:,} bytes in it already.", hint="--resume continues it, --overwrite replaces it"
        )


def require_different_files(source: Source, output: str | None) -> None:
    """Refuse to write answers into the file that is being read: it would be lost, or never end.

    Raises:
        UsageError: input and output are the same file.
    """
    try:
        target = os.fstat(sys.stdout.fileno()) if output is None else os.stat(output)
    except (OSError, ValueError):  # there is no such file yet, or stdout is not a real one
        return
    if source.file is not None and os.path.samestat(source.file, target):
        raise UsageError(f"{source.name} and the output are the same file.", hint="write to another file")


def open_sink(path: str | None, *, as_json: bool, resume: bool) -> AnswerSink:
    """Open the place where answers go; without `resume` a file starts anew.

    Raises:
        StoreError: the file cannot be read or written. ConfigError: it holds something else than answers.
    """
    if path is None:
        return AnswerSink(None, name="stdout", is_json=as_json, answered={})
    try:
        answered, end = _read_answered(path) if resume and Path(path).exists() else ({}, 0)
        file = open(path, "ab", buffering=0)  # noqa: SIM115 - the sink closes it
        if not file.seekable():
            raise UsageError(f"{path} is not a regular file.", hint="use the shell instead: allinone run … > FILE")
        file.truncate(end)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}.", hint="choose another --output") from error
    return AnswerSink(file, name=path, is_json=as_json, answered=answered)


def answer_record(line: Line, result: Result) -> dict[str, Any]:
    """The JSON record of an answer: where it comes from, the result, and the keys that were carried along."""
    fields = {"line": line.number, "input": line.text, **record(result)}
    for name, value in line.extra.items():
        while name in fields:
            name = f"input_{name}"
        fields[name] = value
    return fields


def answer_text(line: Line, result: Result, *, is_file: bool = False) -> str:
    """An answer for people: the label, its probability and the text; or what the model wrote."""
    if result.label is None:
        return visible(result.text or "")
    start = f"{result.label} {result.p_max:.2f}  "
    if is_file or not sys.stdout.isatty():
        return start + one_line(line.text)
    from rich.cells import cell_len

    return start + one_line(line.text, max_cells=shutil.get_terminal_size().columns - cell_len(start))


def _read_answered(path: str) -> tuple[dict[int, Answered], int]:
    """The answers in a file by line of their input, and where the last whole one ends."""
    answered: dict[int, Answered] = {}
    end = 0
    with open(path, "rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.endswith(b"\n"):
                break  # half-written
            end += len(raw)
            try:
                fields = json.loads(raw)
                answered[int(fields["line"])] = Answered(fields)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ConfigError(
                    f"{path}:{number} is not an answer of `allinone run --json`.",
                    hint="write to another --output, or replace it with --overwrite",
                ) from error
    return answered, end


@contextmanager
def _whole() -> Generator[None]:
    """Hold Ctrl-C back until an answer is written whole; a second one counts at once (the reader may take nothing)."""
    num_interrupts = 0

    def hold_back(number: int, frame: FrameType | None) -> None:
        nonlocal num_interrupts
        num_interrupts += 1
        if num_interrupts > 1:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, hold_back)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if num_interrupts:
        raise KeyboardInterrupt


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", errors="surrogatepass"), digest_size=8).digest()
