"""Options that several commands share, with one wording each. Knows Typer and the settings, nothing else."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from allinone.config import LANGUAGES, Language, Settings
from allinone.errors import AllInOneError, ConfigError, did_you_mean

BackendName = Literal["onnx", "transformers", "llamacpp", "fake"]
BACKENDS: tuple[BackendName, ...] = ("onnx", "transformers", "llamacpp", "fake")

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME|PATH|HUB-ID",
        help="Which model: [bold]bundled[/], a GGUF file, a safetensors or compiled folder, or a hub id pulled before. "
        "Default: ALLINONE_MODEL, else bundled.",
    ),
]
TasksOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tasks",
        metavar="DIR",
        help="Folder with your own .prompt files; may be given again, later folders win by name. "
        "Default: ALLINONE_TASKS.",
    ),
]
BackendOption = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="onnx|llamacpp|transformers",
        help="What runs the model. Default: what `allinone models tune` found best for it here, else onnx.",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, max=1024, help="CPU threads. Default: ALLINONE_THREADS, else the physical cores."),
]
NoCacheOption = Annotated[
    bool, typer.Option("--no-cache", help="Keep no results: ask the model again for a text that was seen before.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]
LanguageOption = Annotated[
    str | None,
    typer.Option(
        "--lang",
        metavar="zh|en",
        help="Language of the chat's own words and of its mood. Default: ALLINONE_LANG, else by locale: "
        "en for any language but Chinese; zh for Chinese and where no language is set (C, POSIX).",
    ),
]


def complete_task(incomplete: str) -> list[str]:
    """Names of tasks for the shell's completion; none where the library cannot be read."""
    from allinone.prompts.library import PromptLibrary

    try:
        names = PromptLibrary.load(Settings.from_env().task_dirs).names()
    except AllInOneError:  # a shell that completes has no place for messages
        return []
    return [name for name in names if name.startswith(incomplete)]


def choose_language(value: str | None) -> Language:
    """The language of the chat: the option, else what the environment says.

    Raises:
        ConfigError: neither "zh" nor "en" was asked for.
    """
    if value is None:
        return Settings.from_env().lang
    for language in LANGUAGES:
        if value == language:
            return language
    raise ConfigError(f"Unknown language {value!r}. {did_you_mean(value, LANGUAGES)}")


def choose_backend(value: str | None) -> BackendName | None:
    """The backend that was asked for, checked before anything is loaded.

    Raises:
        ConfigError: there is no such backend.
    """
    if value is None:
        return None
    for backend in BACKENDS:
        if value == backend:
            return backend
    raise ConfigError(f"Unknown backend {value!r}. {did_you_mean(value, ('onnx', 'llamacpp', 'transformers'))}")
