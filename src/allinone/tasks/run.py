"""Running calls on the engine: one answer later (`start`), or token by token (`stream`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Literal

from allinone.engine.engine import Engine
from allinone.engine.requests import Generation, TokenEvent
from allinone.engine.result_cache import ResultCache
from allinone.engine.tickets import ScoreTicket, Stream
from allinone.errors import AllInOneError, QueueFull, StreamConsumed, UsageError
from allinone.tasks.encoder import PromptEncoder
from allinone.tasks.task import Call, build_generate_request, build_score_request, read_answer
from allinone.types import Result, Timings


class Pending:
    """An answer that is being computed, or that the result cache had."""

    def __init__(
        self,
        call: Call,
        *,
        model: str,
        ticket: ScoreTicket | Stream | None = None,
        result: Result | None = None,
        keep: tuple[ResultCache[Result], Hashable] | None = None,
    ) -> None:
        self._call, self._model = call, model
        self._ticket, self._result, self._keep = ticket, result, keep

    @property
    def is_done(self) -> bool:
        """Whether `result` returns without waiting."""
        return self._result is not None or (self._ticket is not None and self._ticket.is_done)

    def result(self) -> Result:
        """Wait for the answer and read it."""
        if self._result is None:
            assert self._ticket is not None
            self._result = read_answer(self._call, self._ticket.result(), model=self._model)
            if self._keep is not None and self._result.finish_reason in ("stop", "length"):
                cache, key = self._keep
                kept = deepcopy(self._result)  # a caller may change the data of the answer that was given
                cache.put(key, kept, num_bytes=len(repr(key)) + len(repr(kept)))
        return self._result

    def add_done_callback(self, callback: Callable[[], object]) -> None:
        """Have `callback` called once `result` does not wait: on the engine's thread or at once; it must be quick."""
        if isinstance(self._ticket, Stream):
            events = self._ticket
            events.listen(lambda: callback() if events.is_done else None)
        elif self._ticket is not None and self._result is None:
            self._ticket.add_done_callback(callback)
        else:
            callback()

    def cancel(self) -> None:
        """Give up; frees the engine's sequences at once."""
        if self._ticket is not None:
            self._ticket.cancel()


def start(call: Call, encoder: PromptEncoder, engine: Engine, results: ResultCache[Result], *, model: str) -> Pending:
    """Look a call up in the result cache, or submit it.

    Only label results and greedy texts are kept: sampled ones are meant to differ.

    Raises:
        QueueFull, PromptError, VerbalizerError, InvalidInput.
    """
    is_kept = not results.keeps_nothing and (call.prompt.kind == "label" or call.prompt.config.temperature == 0)
    key = _result_key(call, model)
    if is_kept and (found := results.get(key)) is not None:
        return Pending(call, model=model, result=replace(deepcopy(found), cached=True, timings=Timings()))
    (ticket,) = (
        engine.submit(build_score_request(call, encoder))
        if call.prompt.kind == "label"
        else engine.submit(build_generate_request(call, encoder))
    )
    return Pending(call, model=model, ticket=ticket, keep=(results, key) if is_kept else None)


def run_many(
    starts: Iterable[Callable[[], Pending]], *, window: int, on_error: Literal["raise", "return"]
) -> Iterator[Result | AllInOneError]:
    """Answers in the order of `starts`, with up to `window` of them under way; what is left is cancelled at the end.

    A full queue is waited out as long as an answer of our own is due: that frees a place.

    Args:
        starts: each begins one call; they are taken lazily.
        window: most calls under way.
        on_error: "return" yields the error of a failed call in its place, "raise" ends at it.
    """
    under_way: deque[Pending | AllInOneError] = deque()

    def next_answer() -> Result | AllInOneError:
        entry = under_way.popleft()
        try:
            if isinstance(entry, Pending):
                return entry.result()
            raise entry
        except AllInOneError as error:
            if on_error == "raise":
                raise
            return error

    try:
        for begin in starts:
            while (entry := _begin(begin, can_wait=bool(under_way))) is None:
                yield next_answer()
            under_way.append(entry)
            while len(under_way) >= window or (under_way and _is_settled(under_way[0])):
                yield next_answer()
        while under_way:
            yield next_answer()
    finally:
        for entry in under_way:
            if isinstance(entry, Pending):
                entry.cancel()


def _begin(begin: Callable[[], Pending], *, can_wait: bool) -> Pending | AllInOneError | None:
    """A call under way, its error, or None when the queue is full and waiting helps."""
    try:
        return begin()
    except QueueFull as error:
        return None if can_wait else error
    except AllInOneError as error:
        return error


def _is_settled(entry: Pending | AllInOneError) -> bool:
    return isinstance(entry, AllInOneError) or entry.is_done


def _result_key(call: Call, model: str) -> Hashable:
    variables = tuple(sorted((name, repr(value)) for name, value in call.variables.items()))
    labels = tuple(spec.label for spec in call.labels)
    prompt = call.prompt
    return (
        *(model, prompt.full_name, prompt.version, variables, labels, call.history, call.truncated_tokens),
        call.caller.client,  # nobody learns by the time of an answer what another asked before
    )


class TaskStream:
    """The token events of one call; consumed once, then `result` has the whole answer."""

    def __init__(self, call: Call, events: Stream, *, model: str) -> None:
        self._call, self._events, self._model = call, events, model
        self._seen: list[TokenEvent] = []
        self._is_taken = False

    def __iter__(self) -> Iterator[TokenEvent]:
        """Events as they come; leaving early cancels the request.

        Raises:
            StreamConsumed: it was iterated before.
        """
        if self._is_taken:
            raise StreamConsumed("This stream was already read.", hint="call `result()` for the whole answer")
        self._is_taken = True
        return self._read()

    def _read(self) -> Iterator[TokenEvent]:
        try:
            for event in self._events:
                self._seen.append(event)
                yield event
        finally:
            self.cancel()

    def poll(self) -> TokenEvent | None:
        """The next event without waiting; None where it is not there yet. Instead of iterating, for event loops.

        Raises:
            StopIteration: the last event was taken.
            AllInOneError: whatever ended the stream.
        """
        self._is_taken = True
        event = self._events.poll()
        if event is not None:
            self._seen.append(event)
        return event

    def listen(self, listener: Callable[[], object]) -> None:
        """Have `listener` called on the engine's thread whenever `poll` may have something."""
        self._events.listen(listener)

    def cancel(self) -> None:
        """Stop generating; a finished stream ignores it. `result` has what was said so far."""
        self._events.cancel()

    def result(self) -> Result:
        """The whole answer; waits for what has not come yet.

        Raises:
            OutputParseError: a json task's output is not complete JSON.
            AllInOneError: whatever ended the stream, if not a finish_reason.
        """
        self._is_taken = True
        self._seen.extend(self._events)
        return read_answer(self._call, Generation.from_events(self._seen), model=self._model)


def stream(call: Call, encoder: PromptEncoder, engine: Engine, *, model: str) -> TaskStream:
    """Submit a text, json or chat call and return its stream.

    Raises:
        UsageError: the task is a label task; its answer is read in one piece.
    """
    if call.prompt.kind == "label":
        raise UsageError(
            f"Task {call.prompt.full_name!r} is a label task and has nothing to stream.", hint="use `run` instead"
        )
    (events,) = engine.submit(build_generate_request(call, encoder))
    return TaskStream(call, events, model=model)
