"""The program as a whole: exit codes, how errors look, what --help costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from allinone import __version__, errors
from allinone.cli import doctor
from allinone.cli.main import EXIT_CODES

from .conftest import Cli

HEAVY = ("numpy", "onnxruntime", "onnx", "tokenizers", "torch", "pydantic", "prompt_toolkit", "allinone.runtime")


def _tree(error: type[errors.AllInOneError]) -> list[type[errors.AllInOneError]]:
    return [error, *(found for child in error.__subclasses__() for found in _tree(child))]


def test_exit_codes_cover_the_whole_tree() -> None:
    """A new error class must decide what the shell sees."""
    assert set(EXIT_CODES) == set(_tree(errors.AllInOneError))


def test_exit_codes_are_2_for_usage_and_1_for_everything_else() -> None:
    """Scripts tell "you called it wrongly" from "it failed" by the code alone."""
    for error, code in EXIT_CODES.items():
        assert code == (2 if issubclass(error, errors.UsageError) else 1), error


def test_unknown_task_exits_2_with_a_suggestion(cli: Cli) -> None:
    """Refused before a model is loaded: there is none here that could be."""
    outcome = cli("run", "sentimnt", "--model", "/nowhere/x.gguf", "hello")
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith("error: Unknown task 'sentimnt'. Did you mean 'sentiment'?")
    assert "hint:" in outcome.stderr
    assert outcome.stdout == ""


def test_missing_model_file_exits_1_with_a_hint(cli: Cli) -> None:
    """It is the machine that lacks something, not the call that is wrong."""
    outcome = cli("run", "sentiment", "--model", "/nowhere/x.gguf", "hello")
    assert outcome.exit_code == 1
    assert "/nowhere/x.gguf" in outcome.stderr and "hint:" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "needle"),
    [
        (("--lang", "fr"), "Unknown language 'fr'"),
        (("run", "sentiment", "--backend", "onx", "hello"), "Unknown backend 'onx'"),
        (("run",), "TASK"),
        (("rnu", "x"), "run"),
        (("run", "sentiment", "--threads", "0", "hello"), "threads"),
        (("tasks", "show", "chatt"), "Did you mean 'chat'?"),
        (("--backend", "fake", "run", "sentiment", "hello"), "put it after the command"),
        (("--no-cache", "tasks", "list"), "put it after the command"),
    ],
)
def test_wrong_usage_exits_2_and_says_why(cli: Cli, arguments: tuple[str, ...], needle: str) -> None:
    """Every wrong call is refused, with the name of what is wrong; nothing is silently ignored."""
    outcome = cli(*arguments, stdin="")
    assert outcome.exit_code == 2
    assert needle in outcome.stderr
    assert "Traceback" not in outcome.output


def test_wrong_environment_is_refused(cli: Cli) -> None:
    """A misspelt variable would otherwise do nothing, unnoticed."""
    outcome = cli("doctor", env={"ALLINONE_THREADS": "many"})
    assert outcome.exit_code == 2
    assert "ALLINONE_THREADS is 'many'" in outcome.stderr


def test_unexpected_exception_is_one_line_and_exit_1(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours shows its type and the way to a traceback, not the traceback."""
    monkeypatch.setattr(doctor, "examine", lambda options: {}["missing"])
    outcome = cli("doctor")
    assert outcome.exit_code == 1
    assert outcome.stderr == "error: Unexpected KeyError: 'missing'\n  hint: ALLINONE_DEBUG=1 shows the traceback\n"


def test_unexpected_exception_shows_its_traceback_when_debugging(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """ALLINONE_DEBUG=1 is what we ask for in a bug report."""
    monkeypatch.setattr(doctor, "examine", lambda options: {}["missing"])
    outcome = cli("doctor", env={"ALLINONE_DEBUG": "1"})
    assert outcome.exit_code == 1
    assert "Traceback" in outcome.stderr


def test_interrupt_exits_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is neither success nor failure."""

    def interrupt(options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "examine", interrupt)
    outcome = cli("doctor")
    assert outcome.exit_code == 130
    assert outcome.stderr == "Stopped.\n"


def test_system_error_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk behind stdout reaches the user as the system's own words."""

    def fail(options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(doctor, "examine", fail)
    outcome = cli("doctor")
    assert outcome.exit_code == 1
    assert outcome.stderr.startswith("error: No space left on device (OSError).")


def test_version(cli: Cli) -> None:
    """`--version` names the program and its version."""
    assert cli("--version").stdout == f"allinone {__version__}\n"


@pytest.mark.parametrize("arguments", ["run senti", "tasks show senti", "tasks check senti"])
def test_shell_completes_task_names(cli: Cli, arguments: str) -> None:
    """As the script that `--install-completion` installs asks for it."""
    env = {"_ALLINONE_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": f"allinone {arguments}"}
    outcome = cli(env=env)
    assert "sentiment" in outcome.stdout and "sentiment.en" in outcome.stdout
    assert "emotion" not in outcome.stdout


def test_help_loads_nothing_heavy() -> None:
    """Help within 0.3 s of CPU: by what is not imported, since a clock in a test depends on the machine."""
    code = (
        "import sys\nfrom allinone.cli.main import app\n"
        "try:\n    app(['--help'], prog_name='allinone')\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    assert "run" in done.stdout
