"""What became of the requests of a load over HTTP, and what a reply's events have to be.

`Tally` counts; `Reading` checks the events of one reply as they come. Knows the shapes of events, no connection.
Above: `http_chats.py`, `http_jobs.py`, `http_driver.py`.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from .http_client import Event

MAX_SHOWN = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One turn of a conversation: the mood's probabilities and the reply, or the error that refused it.

    Attributes:
        num_cached_tokens: of its prompt. Where there are fewer under load, the conversation was evicted and prefilled
            again.
    """

    probs: dict[str, float] = field(default_factory=dict[str, float])
    text: str = ""
    finish_reason: str = ""
    num_cached_tokens: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Something that belongs to one key and that no other may see."""

    key: str = field(repr=False)
    conversation: str
    reply: str


@dataclass(slots=True)
class Tally:
    """What became of all requests. Used from one event loop.

    Attributes:
        endings: how requests ended, by kind and ending.
        wrong: answers that differ from those given alone, events that are another reply's, things of another key.
        lost: requests that had no ending of their own.
        num_recomputed: replies of conversations that had been evicted; they agree with those alone up to rounding only.
        num_recomputed_equal: those of them that are equal all the same.
        num_refused: times that a busy server was asked again.
        num_padded: replies whose text is that of its tokens without the blanks around it.
        answers_by_key, tokens_by_key: finished work.
        first_event_s: from the question to the mood.
        recent: conversations of the last scripts.
    """

    endings: Counter[str] = field(default_factory=Counter[str])
    wrong: list[str] = field(default_factory=list[str])
    lost: list[str] = field(default_factory=list[str])
    num_recomputed: int = 0
    num_recomputed_equal: int = 0
    num_refused: int = 0
    num_padded: int = 0
    answers_by_key: Counter[str] = field(default_factory=Counter[str])
    tokens_by_key: Counter[str] = field(default_factory=Counter[str])
    first_event_s: list[float] = field(default_factory=list[float])
    recent: deque[Kept] = field(default_factory=lambda: deque[Kept](maxlen=64))

    def end(self, kind: str, ending: str) -> None:
        """One request more has ended."""
        self.endings[f"{kind}: {ending}"] += 1

    def finish(self, kind: str, ending: str, *, key: str, usage: dict[str, int]) -> None:
        """One that was answered."""
        self.end(kind, ending)
        self.answers_by_key[key] += 1
        self.tokens_by_key[key] += usage["num_prompt_tokens"] + usage["num_output_tokens"]

    def note_wrong(self, what: str) -> None:
        """Something that must not be."""
        self.wrong.append(what[:MAX_SHOWN])

    def lose(self, kind: str, why: str) -> None:
        """One request had no ending."""
        self.end(kind, "lost")
        self.lost.append(f"{kind}: {why}"[:MAX_SHOWN])

    def expect(self, what: str, got: object, wanted: object) -> None:
        """Note it where they differ."""
        if got != wanted:
            self.note_wrong(f"{what}: {got!r} is not {wanted!r}")


class Reading:
    """One reply as its reader sees it, across any number of connections.

    Args:
        tally: told what is wrong.

    Attributes:
        id: of the reply; empty before its first event.
        num_events: seen so far.
        label, done, error: data of these events, once they came.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._tokens: list[str] = []
        self.id = ""
        self.num_events = 0
        self.label: dict[str, Any] | None = None
        self.done: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None

    @property
    def is_over(self) -> bool:
        """No event may follow."""
        return self.done is not None or self.error is not None

    @property
    def last_event_id(self) -> str:
        """Of the last event that was seen."""
        return f"{self.id}:{self.num_events - 1}"

    @property
    def text(self) -> str:
        """What the tokens say so far."""
        return "".join(self._tokens)

    def take(self, event: Event) -> None:
        """Check and keep the next event."""
        of, _, number = event.id.rpartition(":")
        self.id = self.id or of
        expect = self._tally.expect
        expect("the reply that an event belongs to", of, self.id)
        expect(f"the number of an event of {self.id}", number, str(self.num_events))
        expect(f"the end of {self.id} before {event.name!r}", self.is_over, False)
        expect(f"{event.name!r} as event {self.num_events}", event.name == "label", self.num_events == 0)
        self.num_events += 1
        if event.name == "label":
            self.label = event.data
            expect("the reply in a label event", event.data["id"], self.id)
        elif event.name == "token":
            self._tokens.append(event.data["text"])
        elif event.name == "done":
            self._finish(event.data)
        elif event.name == "error":
            self.error = event.data
        else:
            self._tally.note_wrong(f"an event {event.name!r}")

    def _finish(self, done: dict[str, Any]) -> None:
        self.done = done
        said = (self.label or {}).get("conversation")
        self._tally.expect("the reply in a done event", (done["id"], done["conversation"]), (self.id, said))
        self._tally.expect(f"the text of {self.id}, against its tokens", done["text"], self.text.strip())
        self._tally.num_padded += done["text"] != self.text
