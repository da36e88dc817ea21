"""A folder that appears whole or not at all.

Owns the sibling folder in which a compiled model grows, its lock, its rename, and what disk errors say. Knows nothing
of models.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from allinone.errors import StoreError

LOCK_FILE = "lock"


@contextmanager
def disk_errors(folder: Path) -> Generator[None, None, None]:
    """Turn the system's errors about a folder into one that says what to do.

    Raises:
        StoreError: the disk is full, read-only, not ours, or gone.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message, hint = f"The disk is full: {folder}", "free some space, or choose another folder (ALLINONE_CACHE)"
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            message, hint = (
                f"{folder} cannot be written",
                "choose another folder (ALLINONE_CACHE), or change its rights",
            )
        else:
            message, hint = f"{folder} cannot be written: {error}", "choose another folder (ALLINONE_CACHE)"
        raise StoreError(message, hint=hint) from error


def require_free_space(folder: Path, num_bytes: int) -> None:
    """Check before the work.

    Raises:
        StoreError: less than `num_bytes` are free.
    """
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise StoreError(
            f"{folder}: {num_bytes / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free",
            hint="free some space, or choose another folder (ALLINONE_CACHE)",
        )


@contextmanager
def growing_folder(destination: Path, num_bytes: int) -> Generator[Path, None, None]:
    """A sibling folder to fill; it becomes `destination` when the block ends well.

    After a kill or Ctrl-C it stays, and the next call continues in it. After an error it is removed. While another
    process fills it, this one works in a folder of its own, and the later rename wins.

    Args:
        destination: an existing folder is replaced.
        num_bytes: what will be needed.

    Raises:
        StoreError: the disk is full or cannot be written.
    """
    with disk_errors(destination.parent):
        destination.parent.mkdir(parents=True, exist_ok=True)
        folder, lock = _claim(destination)
        already = sum(file.stat().st_size for file in folder.iterdir())
    try:
        require_free_space(folder, num_bytes - already)
        with disk_errors(destination):
            yield folder
            (folder / LOCK_FILE).unlink(missing_ok=True)
            _replace(folder, destination)
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        lock.close()


def _claim(destination: Path) -> tuple[Path, IO[bytes]]:
    shared = destination.with_name(f"{destination.name}.partial")
    shared.mkdir(exist_ok=True)
    lock = (shared / LOCK_FILE).open("ab")
    if _try_lock(lock):
        return shared, lock
    lock.close()
    own = destination.with_name(f"{destination.name}.{os.getpid()}.partial")
    own.mkdir()
    return own, (own / LOCK_FILE).open("ab")


def _try_lock(file: IO[bytes]) -> bool:
    """Lock a file for this process; the system unlocks it when the process ends, however it ends."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _replace(folder: Path, destination: Path) -> None:
    """Rename a folder over another; for a moment the old one has a name of its own."""
    if not destination.exists():
        folder.replace(destination)
        return
    retired = destination.with_name(f"{destination.name}.{os.getpid()}.old")
    destination.replace(retired)
    folder.replace(destination)
    shutil.rmtree(retired, ignore_errors=True)
