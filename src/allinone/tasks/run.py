"""Running calls on the engine: one answer later (`start`), or token by token (`stream`)."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import replace

from allinone.engine.engine import Engine, GenerateTicket, ScoreTicket
from allinone.engine.requests import GenerateRequest, ScoreRequest, TokenEvent
from allinone.engine.result_cache import ResultCache
from allinone.errors import UsageError
from allinone.tasks.encoder import PromptEncoder
from allinone.tasks.task import Call, build_request, read_answer
from allinone.types import Result, Timings


class Pending:
    """An answer that is being computed, or that the result cache had."""

    def __init__(
        self,
        call: Call,
        *,
        model: str,
        ticket: ScoreTicket | GenerateTicket | None = None,
        result: Result | None = None,
        keep: tuple[ResultCache, Hashable] | None = None,
    ) -> None:
        self._call, self._model = call, model
        self._ticket, self._result, self._keep = ticket, result, keep

    def is_done(self) -> bool:
        """Whether `result` returns without waiting."""
        return self._result is not None or (self._ticket is not None and self._ticket.is_done())

    def result(self) -> Result:
        """Wait for the answer and read it."""
        if self._result is None:
            assert self._ticket is not None
            self._result = read_answer(self._call, self._ticket.result(), model=self._model)
            if self._keep is not None and self._result.finish_reason in ("stop", "length"):
                cache, key = self._keep
                cache.put(key, self._result)
        return self._result

    def cancel(self) -> None:
        """Give up; frees the engine's sequences at once."""
        if self._ticket is not None:
            self._ticket.cancel()


def start(call: Call, encoder: PromptEncoder, engine: Engine, results: ResultCache, *, model: str) -> Pending:
    """Look a call up in the result cache, or submit it.

    Only label results and greedy texts are kept: sampled ones are meant to differ.

    Raises:
        QueueFull, PromptError, VerbalizerError, InvalidInput.
    """
    is_repeatable = call.prompt.kind == "label" or call.prompt.config.temperature == 0
    key = _result_key(call, model)
    if is_repeatable and (found := results.find(key)) is not None:
        return Pending(call, model=model, result=replace(found, cached=True, timings=Timings()))
    request = build_request(call, encoder)
    ticket = engine.submit(request)[0]
    return Pending(call, model=model, ticket=ticket, keep=(results, key) if is_repeatable else None)


def _result_key(call: Call, model: str) -> Hashable:
    variables = tuple(sorted((name, repr(value)) for name, value in call.variables.items()))
    labels = tuple(spec.label for spec in call.labels)
    return (model, call.prompt.full_name, call.prompt.version, variables, labels, call.history, call.truncated_tokens)


class TaskStream:
    """The token events of one call; consumed once, then `result` has the whole answer."""

    def __init__(self, call: Call, ticket: GenerateTicket, *, model: str) -> None:
        self._call, self._ticket, self._model = call, ticket, model

    def __iter__(self) -> Iterator[TokenEvent]:
        """Events as they come; leaving early cancels the request."""
        try:
            yield from self._ticket
        finally:
            self._ticket.cancel()  # a finished ticket ignores it

    def cancel(self) -> None:
        """Stop generating."""
        self._ticket.cancel()

    def result(self) -> Result:
        """The whole answer; waits for what has not come yet.

        Raises:
            OutputParseError: a json task's output is not complete JSON.
        """
        return read_answer(self._call, self._ticket.result(), model=self._model)


def stream(call: Call, encoder: PromptEncoder, engine: Engine, *, model: str) -> TaskStream:
    """Submit a text, json or chat call and return its stream.

    Raises:
        UsageError: the task is a label task; its answer is read in one piece.
    """
    request = build_request(call, encoder)
    if isinstance(request, ScoreRequest):
        raise UsageError(
            f"Task {call.prompt.full_name!r} is a label task and has nothing to stream.", hint="use `run` instead"
        )
    assert isinstance(request, GenerateRequest)
    return TaskStream(call, engine.submit(request)[0], model=model)
