"""The two ends of a request: what the caller holds (a ticket or a stream) and what the engine thread writes to.

The engine never holds the caller's end, so an abandoned stream is collected, and its collection cancels the request.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeAlias, TypeVar

from allinone.engine.requests import Embedding, Generation, LabelScores, TokenEvent
from allinone.errors import DeadlineExceeded, StreamConsumed
from allinone.types import Usage

T = TypeVar("T")


class Outlet:
    """The engine's end, common part. Closed exactly once, by an answer or by an error."""

    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        """Ask the engine to drop the request; it does so before its next step."""
        self.is_cancelled = True

    def fail(self, error: BaseException) -> None:
        """End the request with an error."""
        raise NotImplementedError


class Promise(Outlet, Generic[T]):
    """Engine's end of a request with one answer."""

    def __init__(self) -> None:
        super().__init__()
        self._done = threading.Event()
        self._value: T | None = None
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], object]] = []  # guarded by the lock; empty once done

    def resolve(self, value: T) -> None:
        """Give the answer."""
        self._value = value
        self._finish()

    def fail(self, error: BaseException) -> None:
        """End the request with an error."""
        self._error = error
        self._finish()

    def add_done_callback(self, callback: Callable[[], object]) -> None:
        """Have `callback` called once the answer or the error is there; at once where it is already."""
        with self._lock:
            if not self._done.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def _finish(self) -> None:
        with self._lock:
            self._done.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    @property
    def is_done(self) -> bool:
        """The answer, or an error, is there."""
        return self._done.is_set()

    def wait(self, timeout_s: float | None) -> T:
        """The answer; raises the request's error, or DeadlineExceeded when it is not there in time."""
        if not self._done.wait(timeout_s):
            raise DeadlineExceeded(
                f"No answer after waiting {timeout_s} s.", hint="The request goes on: wait again, or cancel() it."
            )
        if self._error is not None:
            raise self._error
        assert self._value is not None
        return self._value


class Ticket(Generic[T]):
    """The caller's end of a request with one answer."""

    def __init__(self, promise: Promise[T]) -> None:
        self._promise = promise

    def result(self, timeout: float | None = None) -> T:
        """Wait for the answer, at most `timeout` seconds; may be called again.

        Raises:
            DeadlineExceeded: the request's own deadline passed, or `timeout` did.
            Cancelled: the request was cancelled or the engine closed.
            AllInOneError: whatever else ended the request.
        """
        return self._promise.wait(timeout)

    def cancel(self) -> None:
        """Drop the request; `result` then raises Cancelled. Does nothing once it is answered."""
        self._promise.cancel()

    @property
    def is_done(self) -> bool:
        """An answer, or an error, is there."""
        return self._promise.is_done

    def add_done_callback(self, callback: Callable[[], object]) -> None:
        """Have `callback` called once `result` does not wait any more: on the engine's thread, so it must be quick and
        must not raise; at once where that is so already.
        """
        self._promise.add_done_callback(callback)


ScoreTicket: TypeAlias = Ticket[LabelScores]
PrefillTicket: TypeAlias = Ticket[Usage]
EmbedTicket: TypeAlias = Ticket[Embedding]


class Channel(Outlet):
    """Engine's end of a stream: events in order, then none."""

    def __init__(self) -> None:
        super().__init__()
        self._events: queue.SimpleQueue[TokenEvent | BaseException] = queue.SimpleQueue()
        self._listener: Callable[[], object] | None = None
        self.is_closed = False

    def publish(self, event: TokenEvent) -> None:
        """Hand one event to the consumer; one with a finish_reason is the last."""
        self._events.put(event)
        self.is_closed = event.finish_reason is not None
        self._tell()

    def fail(self, error: BaseException) -> None:
        """End the stream with an error."""
        self._events.put(error)
        self.is_closed = True
        self._tell()

    def listen(self, listener: Callable[[], object]) -> None:
        """Have `listener` called after every event from now on, and once now: something may be there already."""
        self._listener = listener
        listener()

    def _tell(self) -> None:
        if self._listener is not None:
            self._listener()

    def next_event(self) -> TokenEvent | BaseException:
        """Block until the next event, or the error that ends the stream."""
        return self._events.get()

    def poll(self) -> TokenEvent | BaseException | None:
        """The next event or the error, where one is there."""
        try:
            return self._events.get_nowait()
        except queue.Empty:
            return None


class Stream:
    """The caller's end of a generation: an iterator of token events; as with any iterator, what was read is gone.

    The error that ended it, if one did, is raised again whenever more is asked for. Dropping it (leaving the loop of
    `for event in engine.stream(…)`, garbage collection, the end of a `with` block) cancels the request and gives its
    memory back.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._is_taken = False
        self._end: BaseException | None = None

    def __iter__(self) -> Iterator[TokenEvent]:
        return self

    def __next__(self) -> TokenEvent:
        self._is_taken = True
        if self._end is not None:
            raise self._end
        return self._take(self._channel.next_event())

    def poll(self) -> TokenEvent | None:
        """The next event without waiting; None where it is not there yet. Raises as `next` does, at the end too."""
        self._is_taken = True
        if self._end is not None:
            raise self._end
        event = self._channel.poll()
        return None if event is None else self._take(event)

    def listen(self, listener: Callable[[], object]) -> None:
        """Have `listener` called whenever `poll` may have something: on the engine's thread, so it must be quick and
        must not raise.
        """
        self._channel.listen(listener)

    def _take(self, event: TokenEvent | BaseException) -> TokenEvent:
        if isinstance(event, BaseException):
            self._end = event
            raise event
        if event.finish_reason is not None:
            self._end = StopIteration()
        return event

    def result(self) -> Generation:
        """Drain the stream.

        Raises:
            StreamConsumed: some of it was read before.
            AllInOneError: whatever ended it, if not a finish_reason.
        """
        if self._is_taken:
            raise StreamConsumed("This stream was already read.", hint="Keep the events, or submit the request again.")
        return Generation.from_events(list(self))

    @property
    def is_done(self) -> bool:
        """The last event is there: reading on does not wait."""
        return self._channel.is_closed

    def cancel(self) -> None:
        """Stop generating; the stream ends with finish_reason "cancelled" and keeps the text so far."""
        self._channel.cancel()

    def close(self) -> None:
        """Cancel, and read no more."""
        self._end = StopIteration()
        self._channel.cancel()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._channel.cancel()


AnyTicket: TypeAlias = ScoreTicket | PrefillTicket | EmbedTicket | Stream
