"""The chat over a pipe, its commands, and what it prints; the terminal itself is tested in tests/e2e."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from allinone.cli.chat import COMMANDS, WORDS, Chat, mood_line
from allinone.errors import UnknownTask
from allinone.runtime import AllInOne
from allinone.types import Result

from .conftest import Cli

ZH = re.compile(r"[😄😢😐] LLM 情感判断: (正面|负面|中性)")
EN = re.compile(r"[😄😢😐] Mood: (positive|negative|neutral)")


def test_mood_comes_first_then_the_reply(fake: Cli) -> None:
    """`printf '…' | allinone`."""
    outcome = fake(stdin="今天的实验终于成功了,太棒了!\n")
    assert outcome.exit_code == 0
    first, rest = outcome.stdout.split("\n", 1)
    assert ZH.fullmatch(first)
    assert rest.strip()


@pytest.mark.parametrize(
    ("arguments", "env", "pattern"),
    [
        ((), {}, ZH),
        ((), {"LANG": "C.UTF-8", "LC_ALL": "", "LC_MESSAGES": ""}, ZH),
        ((), {"LANG": "zh_CN.UTF-8", "LC_ALL": "", "LC_MESSAGES": ""}, ZH),
        ((), {"LANG": "en_US.UTF-8", "LC_ALL": "", "LC_MESSAGES": ""}, EN),
        ((), {"ALLINONE_LANG": "en"}, EN),
        (("--lang", "zh"), {"ALLINONE_LANG": "en"}, ZH),
        (("--lang", "en"), {}, EN),
    ],
)
def test_language(fake: Cli, arguments: tuple[str, ...], env: dict[str, str], pattern: re.Pattern[str]) -> None:
    """The option, else ALLINONE_LANG, else the locale; Chinese where the locale names no language."""
    assert pattern.fullmatch(fake(*arguments, stdin="hello\n", env=env).stdout.split("\n")[0])


def test_each_line_is_answered_and_blank_ones_are_skipped(fake: Cli) -> None:
    """One exchange per line, to the end of the input."""
    assert len(ZH.findall(fake(stdin="你好\n\n  \n再见\nlast").stdout)) == 3


@pytest.mark.parametrize("word", ["退出", "quit", "exit", " EXIT ", "/quit"])
def test_leaving_words_end_it(fake: Cli, word: str) -> None:
    """What comes after is not answered."""
    outcome = fake(stdin=f"你好\n{word}\n再见\n")
    assert outcome.exit_code == 0
    assert len(ZH.findall(outcome.stdout)) == 1


def test_bad_line_is_named_and_the_rest_answered(fake: Cli) -> None:
    """As for `run`: nothing is lost, and the exit code says so."""
    outcome = fake(stdin="你好\n".encode() + b"\xff\xfe\n" + "再见\n".encode())
    assert outcome.exit_code == 1
    assert "stdin:2: Not valid UTF-8" in outcome.stderr
    assert len(ZH.findall(outcome.stdout)) == 2


def test_too_long_line_is_named_and_the_rest_answered(fake: Cli) -> None:
    """A megabyte pasted into the chat is refused with both numbers."""
    outcome = fake(stdin="x" * 1_000_000 + "\n你好\n")
    assert outcome.exit_code == 1
    assert "stdin:1: " in outcome.stderr and "1000000" in outcome.stderr
    assert len(ZH.findall(outcome.stdout)) == 1


def test_empty_input_is_no_error(fake: Cli) -> None:
    """`allinone < /dev/null` has nothing to answer."""
    outcome = fake(stdin="")
    assert (outcome.exit_code, outcome.stdout) == (0, "")


def test_task_switches_and_chat_goes_back(fake: Cli) -> None:
    """Label tasks print one line with all probabilities, text tasks stream, /task alone names the current one."""
    script = ["/task emotion", "好", "/task", "/task keywords", "北京", "/task chat", "你好"]
    lines = fake(stdin="\n".join(script)).stdout.splitlines()
    assert "emotion" in lines[0]
    assert re.match(r"\S+ (快乐|悲伤|愤怒|恐惧|惊讶|平静) [01]\.\d\d   ", lines[1])
    assert lines[1].count("·") == 4
    assert lines[2].startswith("emotion · ")
    assert any(line.startswith('{"keywords"') for line in lines)
    assert ZH.search("\n".join(lines))


def test_task_takes_variables(fake: Cli) -> None:
    """`/task NAME var=value`; a name that the task does not declare is refused and nothing changes."""
    outcome = fake(stdin="/task rewrite style=幽默\n/task\n/task rewrite sytle=x\n/task\n")
    assert outcome.exit_code == 1
    assert outcome.stdout.count("rewrite · ") == 2
    assert "Did you mean 'style'?" in outcome.stderr


def test_own_chat_task_remembers(fake: Cli, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A persona of one's own gets what was said before: the same words are answered differently, until it is reset."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "pirate.prompt").write_text(
        "---\ndescription: x\nconfig: {temperature: 0, max_tokens: 8}\ninput: {schema: {text: string}}\n"
        'output: {format: text}\nallinone.kind: chat\n---\n{{role "system"}}\nA pirate.\n'
        '{{history}}\n{{role "user"}}\n{{text}}\n'
    )
    outcome = fake("--tasks", folder, stdin="/task pirate\nahoy\n/task pirate\nahoy\n/task pirate\nahoy\nahoy\n")
    assert outcome.exit_code == 0, outcome.stderr
    first, again, both = re.split(r"^.*pirate.*\n", outcome.stdout, flags=re.MULTILINE)[1:]
    assert first == again
    assert both.startswith(first) and both != first * 2


def test_unknown_commands_and_tasks_are_named(fake: Cli) -> None:
    """With a suggestion, and the chat goes on."""
    outcome = fake(stdin="/tsks\n/task sentimnt\n你好\n")
    assert outcome.exit_code == 1
    assert "Unknown command '/tsks'. Did you mean '/tasks'?" in outcome.stderr
    assert "Did you mean 'sentiment'?" in outcome.stderr
    assert ZH.search(outcome.stdout)


def test_commands_print_what_they_promise(fake: Cli) -> None:
    """/tasks, /stats, /model, /help, /reset in both languages."""
    for language in ("zh", "en"):
        outcome = fake("--lang", language, stdin="你好\n/tasks\n/stats\n/model\n/help\n/reset\n/stats\n")
        assert outcome.exit_code == 0
        for needle in ("sentiment", "prefix cache", "fake/float32", "/task NAME", WORDS[language].was_reset):
            assert needle in outcome.stdout
        assert re.search(r"turns +1", outcome.stdout) and re.search(r"turns +0", outcome.stdout)


def test_help_names_every_command() -> None:
    """A command that help does not mention is not found."""
    for words in WORDS.values():
        assert all(command in words.help for command in COMMANDS)


def test_conversation_is_kept_between_lines() -> None:
    """The second turn has the first before it: it prefills only its own tokens."""
    with AllInOne.load(backend="fake") as ai:
        chat = Chat(ai=ai, words=WORDS["en"], language="en", conversation=ai.conversation())
        chat.handle("hello")
        num_tokens = chat.conversation.num_tokens
        chat.handle("hello")
        assert len(chat.conversation.turns) == 2
        assert chat.conversation.num_tokens > num_tokens


def test_task_files_written_meanwhile_are_used(tmp_path: Path) -> None:
    """A new task can be switched to at once; /reset begins a conversation by the chat's file as it is now."""
    with AllInOne.load(backend="fake", tasks=[tmp_path]) as ai:
        chat = Chat(ai=ai, words=WORDS["en"], language="en", conversation=ai.conversation())
        builtin = chat.conversation.chat
        (tmp_path / "mine.prompt").write_text(ai.tasks.get("sentiment").text)
        chat.handle("/task mine")
        assert chat.task == "mine"
        (tmp_path / f"{builtin.full_name}.prompt").write_text(builtin.text.replace("description:", "description: my"))
        chat.handle("/reset")
        assert chat.conversation.chat.version != builtin.version
        (tmp_path / "mine.prompt").unlink()
        with pytest.raises(UnknownTask):
            chat.handle("hello")


