"""Inputs that come in their own time, from a pipe or a keyboard: what is there is answered while the next is awaited.

A thread reads ahead, so that "nothing yet" is told from the end. Files and fast pipes never wait: one long group.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from queue import Empty, Queue

from allinone.cli.inputs import Entry

_MAX_AHEAD = 256
_PATIENCE_S = 0.01  # a writer that is busy writing needs less for its next line


def read_groups(entries: Iterable[Entry]) -> Iterator[Iterator[Entry]]:
    """Entries in the groups they arrive in: a group ends where its next entry would have to be waited for.

    A group is taken to its end before the next one is asked for. What goes wrong in reading is raised after the last
    group, when everything before it has been answered.
    """
    arrived: Queue[Entry | _End] = Queue(_MAX_AHEAD)
    # A daemon: it may wait in a read for ever, which must not keep the process after Ctrl-C.
    threading.Thread(target=_read, args=(entries, arrived), name="inputs", daemon=True).start()
    end: _End | None = None

    def group(entry: Entry) -> Iterator[Entry]:
        nonlocal end
        while True:
            yield entry
            try:
                following = arrived.get(timeout=_PATIENCE_S)
            except Empty:
                return
            if isinstance(following, _End):
                end = following
                return
            entry = following

    while end is None:
        first = arrived.get()
        if isinstance(first, _End):
            end = first
        else:
            yield group(first)
    if end.error is not None:
        raise end.error


class _End:
    """The end of the entries, and the error that ended them."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def _read(entries: Iterable[Entry], arrived: Queue[Entry | _End]) -> None:
    error: BaseException | None = None
    try:
        for entry in entries:
            arrived.put(entry)
    except BaseException as caught:  # raised again where the entries are taken
        error = caught
    arrived.put(_End(error))
