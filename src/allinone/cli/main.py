"""The program `allinone`: its commands, and what each error becomes for the shell.

It owns the command tree, the exit codes and the printing of errors; every command lives in a file of its own beside it.
Importing it loads Typer and nothing heavy, so that `--help` is quick. Below: the runtime, through `cli/session.py`.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from allinone import errors
from allinone.cli import bench, doctor, keys, run, serve
from allinone.cli import models as models_commands
from allinone.cli import tasks as tasks_commands
from allinone.cli.options import (
    BackendOption,
    LanguageOption,
    ModelOption,
    NoCacheOption,
    TasksOption,
    ThreadsOption,
)
from allinone.cli.output import note, report_error, silence_broken_output

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

EXIT_CODES: dict[type[errors.AllInOneError], int] = {
    errors.AllInOneError: EXIT_FAILED,
    errors.UsageError: EXIT_USAGE,
    errors.ConfigError: EXIT_USAGE,
    errors.UnknownTask: EXIT_USAGE,
    errors.UnknownModel: EXIT_USAGE,
    errors.InvalidInput: EXIT_USAGE,
    errors.ContextLengthExceeded: EXIT_USAGE,
    errors.AuthenticationRequired: EXIT_USAGE,
    errors.NotAllowed: EXIT_USAGE,
    errors.NotFound: EXIT_USAGE,
    errors.RequestTooLarge: EXIT_USAGE,
    errors.RequestTooSlow: EXIT_USAGE,
    errors.PromptError: EXIT_USAGE,
    errors.PromptNotFound: EXIT_USAGE,
    errors.MissingVariable: EXIT_USAGE,
    errors.UnknownKey: EXIT_USAGE,
    errors.VerbalizerError: EXIT_USAGE,
    errors.VersionConflict: EXIT_USAGE,
    errors.ModelError: EXIT_FAILED,
    errors.WeightsNotFound: EXIT_FAILED,
    errors.WeightsMismatch: EXIT_FAILED,
    errors.TokenizerMismatch: EXIT_FAILED,
    errors.RunError: EXIT_FAILED,
    errors.OutputParseError: EXIT_FAILED,
    errors.DeadlineExceeded: EXIT_FAILED,
    errors.Cancelled: EXIT_FAILED,
    errors.StreamConsumed: EXIT_FAILED,
    errors.CapacityError: EXIT_FAILED,
    errors.QueueFull: EXIT_FAILED,
    errors.CacheFull: EXIT_FAILED,
    errors.TooManyRequests: EXIT_FAILED,
    errors.ServerBusy: EXIT_FAILED,
    errors.ShuttingDown: EXIT_FAILED,
    errors.StoreError: EXIT_FAILED,
    errors.SchemaTooNew: EXIT_FAILED,
    errors.MigrationFailed: EXIT_FAILED,
}
"""What the shell sees; every class of the tree has its own entry, so that a new one is a decision."""

EPILOG = """
Exit codes: 0 all well · 1 something failed (each failure is named on
stderr) · 2 wrong usage · 130 stopped by Ctrl-C.

Environment: ALLINONE_MODEL, ALLINONE_TASKS, ALLINONE_LANG and
ALLINONE_THREADS set defaults, ALLINONE_HOME and ALLINONE_CACHE the
folders; ALLINONE_DEBUG=1 shows tracebacks.
"""


class RootGroup(TyperGroup):
    """The root command: turns what a command raises into one message on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except errors.AllInOneError as error:
            report_error(error)
            raise typer.Exit(EXIT_CODES[type(error)]) from error
        except KeyboardInterrupt as interrupt:
            note("Stopped.")
            raise typer.Exit(EXIT_INTERRUPTED) from interrupt
        except BrokenPipeError as error:  # the reader left: `allinone run … | head`
            silence_broken_output()
            raise typer.Exit(EXIT_FAILED) from error
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if hasattr(error, "exit_code"):  # wrong usage, as Typer itself finds and shows it
                raise
            if _is_debugging():
                traceback.print_exc()
            report_error(_describe_unexpected(error))
            if isinstance(error, OSError):
                silence_broken_output()
            raise typer.Exit(EXIT_FAILED) from error


def _describe_unexpected(error: Exception) -> errors.AllInOneError:
    hint = None if _is_debugging() else "ALLINONE_DEBUG=1 shows the traceback"
    if isinstance(error, OSError):  # a full disk behind stdout, for one
        place = f"{error.filename}: " if error.filename else ""
        return errors.StoreError(f"{place}{error.strerror or error} ({type(error).__name__}).", hint=hint)
    return errors.AllInOneError(f"Unexpected {type(error).__name__}: {error}", hint=hint)


def _is_debugging() -> bool:
    return os.environ.get("ALLINONE_DEBUG", "") not in ("", "0")


app = typer.Typer(
    name="allinone",
    cls=RootGroup,
    invoke_without_command=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
)
app.command("run")(run.run)
app.add_typer(tasks_commands.app, name="tasks")
app.add_typer(models_commands.app, name="models")
app.command("serve")(serve.serve)
app.add_typer(keys.app, name="keys")
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        from allinone import __version__

        typer.echo(f"allinone {__version__}")
        raise typer.Exit


@app.callback()
def chat(
    ctx: typer.Context,
    model: ModelOption = None,
    tasks: TasksOption = None,
    backend: BackendOption = None,
    threads: ThreadsOption = None,
    no_cache: NoCacheOption = False,
    lang: LanguageOption = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    r"""One small chat model on an ordinary CPU, many language jobs by prompt alone.

    Without a command: chat. The mood of each message first, then the reply:

    $ allinone
    ❯ 今天的实验终于成功了,太棒了!
    😄 LLM 情感判断: 正面
    恭喜你!……

    Text on standard input is answered line by line:

    printf '今天的实验终于成功了,太棒了!\n' | allinone
    allinone run sentiment "这家店太棒了"
    allinone tasks list
    """
    if ctx.invoked_subcommand is not None:
        given = [name for name in ("model", "tasks", "backend", "threads", "lang") if ctx.params.get(name)]
        if given or no_cache:
            name = given[0] if given else "no-cache"
            raise errors.UsageError(
                f"--{name} stands before the command {ctx.invoked_subcommand!r} and would do nothing.",
                hint=f"put it after the command: allinone {ctx.invoked_subcommand} … --{name} …",
            )
        return
    from allinone.cli.chat import chat_with_person, chat_with_pipe
    from allinone.cli.options import choose_language
    from allinone.cli.session import RuntimeOptions, open_runtime

    language = choose_language(lang)
    options = RuntimeOptions(
        model=model, tasks=tasks, backend=backend, threads=threads, use_cache=not no_cache, language=language
    )
    if sys.stdin is None:
        raise errors.UsageError("There is no standard input to chat over.", hint="allinone run TASK TEXT needs none")
    with open_runtime(options) as ai:
        if sys.stdin.isatty() and sys.stdout.isatty():
            chat_with_person(ai, language)
        elif chat_with_pipe(ai, language):
            raise typer.Exit(EXIT_FAILED)


def main() -> None:
    """Run the program and end the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.isatty():
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr] # a TextIOWrapper
    code: Any = EXIT_OK
    try:
        try:
            app(prog_name="allinone")
        except KeyboardInterrupt:
            code = EXIT_INTERRUPTED
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
    except OSError as error:  # stdout cannot be written: its reader left, or its disk is full
        silence_broken_output()
        if not isinstance(error, BrokenPipeError):
            report_error(_describe_unexpected(error))
        code = code or EXIT_FAILED
    sys.exit(code)


if __name__ == "__main__":
    main()
