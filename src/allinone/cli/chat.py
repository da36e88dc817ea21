"""`allinone` without a command: a conversation. The mood comes first, then the reply that knows it.

Owns the loop and its commands; where lines come from is `terminal.py` (a person) or standard input (a pipe). Nothing is
computed here: moods, replies and answers come from the runtime.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from allinone.cli.output import note, print_facts, print_line, print_table, report_error, visible
from allinone.cli.variables import parse_assignments
from allinone.config import Language
from allinone.errors import AllInOneError, UsageError, did_you_mean
from allinone.types import Message, Role, Segment

if TYPE_CHECKING:
    from allinone.pipelines.conversation import Conversation
    from allinone.pipelines.reply import Reply
    from allinone.prompts.prompt_file import PromptFile
    from allinone.runtime import AllInOne
    from allinone.tasks.run import TaskStream
    from allinone.types import Result

LEAVE_WORDS = frozenset({"退出", "quit", "exit", "/quit", "/exit"})
Outcome = Literal["done", "leave"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What the chat itself says, in one language."""

    mood: str
    stopped: str
    welcome: str
    now_chat: str
    now_task: str
    was_reset: str
    help: str


WORDS: dict[Language, Words] = {
    "zh": Words(
        mood="LLM 情感判断",
        stopped="（已停止）",
        welcome="/help 查看命令，退出 quit exit 或 Ctrl-D 离开。",
        now_chat="回到聊天。",
        now_task="每一行都用任务 {task} 处理；/task chat 回到聊天。",
        was_reset="对话已清空。",
        help=(
            "直接输入文字即可聊天：先判断情绪，再回复。\n"
            "  /task NAME [变量=值…]  每一行都用这个任务处理；/task chat 回到聊天\n"
            "  /tasks                 列出所有任务\n"
            "  /reset                 清空对话\n"
            "  /stats                 计数：词元、缓存、对话长度\n"
            "  /model                 正在使用的模型\n"
            "  /help                  这段说明\n"
            "  退出 quit exit Ctrl-D  离开；Ctrl-C 停止正在生成的回复\n"
            "  Alt-Enter              换行；粘贴多行文字算一条"
        ),
    ),
    "en": Words(
        mood="Mood",
        stopped="(stopped)",
        welcome="/help lists the commands; quit, exit, 退出 or Ctrl-D leaves.",
        now_chat="Back to the chat.",
        now_task="Each line now goes to the task {task}; /task chat goes back.",
        was_reset="The conversation is forgotten.",
        help=(
            "Type a text to chat: its mood is judged first, then comes the reply.\n"
            "  /task NAME [var=value …]  send each line to this task; /task chat goes back\n"
            "  /tasks                    all tasks\n"
            "  /reset                    forget the conversation\n"
            "  /stats                    counts: tokens, caches, length of the conversation\n"
            "  /model                    the model in use\n"
            "  /help                     this text\n"
            "  退出 quit exit Ctrl-D     leave; Ctrl-C stops a reply that is being written\n"
            "  Alt-Enter                 new line; a pasted text of several lines is one message"
        ),
    ),
}


