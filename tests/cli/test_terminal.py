"""Reading from a person: history file, completion, keys. The keyboard is a pipe of prompt_toolkit's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from allinone.cli.terminal import CommandCompleter, open_history, read_messages


@pytest.fixture
def keyboard() -> Iterator[PipeInput]:
    """What is sent here is typed."""
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        yield pipe


def messages() -> Iterator[str]:
    """Messages as the chat reads them."""
    return read_messages(commands=["/help", "/task"], tasks=lambda: ["sentiment"])


def test_enter_ends_a_message_and_ctrl_d_the_session(keyboard: PipeInput) -> None:
    """The plain case."""
    keyboard.send_text("你好\rbye\r\x04")
    assert list(messages()) == ["你好", "bye"]


def test_ctrl_c_clears_the_line(keyboard: PipeInput) -> None:
    """And leaves nobody."""
    found = messages()
    keyboard.send_text("half\x03")
    keyboard.send_text("whole\r")
    assert next(found) == "whole"


def test_pasted_lines_and_alt_enter_are_one_message(keyboard: PipeInput) -> None:
    """A pasted paragraph is one text, as it was meant."""
    found = messages()
    keyboard.send_text("\x1b[200~one\ntwo\n\x1b[201~three\x1b\rfour\r")
    assert next(found) == "one\ntwo\nthree\nfour"


def test_history_is_a_private_file(tmp_path: Path, keyboard: PipeInput) -> None:
    """What people tell the chat is readable by them only."""
    home = Path(os.environ["ALLINONE_HOME"])
    keyboard.send_text("secret\r\x04")
    assert list(messages()) == ["secret"]
    path = home / "history"
    assert "+secret" in path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o077 == 0


def test_history_that_cannot_be_written_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A read-only home does not stop the chat, and it is not silent either."""
    (tmp_path / "file").write_text("")
    history = open_history(tmp_path / "file" / "history")
    assert isinstance(history, InMemoryHistory)
    assert "The history is not kept: " in capsys.readouterr().err


def test_history_survives_a_disk_that_fills_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing the history is reported once and ends nothing."""

    def fail(self: FileHistory, string: str) -> None:
        raise OSError(28, "No space left on device")

    history = open_history(tmp_path / "history")
    monkeypatch.setattr(FileHistory, "store_string", fail)
    history.append_string("a")
    history.append_string("b")
    assert capsys.readouterr().err == "The history is not kept any longer: No space left on device.\n"


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ("/", ["/help", "/task", "/tasks"]),
        ("/ta", ["/task", "/tasks"]),
        ("/task s", ["sentiment", "summarize"]),
        ("/task ", ["chat", "sentiment", "summarize"]),
        ("/help s", []),
        ("s", []),
        ("tell me /ta", []),
    ],
)
def test_completion(text: str, choices: list[str]) -> None:
    """Commands at the start of a line, tasks after /task, nothing in ordinary text."""
    names: Callable[[], list[str]] = lambda: ["chat", "sentiment", "summarize"]  # noqa: E731
    completer = CommandCompleter(["/help", "/task", "/tasks"], names)
    found = completer.get_completions(Document(text), CompleteEvent())
    assert [completion.text for completion in found] == choices
