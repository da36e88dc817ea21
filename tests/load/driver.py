"""Sends mixed requests from many threads and checks every answer: `python -m tests.load.driver --requests 10000`.

What must hold: a finished answer equals, bit for bit, the answer computed alone; what was cut short is a beginning of
it; every request ends exactly once, in its own way; afterwards nothing is left over, and over the second half threads
stay flat, and memory too, of the idle process and as it is seen about once a second meanwhile. Prints one JSON object;
exit code 1 when something did not hold.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import queue
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.memory import MemoryWatch, rss_bytes

import allinone
from allinone import AllInOne
from allinone.errors import AllInOneError, DeadlineExceeded, OutputParseError, QueueFull
from allinone.types import Result

from .memory import is_memory_flat
from .traffic import Fate, Wish, sample_fates, sample_wishes

MAX_GROWTH_BYTES = 48 * 2**20
"""Of the process over the second half: what allocators keep varies; a leak of every request would be far more."""

_UNASKED = itertools.count()

Answer = tuple[str, Any]  # "label" and its probabilities, "text" and the text with its ending, "error" and its code


@contextmanager
def seeded_tasks() -> Iterator[Path]:
    """A folder with the built-in tasks that sample, each with a seed: their answers can be repeated then."""
    builtin = Path(allinone.__file__).parent / "prompts" / "builtin"
    with tempfile.TemporaryDirectory() as folder:
        for path in builtin.glob("*.prompt"):
            text = path.read_text(encoding="utf-8")
            if "temperature: 0." in text:
                (Path(folder) / path.name).write_text(
                    text.replace("config: {", "config: {seed: 7, ", 1), encoding="utf-8"
                )
        yield Path(folder)


def answer_of(result: Result) -> Answer:
    """What has to be the same whenever the question is."""
    if result.kind == "label":
        return "label", dict(result.probs or {})
    return "text", (result.text, result.finish_reason)


def answer_alone(ai: AllInOne, wish: Wish) -> Answer:
    """The answer with nobody else there."""
    try:
        return answer_of(ai.run(wish.task, wish.text))
    except AllInOneError as error:
        return "error", error.code


@dataclass(slots=True)
class Answers:
    """What every wish is answered with nobody else there."""

    alone: dict[Wish, Answer]
    talks: dict[Wish, Answer]

    @classmethod
    def collect(cls, ai: AllInOne, wishes: Sequence[Wish]) -> Answers:
        """One after the other."""
        alone = {wish: answer_alone(ai, wish) for wish in wishes}
        return cls(alone, {wish: talk_about(ai, wish) for wish in wishes if wish.task == "chat"})


@dataclass(slots=True)
class Usage:
    """What the process holds at one moment."""

    rss_bytes: int
    num_threads: int
    num_sequences: int
    num_kv_tokens: int

    @classmethod
    def now(cls, ai: AllInOne) -> Usage:
        """Measured while nothing runs."""
        stats = ai.stats()
        return cls(rss_bytes(), threading.active_count(), stats.num_sequences, stats.num_kv_tokens)


@dataclass(slots=True)
class Outcome:
    """What became of all requests."""

    endings: Counter[str] = field(default_factory=Counter[str])
    wrong: list[str] = field(default_factory=list[str])
    num_refused: int = 0

    def check(self, fate: Fate, ending: str, got: Answer | str, alone: Answer) -> None:
        """Count one ending, and note what must not be.

        Args:
            fate: what was asked and done.
            ending: "whole", "part" or "late".
            got: the answer, or the text read so far.
            alone: the answer with nobody else there.
        """
        self.endings[f"{fate.kind}: {ending}"] += 1
        if ending == "whole" and got != alone:
            self.wrong.append(f"{fate}: {got!r} is not {alone!r}"[:600])
        elif ending == "part" and isinstance(got, str) and alone[0] == "text" and not self._is_part(got, alone):
            self.wrong.append(f"{fate}: {got!r} does not begin {alone!r}"[:600])

    @staticmethod
    def _is_part(text: str, alone: Answer) -> bool:
        whole = alone[1][0]
        return whole.startswith(text.strip())


def talk_about(ai: AllInOne, wish: Wish, *, client: str = "") -> Answer:
    """Three turns of a conversation: moods and replies, or how it ended."""
    said: list[object] = []
    conversation = ai.conversation(client=client)
    try:
        for text in (wish.text, "好的", wish.text[:20]):
            reply = ai.reply(text, conversation)
            said += [dict(reply.mood.probs or {}), reply.result().text]
    except AllInOneError as error:
        said.append(error.code)
    finally:
        conversation.close()
    return "talk", said


def send(ai: AllInOne, fate: Fate, outcome: Outcome, answers: Answers) -> None:
    """One request to its end."""
    options: dict[str, Any] = {"client": fate.client, "priority": fate.priority, "deadline_s": fate.deadline_s}
    wish, alone = fate.wish, answers.alone[fate.wish]
    if fate.kind == "talk":
        outcome.check(fate, "whole", talk_about(ai, wish, client=fate.client), answers.talks[wish])
        return
    if fate.kind == "map":
        wishes = [wish, *fate.others]
        found = ai.map(wish.task, [one.text for one in wishes], client=fate.client, on_error="return")
        got = [answer_of(one) if isinstance(one, Result) else ("error", one.code) for one in found]
        outcome.check(fate, "whole", ("map", got), ("map", [answers.alone[one] for one in wishes]))
        return
    try:
        if fate.kind in ("wait", "late") and (wish.is_label or fate.kind == "wait"):
            outcome.check(fate, "whole", answer_of(ai.run(wish.task, wish.text, **options)), alone)
            return
        stream = ai.stream(wish.task, wish.text, **options)
        text = read(stream, fate)
        if text is not None:  # it was left early
            outcome.check(fate, "part", text, alone)
            return
        result = stream.result()
        if result.finish_reason in ("deadline", "cancelled"):
            outcome.check(fate, "part", result.text or "", alone)
        else:
            outcome.check(fate, "whole", answer_of(result), alone)
    except DeadlineExceeded:
        outcome.check(fate, "late", "", alone)
    except QueueFull:
        raise
    except OutputParseError as error:  # of a json task that was cut short, or that says so alone too
        is_cut = fate.kind in ("cancel", "late") and alone[0] == "text"
        outcome.check(fate, "part" if is_cut else "whole", "" if is_cut else ("error", error.code), alone)
    except AllInOneError as error:
        outcome.check(fate, "whole", ("error", error.code), alone)


def read(stream: Any, fate: Fate) -> str | None:
    """Read as far as the fate says: the text so far when the stream was left, None when it was read to its end."""
    if fate.kind not in ("cancel", "abandon"):
        for _ in stream:
            pass
        return None
    text = ""
    for number, event in enumerate(stream):
        text += event.text
        if number == fate.num_events and event.finish_reason is None:
            if fate.kind == "abandon":
                return text  # and the iterator is dropped
            stream.cancel()
    return None


def run_load(ai: AllInOne, fates: list[Fate], answers: Answers, *, num_threads: int) -> Outcome:
    """All requests, from so many threads; a full queue is tried again."""
    outcome, lock = Outcome(), threading.Lock()
    todo: queue.SimpleQueue[Fate] = queue.SimpleQueue()
    for fate in fates:
        todo.put(fate)

    def work() -> None:
        while True:
            try:
                fate = todo.get_nowait()
            except queue.Empty:
                return
            own = Outcome()
            while True:
                try:
                    send(ai, fate, own, answers)
                    break
                except QueueFull as error:
                    own.num_refused += 1
                    time.sleep(error.retry_after_s)
                except BaseException as error:
                    own.wrong.append(f"{type(error).__name__}: {error}; {fate}"[:600])
                    break
            with lock:
                outcome.endings += own.endings
                outcome.wrong += own.wrong
                outcome.num_refused += own.num_refused

    threads = [threading.Thread(target=work, daemon=True) for _ in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcome


def settle(ai: AllInOne) -> Usage:
    """Wait until the engine is idle, then look."""
    gc.collect()
    for _ in range(3):
        # A step more: what was dropped last is freed by then, and counted. A text never asked before, or the result
        # cache would answer and no step be run.
        ai.run("sentiment", f"好 {next(_UNASKED)}")
        while ai.stats().num_running or ai.stats().num_waiting:
            time.sleep(0.01)
    return Usage.now(ai)


def main() -> None:
    """Run the load and report."""
    with ExitStack() as contexts:
        sys.exit(report_load(contexts))


def report_load(contexts: ExitStack) -> int:
    """Answers alone, then the load in two halves; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--wishes", type=int, default=400, help="distinct questions")
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--model", default=None)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    wishes = sample_wishes(rng, args.wishes)
    started = time.monotonic()
    tasks = contexts.enter_context(seeded_tasks())
    with AllInOne.load(args.model, tasks=tasks, cache=False) as ai:
        answers = Answers.collect(ai, wishes)
    print(f"{len(wishes)} answers alone: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    with AllInOne.load(args.model, tasks=tasks, cache=False) as ai:
        halves, usages, watches = [], [], [MemoryWatch(), MemoryWatch()]
        started = time.monotonic()
        for half in range(2):
            fates = sample_fates(rng, wishes, args.requests // 2)
            with watches[half]:
                halves.append(run_load(ai, fates, answers, num_threads=args.threads))
            usages.append(settle(ai))
            print(f"half {half + 1}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        stats, seconds = ai.stats(), time.monotonic() - started
    report = {
        "requests": args.requests,
        "seconds": round(seconds, 1),
        "endings": dict(sorted((halves[0].endings + halves[1].endings).items())),
        "refused_and_tried_again": sum(half.num_refused for half in halves),
        "num_wrong": sum(len(half.wrong) for half in halves),
        "wrong": [line for half in halves for line in half.wrong][:20],
        "memory_in_first_half": watches[0].to_record(),
        "memory_in_second_half": watches[1].to_record(),
        "after_first_half": vars_of(usages[0]),
        "after_second_half": vars_of(usages[1]),
        "mean_chunks_a_step": round(stats.num_chunks / stats.num_steps, 1),
        "cpu": os.cpu_count(),
    }
    print(json.dumps(report, ensure_ascii=False, indent=1))
    counts = [(usage.num_sequences, usage.num_threads, usage.num_kv_tokens) for usage in usages]
    idle_bytes = [usage.rss_bytes for usage in usages]
    is_flat = counts[0] == counts[1] and is_memory_flat(idle_bytes, watches[1], max_growth_bytes=MAX_GROWTH_BYTES)
    lost = sum((half.endings.total() for half in halves), 0) != 2 * (args.requests // 2)
    return 1 if report["wrong"] or lost or not is_flat else 0


def vars_of(usage: Usage) -> dict[str, int]:
    """The fields, for JSON."""
    return {name: getattr(usage, name) for name in Usage.__slots__}


if __name__ == "__main__":
    main()