def test_mood_line_without_an_emoji() -> None:
    """A mood task of one's own may have none."""
    mood = Result(task="m", version="v", model="m", kind="label", label="好", name="good")
    assert mood_line(mood, "zh") == "LLM 情感判断: 好"
    assert mood_line(mood, "en") == "Mood: good"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_ctrl_c_while_a_reply_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_terminal: bool
) -> None:
    """At a terminal it stops the reply, keeps what was said, and the session goes on; in a pipe it ends the program."""
    with AllInOne.load(backend="fake") as ai:
        chat = Chat(ai=ai, words=WORDS["en"], language="en", conversation=ai.conversation())
        written = 0

        def interrupt(text: str) -> str:
            nonlocal written
            written += 1
            if written == 3:
                raise KeyboardInterrupt
            return text

        monkeypatch.setattr("allinone.cli.chat.visible", interrupt)
        monkeypatch.setattr("sys.stdin.isatty", lambda: is_terminal, raising=False)
        if is_terminal:
            assert chat.handle("hello") == "done"
            assert capsys.readouterr().out.endswith(" (stopped)\n")
        else:
            with pytest.raises(KeyboardInterrupt):
                chat.handle("hello")
        assert len(chat.conversation.turns) == 1
        assert chat.handle("again") == "done"
        assert len(chat.conversation.turns) == 2
