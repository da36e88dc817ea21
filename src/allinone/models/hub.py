"""Downloads a model from the hub: resumed where it stopped, checked, and in place all or nothing.

`huggingface_hub` moves the bytes; what is kept between attempts is ours, because its own downloads begin anew in every
process. Files gather in a `.partial` folder beside the models and move to their place together. HF_ENDPOINT (mirrors),
HF_HUB_OFFLINE, HF_TOKEN and the proxy variables of the environment count. Above: `allinone models pull`.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from allinone.errors import StoreError, WeightsMismatch, WeightsNotFound
from allinone.models.hub_errors import hub_errors, require_online
from allinone.models.hub_plan import DownloadPlan, HubFile
from allinone.models.weights import sha256_files

PullProgress = Callable[[str, int, int], None]
"""Called with (file, bytes done, bytes in all), counted over the whole download. Raise from it to cancel."""

_DISK_RESERVE_BYTES = 50_000_000
_PIECE_BYTES = 1 << 18


def download(plan: DownloadPlan, *, on_progress: PullProgress | None = None) -> Path:
    """Fetch the files of a plan and put the model in place; returns its folder.

    Interrupted downloads, also those of an earlier process, continue where they stopped. Nothing appears at the
    destination, and nothing there changes, before the last file has passed its check.

    Raises:
        WeightsNotFound: the network or the hub failed; what was fetched is kept for the next attempt.
        WeightsMismatch: a file is not what the hub announced; it is thrown away.
        StoreError: the disk is full or not writable, or another process downloads the same model.
    """
    require_online(plan.hub_id)
    partial = plan.destination.parent.parent / ".partial" / plan.hub_id.replace("/", "--") / plan.revision
    with _disk_errors(plan), _exclusive(plan, partial):
        _require_space(plan, partial)
        done = 0
        for file in plan.files:
            _fetch(plan, file, partial / file.name, done, on_progress)
            done += (partial / file.name).stat().st_size
        _install(plan, partial)
    return plan.destination


def _fetch(plan: DownloadPlan, file: HubFile, target: Path, done_before: int, on_progress: PullProgress | None) -> None:
    """One file into `target`, by way of `target.part`, which can be continued."""

    def report(num_bytes: int) -> None:
        if file.num_bytes is not None and num_bytes > file.num_bytes:
            raise WeightsMismatch(
                f"{plan.hub_id}: {file.name} is longer than the {file.num_bytes:,} bytes that the hub announced",
                hint="pull it again; the mirror may be damaged",
            )
        if on_progress is not None:
            on_progress(file.name, done_before + num_bytes, max(plan.num_bytes, done_before + num_bytes))

    if target.exists():
        report(target.stat().st_size)
        return
    part = target.with_name(f"{target.name}.part")
    try:
        with part.open("ab") as stream:
            num_bytes = stream.tell() if file.num_bytes is not None else stream.truncate(0)
            report(num_bytes)
            while num_bytes != file.num_bytes:
                try:
                    _transfer(plan, file, _Reporting(stream, report), num_bytes)
                    break
                except WeightsNotFound as error:
                    before, num_bytes = num_bytes, stream.tell()
                    if not error.retryable or file.num_bytes is None or num_bytes <= before:
                        raise  # no connection, or one that brings nothing new
        _check(plan, file, part)
    except WeightsMismatch:
        part.unlink()  # continuing it would fail again
        raise
    part.replace(target)


def _transfer(plan: DownloadPlan, file: HubFile, stream: _Reporting, num_bytes: int) -> None:
    """Append the rest of a file, of which `num_bytes` are here."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(plan.hub_id, file.name, revision=plan.revision, endpoint=plan.endpoint)
    with hub_errors(plan.hub_id, plan.endpoint, file.name), _library_settings():
        http_get(url, stream, resume_size=num_bytes, headers=build_hf_headers())  # pyright: ignore[reportArgumentType]