@dataclass(slots=True, kw_only=True)
class Chat:
    """The state of one chat: its conversation, and the task that lines go to.

    Attributes:
        task: its full name; None while chatting.
        variables: of the task.
        history: what was said to a task that takes history (a persona of your own).
    """

    ai: AllInOne
    words: Words
    language: Language
    conversation: Conversation
    task: str | None = None
    variables: dict[str, Any] = field(default_factory=dict[str, Any])
    history: list[Message] = field(default_factory=list[Message])

    def handle(self, text: str) -> Outcome:
        """Answer one message, or obey one command.

        Raises:
            AllInOneError: the message cannot be answered; the conversation is then as it was before.
        """
        line = text.strip()
        if not line:
            return "done"
        self.ai.tasks.refresh()  # task files may be written while the chat goes on
        if line.lower() in LEAVE_WORDS:
            return "leave"
        if line.startswith("/"):
            self._command(line)
        elif self.task is None:
            self._reply(text)
        else:
            self._run(self.ai.tasks.get(self.task), text)
        return "done"

    def _reply(self, text: str) -> None:
        reply = self.ai.reply(text, self.conversation)
        print_line(mood_line(reply.mood, self.language))
        try:
            self._print_stream(reply)
        finally:
            reply.result()  # the conversation keeps what was said, also of a reply that was stopped

    def _run(self, task: PromptFile, text: str) -> None:
        if task.kind == "label":
            print_line(label_line(self.ai.run(task.full_name, text, **self.variables)))
            return
        history = self.history if task.takes_history else ()
        stream = self.ai.stream(task.full_name, text, history=history, **self.variables)
        if self._print_stream(stream):
            result = stream.result()  # a json answer that is not complete is an error
            self.history += [_value("user", text), _value("assistant", result.text or "")]

    def _print_stream(self, stream: Reply | TaskStream) -> bool:
        """Write a stream as it comes; Ctrl-C at a terminal stops it and keeps the session.

        Returns:
            Whether it came to its end.
        """
        try:
            for event in stream:
                sys.stdout.write(visible(event.text))
                sys.stdout.flush()
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            sys.stdout.write(f" {self.words.stopped}")
            return False
        finally:
            stream.cancel()
            print_line()
        return True

    def _command(self, line: str) -> None:
        name, *arguments = line.split()
        command = COMMANDS.get(name.lower())
        if command is None:
            raise UsageError(f"Unknown command {name!r}. {did_you_mean(name, COMMANDS)}", hint="/help explains them")
        command(self, arguments)

    def switch_task(self, arguments: list[str]) -> None:
        """`/task NAME [var=value …]`."""
        if not arguments:
            current = self.ai.tasks.get(self.task) if self.task else self.conversation.chat
            print_line(f"{current.full_name} · {current.description}")
            return
        prompt = self.ai.tasks.get(arguments[0])
        variables = parse_assignments(arguments[1:], prompt, option="")
        self.history.clear()
        if prompt.full_name in ("chat", self.conversation.chat.full_name):
            self.task, self.variables = None, {}
            print_line(self.words.now_chat)
        else:
            self.task, self.variables = prompt.full_name, variables
            print_line(self.words.now_task.format(task=prompt.full_name))

    def show_tasks(self, _arguments: list[str]) -> None:
        """`/tasks`."""
        print_table(("task", "kind", ""), [(p.full_name, p.kind, p.description) for p in self.ai.tasks.prompts()])

    def reset(self, _arguments: list[str]) -> None:
        """`/reset`; the new conversation is by the chat's task file as it is now."""
        self.conversation.close()
        self.conversation = self.ai.conversation()
        self.history.clear()
        print_line(self.words.was_reset)

    def show_stats(self, _arguments: list[str]) -> None:
        """`/stats`."""
        stats, results = self.ai.stats(), self.ai.results.stats()
        print_facts(
            {
                "turns": str(len(self.conversation.turns)),
                "conversation": f"{self.conversation.num_tokens:,} tokens",
                "prefilled": f"{stats.num_prefilled_tokens:,} tokens",
                "decoded": f"{stats.num_decoded_tokens:,} tokens",
                "prefix cache": f"{stats.num_prefixes} prefixes, {stats.num_prefix_tokens:,} tokens, "
                f"{stats.prefix_hits:,} hits, {stats.prefix_misses:,} misses",
                "result cache": f"{results.num_entries:,} answers, hit rate {results.hit_rate:.0%}",
            }
        )

    def show_model(self, _arguments: list[str]) -> None:
        """`/model`."""
        print_facts(model_facts(self.ai))

    def show_help(self, _arguments: list[str]) -> None:
        """`/help`."""
        print_line(self.words.help)


COMMANDS: dict[str, Callable[[Chat, list[str]], None]] = {
    "/help": Chat.show_help,
    "/task": Chat.switch_task,
    "/tasks": Chat.show_tasks,
    "/reset": Chat.reset,
    "/stats": Chat.show_stats,
    "/model": Chat.show_model,
}


def chat_with_person(ai: AllInOne, language: Language) -> None:
    """The interactive chat, at a terminal, until the person leaves."""
    from allinone.cli.terminal import read_messages

    chat = _open(ai, language)
    info = ai.model.backend.info
    note(f"allinone · {ai.model.full_name} · {info.name} · {info.num_threads} threads")
    note(chat.words.welcome)
    for text in read_messages(commands=COMMANDS, tasks=ai.tasks.names):
        try:
            if chat.handle(text) == "leave":
                return
        except AllInOneError as error:
            report_error(error)
        except KeyboardInterrupt:  # while the mood was being judged
            note(chat.words.stopped)


def chat_with_pipe(ai: AllInOne, language: Language) -> int:
    """Answer standard input line by line.

    Returns:
        How many lines failed; each is named on stderr.
    """
    from allinone.cli.inputs import BadLine, open_source, read_entries

    chat = _open(ai, language)
    num_failed = 0
    for entry in read_entries(open_source(None)):
        try:
            if isinstance(entry, BadLine):
                raise entry.error
            if chat.handle(entry.text) == "leave":
                break
        except AllInOneError as error:
            num_failed += 1
            report_error(error, place=entry.place)
    return num_failed


def mood_line(mood: Result, language: Language) -> str:
    """`😄 LLM 情感判断: 正面`, or `😄 Mood: positive`."""
    label = mood.label if language == "zh" else mood.name
    return f"{mood.emoji or ''} {WORDS[language].mood}: {label}".strip()


def label_line(result: Result) -> str:
    """`😄 正面 0.98`, with the other labels after it."""
    assert result.probs is not None
    others = " · ".join(f"{label} {prob:.2f}" for label, prob in result.probs.items() if label != result.label)
    start = f"{result.emoji} " if result.emoji else ""
    return f"{start}{result.label} {result.p_max:.2f}   {others}".rstrip()


def model_facts(ai: AllInOne) -> dict[str, str]:
    """The model in use, for people."""
    info = ai.model.backend.info
    return {
        "model": ai.model.full_name,
        "path": str(ai.model.path) if ai.model.path else "-",
        "backend": f"{info.name}, {info.num_threads} threads",
        "vocabulary": f"{info.vocab_size:,}",
        "context": f"{info.max_context_tokens:,} tokens, {info.kv_bytes_per_token:,} bytes of cache each",
    }


def _value(role: Role, text: str) -> Message:
    return Message(role=role, content=(Segment(text=text, trusted=False),))


def _open(ai: AllInOne, language: Language) -> Chat:
    return Chat(ai=ai, words=WORDS[language], language=language, conversation=ai.conversation())
