"""Mood → reply: judge the mood of a message and answer it, in one pass over the weights where they overlap.

While the label request scores the mood, the same batch prefills the conversation with the user's text; once the mood is
known, only the few ids that name it remain before the first token of the reply. The conversation keeps its own
sequence: turn 50 prefills only its own tokens, and its history is exactly the ids that were decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from allinone.engine.engine import Engine, GenerateTicket
from allinone.engine.requests import GenerateRequest, LabelScores, PrefillRequest, TokenEvent
from allinone.engine.session import Session
from allinone.errors import ContextLengthExceeded
from allinone.prompts.prompt_file import PromptFile
from allinone.tasks.encoder import PromptEncoder
from allinone.tasks.task import Call, build_request, prepare_call, read_answer, sampling_params
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


class Conversation:
    """A chat with a memory. Not thread-safe: one reply at a time.

    Attributes:
        turns: what was said so far, oldest first.
    """

    def __init__(self, chat: PromptFile, encoder: PromptEncoder, engine: Engine) -> None:
        self.chat = chat
        self.turns: list[Turn] = []
        self._encoder = encoder
        self._engine = engine
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

    def _plan(self, call: Call, moods: Mapping[str, str]) -> _Plan:
        """Split this turn's ids into what is known before the mood and what follows it."""
        by_mood = {label: self._turn_segments(call, mood) for label, mood in moods.items()}
        variants = list(by_mood.values())
        num_common = 0
        while all(num_common < len(v) and v[num_common] == variants[0][num_common] for v in variants):
            num_common += 1
        prefix = () if self._session else _leading_trusted(variants[0][:num_common])
        ids = self._encoder.ids
        common = list(ids(variants[0][len(prefix) : num_common]))
        hints = {label: list(ids(segments[num_common:])) for label, segments in by_mood.items()}
        if not all(hints.values()):  # the prompt does not use the mood: keep one id to start the reply from
            hints = {label: [*common[-1:], *hint] for label, hint in hints.items()}
            common = common[:-1]
        return _Plan(prefix_ids=ids(prefix), common_ids=tuple(common), hint_ids={k: tuple(v) for k, v in hints.items()})

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
        """Forget the oldest turns until `num_new` ids and a reply fit into the model's context."""
        if self._session is None:
            return
        limit = self._engine.max_context_tokens
        while self._session.num_tokens + num_new > limit and len(self._turn_starts) > 1:
            start, end = self._turn_starts[0], self._turn_starts[1]
            self._session.drop(start, end)
            self._turn_starts = [start, *(position - (end - start) for position in self._turn_starts[2:])]
        if self._session.num_tokens + num_new > limit:
            raise ContextLengthExceeded(
                f"The conversation has {self._session.num_tokens} tokens and this turn needs {num_new} more; "
                f"the model holds {limit}.",
                hint="start a new conversation",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    prefix_ids: tuple[int, ...]
    common_ids: tuple[int, ...]
    hint_ids: Mapping[str, tuple[int, ...]]


def _leading_trusted(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
    for i, segment in enumerate(segments):
        if not segment.trusted:
            return segments[:i]
    return segments


class Reply:
    """A mood, and the reply that knows it, as a stream of token events that is consumed once.

    Attributes:
        mood: the label task's result; there before the first token of the reply.
    """

    def __init__(
        self,
        mood: Result,
        call: Call,
        ticket: GenerateTicket,
        conversation: Conversation,
        *,
        model: str,
        close_when_done: bool = False,
    ) -> None:
        self.mood = mood
        self._close_when_done = close_when_done
        self.conversation = conversation
        self._call = call
        self._ticket = ticket
        self._model = model
        self._result: Result | None = None

    def __iter__(self) -> Iterator[TokenEvent]:
        """Token events; leaving the loop early cancels the reply and keeps what was said so far."""
        try:
            yield from self._ticket
        finally:
            self._finish()

    def result(self) -> Result:
        """The whole reply as a `Result`; drains what was not consumed yet."""
        if self._result is None:
            for _ in self:
                pass
        assert self._result is not None
        return self._result

    def cancel(self) -> None:
        """Stop the reply; the conversation keeps what was said so far."""
        self._ticket.cancel()

    def _finish(self) -> None:
        if self._result is None:
            self._ticket.cancel()  # a finished ticket ignores it
            self._result = read_answer(self._call, self._ticket.generation, model=self._model)
            turn = Turn(text=self._call.variables["text"], mood=self.mood, reply=self._result.text or "")
            self.conversation.turns.append(turn)
            if self._close_when_done:
                self.conversation.close()


def start_reply(
    text: str,
    *,
    mood_task: PromptFile,
    conversation: Conversation,
    encoder: PromptEncoder,
    engine: Engine,
    model: str,
    deadline_s: float | None = None,
    close_when_done: bool = False,
) -> Reply:
    """Score the mood of `text` and begin the reply.

    Raises:
        InvalidInput, ContextLengthExceeded: the text is empty or too long for the chat task.
        DeadlineExceeded, QueueFull: the conversation is then as it was before.
    """
    chat_call = prepare_call(conversation.chat, encoder, {"text": text}, deadline_s=deadline_s)
    mood_call = prepare_call(mood_task, encoder, {"text": text}, deadline_s=deadline_s, on_long="truncate")
    plan = conversation._plan(chat_call, {spec.label: spec.label for spec in mood_call.labels})
    sampling = sampling_params(conversation.chat, encoder)
    longest_hint = max(map(len, plan.hint_ids.values()))
    conversation._make_room(len(plan.prefix_ids) + len(plan.common_ids) + longest_hint + sampling.max_tokens)
    session = conversation._session or engine.open_session(plan.prefix_ids)
    start = session.num_tokens
    try:
        score, prefill = engine.submit(
            build_request(mood_call, encoder),
            PrefillRequest(session=session, input_ids=plan.common_ids, deadline_s=deadline_s),
        )
        scores: LabelScores = score.result()
        mood = read_answer(mood_call, scores, model=model)
        prefill.result()
        (ticket,) = engine.submit(
            GenerateRequest(
                session=session, input_ids=plan.hint_ids[scores.best], sampling=sampling, deadline_s=deadline_s
            )
        )
    except BaseException:
        session.truncate(start)
        raise
    conversation._session = session
    conversation._turn_starts.append(start)
    return Reply(mood, chat_call, ticket, conversation, model=model, close_when_done=close_when_done)