def _check(plan: DownloadPlan, file: HubFile, part: Path) -> None:
    """Size and SHA-256, as the hub states them."""
    actual = part.stat().st_size
    problem = None
    if file.num_bytes is not None and actual != file.num_bytes:
        problem = f"has {actual:,} bytes, the hub announced {file.num_bytes:,}"
    elif file.sha256 is not None and (digest := sha256_files([part])) != file.sha256:
        problem = f"has the SHA-256 {digest}, the hub announced {file.sha256}"
    if problem is not None:
        raise WeightsMismatch(f"{plan.hub_id}: {file.name} {problem}", hint="pull it again; the mirror may be damaged")


def _install(plan: DownloadPlan, partial: Path) -> None:
    """Move everything to its place. A folder of safetensors is replaced whole; a GGUF joins those that are there."""
    wanted = {file.name for file in plan.files}
    for leftover in partial.iterdir():
        if leftover.name not in wanted:
            leftover.unlink()
    if any(name.endswith(".gguf") for name in wanted):
        plan.destination.mkdir(parents=True, exist_ok=True)
        for name in sorted(wanted):
            (partial / name).replace(plan.destination / name)
    else:
        plan.destination.parent.mkdir(parents=True, exist_ok=True)
        if plan.destination.exists():
            outdated = partial.with_name("outdated")
            shutil.rmtree(outdated, ignore_errors=True)  # of a process that died just here
            plan.destination.replace(outdated)
        partial.replace(plan.destination)
    shutil.rmtree(partial.parent)


class _Reporting:
    """A file that says how long it has become after each write."""

    def __init__(self, stream: IO[bytes], report: Callable[[int], None]) -> None:
        self._stream = stream
        self._report = report

    def write(self, data: bytes) -> int:
        written = self._stream.write(data)
        self._report(self._stream.tell())
        return written

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def truncate(self, size: int | None = None) -> int:
        return self._stream.truncate(size)


@contextmanager
def _disk_errors(plan: DownloadPlan) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{plan.hub_id} cannot be stored in {plan.destination.parent.parent}: {error.strerror or error}",
            hint="free some space, or name another folder with ALLINONE_HOME",
        ) from error


@contextmanager
def _exclusive(plan: DownloadPlan, partial: Path) -> Generator[None]:
    """One process per model; two would write into the same file. The lock of a process that died is free."""
    from filelock import FileLock, Timeout

    partial.parent.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(partial.parent.with_name(f"{partial.parent.name}.lock"))
    try:
        with lock.acquire(timeout=0):
            partial.mkdir(parents=True, exist_ok=True)
            yield
    except Timeout as error:
        raise StoreError(f"{plan.hub_id} is being downloaded by another process", hint="wait for it to end") from error


@contextmanager
def _library_settings() -> Generator[None]:
    """Suit the library to one download of ours.

    Its progress bars and retry warnings stay off the terminal, for the caller shows the progress. Its pieces become
    small: it holds a whole piece in memory, and a connection that breaks loses the piece.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger = logging.getLogger("huggingface_hub")
    level, had_bars, piece = logger.level, not are_progress_bars_disabled(), constants.DOWNLOAD_CHUNK_SIZE
    logger.setLevel(logging.ERROR)
    constants.DOWNLOAD_CHUNK_SIZE = _PIECE_BYTES
    if had_bars:
        disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        constants.DOWNLOAD_CHUNK_SIZE = piece
        if had_bars:
            enable_progress_bars()


def _require_space(plan: DownloadPlan, partial: Path) -> None:
    stored = sum(file.stat().st_size for file in partial.iterdir())
    needed, free = plan.num_bytes - stored, shutil.disk_usage(partial).free
    if needed + _DISK_RESERVE_BYTES > free:
        raise StoreError(
            f"{plan.hub_id} needs {needed / 1e6:,.0f} MB more, {partial} has {free / 1e6:,.0f} MB free",
            hint="free some space, or name another folder with ALLINONE_HOME",
        )
