"""Token ids → text while they arrive: complete UTF-8 characters only, and never a piece of a stop string.

Knows no model: a function from id to bytes is enough.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable


class StreamDetokenizer:
    """Joins the bytes of ids and lets go of them at complete characters.

    Bytes that can never become a character turn into U+FFFD at once. What is incomplete when the stream ends was half a
    character: it is dropped, not shown.
    """

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The text that this id completes; often one character, sometimes none."""
        return self._decoder.decode(self._token_bytes(token_id))


class StopStrings:
    """Finds the earliest stop string in a text that arrives in pieces.

    Invariant: what was released, joined, is the text up to (not including) the first stop string, at any moment less
    what might still be the beginning of one.
    """

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._stop = stop
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """Text that can be released now, and whether a stop string was found (then nothing follows)."""
        held = self._held + text
        places = [place for place in (held.find(stop) for stop in self._stop) if place >= 0]
        if places:
            self._held = ""
            return held[: min(places)], True
        keep = self._longest_beginning(held)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep], False

    def flush(self) -> str:
        """What was held back, at the end of the stream: it did not become a stop string."""
        held, self._held = self._held, ""
        return held

    def _longest_beginning(self, text: str) -> int:
        """Length of the longest end of `text` that some stop string begins with."""
        longest = min(len(text), max((len(stop) - 1 for stop in self._stop), default=0))
        for length in range(longest, 0, -1):
            if any(stop.startswith(text[len(text) - length :]) for stop in self._stop):
                return length
        return 0
