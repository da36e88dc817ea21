"""Ending well: what runs is finished, nothing new is begun, and it does not take for ever.

Counts what runs and knows whether the server is being stopped. Above: `guard.py` counts requests and `serving.py`
waits; a reply that goes on after its connection ended counts itself with `running()`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import contextmanager

from allinone.errors import ShuttingDown


class Drain:
    """State of one server process; used from its event loop.

    Args:
        timeout_s: how long what runs may go on once the server is being stopped.
    """

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._deadline = math.inf
        self.num_running = 0

    @property
    def is_draining(self) -> bool:
        """The server is being stopped."""
        return self._deadline != math.inf

    @property
    def is_over(self) -> bool:
        """The server is being stopped, and nothing runs any more or its time is up."""
        return self.is_draining and (self.num_running == 0 or time.monotonic() >= self._deadline)

    def begin(self) -> None:
        """Stop taking requests. Idempotent: the first call sets the time."""
        if not self.is_draining:
            self._deadline = time.monotonic() + self._timeout_s

    def require_open(self) -> None:
        """Let a new request in.

        Raises:
            ShuttingDown: the server is being stopped.
        """
        if self.is_draining:
            raise ShuttingDown("This server is being stopped and takes nothing new.", hint="ask again in a moment")

    @contextmanager
    def running(self) -> Generator[None]:
        """Something that the end of the server waits for."""
        self.num_running += 1
        try:
            yield
        finally:
            self.num_running -= 1
