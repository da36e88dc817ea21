"""Writing a task's files: checked first, whole or not at all, and never over what somebody else wrote meanwhile.

Owns names that may become files, and the atomic change. Knows no model and no HTTP. Above: the server's prompt editor.
Beside it: `library`, which serves what is written at its next look.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from allinone.errors import InvalidInput, NotAllowed, PromptError, PromptNotFound, StoreError, VersionConflict
from allinone.prompts.cases import CASES_SUFFIX, Case, parse_cases
from allinone.prompts.files import MAX_FILE_BYTES, SUFFIX, decode_text, read_bytes, text_version
from allinone.prompts.prompt_file import PromptFile, parse_prompt

_PLAIN_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)?")
_LOCK_NAME = ".allinone-save.lock"
_MAX_WAIT_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A prompt file as it lies in a folder, right or wrong.

    Attributes:
        text: None where it is not text at all.
        version: names this state of the file, also where it is wrong.
        error: why it cannot be used.
    """

    path: Path
    text: str | None
    version: str
    error: PromptError | None


def is_plain_name(name: str) -> bool:
    """Whether a task of this name can be saved: NAME or NAME.VARIANT of small letters, digits, _ and -."""
    return _PLAIN_NAME.fullmatch(name) is not None


def parse_draft(name: str, text: str) -> PromptFile:
    """The prompt that this text would be under this name; errors name the file without a folder.

    Raises:
        InvalidInput: not a plain name. PromptError: the text is wrong.
    """
    path = _file_name(name, SUFFIX)
    return parse_prompt(_within_limit(text, path), path=path)


def parse_draft_cases(prompt: PromptFile, text: str) -> tuple[Case, ...]:
    """The cases that this text would be for a prompt; blank text holds none.

    Raises:
        PromptError: the text is wrong.
    """
    path = Path(prompt.full_name + CASES_SUFFIX)
    return parse_cases(_within_limit(text, path), prompt, path=path) if text.strip() else ()


def find_source(folder: Path, name: str) -> SourceFile | None:
    """The file of a task in a folder, whether or not it can be used; None where there is none.

    Raises:
        InvalidInput: not a plain name. NotAllowed: it is a link. PromptError: it cannot be read.
    """
    path = _path(folder, name, SUFFIX)
    try:
        data = read_bytes(path)
    except PromptNotFound:
        return None
    try:
        text = decode_text(data, path=path)
    except PromptError as error:
        return SourceFile(path=path, text=None, version=text_version(data), error=error)
    try:
        parse_prompt(text, path=path)
    except PromptError as error:
        return SourceFile(path=path, text=text, version=text_version(text), error=error)
    return SourceFile(path=path, text=text, version=text_version(text), error=None)


def save_task(
    folder: Path,
    name: str,
    text: str,
    *,
    expected_version: str | None,
    other_version: str | None = None,
    cases_text: str | None = None,
) -> None:
    """Write a task's prompt, and its cases if they are given.

    Args:
        folder: of the user's tasks.
        name: NAME or NAME.VARIANT.
        text: of the prompt file.
        expected_version: of what the text was made from; None for a new task.
        other_version: of the task of this name that counts while the folder has none.
        cases_text: of its cases file; blank for no cases; None leaves them as they are.

    Raises:
        InvalidInput: not a plain name. PromptError: prompt or cases are wrong. NotAllowed: a file is a link.
        VersionConflict: it is not (any more) what it was made from. StoreError: it cannot be written.
    """
    path, cases_path = _path(folder, name, SUFFIX), _path(folder, name, CASES_SUFFIX)
    prompt = parse_draft(name, text)
    files: dict[Path, str | None] = {}
    if cases_text is not None:
        parse_draft_cases(prompt, cases_text)
        has_cases = bool(cases_text.strip())
        files[cases_path] = decode_text(cases_text.encode(), path=cases_path) if has_cases else None
    files[path] = prompt.text
    with _alone(folder):
        source = find_source(folder, name)
        found = other_version if source is None else source.version
        if found != expected_version:
            raise VersionConflict(_conflict(name, found, expected_version), hint="read it again and merge the two")
        _write(folder, files)


def _path(folder: Path, name: str, suffix: str) -> Path:
    """Where a file of this task lies; always directly in the folder.

    Raises:
        InvalidInput: not a plain name. NotAllowed: a link is there, which leads who knows where.
    """
    path = folder / _file_name(name, suffix)
    if path.is_symlink():
        raise NotAllowed(f"{path.name} is a link and is not edited here.", hint="edit the file that it leads to")
    return path


def _file_name(name: str, suffix: str) -> Path:
    if not is_plain_name(name):
        raise InvalidInput(
            f"{name!r} cannot be the name of a task.", hint="NAME or NAME.VARIANT of small letters, digits, _ and -"
        )
    return Path(name + suffix)


def _within_limit(text: str, path: Path) -> str:
    if len(text.encode()) > MAX_FILE_BYTES:
        raise PromptError(f"The file is larger than {MAX_FILE_BYTES:,} bytes.", path=str(path), hint="shorten it")
    return text


def _conflict(name: str, found: str | None, expected: str | None) -> str:
    if found is None:
        return f"There is no task {name!r} (any more); it was expected to have version {expected}."
    if expected is None:
        return f"There is a task {name!r} already, of version {found}."
    return f"Task {name!r} has version {found}, not {expected}."


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """No other process or thread saves into this folder meanwhile."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / _LOCK_NAME, timeout=_MAX_WAIT_S):
            yield
    except Timeout as error:
        raise StoreError(
            f"Somebody else is saving into {str(folder)!r} for more than {_MAX_WAIT_S} s.", hint="try again"
        ) from error
    except OSError as error:
        raise StoreError(
            f"Nothing can be written to {str(folder)!r}: {error.strerror or error}.",
            hint="the folder must be writable for the user who runs the server, and its disk have room",
        ) from error


def _write(folder: Path, files: dict[Path, str | None]) -> None:
    """Put files in place, the last one last, after all of them are on the disk; None removes a file."""
    prepared = {
        path: folder / f".{path.name}.{secrets.token_hex(4)}.new" for path, text in files.items() if text is not None
    }
    try:
        for path, beside in prepared.items():
            _write_beside(beside, path, files[path] or "")
        for path in files:
            if path in prepared:
                os.replace(prepared[path], path)
            else:
                path.unlink(missing_ok=True)
        _sync_folder(folder)
    finally:
        for beside in prepared.values():
            beside.unlink(missing_ok=True)


def _write_beside(beside: Path, path: Path, text: str) -> None:
    """The text on the disk, with the permissions that the file has which it is to replace; those of new files else."""
    with beside.open("x", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        beside.chmod(path.stat().st_mode & 0o777)


def _sync_folder(folder: Path) -> None:
    """Make renames survive power loss, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
