"""Reading prompt and cases files from disk: names, bytes, text. Does not know what stands in them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from allinone.errors import PromptError, PromptNotFound

MAX_FILE_BYTES = 262_144
SUFFIX = ".prompt"
_FILE_NAME = re.compile(r"(?P<name>\w[\w-]*)(?:\.(?P<variant>\w[\w-]*))?")
_FORBIDDEN_CHARACTER = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def split_name(path: Path) -> tuple[str, str | None]:
    """(name, variant) of `NAME.prompt` or `NAME.VARIANT.prompt`.

    Raises:
        PromptError: another form of name.
    """
    match = _FILE_NAME.fullmatch(path.name.removesuffix(SUFFIX)) if path.name.endswith(SUFFIX) else None
    if match is None:
        hint = "name it NAME.prompt or NAME.VARIANT.prompt, with letters, digits, _ and -"
        raise PromptError(f"{path.name!r} is not the name of a prompt file.", path=str(path), hint=hint)
    return match["name"], match["variant"]


def read_bytes(path: Path) -> bytes:
    """The content of a file of at most `MAX_FILE_BYTES`.

    Raises:
        PromptNotFound: no such file. PromptError: unreadable, or too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise PromptNotFound("There is no such file.", path=str(path)) from error
    except OSError as error:
        raise PromptError(f"The file cannot be read: {error.strerror or error}.", path=str(path)) from error
    if len(data) > MAX_FILE_BYTES:
        raise PromptError(f"The file is larger than {MAX_FILE_BYTES:,} bytes.", path=str(path), hint="shorten it")
    return data


def decode_text(data: bytes, *, path: Path) -> str:
    """UTF-8 bytes as text: without a byte order mark, every newline a line feed.

    Raises:
        PromptError: not UTF-8, or a control character such as NUL; with its line.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptError(
            f"The file is not UTF-8 (byte 0x{error.object[error.start]:02x}).",
            path=str(path),
            line=error.object.count(b"\n", 0, error.start) + 1,
            hint="save it with the encoding UTF-8",
        ) from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if found := _FORBIDDEN_CHARACTER.search(text):
        raise PromptError(
            f"The control character U+{ord(found.group()):04X} may not stand in the file.",
            path=str(path),
            line=text.count("\n", 0, found.start()) + 1,
        )
    return text


def text_version(text: str | bytes) -> str:
    """What names one state of a file: the first 12 hex digits of the SHA-256 of its text."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()[:12]
