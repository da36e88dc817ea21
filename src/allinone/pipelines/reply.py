"""A reply: the mood of a message, and the token events of an answer that knows it. Made by `Conversation.reply`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from allinone.engine.requests import TokenEvent
from allinone.tasks.run import TaskStream
from allinone.types import Result


class Reply:
    """A mood, and a stream of token events that is consumed once.

    Args:
        on_end: told once how the reply ended: with its result, or with None when it failed.

    Attributes:
        mood: the label task's result; there before the first token of the reply.
    """

    def __init__(self, mood: Result, stream: TaskStream, *, on_end: Callable[[Result | None], None]) -> None:
        self.mood = mood
        self._stream = stream
        self._on_end = on_end
        self._is_ended = False

    def __iter__(self) -> Iterator[TokenEvent]:
        """Token events; leaving the loop early cancels the reply and keeps what was said so far.

        Raises:
            StreamConsumed: it was iterated before.
        """
        return self._read(iter(self._stream))

    def result(self) -> Result:
        """The whole reply; waits for what has not come yet. May be called again.

        Raises:
            AllInOneError: the reply failed; the conversation is as it was before it.
        """
        try:
            result = self._stream.result()
        except Exception:  # not KeyboardInterrupt: who stops waiting has not stopped the reply
            self._end(None)
            raise
        self._end(result)
        return result

    def poll(self) -> TokenEvent | None:
        """The next token event without waiting, None where it is not there yet; then `result`. See `TaskStream`."""
        return self._stream.poll()

    def listen(self, listener: Callable[[], object]) -> None:
        """Have `listener` called on the engine's thread whenever `poll` may have something."""
        self._stream.listen(listener)

    def cancel(self) -> None:
        """Stop the reply; the conversation keeps what was said so far."""
        self._stream.cancel()

    def _read(self, events: Iterator[TokenEvent]) -> Iterator[TokenEvent]:
        try:
            yield from events
        finally:
            self._stream.cancel()
            self.result()

    def _end(self, result: Result | None) -> None:
        if not self._is_ended:
            self._is_ended = True
            self._on_end(result)
