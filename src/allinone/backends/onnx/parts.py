"""The finished parts of a model that is being compiled, so that a killed import goes on where it stopped.

A part (a layer, the head) is a set of named arrays: matrices lie one after the other in `weights.bin`, vectors and
notes in a small file of the part, which is written last and holds a checksum of its matrices. A part that is missing or
damaged is made anew, and so is everything after it.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from allinone.backends.onnx.graph_builder import WEIGHTS_FILE

Arrays: TypeAlias = Mapping[str, NDArray[Any]]

ALIGNMENT = 65_536
"""Matrices start at multiples of this in the weights file: mapping needs it on some systems."""

_CHECKSUM_BLOCK = 1 << 18
_DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A finished part: its matrices (mapped) and vectors, where its matrices lie, and notes as JSON values."""

    arrays: dict[str, NDArray[Any]]
    offsets: dict[str, int]
    notes: dict[str, Any]


class PartsFile:
    """`weights.bin` and its parts, in the order they were made."""

    def __init__(self, folder: Path, prefix: str = "") -> None:
        """Open or continue the weights file of a folder; `prefix` begins the names of another version beside it."""
        self._folder, self._prefix = folder, prefix
        self._path = folder / f"{prefix}{WEIGHTS_FILE}"
        self._path.touch()
        self._end = 0

    @staticmethod
    def promote(folder: Path, prefix: str) -> None:
        """The version of this prefix takes the place of the one without. No part of either may be in use."""
        for file in (folder / f"{prefix}{WEIGHTS_FILE}", *folder.glob(f"{prefix}*.part.npz")):
            file.replace(folder / file.name.removeprefix(prefix))

    def find(self, part: str) -> Part | None:
        """The next part in the file, if it is this one, and whole."""
        try:
            with self._record_file(part).open("rb") as file, np.load(file, allow_pickle=False) as stored:
                vectors = {name: stored[name] for name in stored.files}
            record = json.loads(vectors.pop("record").tobytes())
            if record["start"] != self._end or record["checksum"] != self._checksum(self._end, record["stop"]):
                return None
        except _DAMAGED:
            return None
        return self._accept(record, vectors)

    def write(self, part: str, matrices: Arrays, vectors: Arrays, notes: Mapping[str, Any]) -> Part:
        """Keep a part that was just made, and drop what the file held after it."""
        record: dict[str, Any] = {"start": self._end, "matrices": {}, "notes": dict(notes)}
        with self._path.open("r+b") as file:
            file.truncate(self._end)
            file.seek(self._end)
            for name, values in matrices.items():
                file.write(b"\0" * (-file.tell() % ALIGNMENT))
                record["matrices"][name] = [file.tell(), str(values.dtype), list(values.shape)]
                file.write(np.ascontiguousarray(values).data)
            record["stop"] = file.tell()
        record["checksum"] = self._checksum(record["start"], record["stop"])
        temporary = self._folder / f"{self._prefix}{part}.tmp.npz"
        stored = {**vectors, "record": np.frombuffer(json.dumps(record).encode(), np.uint8)}
        np.savez(temporary, **stored)  # pyright: ignore[reportArgumentType] - arrays only
        temporary.replace(self._record_file(part))
        return self._accept(record, vectors)

    def save_state(self, part: str, state: NDArray[np.float32]) -> None:
        """Keep what the next part starts from; the state before the last one is dropped."""
        older = sorted(self._folder.glob("*.state.npy"))[:-1]
        np.save(self._folder / f"{part}.state.npy", state)
        for file in older:
            file.unlink()

    def load_state(self, part: str) -> NDArray[np.float32] | None:
        """What `save_state` kept, if it is whole."""
        try:
            with (self._folder / f"{part}.state.npy").open("rb") as file:
                return np.load(file, allow_pickle=False)
        except _DAMAGED:
            return None

    def remove_records(self) -> None:
        """Delete what only a restart needs."""
        for pattern in ("*.part.npz", "*.tmp.npz", "*.state.npy"):
            for file in self._folder.glob(pattern):
                file.unlink()

    def _accept(self, record: dict[str, Any], vectors: Arrays) -> Part:
        arrays, offsets = dict(vectors), {name: place[0] for name, place in record["matrices"].items()}
        for name, (offset, dtype, shape) in record["matrices"].items():
            arrays[name] = np.memmap(self._path, np.dtype(dtype), mode="r", offset=offset, shape=tuple(shape))
        self._end = record["stop"]
        return Part(arrays=arrays, offsets=offsets, notes=record["notes"])

    def _record_file(self, part: str) -> Path:
        return self._folder / f"{self._prefix}{part}.part.npz"

    def _checksum(self, start: int, stop: int) -> int:
        with self._path.open("rb") as file:
            return checksum(file, start, stop)


def checksum(file: BufferedReader, start: int, stop: int) -> int:
    """CRC-32 of a range of a file; of what is there, if the file is shorter."""
    file.seek(start)
    result, remaining = zlib.crc32(str(stop - start).encode()), stop - start
    block = memoryview(bytearray(min(_CHECKSUM_BLOCK, max(1, remaining))))
    while remaining > 0:
        num_bytes = file.readinto(block[: min(len(block), remaining)])
        if not num_bytes:
            return zlib.crc32(b"short", result)
        result, remaining = zlib.crc32(block[:num_bytes], result), remaining - num_bytes
    return result


def save_checksum(path: Path) -> None:
    """Remember what a file that was just written contains."""
    path.with_name(f"{path.name}.checksum").write_text(_describe(path), encoding="ascii")


def is_unchanged(path: Path) -> bool:
    """Whether a file is there and as `save_checksum` saw it."""
    try:
        return path.with_name(f"{path.name}.checksum").read_text(encoding="ascii") == _describe(path)
    except (OSError, UnicodeDecodeError):
        return False


def _describe(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        return f"{size} {checksum(file, 0, size)}"
