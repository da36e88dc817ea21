"""Reading messages from a person at a terminal: history, completion, several lines. Knows nothing of their meaning."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from allinone.cli.output import note
from allinone.config import Settings


def read_messages(*, commands: Iterable[str], tasks: Callable[[], Iterable[str]]) -> Iterator[str]:
    """Messages, until Ctrl-D. Ctrl-C clears the line; Alt-Enter and pasted line breaks do not end a message."""
    session: PromptSession[str] = PromptSession(
        "❯ ",
        history=open_history(Settings.from_env().home / "history"),
        completer=CommandCompleter(sorted(commands), tasks),
        complete_while_typing=True,
        reserve_space_for_menu=4,
        key_bindings=_key_bindings(),
        enable_history_search=False,
    )
    while True:
        try:
            yield session.prompt()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


def open_history(path: Path) -> History:
    """The history file, readable by its owner only; kept in memory, saying so, where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    except OSError as error:
        note(f"The history is not kept: {path}: {error.strerror}.")
        return InMemoryHistory()
    return _SafeFileHistory(str(path))


class _SafeFileHistory(FileHistory):
    """A history file whose loss (a full disk) does not end the chat."""

    _is_broken = False

    def store_string(self, string: str) -> None:
        if self._is_broken:
            return
        try:
            super().store_string(string)
        except OSError as error:
            self._is_broken = True
            note(f"The history is not kept any longer: {error.strerror}.")


class CommandCompleter(Completer):
    """Completes /commands, and the names of tasks after `/task`."""

    def __init__(self, commands: Iterable[str], tasks: Callable[[], Iterable[str]]) -> None:
        self._commands = list(commands)
        self._tasks = tasks

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Completions of the word before the cursor."""
        before = document.text_before_cursor
        if not before.startswith("/"):
            return
        command, space, rest = before.partition(" ")
        word = rest if space else command
        if space and command != "/task":
            return
        for choice in self._tasks() if space else self._commands:
            if choice.startswith(word):
                yield Completion(choice, start_position=-len(word))


def _key_bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings
