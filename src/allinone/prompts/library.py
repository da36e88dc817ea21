"""The task library: built-in prompt files and those of the user's directories, reloaded while the program runs.

Owns which file serves which name, and what happens when files change: a reload builds a new table beside the one in
service and swaps it in; a file that was saved broken keeps its last good version in service and is reported. Knows no
model. Above: the runtime, which calls `refresh` before each request.
"""

from __future__ import annotations

import copy
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from allinone.errors import AllInOneError, ConfigError, PromptError, PromptNotFound, UnknownTask, did_you_mean
from allinone.prompts.files import SUFFIX, read_bytes
from allinone.prompts.prompt_file import PromptFile, parse_prompt

BUILTIN_DIRECTORY = Path(__file__).parent / "builtin"
BUILTIN_LAYER = "builtin"
_COARSEST_CLOCK_NS = 2_000_000_000  # FAT keeps modification times to two seconds; other file systems do better
_Signature = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryEvent:
    """Something changed in the library.

    Attributes:
        kind: "added", "changed", "removed": the task `name`; "broken": a file or directory cannot be used, and what it
            held before, if anything, stays in service.
        error: for "broken", what is wrong.
        has_last_good: for "broken", whether an earlier good version is still in service.
    """

    kind: Literal["added", "changed", "removed", "broken"]
    name: str
    path: Path
    error: AllInOneError | None = None
    has_last_good: bool = False

    def __str__(self) -> str:
        if self.error is None:
            return f"{self.name}: {self.kind} ({self.path})"
        kept = "\n  the last good version stays in service" if self.has_last_good else ""
        return f"{self.name}: {self.error}{kept}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A file or directory that cannot be used as it is now.

    Attributes:
        name: full name of the task; the path for a directory.
        has_last_good: an earlier good version is still in service.
    """

    name: str
    path: Path
    error: AllInOneError
    has_last_good: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """What is known of one file: its state on disk, its last good prompt, and what is wrong with it now.

    Attributes:
        signature: modification time (ns), size, inode; None where the file cannot be examined.
        data: its bytes; None where they cannot be read.
        is_hiding: without a good version of its own it takes its name out of service, so that nobody is served another
            layer's task by surprise. True for files that were there at the start; one that appears broken later leaves
            the name to whoever had it.
    """

    path: Path
    signature: _Signature | None
    data: bytes | None
    read_at_ns: int
    prompt: PromptFile | None
    error: PromptError | None
    is_hiding: bool

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(SUFFIX)

    def is_settled(self) -> bool:
        """Whether an equal signature means equal content.

        A file that was read in the clock tick of its last change may change again without a new time stamp.
        """
        return self.signature is not None and self.signature[0] + _COARSEST_CLOCK_NS < self.read_at_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """The files of one directory; `error` says why it cannot be listed now."""

    directory: Path
    name: str
    files: Mapping[str, _File] = field(default_factory=dict[str, _File])
    error: ConfigError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Snapshot:
    """A whole library at one moment; never changed once built."""

    layers: tuple[_Layer, ...]
    prompts: Mapping[str, PromptFile]
    broken: Mapping[str, PromptError]  # names that have no good version
    problems: tuple[Problem, ...]


class PromptLibrary:
    """Task names → prompt files. Thread-safe: readers see one snapshot, `refresh` replaces it whole."""

    def __init__(self, snapshot: _Snapshot, on_event: Callable[[LibraryEvent], None] | None) -> None:
        self._snapshot = snapshot
        self._on_event = on_event
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls, directories: Sequence[Path] = (), *, on_event: Callable[[LibraryEvent], None] | None = None
    ) -> PromptLibrary:
        """Read the built-in tasks and then each directory; of two tasks with one name the later one counts.

        A broken file is reported through `on_event` and `problems`; the others work.

        Raises:
            ConfigError: a directory does not exist.
        """
        layers = [_Layer(directory=BUILTIN_DIRECTORY, name=BUILTIN_LAYER)]
        layers += [_Layer(directory=Path(directory), name=str(directory)) for directory in directories]
        snapshot = _build(_read_layer(layer, is_first=True) for layer in layers)
        for layer in snapshot.layers:
            if layer.error is not None:
                raise layer.error
        library = cls(snapshot, on_event)
        library._report([_broken(problem) for problem in snapshot.problems])
        return library

    def get(self, name: str) -> PromptFile:
        """The prompt file that serves this full name ("sentiment", "sentiment.en").

        Raises:
            UnknownTask: no file has this name. PromptError: its only file was broken from the start.
        """
        snapshot = self._snapshot
        if (prompt := snapshot.prompts.get(name)) is not None:
            return prompt
        if (error := snapshot.broken.get(name)) is not None:
            raise copy.copy(error)
        known = [*snapshot.prompts, *snapshot.broken]
        raise UnknownTask(
            f"Unknown task {name!r}. {did_you_mean(name, known)}", hint="`allinone tasks list` shows what each one does"
        )

    def names(self) -> tuple[str, ...]:
        """Full names of all tasks in service, sorted."""
        return tuple(sorted(self._snapshot.prompts))

    def prompts(self) -> tuple[PromptFile, ...]:
        """All tasks in service, sorted by name."""
        prompts = self._snapshot.prompts
        return tuple(prompts[name] for name in sorted(prompts))

    def problems(self) -> tuple[Problem, ...]:
        """Files and directories that cannot be used as they are now."""
        return self._snapshot.problems

    @property
    def last_folder(self) -> Path | None:
        """The user's directory that wins by name, where tasks are saved; None where there are only built-in ones."""
        layers = self._snapshot.layers
        return layers[-1].directory if len(layers) > 1 else None

    def refresh(self) -> bool:
        """Look for changed files and put them in service; whether anything changed.

        Complexity: one directory listing and one `stat` per file where nothing changed.
        """
        with self._lock:
            before = self._snapshot
            layers = tuple(_read_layer(layer) for layer in before.layers)
            if all(new is old for new, old in zip(layers, before.layers, strict=True)):
                return False
            after = _build(layers)
            self._snapshot = after
        events = _compare(before, after)
        self._report(events)
        return bool(events)

    def _report(self, events: Iterable[LibraryEvent]) -> None:
        if self._on_event is not None:
            for event in events:
                self._on_event(event)


