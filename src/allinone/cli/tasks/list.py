"""`allinone tasks list`: the library as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from allinone.cli.options import JsonOption, TasksOption

if TYPE_CHECKING:
    from allinone.prompts.prompt_file import PromptFile


def list_(json: JsonOption = False, tasks: TasksOption = None) -> None:
    """List all tasks: built-in ones and those of your folders.

    [bold]Examples[/]

    allinone tasks list
    allinone tasks list --tasks my-tasks --json

    A file that cannot be used is named on stderr, and the exit code is 1.
    """
    from allinone.cli.output import note, print_json, print_table, visible
    from allinone.cli.session import RuntimeOptions, load_library

    library = load_library(RuntimeOptions(tasks=tasks))
    prompts = library.prompts()
    if json:
        print_json([describe(prompt) for prompt in prompts])
    else:
        rows = [(p.full_name, p.kind, _labels(p), p.layer, p.version, p.description) for p in prompts]
        print_table(("task", "kind", "labels", "layer", "version", "description"), rows)
    for problem in library.problems():
        note(visible(str(problem.error)))
    if library.problems():
        raise typer.Exit(1)


def describe(prompt: PromptFile) -> dict[str, Any]:
    """A task for programs."""
    return {
        "name": prompt.full_name,
        "kind": prompt.kind,
        "description": prompt.description,
        "labels": [{"label": spec.label, "name": spec.name, "emoji": spec.emoji} for spec in prompt.labels],
        "open_labels": prompt.open_labels,
        "variables": [name for name in prompt.inputs if name != "text"],
        "layer": prompt.layer,
        "version": prompt.version,
        "path": str(prompt.path),
    }


def _labels(prompt: PromptFile) -> str:
    return " ".join(spec.label for spec in prompt.labels) + (" …" if prompt.open_labels else "")
