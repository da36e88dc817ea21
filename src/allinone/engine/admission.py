"""Who may begin: the requests that wait, in fair turns, as far ahead as the next steps can use and as memory allows.

Owns the waiting requests. A request that needs more memory than is free at the moment is not overtaken for ever: those
of better lines may pass it a bounded number of times, all others wait behind it. Above: the engine's step. Below:
`waiting` (whose turn), `memory` (what fits).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from allinone.engine.memory import KVMemory
from allinone.engine.running import Running
from allinone.engine.waiting import LINES, Line, WaitingRequests, line_of
from allinone.errors import AllInOneError

Outcome = Literal["admitted", "failed", "no room"]
MAX_OVERTAKEN = 64
"""So many requests of better lines may pass one that waits for memory."""


class Admission:
    """From waiting to running. Engine thread only."""

    def __init__(self, memory: KVMemory) -> None:
        self.waiting = WaitingRequests()
        self._memory = memory
        self._held_up: Running | None = None
        self._num_overtaken = 0

    def admit(
        self, running: Sequence[Running], *, max_ahead: int, chunk_tokens: int, on_failed: Callable[[Running], None]
    ) -> Iterator[Running]:
        """Requests that begin now.

        Args:
            running: those that were admitted before.
            max_ahead: tokens of prefill in a line that is admitted ahead of the step that computes them.
            chunk_tokens: most tokens of one request in a step; it counts for no more.
            on_failed: told of a request that cannot be admitted at all; it has been failed, and waits no more.
        """
        if self._held_up is not None and self._try(held := self._held_up, on_failed) == "admitted":
            yield held
        for line in LINES:
            ahead = sum(min(one.num_to_feed, chunk_tokens) for one in running if line_of(one) == line)
            while ahead < max_ahead and self._may_pass(line):
                candidate = self.waiting.next(line, self._may_start)
                if candidate is None:
                    break
                outcome = self._try(candidate, on_failed)
                if outcome == "no room":
                    break
                if outcome == "admitted":
                    ahead += min(candidate.num_to_feed, chunk_tokens)
                    self._num_overtaken += self._held_up is not None
                    yield candidate

    def forget(self, running: Running) -> None:
        """A waiting request has ended."""
        self.waiting.remove(running)
        if self._held_up is running:
            self._held_up = None

    def _may_pass(self, line: Line) -> bool:
        if self._held_up is None:
            return True
        return line.rank < line_of(self._held_up).rank and self._num_overtaken < MAX_OVERTAKEN

    def _may_start(self, running: Running) -> bool:
        """False while its conversation is busy with an earlier request."""
        session = running.session
        if session is None:
            return True
        earlier = (other for other in self.waiting if other.session is session)
        return not session.kv.is_running and min(earlier, key=lambda other: other.clocks.submitted) is running

    def _try(self, candidate: Running, on_failed: Callable[[Running], None]) -> Outcome:
        """Admit it, if there is room; the first that has to wait for memory is tried first from now on."""
        try:
            is_admitted = self._memory.admit(candidate)
        except AllInOneError as error:
            self.forget(candidate)
            candidate.fail(error)
            on_failed(candidate)
            return "failed"
        if not is_admitted:
            if self._held_up is None:
                self._held_up, self._num_overtaken = candidate, 0
            return "no room"
        self.waiting.take(candidate)
        if self._held_up is candidate:
            self._held_up = None
        return "admitted"
