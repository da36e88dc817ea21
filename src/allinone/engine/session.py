"""A conversation: all its ids, and the backend sequence that holds their keys and values while there is room.

The ids are the truth; the sequence is a cache of them that the engine may evict and prefill again. Ids are exactly
those that were fed and sampled, never re-rendered text; what ended a reply (a stop id or a stop string) is left out,
for the template ends every turn itself. The caller's thread changes a session only while no request of it is waiting or
running, the engine thread only while one is: no lock is held for long.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from allinone.backends.base import SequenceId
from allinone.engine.prefix_cache import Prefix
from allinone.errors import UsageError


@dataclass(eq=False, slots=True, kw_only=True)
class SessionKV:
    """The engine's side of a session; it outlives the `Session` that a caller dropped until the engine has freed it.

    Attributes:
        sequence: None while evicted (or never filled).
        prefix: held while there is a sequence.
        num_valid: how many tokens at the start of the sequence still agree with the session's ids.
        num_tokens: tokens of the sequence beyond the prefix, as the engine counts memory.
        is_running: a request of the session was admitted.
        is_closed: free everything as soon as no request runs.
    """

    sequence: SequenceId | None = None
    prefix: Prefix | None = None
    num_valid: int = 0
    num_tokens: int = 0
    last_used: int = 0
    is_running: bool = False
    is_closed: bool = False


class Session:
    """One conversation. Made by `Engine.open_session`; closed by `close`, a `with` block, or by dropping it.

    Args:
        prefix_ids: operator text the conversation starts with; shared through the prefix cache.
        on_change: told when memory can be given back; called from any thread.
        history_ids: what was fed and sampled before, elsewhere; prefilled with the first request.
    """

    def __init__(
        self,
        prefix_ids: tuple[int, ...],
        on_change: Callable[[SessionKV], None],
        history_ids: tuple[int, ...] = (),
    ) -> None:
        self.prefix_ids = prefix_ids
        self.kv = SessionKV()
        self._ids = [*prefix_ids, *history_ids]
        self._on_change = on_change
        self._changed = threading.Condition()
        self._num_requests = 0
        self._finalizer = weakref.finalize(self, _close, self.kv, on_change)
        self._finalizer.atexit = False

    @property
    def ids(self) -> tuple[int, ...]:
        """All ids of the conversation, prefix included, oldest first."""
        return tuple(self._ids)

    @property
    def num_tokens(self) -> int:
        """Number of ids, prefix included."""
        return len(self._ids)

    @property
    def is_closed(self) -> bool:
        """No request is taken any more."""
        return self.kv.is_closed

    def truncate(self, num_tokens: int) -> None:
        """Forget all but the first `num_tokens` ids (a turn to be taken back). Waits as `drop` does.

        Raises:
            UsageError: the session is closed, or the prefix would be cut.
        """
        self.drop(num_tokens, None)

    def drop(self, start: int, end: int | None) -> None:
        """Forget ids `start` to `end` (the oldest turns); what follows is prefilled again with the next request.

        Waits for requests of this session that are under way; cancel them first to be quick.

        Raises:
            UsageError: the session is closed, or the range is not within the ids after the prefix.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._num_requests == 0)
            if self.is_closed:
                raise UsageError("This session is closed.", hint="Open a new one.")
            end = len(self._ids) if end is None else end
            if not len(self.prefix_ids) <= start <= end <= len(self._ids):
                raise UsageError(
                    f"Cannot drop ids {start} to {end}: the session has {len(self._ids)}, "
                    f"of which the first {len(self.prefix_ids)} are its prefix."
                )
            del self._ids[start:end]
            self.kv.num_valid = min(self.kv.num_valid, start)
        self._on_change(self.kv)

    def close(self) -> None:
        """Give everything back. A request under way is not harmed; later ones are refused. Idempotent."""
        self._finalizer()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What follows is for the engine.

    def reserve(self) -> None:
        """Count a submitted request; from now on the ids belong to the engine thread."""
        with self._changed:
            if self.is_closed:
                raise UsageError("This session is closed.", hint="Open a new one.")
            self._num_requests += 1

    def unreserve(self) -> None:
        """A submitted request has ended."""
        with self._changed:
            self._num_requests -= 1
            self._changed.notify_all()

    def append(self, ids: tuple[int, ...]) -> None:
        """Add ids that were fed or sampled."""
        self._ids.extend(ids)

    def rollback(self, num_tokens: int) -> None:
        """Undo a request that came to nothing."""
        del self._ids[num_tokens:]
        self.kv.num_valid = min(self.kv.num_valid, num_tokens)


def _close(kv: SessionKV, on_change: Callable[[SessionKV], None]) -> None:
    kv.is_closed = True
    on_change(kv)