def _read_layer(layer: _Layer, *, is_first: bool = False) -> _Layer:
    """The layer as it is on disk now; the same object where nothing changed.

    A directory that cannot be listed keeps its files in service: it is usually being replaced as a whole.
    """
    if _is_unchanged(layer):
        return layer
    try:
        with os.scandir(layer.directory) as entries:
            found = sorted(entry.name for entry in entries if _is_prompt_name(entry.name) and entry.is_file())
    except OSError as error:
        if layer.error is not None:
            return layer
        problem = ConfigError(
            f"The task directory {str(layer.directory)!r} cannot be read: {error.strerror or error}.",
            hint="give an existing directory with `--tasks DIR` or ALLINONE_TASKS",
        )
        return replace(layer, error=problem)
    files = {
        name: file
        for name in found
        if (file := _read_file(layer.directory / name, layer, layer.files.get(name), is_first=is_first)) is not None
    }
    is_same = files.keys() == layer.files.keys() and all(files[name] is layer.files[name] for name in files)
    return layer if is_same and layer.error is None else replace(layer, files=files, error=None)


def _is_unchanged(layer: _Layer) -> bool:
    """Whether all files are surely the same as before; the usual case, so this is asked of every request."""
    if layer.error is not None:
        return False
    try:
        with os.scandir(layer.directory) as entries:
            found = {entry.name: _signature(entry.stat()) for entry in entries if _is_prompt_name(entry.name)}
    except OSError:
        return False
    return found.keys() == layer.files.keys() and all(
        file.signature == found[name] and file.is_settled() for name, file in layer.files.items()
    )


