"""`allinone tasks new`: writes a working task file and its cases, from answers at a terminal or from options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allinone.cli.options import TasksOption
from allinone.cli.output import can_ask, print_line
from allinone.errors import ConfigError, UsageError, did_you_mean

if TYPE_CHECKING:
    from allinone.prompts.front_matter import LabelSpec
    from allinone.types import Kind

KINDS: dict[Kind, str] = {
    "label": "one of a closed set of labels",
    "text": "a text: a summary, a correction, a translation",
    "json": "fields of a JSON object",
    "chat": "a conversation with a persona",
}


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the task: letters, digits, _ and -.")],
    kind: Annotated[str | None, typer.Option(metavar="label|text|json|chat", help="What the answer is.")] = None,
    description: Annotated[str | None, typer.Option(help="One line for people.")] = None,
    instructions: Annotated[
        str | None, typer.Option(help="What to tell the model; - for a default that works. Default: asked for.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="For kind label: the labels, each LABEL or LABEL=name.")
    ] = None,
    fields: Annotated[str | None, typer.Option(metavar="A,B,…", help="For kind json: names of the fields.")] = None,
    tasks: TasksOption = None,
) -> None:
    r"""Write a new task: NAME.prompt and NAME.tests.yaml.

    [bold]Examples[/]

    allinone tasks new urgency
    allinone tasks new urgency --tasks my-tasks --kind label \
      --labels 紧急=urgent,普通=normal --description 工单紧急程度
    allinone run urgency --tasks my-tasks "服务器全部宕机"
    allinone tasks check urgency --tasks my-tasks

    The files go to the --tasks folder, or here. At a terminal it asks for
    what the options do not say. Edit the files afterwards; no Python needed.
    """
    from allinone.cli.session import RuntimeOptions
    from allinone.prompts.scaffold import new_cases, new_paths, new_prompt, write_prompt

    if Path(name).name != name:
        raise ConfigError(f"{name!r} is a path, not a name.", hint="name the folder with --tasks DIR")
    folders = RuntimeOptions(tasks=tasks).task_folders
    folder = folders[-1] if folders else Path()
    new_paths(folder, name)  # refused before anything is asked
    chosen = _choose_kind(kind)
    description = _ask("description", description, "One line for people")
    specs = (
        _parse_labels(_ask("labels", labels, "Labels, such as 紧急=urgent,普通=normal")) if chosen == "label" else []
    )
    names = _split(_ask("fields", fields, "Fields, such as name,price")) if chosen == "json" else ["answer"]
    instructions = _ask("instructions", instructions, "What to tell the model (- for a default)", default="-")
    prompt = new_prompt(
        name,
        chosen,
        description,
        labels=specs,
        fields=names,
        instructions=None if instructions == "-" else instructions,
    )
    for path in write_prompt(folder, name, prompt, new_cases(chosen, labels=specs)):
        print_line(str(path))
    print_line(f'Try it: allinone run {name} --tasks {folder} "…"')


def _choose_kind(given: str | None) -> Kind:
    if given is None and can_ask():
        for name, meaning in KINDS.items():
            typer.echo(f"  {name:6} {meaning}", err=True)
    asked = _ask("kind", given, "Kind", default="label" if can_ask() else None)
    for kind in KINDS:
        if asked == kind:
            return kind
    raise ConfigError(f"Unknown kind {asked!r}. {did_you_mean(asked, KINDS)}")


def _ask(option: str, given: str | None, question: str, *, default: str | None = None) -> str:
    """The option's value, else what the person answers, else the default.

    Raises:
        UsageError: nobody is there to ask and there is no default, or the answer is empty.
    """
    if given is None:
        given = str(typer.prompt(question, default=default, err=True)) if can_ask() else default
    if given is None or not given.strip():
        raise UsageError(f"--{option} is missing.", hint="give the option, or run this at a terminal to be asked")
    return given.strip()


def _parse_labels(text: str) -> list[LabelSpec]:
    from allinone.prompts.front_matter import LabelSpec

    pairs = [part.partition("=") for part in _split(text)]
    return [LabelSpec(label=label.strip(), name=name.strip() or label.strip()) for label, _, name in pairs]


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.replace("，", ",").split(",") if part.strip()]
