"""Mood → reply: judge the mood of a message and answer it, in one pass over the weights where they overlap.

While the label request scores the mood, the same batch prefills the conversation with the user's text; once the mood is
known, only the few ids that name it remain before the first token of the reply. The conversation keeps its own
sequence: turn 50 prefills only its own tokens, and its history is exactly the ids that were decoded.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from allinone.engine.engine import Engine
from allinone.engine.requests import GenerateRequest, PrefillRequest
from allinone.engine.session import Session
from allinone.engine.tickets import PrefillTicket
from allinone.errors import AllInOneError, ContextLengthExceeded
from allinone.pipelines.reply import Reply
from allinone.prompts.prompt_file import PromptFile
from allinone.tasks.encoder import PromptEncoder
from allinone.tasks.run import TaskStream
from allinone.tasks.task import Call, build_score_request, prepare_call, read_answer, sampling_params
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
    """The ids one turn adds, split by when they are known.

    Attributes:
        prefix_ids: the shared operator text a conversation starts with; empty in later turns.
        common_ids: what follows whatever the mood: prefilled while the mood is scored.
        hint_ids: label -> the ids that are left once the mood is known; never empty.
    """

    prefix_ids: tuple[int, ...]
    common_ids: tuple[int, ...]
    hint_ids: Mapping[str, tuple[int, ...]]

    @property
    def max_tokens(self) -> int:
        """Most ids this turn can add before the reply."""
        return len(self.prefix_ids) + len(self.common_ids) + max(map(len, self.hint_ids.values()))


class Conversation:
    """A chat with a memory. Not thread-safe: one reply at a time.

    Args:
        chat: the chat task; it may use the variable `mood`.
        mood: the label task that judges each message.
        max_context_tokens: of the model; the oldest turns are forgotten when it is full.
        model: name that results carry.

    Attributes:
        turns: what was said so far, oldest first.
    """

    def __init__(
        self,
        chat: PromptFile,
        mood: PromptFile,
        *,
        encoder: PromptEncoder,
        engine: Engine,
        max_context_tokens: int,
        model: str,
    ) -> None:
        self.chat = chat
        self.mood = mood
        self.turns: list[Turn] = []
        self._encoder = encoder
        self._engine = engine
        self._max_context_tokens = max_context_tokens
        self._model = model
        self._session: Session | None = None
        self._turn_starts: list[int] = []  # position of each turn's first id, to forget the oldest

    @property
    def num_tokens(self) -> int:
        """Tokens in the conversation's sequence, its prefix included."""
        return self._session.num_tokens if self._session else 0

    def close(self) -> None:
        """Give the sequence back. Idempotent."""
        if self._session is not None:
            self._session.close()
        self._session = None

    def reset(self) -> None:
        """Forget everything that was said."""
        self.close()
        self.turns.clear()
        self._turn_starts.clear()

    def reply(self, text: str, *, deadline_s: float | None = None, is_last: bool = False) -> Reply:
        """Score the mood of `text` and begin the reply.

        Args:
            text: what the user said.
            deadline_s: seconds from now, for the mood and the reply together.
            is_last: close the conversation when the reply has ended.

        Raises:
            InvalidInput, ContextLengthExceeded: the text is empty or too long for the chat task.
            DeadlineExceeded, QueueFull: the conversation is then as it was before.
        """
        mood_call = prepare_call(self.mood, self._encoder, {"text": text}, deadline_s=deadline_s, on_long="truncate")
        chat_call = prepare_call(self.chat, self._encoder, {"text": text}, deadline_s=deadline_s)
        plan = self._plan(chat_call, [spec.label for spec in mood_call.labels])
        sampling = sampling_params(self.chat, self._encoder)
        self._make_room(plan.max_tokens + sampling.max_tokens)
        session = self._session or self._engine.open_session(plan.prefix_ids)
        start = session.num_tokens
        score = build_score_request(mood_call, self._encoder)
        prefill = PrefillRequest(session=session, input_ids=plan.common_ids, deadline_s=chat_call.deadline_s)
        submitted_at = time.monotonic()
        scoring, prefilling = self._engine.submit(score, prefill)
        try:
            scores = scoring.result()
            prefilling.result()
            generate = GenerateRequest(
                session=session,
                input_ids=plan.hint_ids[scores.best],
                sampling=sampling,
                deadline_s=_remaining_s(chat_call.deadline_s, submitted_at),
            )
            (events,) = self._engine.submit(generate)
        except BaseException:
            self._take_back(session, start, prefilling)
            raise
        mood = read_answer(mood_call, scores, model=self._model)
        self._session = session
        self._turn_starts.append(start)

        def record(result: Result) -> None:
            self.turns.append(Turn(text=text, mood=mood, reply=result.text or ""))
            if is_last:
                self.close()

        return Reply(mood, TaskStream(chat_call, events, model=self._model), on_end=record)

    def _take_back(self, session: Session, start: int, prefilling: PrefillTicket) -> None:
        """Undo a turn that came to nothing, once the engine has let go of the session."""
        prefilling.cancel()
        with suppress(AllInOneError):  # however the prefill ended, it is taken back
            prefilling.result()
        if session is self._session:
            session.truncate(start)
        else:
            session.close()

    def _plan(self, call: Call, moods: Sequence[str]) -> TurnPlan:
        """Split this turn's ids into what is known before the mood and what follows it."""
        by_mood = {mood: self._turn_segments(call, mood) for mood in moods}
        variants = list(by_mood.values())
        num_common = 0
        while all(num_common < len(v) and v[num_common] == variants[0][num_common] for v in variants):
            num_common += 1
        num_prefix = 0
        while not self._session and num_prefix < num_common and variants[0][num_prefix].trusted:
            num_prefix += 1
        ids = self._encoder.ids
        common = ids(variants[0][num_prefix:num_common])
        hints = {mood: ids(segments[num_common:]) for mood, segments in by_mood.items()}
        if not all(hints.values()):  # the prompt does not use the mood: keep one id to start the reply from
            hints = {mood: common[-1:] + hint for mood, hint in hints.items()}
            common = common[:-1]
        return TurnPlan(prefix_ids=ids(variants[0][:num_prefix]), common_ids=common, hint_ids=hints)

    def _turn_segments(self, call: Call, mood: str) -> tuple[Segment, ...]:
        """The segments this turn adds: all of the prompt at first, later what follows the last reply."""
        variables = {**call.variables, "mood": mood} if "mood" in self.chat.inputs else call.variables
        history = _PAST if self._session else ()
        segments = self._encoder.segments(self.chat.render(variables, history=history))
        if not history:
            return segments
        end_of_past = next(i for i, segment in enumerate(segments) if segment is _PAST_REPLY)
        return segments[end_of_past + 1 :]

    def _make_room(self, num_new: int) -> None:
        """Forget the oldest turns until `num_new` ids fit into the model's context.

        Raises:
            ContextLengthExceeded: one turn alone is too long.
        """
        limit = self._max_context_tokens
        while self._session and self.num_tokens + num_new > limit and len(self._turn_starts) > 1:
            start, end = self._turn_starts[:2]
            self._session.drop(start, end)
            self._turn_starts = [start, *(position - (end - start) for position in self._turn_starts[2:])]
        if self.num_tokens + num_new > limit:
            raise ContextLengthExceeded(
                f"The conversation has {self.num_tokens} tokens and this turn needs up to {num_new} more; "
                f"the model holds {limit}.",
                hint="start a new conversation, or send a shorter text",
            )


def _remaining_s(deadline_s: float | None, since: float) -> float | None:
    """What is left of a deadline that began at `since` (monotonic seconds)."""
    return None if deadline_s is None else max(0.0, deadline_s - (time.monotonic() - since))
