"""Requests that wait for admission, and whose turn it is: fair between clients.

Four lines, one for each priority and kind (labels; streams and prefills), so that a document never stands before a
label, nor bulk work before people. In a line, the client that was given the fewest tokens so far comes first
(start-time fair queueing, Goyal et al., 1996: who comes back after a pause starts level with the others), and within a
client the oldest request. Neighbours: `admission` asks for turns, `memory` says what fits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from allinone.engine.running import Running
from allinone.types import Priority

SPARE_ACCOUNTS = 64


class Line(NamedTuple):
    """Where a request waits. Lower `rank`: served first where there is not enough for all."""

    priority: Priority
    is_short: bool

    @property
    def rank(self) -> int:
        """People before bulk work, and labels before the rest."""
        return 2 * (self.priority == "batch") + (not self.is_short)


LINES = tuple(sorted((Line(p, s) for p in ("interactive", "batch") for s in (True, False)), key=lambda line: line.rank))


def line_of(running: Running) -> Line:
    """The line of a request."""
    return Line(running.caller.priority, running.is_short)


class FairQueue:
    """One line. Engine thread only."""

    def __init__(self) -> None:
        self._clients: dict[str, deque[Running]] = {}
        self._given: dict[str, int] = {}  # tokens given to each client, on one scale with `_level`
        self._level = 0  # what the client of the last turn had been given before it

    def __iter__(self) -> Iterator[Running]:
        """All that wait, client by client."""
        for requests in self._clients.values():
            yield from requests

    def push(self, running: Running) -> None:
        """A new request, behind its client's others; a client who had none waiting starts level at best."""
        client = running.caller.client
        if client not in self._clients:
            self._given[client] = max(self._given.get(client, 0), self._level)
            self._clients[client] = deque()
        self._clients[client].append(running)

    def next(self, may_start: Callable[[Running], bool]) -> Running | None:
        """The request whose turn it is; it stays until `remove`.

        Args:
            may_start: False for one that has to wait for its own conversation; it holds nobody up.
        """
        left = set(self._clients)
        while left:
            client = min(left, key=lambda name: (self._given[name], name))
            found = next(filter(may_start, self._clients[client]), None)
            if found is not None:
                return found
            left.discard(client)
        return None

    def remove(self, running: Running) -> None:
        """Take one out: it was admitted, or has ended."""
        requests = self._clients[running.caller.client]
        requests.remove(running)
        if not requests:
            del self._clients[running.caller.client]
            self._forget_idle()

    def had_turn(self, running: Running) -> None:
        """Charge a request that was admitted."""
        before = self._given.get(running.caller.client, self._level)
        self._level = max(self._level, before)
        self._given[running.caller.client] = before + running.num_to_feed

    def charge(self, client: str, num_tokens: int) -> None:
        """Charge tokens that were fed after a prompt; wrong guesses take the same time, so they count."""
        self._given[client] = self._given.get(client, self._level) + num_tokens

    def _forget_idle(self) -> None:
        """Drop the accounts of clients who have nothing waiting and no debt: a server sees very many clients."""
        if not self._clients:  # nobody waits: whoever comes next starts level with all the others
            self._level = max(self._given.values(), default=self._level)
            self._given.clear()
        elif len(self._given) > 2 * len(self._clients) + SPARE_ACCOUNTS:
            self._given = {
                name: given for name, given in self._given.items() if given > self._level or name in self._clients
            }


class WaitingRequests:
    """Everything that was submitted and not admitted. Engine thread only."""

    def __init__(self) -> None:
        self._queues = {line: FairQueue() for line in LINES}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Running]:
        """All of them, line by line."""
        for waiting in self._queues.values():
            yield from waiting

    def push(self, running: Running) -> None:
        """A new request."""
        self._queues[line_of(running)].push(running)
        self._size += 1

    def next(self, line: Line, may_start: Callable[[Running], bool]) -> Running | None:
        """The request of this line whose turn it is; see `FairQueue.next`."""
        return self._queues[line].next(may_start)

    def remove(self, running: Running) -> None:
        """Take one out that has ended."""
        self._queues[line_of(running)].remove(running)
        self._size -= 1

    def take(self, running: Running) -> None:
        """Take one out that was admitted, and charge it."""
        self._queues[line_of(running)].had_turn(running)
        self.remove(running)

    def charge(self, running: Running, num_tokens: int) -> None:
        """Charge tokens that were fed for a request after its prompt."""
        self._queues[line_of(running)].charge(running.caller.client, num_tokens)
