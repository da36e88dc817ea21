"""What one turn of a conversation adds: its ids, split by when they are known, and what is kept of it.

Owns how a turn is rendered (`TurnPlanner`) and how a conversation is written down and read again (`Memory`). Knows no
engine and no sequence: `conversation` feeds what is planned here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from pydantic import TypeAdapter

from allinone.errors import StoreError
from allinone.prompts.prompt_file import PromptFile
from allinone.tasks.encoder import PromptEncoder
from allinone.types import Message, Result, Segment

_PAST_USER = Segment(text="·", trusted=False)
_PAST_REPLY = Segment(text="·", trusted=False)
_PAST = (Message(role="user", content=(_PAST_USER,)), Message(role="assistant", content=(_PAST_REPLY,)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One finished exchange, for people to read; the model's own memory is the session's ids."""

    text: str
    mood: Result
    reply: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnPlan:
    """The ids one turn adds, in their order, split by when they are known.

    Attributes:
        prefix_ids: the shared operator text a conversation starts with; empty in later turns.
        lead_ids: the rest of what comes before the user's turn; they stay when the turn is forgotten.
        common_ids: what follows whatever the mood: prefilled while the mood is scored.
        hint_ids: label -> the ids that are left once the mood is known; never empty.
    """

    prefix_ids: tuple[int, ...]
    lead_ids: tuple[int, ...]
    common_ids: tuple[int, ...]
    hint_ids: Mapping[str, tuple[int, ...]]

    @property
    def max_tokens(self) -> int:
        """Most ids this turn can add before the reply."""
        longest_hint = max(map(len, self.hint_ids.values()))
        return len(self.prefix_ids) + len(self.lead_ids) + len(self.common_ids) + longest_hint


class TurnPlanner:
    """Renders turns of a chat task, each as the continuation of what the session holds."""

    def __init__(self, chat: PromptFile, encoder: PromptEncoder) -> None:
        self._chat, self._encoder = chat, encoder

    def plan(self, variables: Mapping[str, object], moods: Sequence[str], *, is_first: bool) -> TurnPlan:
        """Split a turn's ids into what is known before the mood and what follows it.

        Args:
            variables: of the chat task, without the mood.
            moods: the labels there are.
            is_first: nothing was said before it.
        """
        by_mood = {mood: self._segments(variables, mood, is_first=is_first) for mood in moods}
        lead, first = next(iter(by_mood.values()))
        variants = [own for _, own in by_mood.values()]
        num_common = 0
        while all(num_common < len(own) and own[num_common] == first[num_common] for own in variants):
            num_common += 1
        num_prefix = _num_leading_trusted(lead) if is_first else 0
        ids = self._encoder.ids
        common = ids(first[:num_common])
        hints = {mood: ids(own[num_common:]) for mood, (_, own) in by_mood.items()}
        if not all(hints.values()):  # the prompt does not use the mood: keep one id to start the reply from
            hints = {mood: common[-1:] + hint for mood, hint in hints.items()}
            common = common[:-1]
        return TurnPlan(
            prefix_ids=ids(lead[:num_prefix]), lead_ids=ids(lead[num_prefix:]), common_ids=common, hint_ids=hints
        )

    def _segments(
        self, variables: Mapping[str, object], mood: str, *, is_first: bool
    ) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
        """What leads to the user's turn (the end of the last reply, or all that a prompt begins with), and the turn."""
        if "mood" in self._chat.inputs:
            variables = {**variables, "mood": mood}
        with_past = self._encoder.segments(self._chat.render(variables, history=_PAST))
        later = with_past[next(i for i, segment in enumerate(with_past) if segment is _PAST_REPLY) + 1 :]
        num_lead = _num_leading_trusted(later)
        lead, own = later[:num_lead], later[num_lead:]
        if is_first:
            whole = self._encoder.segments(self._chat.render(variables))
            lead = whole[: len(whole) - len(own)]
        return lead, own


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """All that the model remembers of a conversation: enough to go on with it in another process.

    Attributes:
        model, versions: whose ids these are; another model or prompt cannot go on with them.
        prefix_ids: shared operator text at the start.
        ids: everything after it.
        starts, ends: for each turn that is remembered, oldest first, where its own ids begin and where it ends,
            counted from the start of `prefix_ids`.
    """

    model: str
    versions: tuple[str, ...]
    prefix_ids: tuple[int, ...]
    ids: tuple[int, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def to_bytes(self) -> bytes:
        """For a store."""
        return _memory_format().dump_json(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Memory:
        """What `to_bytes` wrote.

        Raises:
            StoreError: it is something else.
        """
        try:
            memory = _memory_format().validate_json(data, strict=True)
        except ValueError as error:
            raise StoreError("A stored conversation cannot be read.", hint="start a new one") from error
        end = len(memory.prefix_ids) + len(memory.ids)
        marks = [mark for pair in zip(memory.starts, memory.ends, strict=False) for mark in pair]
        if len(memory.starts) != len(memory.ends) or marks != sorted(marks) or (marks and marks[-1] != end):
            raise StoreError("A stored conversation is damaged.", hint="start a new one")
        return memory

    def without_last_turn(self) -> Memory:
        """The memory before the last turn; empty when there was only one."""
        if len(self.starts) < 2:
            return replace(self, ids=(), starts=(), ends=())
        end = self.ends[-2]
        return replace(self, ids=self.ids[: end - len(self.prefix_ids)], starts=self.starts[:-1], ends=self.ends[:-1])


@lru_cache(maxsize=1)
def _memory_format() -> TypeAdapter[Memory]:
    """Built once: it takes milliseconds."""
    return TypeAdapter(Memory)


def _num_leading_trusted(segments: Sequence[Segment]) -> int:
    return next((i for i, segment in enumerate(segments) if not segment.trusted), len(segments))
