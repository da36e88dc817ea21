"""`allinone run`: one task on many inputs, in order, with everything that answered kept.

Reads inputs lazily, lets the runtime batch them, writes each answer as it comes. A bad line is named on stderr and the
rest goes on. Inputs are read by `inputs.py`, files written and resumed by `answers.py`.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allinone.cli.options import (
    BackendOption,
    JsonOption,
    ModelOption,
    NoCacheOption,
    TasksOption,
    ThreadsOption,
    complete_task,
)
from allinone.errors import AllInOneError, ConfigError, UsageError

if TYPE_CHECKING:
    from allinone.cli.answers import AnswerSink
    from allinone.cli.inputs import Entry, Source
    from allinone.cli.progress import LineProgress
    from allinone.prompts.prompt_file import PromptFile
    from allinone.runtime import AllInOne
    from allinone.types import Result


Texts = Annotated[list[str] | None, typer.Argument(metavar="TEXT", help="Inputs; else lines of stdin or --file.")]
FileOption = Annotated[
    str | None,
    typer.Option("--file", "-f", metavar="FILE", help="Inputs from a .txt, .csv, .tsv or .jsonl file; - is stdin."),
]
FormatOption = Annotated[
    str | None,
    typer.Option(metavar="txt|csv|tsv|jsonl", help="What the input is. Default: the ending of FILE, else txt."),
]
ColumnOption = Annotated[str, typer.Option(help="Column or key of FILE that holds the text.")]
LabelsOption = Annotated[
    str | None,
    typer.Option(metavar="A,B,…", help="Choose among these labels only, by label or English name."),
]
VarOption = Annotated[
    list[str] | None, typer.Option("--var", metavar="NAME=VALUE", help="A further variable of the task.")
]
OutputOption = Annotated[
    str | None, typer.Option("--output", "-o", metavar="FILE", help="Write the answers to FILE, not to stdout.")
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Continue after what is in --output already (implies --json).")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is in --output already.")]
ProgressOption = Annotated[
    bool | None,
    typer.Option("--progress/--no-progress", help="Progress bar on stderr. Default: where it is a terminal."),
]


def run(
    task: Annotated[
        str,
        typer.Argument(metavar="TASK", help="Name of a task; see `allinone tasks list`.", autocompletion=complete_task),
    ],
    texts: Texts = None,
    file: FileOption = None,
    format: FormatOption = None,
    column: ColumnOption = "text",
    labels: LabelsOption = None,
    var: VarOption = None,
    json: JsonOption = False,
    output: OutputOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    progress: ProgressOption = None,
    model: ModelOption = None,
    tasks: TasksOption = None,
    backend: BackendOption = None,
    threads: ThreadsOption = None,
    no_cache: NoCacheOption = False,
) -> None:
    """Run one task on texts: arguments, lines of standard input, or a file.

    [bold]Examples[/]

    allinone run sentiment "这家店太棒了" "服务很差"
    allinone run sentiment --file reviews.csv --column review --json
    allinone run rewrite --var style=幽默 "会议改到三点"
    cat lines.txt | allinone run emotion --labels 快乐,悲伤
    head -100 reviews.jsonl | allinone run sentiment --format jsonl
    allinone run title --file articles.jsonl --output out.jsonl --resume

    With --json every answer is one line: line, input, task, version, model,
    kind, label, name, probs, p_max, text, data, finish_reason, usage,
    timings, cached. Keys of a .jsonl or .csv file become variables if the
    task declares them; the others are copied to the answer, as input_NAME
    where the answer has a field of that name.

    A line that cannot be answered is named on stderr (reviews.csv:61: …),
    the rest is answered, and the exit code is 1.
    """
    from allinone.cli.answers import check_output, open_sink, require_different_files
    from allinone.cli.live import read_groups
    from allinone.cli.output import note
    from allinone.cli.progress import LineProgress
    from allinone.cli.session import RuntimeOptions, load_library, open_runtime
    from allinone.cli.variables import parse_assignments

    options = RuntimeOptions(model=model, tasks=tasks, backend=backend, threads=threads, use_cache=not no_cache)
    check_output(output, resume=resume, overwrite=overwrite)
    prompt = load_library(options).get(task)
    variables = parse_assignments(var or [], prompt)
    chosen = parse_labels(labels, prompt)
    with ExitStack() as stack:
        source, entries = open_inputs(texts or [], file, format=format, column=column, prompt=prompt)
        if source is not None:
            stack.callback(source.close)
            require_different_files(source, output)
        ai = stack.enter_context(open_runtime(options))
        if texts and len(texts) == 1 and prompt.kind != "label" and not json and output is None:
            stream_one(ai, task, {**variables, "text": texts[0]})
            return
        sink = stack.enter_context(open_sink(output, as_json=json or resume, resume=resume))
        bar = stack.enter_context(LineProgress(source, wanted=progress, is_quiet_output=output is not None))
        entries = sink.skip_answered(entries, task=prompt.full_name, version=prompt.version, model=ai.model.full_name)
        groups = read_groups(entries) if source is not None and source.is_live else [entries]
        num_failed = sum(answer_all(ai, task, group, sink, bar, labels=chosen, variables=variables) for group in groups)
        if not bar.num_done:
            note("There was nothing to answer.")
    if num_failed or sink.num_missing:
        raise typer.Exit(1)


def open_inputs(
    texts: list[str], file: str | None, *, format: str | None, column: str, prompt: PromptFile
) -> tuple[Source | None, Iterator[Entry]]:
    """Where inputs come from, and the inputs.

    Raises:
        UsageError: both or neither of texts and a file, at a terminal.
    """
    from allinone.cli.inputs import from_arguments, open_source, read_entries

    if texts and (file or format):
        option = "--file" if file else "--format"
        raise UsageError(f"TEXT and {option} are both given.", hint="use one of them")
    if texts:
        return None, from_arguments(texts)
    is_typed = sys.stdin is not None and sys.stdin.isatty() and file != "-"  # with "-" a person means to type
    if file in (None, "-") and (sys.stdin is None or is_typed):
        raise UsageError("There is no text to run on.", hint='allinone run TASK "a text", or --file FILE, or a pipe')
    source = open_source(file, format=format, column=column, inputs=prompt.inputs)
    return source, read_entries(source)


def answer_all(
    ai: AllInOne,
    task: str,
    entries: Iterable[Entry],
    sink: AnswerSink,
    bar: LineProgress,
    *,
    labels: list[str] | None,
    variables: Mapping[str, Any],
) -> int:
    """Answer every entry, in order.

    Returns:
        How many failed.
    """
    from allinone.cli.inputs import Line

    num_failed = 0
    for entry, outcome in pair(ai, task, entries, labels=labels, variables=variables):
        if isinstance(outcome, AllInOneError):
            num_failed += 1
            bar.report(outcome, place=entry.place)
        else:
            assert isinstance(entry, Line)  # a bad line has no answer
            sink.write(entry, outcome)
        bar.advance()
    return num_failed


def pair(
    ai: AllInOne, task: str, entries: Iterable[Entry], *, labels: list[str] | None, variables: Mapping[str, Any]
) -> Iterator[tuple[Entry, Result | AllInOneError]]:
    """Each entry with its answer or its error, in order; good ones go through the model in batches."""
    from allinone.cli.inputs import BadLine

    waiting: deque[Entry] = deque()

    def usable() -> Iterator[Mapping[str, Any]]:
        for entry in entries:
            waiting.append(entry)
            if not isinstance(entry, BadLine):
                yield {**variables, **entry.variables}

    def take_bad() -> Iterator[tuple[Entry, AllInOneError]]:
        while waiting and isinstance(bad := waiting[0], BadLine):
            waiting.popleft()
            yield bad, bad.error

    for outcome in ai.map(task, usable(), labels=labels, on_error="return"):
        yield from take_bad()
        yield waiting.popleft(), outcome
    yield from take_bad()


def stream_one(ai: AllInOne, task: str, variables: Mapping[str, Any]) -> None:
    """One text to people: the answer as it is written."""
    from allinone.cli.output import print_line, visible

    given = dict(variables)
    stream = ai.stream(task, given.pop("text"), **given)
    try:
        for event in stream:
            sys.stdout.write(visible(event.text))
            sys.stdout.flush()
    finally:
        print_line()
    stream.result()  # a json answer that is not complete is an error


def parse_labels(option: str | None, prompt: PromptFile) -> list[str] | None:
    """`--labels a,b` as a list, checked against the task.

    Raises:
        ConfigError: the task has no labels, or the list is empty. VerbalizerError: unknown labels.
    """
    if option is None:
        return None
    labels = [label.strip() for label in option.replace("，", ",").split(",") if label.strip()]
    if prompt.kind != "label":
        raise ConfigError(f"Task {prompt.full_name!r} is of kind {prompt.kind!r} and has no labels.")
    if not labels:
        raise ConfigError(f"--labels {option!r} names no label.")
    prompt.find_labels(labels)
    return labels
