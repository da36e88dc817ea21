"""Opening the runtime for a command: options → `AllInOne`, with progress and news on stderr.

The one place where the command line touches the composition root; imports it only when a command runs.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from allinone.cli.options import choose_backend
from allinone.cli.output import note, visible
from allinone.config import Language, Settings

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from allinone.prompts.library import LibraryEvent, PromptLibrary
    from allinone.runtime import AllInOne
    from allinone.tasks.encoder import PromptEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeOptions:
    """What the shared options of a command say."""

    model: str | None = None
    tasks: list[str] | None = None
    backend: str | None = None
    threads: int | None = None
    use_cache: bool = True
    kv_memory_mb: int | None = None
    language: Language = "zh"

    @property
    def task_folders(self) -> list[Path]:
        """Folders of `.prompt` files: the option, else ALLINONE_TASKS."""
        if self.tasks:
            return [Path(folder).expanduser() for folder in self.tasks]
        return list(Settings.from_env().task_dirs)


def load_library(options: RuntimeOptions) -> PromptLibrary:
    """The task library alone, for what needs no model: quick refusals, listing, showing."""
    from allinone.prompts.library import PromptLibrary

    return PromptLibrary.load(options.task_folders)


def load_encoder(options: RuntimeOptions) -> PromptEncoder:
    """A model's tokenizer and chat template, without its weights.

    Raises:
        WeightsNotFound, UnknownModel, ModelError: as for loading the model.
    """
    from allinone.backends.onnx.manifest import read_manifest
    from allinone.loading import load_model
    from allinone.models.chat_template import ChatTemplate
    from allinone.models.files import open_gguf_text, open_model
    from allinone.models.locate import locate_model
    from allinone.models.tokenizer import BpeTokenizer
    from allinone.tasks.encoder import PromptEncoder

    backend = choose_backend(options.backend)
    if backend == "fake":
        fake = load_model(backend="fake")
        return PromptEncoder(fake.tokenizer, fake.template)
    location = locate_model(options.model or Settings.from_env().model)
    if location.kind != "compiled":
        is_any_gguf = backend == "llamacpp" and location.kind == "gguf"
        files = open_gguf_text(location.path) if is_any_gguf else open_model(location.path)
        return PromptEncoder(files.tokenizer, files.template)
    vocab_size = read_manifest(location.path).shape.vocab_size
    return PromptEncoder(BpeTokenizer.load(location.path, vocab_size=vocab_size), ChatTemplate.load(location.path))


@contextmanager
def open_runtime(options: RuntimeOptions) -> Generator[AllInOne]:
    """A loaded model with its tasks, closed at the end.

    Raises:
        AllInOneError: as `AllInOne.load`.
    """
    from allinone.runtime import DEFAULT_KV_BYTES, AllInOne

    with ImportProgress() as progress:
        ai = AllInOne.load(
            options.model,
            backend=choose_backend(options.backend),
            tasks=options.task_folders,
            threads=options.threads,
            cache=options.use_cache,
            language=options.language,
            max_kv_bytes=DEFAULT_KV_BYTES if options.kv_memory_mb is None else options.kv_memory_mb * 2**20,
            on_progress=progress.show,
            on_library_event=report_library_event,
        )
    with ai:
        yield ai


def report_library_event(event: LibraryEvent) -> None:
    """Say on stderr that a task file was reloaded, is broken, or is gone."""
    note(visible(str(event)))


class ImportProgress:
    """Progress of a long step on stderr: a bar on a terminal, one line elsewhere; nothing if nothing is reported."""

    def __init__(
        self, title: str = "Preparing the model for this machine (once)", *, unit: Literal["steps", "bytes"] = "steps"
    ) -> None:
        self._title = title
        self._unit: Literal["steps", "bytes"] = unit
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._is_announced = False

    def show(self, step: str, done: int, total: int) -> None:
        """`done` of `total` of a step; a new step restarts the bar."""
        if not sys.stderr.isatty():
            if not self._is_announced:
                note(f"{self._title} …")
            self._is_announced = True
            return
        if self._bar is None:
            self._bar = _start_bar(self._title, self._unit)
            self._task = self._bar.add_task(step)
        assert self._task is not None
        self._bar.update(self._task, description=step, completed=done, total=total or None)

    def __enter__(self) -> ImportProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _start_bar(title: str, unit: Literal["steps", "bytes"]) -> Progress:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn(escape(title)),
        BarColumn(),
        DownloadColumn() if unit == "bytes" else TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=Console(file=sys.stderr),
        transient=True,
    )
    bar.start()
    return bar
