"""Requests that wait for admission, and whose turn it is: fair between clients, people before bulk work.

Four lines, one for each priority and kind (labels; streams and prefills), so that a long document never stands before a
label. In a line, the client that was given the fewest tokens so far comes first (start-time fair queueing, Goyal et
al., 1996: who comes back after a pause starts level with the others), and within a client the oldest request.
Neighbours: `engine` asks for turns, `memory` says what fits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from allinone.engine.running import Running
from allinone.types import Priority

MAX_PASSED = 8
"""So many requests of people may go before a waiting one of bulk work: it is slow then, not stopped."""


class Line(NamedTuple):
    """Where a request waits."""

    priority: Priority
    is_short: bool


def line_of(running: Running) -> Line:
    """The line of a request."""
    return Line(running.caller.priority, running.is_short)


class WaitingRequests:
    """Everything that was submitted and not admitted. Engine thread only."""

    def __init__(self) -> None:
        self._lines: dict[Line, dict[str, deque[Running]]] = {}
        self._given: dict[str, int] = {}  # tokens given to each client, on one scale with `_level`
        self._level = 0  # what the client of the last turn had been given
        self._num_passed = {True: 0, False: 0}  # by kind: turns of people since the last one of bulk work
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Running]:
        """All of them, line by line."""
        for clients in self._lines.values():
            for requests in clients.values():
                yield from requests

    def push(self, running: Running) -> None:
        """A new request, at the end of its client's line."""
        if not any(running.caller.client in clients for clients in self._lines.values()):
            self._given[running.caller.client] = max(self._given_to(running.caller.client), self._level)
        clients = self._lines.setdefault(line_of(running), {})
        clients.setdefault(running.caller.client, deque()).append(running)
        self._size += 1

    def next(self, *, is_short: bool, may_start: Callable[[Running], bool]) -> Running | None:
        """The request of this kind whose turn it is; it stays here until `remove`.

        Args:
            is_short: labels, or everything else.
            may_start: False for one that has to wait for its own conversation; it holds nobody up.
        """
        order: list[Priority] = ["interactive", "batch"]
        if self._num_passed[is_short] >= MAX_PASSED:
            order.reverse()
        for priority in order:
            clients = self._lines.get(Line(priority, is_short), {})
            for client in sorted(clients, key=self._given_to):
                found = next(filter(may_start, clients[client]), None)
                if found is not None:
                    return found
        return None

    def remove(self, running: Running) -> None:
        """Take one out: it was admitted, or has ended."""
        line = line_of(running)
        clients = self._lines[line]
        clients[running.caller.client].remove(running)
        self._size -= 1
        if not clients[running.caller.client]:
            del clients[running.caller.client]
        if not clients:
            del self._lines[line]

    def had_turn(self, running: Running) -> None:
        """It was admitted: who waits of the other priority comes nearer to its turn."""
        others = Line("batch" if running.caller.priority == "interactive" else "interactive", running.is_short)
        is_passing = running.caller.priority == "interactive" and others in self._lines
        self._num_passed[running.is_short] = self._num_passed[running.is_short] + 1 if is_passing else 0
        self._level = max(self._level, self._given_to(running.caller.client))

    def charge(self, client: str, num_tokens: int) -> None:
        """Count tokens that are computed for a client."""
        self._given[client] = self._given_to(client) + num_tokens

    def forget_debts(self) -> None:
        """Nobody waits: whoever comes next starts level with all the others."""
        self._level = max(self._given.values(), default=self._level)
        self._given.clear()

    def _given_to(self, client: str) -> int:
        return self._given.get(client, self._level)
