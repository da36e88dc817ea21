"""Mood → reply: judge the mood of a message and answer it, in one pass over the weights where they overlap.

While the label request scores the mood, the same batch prefills the conversation with the user's text; once the mood is
known, only the few ids that name it remain before the first token of the reply. The conversation keeps its own
sequence: turn 50 prefills only its own tokens, and its history is exactly the ids that were decoded.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from allinone.engine.engine import Engine
from allinone.engine.requests import GenerateRequest, LabelScores, PrefillRequest, SamplingParams, ScoreRequest
from allinone.engine.session import Session
from allinone.engine.tickets import Stream
from allinone.errors import AllInOneError, ContextLengthExceeded
from allinone.pipelines.reply import Reply
from allinone.prompts.prompt_file import PromptFile
from allinone.tasks.encoder import PromptEncoder
from allinone.tasks.run import TaskStream
from allinone.tasks.task import Call, build_score_request, prepare_call, read_answer, sampling_params
from allinone.types import Caller, Message, Result, Segment

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


class Conversation:
    """A chat with a memory. Not thread-safe: one reply at a time.

    Args:
        chat: the chat task; it may use the variable `mood`.
        mood: the label task that judges each message.
        max_context_tokens: of the model; the oldest turns are forgotten when it is full.
        model: name that results carry.
        mood_temperature: the model's label temperature for the mood task.
        caller: whose conversation it is.

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
        mood_temperature: float = 1.0,
        caller: Caller | None = None,
    ) -> None:
        self.chat = chat
        self.mood = mood
        self.turns: list[Turn] = []
        self._encoder = encoder
        self._engine = engine
        self._max_context_tokens = max_context_tokens
        self._model = model
        self._mood_temperature = mood_temperature
        self._caller = caller or Caller()
        self._session: Session | None = None
        self._turn_starts: list[int] = []  # where each turn that is remembered begins in the session
        self._open: tuple[weakref.ref[Reply], int] | None = None  # the reply that has not ended, and what was before

    @property
    def num_tokens(self) -> int:
        """Tokens in the conversation's sequence, its prefix included."""
        return self._session.num_tokens if self._session else 0

    def close(self) -> None:
        """Give the sequence back; a further reply begins a new one. Idempotent."""
        if self._session is not None:
            self._session.close()
        self._session, self._open = None, None
        self._turn_starts.clear()

    def reset(self) -> None:
        """Forget everything that was said."""
        self.close()
        self.turns.clear()

    def reply(self, text: str, *, deadline_s: float | None = None, is_last: bool = False) -> Reply:
        """Score the mood of `text` and begin the reply.

        A reply that somebody still holds is first waited for; one that was dropped unread leaves no trace.

        Args:
            text: what the user said.
            deadline_s: seconds from now, for the mood and the reply together.
            is_last: close the conversation when the reply has ended.

        Raises:
            InvalidInput, ContextLengthExceeded: the text is empty or too long for the chat task.
            DeadlineExceeded, QueueFull: the conversation is then as it was before.
        """
        self._end_last_reply()
        mood_call = prepare_call(
            self.mood,
            self._encoder,
            {"text": text},
            deadline_s=deadline_s,
            on_long="truncate",
            label_temperature=self._mood_temperature,
            caller=self._caller,
        )
        chat_call = prepare_call(self.chat, self._encoder, {"text": text}, deadline_s=deadline_s, caller=self._caller)
        score = build_score_request(mood_call, self._encoder)
        plan = self._plan(chat_call, [spec.label for spec in mood_call.labels])
        sampling = sampling_params(self.chat, self._encoder)
        self._make_room(plan.max_tokens + sampling.max_tokens)
        if self._session is None:
            self._session = self._engine.open_session(plan.prefix_ids)
        session, before = self._session, self._session.num_tokens
        try:
            scores, events = self._start(session, score, plan, sampling, chat_call.deadline_s)
        except BaseException:
            self._take_back(before)
            raise
        mood = read_answer(mood_call, scores, model=self._model)

        def end(result: Result | None) -> None:
            if self._session is not session:  # closed, or reset, in the meantime
                return
            self._open = None
            if result is None or result.usage.num_output_tokens == 0:
                self._take_back(before)
            else:
                self._turn_starts.append(before + len(plan.lead_ids))
                self.turns.append(Turn(text=text, mood=mood, reply=result.text or ""))
            if is_last:
                self.close()

        reply = Reply(mood, TaskStream(chat_call, events, model=self._model), on_end=end)
        self._open = weakref.ref(reply), before
        return reply

    def _start(
        self,
        session: Session,
        score: ScoreRequest,
        plan: TurnPlan,
        sampling: SamplingParams,
        deadline_s: float | None,
    ) -> tuple[LabelScores, Stream]:
        """Score the mood while the conversation is prefilled, then let the reply begin."""
        submitted_at = time.monotonic()
        prefill = PrefillRequest(
            session=session,
            input_ids=plan.lead_ids + plan.common_ids,
            deadline_s=deadline_s,
            caller=self._caller,
        )
        scoring, prefilling = self._engine.submit(score, prefill)
        try:
            scores = scoring.result()
            prefilling.result()
        except BaseException:
            scoring.cancel()
            prefilling.cancel()
            raise
        generate = GenerateRequest(
            session=session,
            input_ids=plan.hint_ids[scores.best],
            sampling=sampling,
            deadline_s=_remaining_s(deadline_s, submitted_at),
            caller=self._caller,
        )
        (events,) = self._engine.submit(generate)
        return scores, events

    def _end_last_reply(self) -> None:
        if self._open is None:
            return
        reply, before = self._open[0](), self._open[1]
        if reply is None:
            self._open = None
            self._take_back(before)
        else:
            with suppress(AllInOneError):  # whoever holds the reply is told
                reply.result()

    def _take_back(self, num_tokens: int) -> None:
        """Undo a turn that came to nothing, once the engine has let go of the session."""
        if self._session is not None and self._turn_starts:
            self._session.truncate(num_tokens)
        else:
            self.close()

    def _plan(self, call: Call, moods: Sequence[str]) -> TurnPlan:
        """Split this turn's ids into what is known before the mood and what follows it."""
        by_mood = {mood: self._turn_segments(call, mood) for mood in moods}
        lead, first = next(iter(by_mood.values()))
        variants = [own for _, own in by_mood.values()]
        num_common = 0
        while all(num_common < len(own) and own[num_common] == first[num_common] for own in variants):
            num_common += 1
        num_prefix = 0 if self._session else _num_leading_trusted(lead)
        ids = self._encoder.ids
        common = ids(first[:num_common])
        hints = {mood: ids(own[num_common:]) for mood, (_, own) in by_mood.items()}
        if not all(hints.values()):  # the prompt does not use the mood: keep one id to start the reply from
            hints = {mood: common[-1:] + hint for mood, hint in hints.items()}
            common = common[:-1]
        return TurnPlan(
            prefix_ids=ids(lead[:num_prefix]), lead_ids=ids(lead[num_prefix:]), common_ids=common, hint_ids=hints
        )

    def _turn_segments(self, call: Call, mood: str) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
        """What leads to the user's turn (the end of the last reply, or all that a prompt begins with), and the turn."""
        variables = {**call.variables, "mood": mood} if "mood" in self.chat.inputs else call.variables
        with_past = self._encoder.segments(self.chat.render(variables, history=_PAST))
        later = with_past[next(i for i, segment in enumerate(with_past) if segment is _PAST_REPLY) + 1 :]
        num_lead = _num_leading_trusted(later)
        lead, own = later[:num_lead], later[num_lead:]
        if self._session is None:
            whole = self._encoder.segments(self.chat.render(variables))
            lead = whole[: len(whole) - len(own)]
        return lead, own

    def _make_room(self, num_new: int) -> None:
        """Forget the oldest turns when `num_new` ids do not fit into the model's context.

        As many as leave half of it free, because what stays is prefilled again: not with every turn from here on.

        Raises:
            ContextLengthExceeded: the last turn and this one are too long together.
        """
        limit, starts = self._max_context_tokens, self._turn_starts
        if self._session and self.num_tokens + num_new > limit:
            num_forgotten = next(
                (i for i, start in enumerate(starts) if self.num_tokens - (start - starts[0]) + num_new <= limit // 2),
                len(starts) - 1,
            )
            first, kept = starts[0], starts[num_forgotten]
            self._session.drop(first, kept)
            self._turn_starts = [start - (kept - first) for start in starts[num_forgotten:]]
        if self.num_tokens + num_new > limit:
            raise ContextLengthExceeded(
                f"The conversation has {self.num_tokens} tokens and this turn needs up to {num_new} more; "
                f"the model holds {limit}.",
                hint="start a new conversation, or send a shorter text",
            )


def _num_leading_trusted(segments: Sequence[Segment]) -> int:
    return next((i for i, segment in enumerate(segments) if not segment.trusted), len(segments))


def _remaining_s(deadline_s: float | None, since: float) -> float | None:
    """What is left of a deadline that began at `since` (monotonic seconds)."""
    return None if deadline_s is None else max(0.0, deadline_s - (time.monotonic() - since))