def _is_prompt_name(name: str) -> bool:
    return name.endswith(SUFFIX) and not name.startswith(".")


def _read_file(path: Path, layer: _Layer, before: _File | None, *, is_first: bool) -> _File | None:
    """The file as it is now; `before` itself where it surely did not change, None where it is gone."""
    read_at_ns = time.time_ns()
    signature: _Signature | None = None
    data: bytes | None = None
    try:
        signature = _sign(path)
        if before is not None and before.signature == signature and before.is_settled():
            return before
        data = read_bytes(path)
        if before is not None and before.data == data:
            return replace(before, signature=signature, read_at_ns=read_at_ns)
        prompt, error = _parse(data, path, layer.name), None
    except PromptNotFound:
        return None
    except PromptError as problem:
        prompt, error = before.prompt if before is not None else None, problem
    return _File(
        path=path,
        signature=signature,
        data=data,
        read_at_ns=read_at_ns,
        prompt=prompt,
        error=error,
        is_hiding=before.is_hiding if before is not None else is_first,
    )


@lru_cache(maxsize=128)
def _parse(data: bytes, path: Path, layer: str) -> PromptFile:
    """The same content is parsed once: a command reads the library to refuse quickly, then the runtime reads it."""
    return parse_prompt(data, path=path, layer=layer)


def _sign(path: Path) -> _Signature:
    try:
        stat = path.stat()
    except FileNotFoundError as error:
        raise PromptNotFound("There is no such file.", path=str(path)) from error
    except OSError as error:
        raise PromptError(f"The file cannot be read: {error.strerror or error}.", path=str(path)) from error
    return _signature(stat)


def _signature(stat: os.stat_result) -> _Signature:
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _build(layers: Iterable[_Layer]) -> _Snapshot:
    """The library that these layers make together, later ones first in line."""
    layers = tuple(layers)
    prompts: dict[str, PromptFile] = {}
    broken: dict[str, PromptError] = {}
    for layer in layers:
        for file in layer.files.values():
            if file.prompt is not None:
                prompts[file.name] = file.prompt
                broken.pop(file.name, None)
            elif file.error is not None and (file.is_hiding or file.name not in prompts):
                prompts.pop(file.name, None)
                broken[file.name] = file.error
    problems = [
        Problem(name=str(layer.directory), path=layer.directory, error=layer.error, has_last_good=bool(layer.files))
        for layer in layers
        if layer.error is not None
    ]
    problems += [
        Problem(name=file.name, path=file.path, error=file.error, has_last_good=file.name in prompts)
        for layer in layers
        for file in layer.files.values()
        if file.error is not None
    ]
    return _Snapshot(layers=layers, prompts=prompts, broken=broken, problems=tuple(problems))


def _compare(before: _Snapshot, after: _Snapshot) -> list[LibraryEvent]:
    """What a reader of the library notices between two snapshots."""
    events: list[LibraryEvent] = []
    was_broken = {problem.name for problem in before.problems}
    is_broken = {problem.name for problem in after.problems}
    for name in sorted({*before.prompts, *after.prompts}):
        old, new = before.prompts.get(name), after.prompts.get(name)
        if new is None and old is not None:
            if name not in is_broken:
                events.append(LibraryEvent(kind="removed", name=name, path=old.path))
        elif new is not None and old is None:
            events.append(LibraryEvent(kind="added", name=name, path=new.path))
        elif new is not None and old is not None:
            is_repaired = name in was_broken and name not in is_broken
            if is_repaired or (old.version, old.path) != (new.version, new.path):
                events.append(LibraryEvent(kind="changed", name=name, path=new.path))
    known = {(problem.path, str(problem.error)) for problem in before.problems}
    new_problems = [problem for problem in after.problems if (problem.path, str(problem.error)) not in known]
    return events + [_broken(problem) for problem in new_problems]


def _broken(problem: Problem) -> LibraryEvent:
    return LibraryEvent(
        kind="broken", name=problem.name, path=problem.path, error=problem.error, has_last_good=problem.has_last_good
    )
