"""The chat at a terminal: a pseudo-terminal types, the bundled model answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import PROGRAM

pexpect = pytest.importorskip("pexpect", reason="a pseudo-terminal needs pexpect")
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

PROMPT = "❯"
MOOD = "LLM 情感判断: (正面|负面|中性)"
CTRL_C, CTRL_D = "\x03", "\x04"


@pytest.fixture
def chat(environment: dict[str, str]) -> Iterator[Callable[..., pexpect.spawn]]:
    """Start a chat and wait for its prompt; whatever still runs at the end of the test is ended."""
    started: list[pexpect.spawn] = []

    def start(*arguments: str) -> pexpect.spawn:
        env = {**environment, "PROMPT_TOOLKIT_NO_CPR": "1"}
        terminal = pexpect.spawn(PROGRAM, list(arguments), env=env, encoding="utf-8", timeout=30, dimensions=(50, 200))
        started.append(terminal)
        terminal.expect(PROMPT)
        return terminal

    yield start
    for terminal in started:
        terminal.close(force=True)


def leave(terminal: pexpect.spawn, keys: str) -> int:
    """Send keys that end the chat; its exit code."""
    terminal.send(keys)
    terminal.expect(pexpect.EOF)
    terminal.close()
    return terminal.exitstatus


@pytest.mark.parametrize("keys", ["退出\r", "quit\r", "exit\r", CTRL_D])
def test_message_is_answered_and_the_chat_left(chat: Callable[..., pexpect.spawn], keys: str) -> None:
    """Mood, reply, the next prompt, and every way out ends with 0."""
    terminal = chat()
    terminal.send("今天的实验终于成功了,太棒了!\r")
    terminal.expect(MOOD)
    terminal.expect(PROMPT)
    assert leave(terminal, keys) == 0


def test_ctrl_c_stops_a_reply_and_keeps_the_session(chat: Callable[..., pexpect.spawn]) -> None:
    """Whether it strikes in the mood, in the reply or just after it: the next message is answered."""
    terminal = chat()
    for _ in range(3):
        terminal.send("给我讲一个很长的故事\r")
        terminal.expect("LLM")
        terminal.send(CTRL_C)
        terminal.expect(PROMPT)
    terminal.send("你好\r")
    terminal.expect(MOOD)
    terminal.expect(PROMPT)
    assert leave(terminal, CTRL_D) == 0


def test_ctrl_c_at_the_prompt_clears_the_line(chat: Callable[..., pexpect.spawn]) -> None:
    """What was typed is not sent."""
    terminal = chat()
    terminal.send("/reset")
    terminal.send(CTRL_C)
    terminal.expect(PROMPT)
    terminal.send("/help\r")
    index = terminal.expect(["对话已清空", "/stats"])
    assert index == 1
    assert leave(terminal, CTRL_D) == 0


def test_pasted_lines_are_one_message(chat: Callable[..., pexpect.spawn]) -> None:
    """One mood for the whole text."""
    terminal = chat()
    terminal.send("\x1b[200~味道很好\n服务也很好\n\x1b[201~\r")
    terminal.expect(MOOD)
    assert terminal.expect([MOOD, PROMPT]) == 1
    terminal.send("/stats\r")
    terminal.expect(r"turns +1\D")
    assert leave(terminal, CTRL_D) == 0


def test_task_is_switched_and_errors_end_nothing(chat: Callable[..., pexpect.spawn]) -> None:
    """A label task answers with its labels; a wrong name is explained."""
    terminal = chat()
    terminal.send("/task sentimnt\r")
    terminal.expect("Did you mean 'sentiment'")
    terminal.send("/task sentiment\r")
    terminal.expect("sentiment")
    terminal.send("太好吃了\r")
    terminal.expect(r"(正面|负面|中性) [01]\.\d\d")
    assert leave(terminal, CTRL_D) == 0


def test_history_comes_back_in_the_next_session(chat: Callable[..., pexpect.spawn], home: Path) -> None:
    """Arrow-up recalls what was typed last time."""
    first = chat("--lang", "en")
    first.send("/model\r")
    first.expect("backend")
    assert leave(first, CTRL_D) == 0
    assert "+/model" in (home / ".local" / "share" / "allinone" / "history").read_text(encoding="utf-8")
    second = chat("--lang", "en")
    second.send("\x1b[A")
    second.send("\r")
    second.expect("backend")
    assert leave(second, CTRL_D) == 0
