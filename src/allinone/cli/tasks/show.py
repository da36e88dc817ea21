"""`allinone tasks show`: a task's file, and its prompt as the model gets it; what is the user's is marked."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allinone.cli.options import BackendOption, JsonOption, ModelOption, TasksOption, complete_task
from allinone.errors import WeightsNotFound

if TYPE_CHECKING:
    from allinone.cli.session import RuntimeOptions
    from allinone.prompts.prompt_file import PromptFile
    from allinone.tasks.encoder import PromptEncoder
    from allinone.types import Segment


def show(
    name: Annotated[
        str,
        typer.Argument(metavar="TASK", help="Name of a task (sentiment, sentiment.en).", autocompletion=complete_task),
    ],
    text: Annotated[str, typer.Option(help="Text to put into the prompt.")] = "……",
    json: JsonOption = False,
    model: ModelOption = None,
    tasks: TasksOption = None,
    backend: BackendOption = None,
) -> None:
    """Show a task: its file, and its prompt as the model gets it.

    [bold]Examples[/]

    allinone tasks show sentiment
    allinone tasks show rewrite --text "会议改到三点" --json

    What the file says (control tokens included) is plain; what a user says
    is marked: ⟦……⟧, in reverse on a terminal. The start up to the first mark
    is the prefix that all requests share.
    """
    from allinone.cli.output import print_json
    from allinone.cli.session import RuntimeOptions, load_library
    from allinone.cli.tasks.list import describe
    from allinone.prompts.schema import placeholders

    options = RuntimeOptions(model=model, tasks=tasks, backend=backend)
    prompt = load_library(options).get(name)
    messages = prompt.render({**placeholders(prompt.inputs), "text": text})
    encoder = _find_encoder(options)
    if encoder is None:
        segments = [segment for message in messages for segment in message.content]
        counts: dict[str, Any] = {"prefix_tokens": None, "input_tokens": None}
    else:
        segments = list(encoder.segments(messages))
        encoded = encoder.encode(segments)
        counts = {"prefix_tokens": len(encoded.prefix_ids), "input_tokens": len(encoded.input_ids)}
    if json:
        rendered = [{"text": segment.text, "trusted": segment.trusted} for segment in segments]
        print_json({**describe(prompt), "file": prompt.text, "segments": rendered, **counts})
    else:
        _print(prompt, segments, counts)


def _print(prompt: PromptFile, segments: Sequence[Segment], counts: Mapping[str, Any]) -> None:
    from allinone.cli.output import print_line, visible

    is_terminal = sys.stdout.isatty()
    title = f"{prompt.full_name} · {prompt.kind} · version {prompt.version} · {prompt.path}"
    print_line(typer.style(title, bold=True) if is_terminal else title)
    print_line(visible(prompt.text.rstrip("\n")))
    print_line()
    parts = (
        _mark(visible(segment.text), is_terminal) if not segment.trusted else visible(segment.text)
        for segment in segments
    )
    print_line("".join(parts))
    print_line()
    if counts["prefix_tokens"] is None:
        print_line("(no model is here: turns and tokens cannot be shown; `allinone models list` shows what there is)")
    else:
        print_line(
            f"{counts['prefix_tokens']} tokens are the shared prefix, {counts['input_tokens']} are this request's own"
        )


def _mark(text: str, is_terminal: bool) -> str:
    return typer.style(text, reverse=True) if is_terminal else f"⟦{text}⟧"


def _find_encoder(options: RuntimeOptions) -> PromptEncoder | None:
    """The model's tokenizer and template; None where no model was asked for and none is there."""
    from allinone.cli.session import load_encoder

    try:
        return load_encoder(options)
    except WeightsNotFound:
        if options.model is not None:
            raise
        return None
