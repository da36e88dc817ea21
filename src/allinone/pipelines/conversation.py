"""Mood → reply: judge the mood of a message and answer it, in one pass over the weights where they overlap.

While the label request scores the mood, the same batch prefills the conversation with the user's text; once the mood is
known, only the few ids that name it remain before the first token of the reply. The conversation keeps its own
sequence: turn 50 prefills only its own tokens, and its history is exactly the ids that were decoded.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress

from allinone.engine.engine import Engine
from allinone.engine.requests import GenerateRequest, LabelScores, PrefillRequest
from allinone.engine.session import Session
from allinone.engine.tickets import PrefillTicket, ScoreTicket
from allinone.errors import AllInOneError, ContextLengthExceeded
from allinone.pipelines.reply import Reply
from allinone.pipelines.turns import Memory, Turn, TurnPlan, TurnPlanner
from allinone.prompts.prompt_file import PromptFile
from allinone.tasks.encoder import PromptEncoder
from allinone.tasks.run import TaskStream
from allinone.tasks.task import build_score_request, prepare_call, read_answer, sampling_params
from allinone.types import Caller, Result, Usage

__all__ = ["Conversation", "Memory", "Opening", "Turn", "TurnPlan"]


class Opening:
    """A reply that has begun: its mood is being scored and its conversation prefilled. Made by `Conversation.begin`."""

    def __init__(
        self,
        scoring: ScoreTicket,
        prefilling: PrefillTicket,
        *,
        answer: Callable[[LabelScores, Usage], Reply],
        take_back: Callable[[], None],
    ) -> None:
        self._tickets = scoring, prefilling
        self._answer, self._take_back = answer, take_back

    def add_done_callback(self, callback: Callable[[], object]) -> None:
        """Have `callback` called, twice at most, when `finish` may have stopped waiting; see `Ticket`."""
        for ticket in self._tickets:
            ticket.add_done_callback(callback)

    @property
    def is_done(self) -> bool:
        """Whether `finish` returns without waiting."""
        return all(ticket.is_done for ticket in self._tickets)

    def finish(self) -> Reply:
        """The mood, and the reply that knows it; waits for the mood. Called once.

        Raises:
            DeadlineExceeded, QueueFull: the conversation is then as it was before.
        """
        scoring, prefilling = self._tickets
        try:
            scores = scoring.result()
            return self._answer(scores, prefilling.result())
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Give up instead of finishing: the conversation is as it was before."""
        for ticket in self._tickets:
            ticket.cancel()
        self._take_back()


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
        self._planner = TurnPlanner(chat, encoder)
        self._max_context_tokens = max_context_tokens
        self._model = model
        self._mood_temperature = mood_temperature
        self._caller = caller or Caller()
        self._session: Session | None = None
        self._marks: list[tuple[int, int]] = []  # where each turn that is remembered begins in the session, and ends
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
        self._marks.clear()

    def reset(self) -> None:
        """Forget everything that was said."""
        self.close()
        self.turns.clear()

    def memory(self) -> Memory:
        """What the model remembers, to go on with it later or elsewhere (`restore`); not while a reply runs."""
        ids = self._session.ids if self._session else ()
        num_prefix = len(self._session.prefix_ids) if self._session else 0
        return Memory(
            model=self._model,
            versions=(self.chat.version, self.mood.version),
            prefix_ids=ids[:num_prefix],
            ids=ids[num_prefix:],
            starts=tuple(start for start, _ in self._marks),
            ends=tuple(end for _, end in self._marks),
        )

    def restore(self, turns: Sequence[Turn], memory: Memory | None = None) -> None:
        """Begin where another conversation stopped.

        Its ids are taken as they were fed and sampled. Those of another model or prompt mean nothing here: then the
        turns are read again as text.

        Args:
            turns: what was said, oldest first; for people, and for that case.
            memory: of that conversation.
        """
        self.reset()
        self.turns = list(turns)
        if memory is None or (memory.model, memory.versions) != (self._model, (self.chat.version, self.mood.version)):
            memory = self._read_again(turns)
        if memory.starts:
            self._session = self._engine.open_session(memory.prefix_ids, history_ids=memory.ids)
            self._marks = list(zip(memory.starts, memory.ends, strict=True))

    def reply(self, text: str, *, deadline_s: float | None = None, is_last: bool = False) -> Reply:
        """Score the mood of `text` and begin the reply: `begin`, then `finish`."""
        return self.begin(text, deadline_s=deadline_s, is_last=is_last).finish()

    def begin(self, text: str, *, deadline_s: float | None = None, is_last: bool = False) -> Opening:
        """Let the mood of `text` be scored while the conversation is prefilled with it.

        A reply that somebody still holds is first waited for; one that was dropped unread leaves no trace.

        Args:
            text: what the user said.
            deadline_s: seconds from now, for the mood and the reply together.
            is_last: close the conversation when the reply has ended.

        Raises:
            InvalidInput, ContextLengthExceeded: the text is empty or too long for the chat task.
            QueueFull: the conversation is then as it was before.
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
        plan = self._planner.plan(
            chat_call.variables, [spec.label for spec in mood_call.labels], is_first=self._session is None
        )
        sampling = sampling_params(self.chat, self._encoder)
        self._make_room(plan.max_tokens + sampling.max_tokens)
        if self._session is None:
            self._session = self._engine.open_session(plan.prefix_ids)
        session, before = self._session, self._session.num_tokens
        prefill = PrefillRequest(
            session=session,
            input_ids=plan.lead_ids + plan.common_ids,
            deadline_s=chat_call.deadline_s,
            caller=self._caller,
        )
        submitted_at = time.monotonic()
        try:
            scoring, prefilling = self._engine.submit(score, prefill)
        except BaseException:
            self._take_back(before)
            raise

        def answer(scores: LabelScores, prefilled: Usage) -> Reply:
            (events,) = self._engine.submit(
                GenerateRequest(
                    session=session,
                    input_ids=plan.hint_ids[scores.best],
                    sampling=sampling,
                    max_cached_tokens=prefilled.num_cached_tokens,
                    deadline_s=_remaining_s(chat_call.deadline_s, submitted_at),
                    caller=self._caller,
                )
            )
            mood = read_answer(mood_call, scores, model=self._model)
            stream = TaskStream(chat_call, events, model=self._model)
            return self._follow(stream, mood, text, before=before, num_lead=len(plan.lead_ids), is_last=is_last)

        return Opening(scoring, prefilling, answer=answer, take_back=lambda: self._take_back(before))

    def _follow(
        self, stream: TaskStream, mood: Result, text: str, *, before: int, num_lead: int, is_last: bool
    ) -> Reply:
        """The reply as its reader holds it; when it has ended, the turn is kept, or leaves no trace."""
        session = self._session

        def end(result: Result | None) -> None:
            if session is None or self._session is not session:  # closed, or reset, in the meantime
                return
            self._open = None
            if result is None or result.usage.num_output_tokens == 0:
                self._take_back(before)
            else:
                self._marks.append((before + num_lead, session.num_tokens))
                self.turns.append(Turn(text=text, mood=mood, reply=result.text or ""))
            if is_last:
                self.close()

        reply = Reply(mood, stream, on_end=end)
        self._open = weakref.ref(reply), before
        return reply

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
        if self._session is not None and self._marks:
            self._session.truncate(num_tokens)
        else:
            self.close()

    def _read_again(self, turns: Sequence[Turn]) -> Memory:
        """The memory of a conversation of which only the texts are known."""
        prefix_ids: tuple[int, ...] = ()
        ids: list[int] = []
        marks: list[tuple[int, int]] = []
        moods = [spec.label for spec in self.mood.labels]
        for turn in turns:
            plan = self._planner.plan({"text": turn.text}, moods, is_first=not marks)
            prefix_ids = prefix_ids or plan.prefix_ids
            hint = plan.hint_ids.get(turn.mood.label or "", plan.hint_ids[moods[0]])
            start = len(prefix_ids) + len(ids) + len(plan.lead_ids)
            ids += plan.lead_ids + plan.common_ids + hint
            ids += self._encoder.tokenizer.tokenize(turn.reply, control=False)
            marks.append((start, len(prefix_ids) + len(ids)))
        return Memory(
            model=self._model,
            versions=(self.chat.version, self.mood.version),
            prefix_ids=prefix_ids,
            ids=tuple(ids),
            starts=tuple(start for start, _ in marks),
            ends=tuple(end for _, end in marks),
        )

    def _make_room(self, num_new: int) -> None:
        """Forget the oldest turns when `num_new` ids do not fit into the model's context.

        As many as leave half of it free, because what stays is prefilled again: not with every turn from here on.

        Raises:
            ContextLengthExceeded: the last turn and this one are too long together.
        """
        limit, starts = self._max_context_tokens, [start for start, _ in self._marks]
        if self._session and starts and self.num_tokens + num_new > limit:
            num_forgotten = next(
                (i for i, start in enumerate(starts) if self.num_tokens - (start - starts[0]) + num_new <= limit // 2),
                len(starts) - 1,
            )
            first, kept = starts[0], starts[num_forgotten]
            self._session.drop(first, kept)
            cut = kept - first
            self._marks = [(start - cut, end - cut) for start, end in self._marks[num_forgotten:]]
        if self.num_tokens + num_new > limit:
            raise ContextLengthExceeded(
                f"The conversation has {self.num_tokens} tokens and this turn needs up to {num_new} more; "
                f"the model holds {limit}.",
                hint="start a new conversation, or send a shorter text",
            )


def _remaining_s(deadline_s: float | None, since: float) -> float | None:
    """What is left of a deadline that began at `since` (monotonic seconds)."""
    return None if deadline_s is None else max(0.0, deadline_s - (time.monotonic() - since))
