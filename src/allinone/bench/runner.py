"""The work that is measured: each method does one piece of it on a loaded model and says how long that took.

The work goes through the product's own façade, with the result cache off and prompts that belong to the benchmark
(`tasks/`), so that neither a user's tasks nor new wordings of the built-in ones move the figures. Only chat uses the
built-in tasks `chat` and `sentiment`. Above: `measure.py`, which repeats and sums up. Below: the runtime.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import cast

from allinone.bench.endless import EndlessTokenizer
from allinone.engine.requests import GenerateRequest, TokenEvent
from allinone.loading import LoadedModel, ProgressCallback, load_model
from allinone.pipelines.conversation import Conversation
from allinone.prompts.library import PromptLibrary
from allinone.runtime import AllInOne
from allinone.tasks.task import build_generate_request, build_score_request, prepare_call

TASKS = Path(__file__).with_name("tasks")
LABEL_TASK = "bench-mood"
LABEL_TOKENS = 28
"""Fed for one label: a short review and the end of the prompt."""
DECODE_TOKENS = 64
HISTORY_TURNS = 49
MAX_MEASURED_TURNS = 8
"""Turns 50 to 57 of one conversation are measured; then another one is begun. All of them fit into 2,048 tokens: a
conversation that forgets its oldest turns has the rest of them prefilled again."""
_SENTENCE = "今天和老同学在学校门口的小店吃了顿饭，味道一般，不过聊得很开心，"
_CHAT_TEXTS = ("你好呀", "吃了吗", "今天有点累", "哈哈")
_HISTORY_REPLY_TOKENS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Which model to measure, as the command line names it; what is None is chosen as for any command."""

    model: str | None = None
    backend: str | None = None
    threads: int | None = None


class Runner:
    """A loaded model at work. Not thread-safe; a context manager.

    Args:
        loaded: closed with the runner.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        endless = replace(loaded, tokenizer=EndlessTokenizer(loaded.tokenizer))
        self.ai = ai = AllInOne(endless, PromptLibrary.load([TASKS]), max_cached_results=0)
        self.label_tasks = [name for name in ai.tasks.names() if name.startswith("bench-")]
        self.texts = make_texts(ai)
        self._num_taken = 0
        self._conversation: Conversation | None = None
        self.history_tokens: int | None = None

    @classmethod
    def open(cls, target: Target, *, on_progress: ProgressCallback | None = None) -> Runner:
        """Load the model with the tasks of the benchmark.

        Raises:
            AllInOneError: as `load_model`.
        """
        return cls(
            load_model(target.model, backend=target.backend, num_threads=target.threads, on_progress=on_progress)
        )

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._conversation is not None:
            self._conversation.close()
        self.ai.close()

    def digest(self) -> str:
        """Equal for equal texts and prompts."""
        versions = [(name, self.ai.tasks.get(name).version) for name in (*self.label_tasks, "chat", "sentiment")]
        return hashlib.sha256(repr((versions, self.texts, _CHAT_TEXTS)).encode()).hexdigest()[:16]

    def count_label_tokens(self) -> tuple[int, int]:
        """Tokens of the label task's cached prefix, and those fed for one label."""
        return _label_tokens(self.ai, self.texts[0])

    def time_label(self) -> float:
        """Seconds of one label whose prefix is cached."""
        start = time.perf_counter()
        self.ai.run(LABEL_TASK, self._next_text())
        return time.perf_counter() - start

    def time_labels(self, num_texts: int, *, num_in_flight: int) -> float:
        """Labels per second of one task."""
        texts = [self._next_text() for _ in range(num_texts)]
        start = time.perf_counter()
        for _ in self.ai.map(LABEL_TASK, texts, window=num_in_flight):
            pass
        return num_texts / (time.perf_counter() - start)

    def time_labels_over_tasks(self, num_texts: int, *, num_in_flight: int = 32) -> float:
        """Labels per second of all label tasks together, an equal share of the texts each."""
        num_each = num_texts // len(self.label_tasks)
        window = num_in_flight // len(self.label_tasks)
        texts = [self._next_text() for _ in range(num_each)]

        def work(task: str) -> int:
            return sum(1 for _ in self.ai.map(task, texts, window=window))

        with ThreadPoolExecutor(len(self.label_tasks)) as pool:
            start = time.perf_counter()
            num_done = sum(pool.map(work, self.label_tasks))
            return num_done / (time.perf_counter() - start)

    def time_decode(self, num_streams: int, num_tokens: int = DECODE_TOKENS) -> float:
        """Tokens per second of all streams together, from the first token of the first to the last of all."""
        streams = self.ai.engine.submit(*(self._reply_request(num_tokens, seed) for seed in range(num_streams)))
        start, count = 0.0, -num_streams  # the first token of each stream is the prefill's
        for stream in streams:
            for event in cast("Iterator[TokenEvent]", stream):
                start = start or time.perf_counter()
                count += event.token_id is not None
        return count / (time.perf_counter() - start)

    def time_reply(self) -> float:
        """Seconds to the first token of mood → reply, from nothing but cached prefixes."""
        text = self._next_text()
        start = time.perf_counter()
        reply = self.ai.reply(text)
        return _time_first_token(iter(reply), start)

    def time_label_then_reply(self) -> float:
        """The same in two calls: the mood first, then a chat that is told of it."""
        text = self._next_text()
        start = time.perf_counter()
        mood = self.ai.run("sentiment", text)
        stream = self.ai.stream("chat", text, mood=mood.label)
        seconds = _time_first_token(iter(stream), start)
        stream.result()
        return seconds

    def time_late_turn(self) -> float:
        """Seconds to the first token of the 50th turn of a conversation, or of one of the next few."""
        conversation = self._prepare_conversation()
        text = _CHAT_TEXTS[len(conversation.turns) % len(_CHAT_TEXTS)]
        start = time.perf_counter()
        return _time_first_token(iter(conversation.reply(text)), start)

    def _prepare_conversation(self) -> Conversation:
        """A conversation of 49 short turns, or of a few more that were measured before."""
        found = self._conversation
        if found is not None and len(found.turns) < HISTORY_TURNS + MAX_MEASURED_TURNS:
            return found
        if found is not None:
            found.close()
        self._conversation = made = self.ai.conversation()
        for number in range(HISTORY_TURNS):
            reply = iter(made.reply(_CHAT_TEXTS[number % len(_CHAT_TEXTS)]))
            for _ in range(_HISTORY_REPLY_TOKENS):
                next(reply, None)
            _close(reply)
        self.history_tokens = made.num_tokens
        return made

    def _reply_request(self, num_tokens: int, seed: int) -> GenerateRequest:
        """A chat reply of this many tokens, sampled as the chat task says, and the same each time."""
        call = prepare_call(self.ai.tasks.get("chat"), self.ai.encoder, {"text": self._next_text()})
        request = build_generate_request(call, self.ai.encoder)
        return replace(request, sampling=replace(request.sampling, stop=(), max_tokens=num_tokens, seed=seed))

    def _next_text(self) -> str:
        self._num_taken += 1
        return self.texts[self._num_taken % len(self.texts)]


def make_texts(ai: AllInOne) -> list[str]:
    """Different texts of equal length, so long that a label costs `LABEL_TOKENS` with this model's tokenizer.

    The shortest possible one where even that costs more.
    """
    length = 1
    while length < 4 * LABEL_TOKENS and _label_tokens(ai, _cut(0, length + 1))[1] <= LABEL_TOKENS:
        length += 1
    return [_cut(start, length) for start in range(len(_SENTENCE))]


def _cut(start: int, length: int) -> str:
    """`length` characters of the sentence, said again and again."""
    return (_SENTENCE * (2 + length // len(_SENTENCE)))[start : start + length]


def _label_tokens(ai: AllInOne, text: str) -> tuple[int, int]:
    request = build_score_request(prepare_call(ai.tasks.get(LABEL_TASK), ai.encoder, {"text": text}), ai.encoder)
    return len(request.prefix_ids), len(request.input_ids)


def _time_first_token(events: Iterator[TokenEvent], start: float) -> float:
    """Seconds from `start` to the first token; the rest is cancelled, and over when this returns."""
    for event in events:
        if event.token_id is not None:
            break
    seconds = time.perf_counter() - start
    _close(events)
    return seconds


def _close(events: Iterator[TokenEvent]) -> None:
    """End a stream early."""
    cast("Generator[TokenEvent]", events).close()
