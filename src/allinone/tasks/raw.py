"""Requests that no prompt file describes: chat messages or a text that a program gives, and texts to embed.

Here nobody is the operator: only the turn markers of the model's own template are trusted. Every content, the system
message included, is a value, tokenised alone with control tokens off, so no text of a client becomes a control token, a
turn, or a part of what requests share: the prefix is what the template itself puts before the first content.
Above: the runtime. Below: `encoder` and the engine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, cast

from allinone.engine.engine import Engine
from allinone.engine.requests import Embedding, EmbedRequest, GenerateRequest, SamplingParams
from allinone.engine.tickets import EmbedTicket, Stream
from allinone.errors import ContextLengthExceeded, InvalidInput, QueueFull, UsageError
from allinone.tasks.encoder import EncodedPrompt, PromptEncoder
from allinone.tasks.run import TaskStream
from allinone.tasks.task import Call, build_generate_request
from allinone.types import Caller, Message, Priority, Role, Segment

Turn: TypeAlias = Mapping[str, Any]
"""`{"role": "system" | "user" | "assistant", "content": text}`."""

RawPrompt: TypeAlias = str | Sequence[int] | Sequence[Turn]
"""A text to go on with, its token ids, or chat messages to answer."""

_ROLES: Mapping[object, Role] = {"system": "system", "user": "user", "assistant": "assistant"}


class RawRequests:
    """The half of the façade that needs no task."""

    engine: Engine
    encoder: PromptEncoder
    max_context_tokens: int

    def complete(
        self,
        prompt: RawPrompt,
        sampling: SamplingParams | None = None,
        *,
        deadline_s: float | None = None,
        client: str = "",
        priority: Priority = "interactive",
    ) -> Stream:
        """Answer chat messages, or go on with a text; a stream of token events.

        Args:
            prompt: messages (`{"role": "user", "content": …}`), a text, or token ids. Whoever wrote them: nothing in
                them becomes a control token or a turn, and nothing of them is shared between requests.
            sampling: greedy, 256 tokens, where None.
            deadline_s: seconds from now, waiting included.
            client: who asks: clients that wait at the same time get equal shares.
            priority: "batch" for bulk work, which lets people's requests go first.

        Raises:
            InvalidInput: nothing to go on with, malformed messages, or token ids that are control tokens.
            ContextLengthExceeded: there is no room for one token of an answer.
            UsageError: a malformed constraint.
            QueueFull: too many requests wait.
        """
        sampling = sampling or SamplingParams()
        if isinstance(prompt, str) or not prompt or isinstance(prompt[0], int):
            ids = _text_ids(cast("str | Sequence[int]", prompt), self.encoder)
            encoded = EncodedPrompt(prefix_ids=(), input_ids=ids)
        else:
            turns = cast("Sequence[Turn]", prompt)
            self._require_fit(len(turns))  # a message is more than one token: the rest need not be looked at
            encoded = self.encoder.encode(self.encoder.segments(make_messages(turns)))
            sampling = replace(sampling, stop=(*sampling.stop, *self.encoder.stop_strings))
        self._require_fit(len(encoded.prefix_ids) + len(encoded.input_ids) + 1)
        return self.engine.stream(
            GenerateRequest(
                prefix_ids=encoded.prefix_ids,
                input_ids=encoded.input_ids,
                sampling=sampling,
                deadline_s=deadline_s,
                caller=Caller(client=client, priority=priority),
            )
        )

    def embed(
        self, texts: Iterable[str], *, deadline_s: float | None = None, client: str = "", window: int = 64
    ) -> Iterator[Embedding]:
        """The hidden state at the last token of each text, in order, computed in batches, read lazily.

        These are vectors of a chat model: near texts have near vectors, but no retrieval model was trained here.

        Args:
            texts: whole texts; nothing is cut.
            deadline_s: for each text, from its submission.
            client: as for `complete`.
            window: most texts in flight.
        """
        if window < 1:
            raise UsageError(f"window must be at least 1, got {window}.")
        under_way: deque[EmbedTicket] = deque()
        try:
            for text in texts:
                while len(under_way) >= window:
                    yield under_way.popleft().result()
                while (ticket := self._try_embed(text, deadline_s, client, can_wait=bool(under_way))) is None:
                    yield under_way.popleft().result()
                under_way.append(ticket)
            while under_way:
                yield under_way.popleft().result()
        finally:
            for ticket in under_way:
                ticket.cancel()

    def start_embed(self, text: str, *, deadline_s: float | None = None, client: str = "") -> EmbedTicket:
        """Submit one text to be embedded, without waiting for it.

        Raises:
            InvalidInput: the text is empty.
            ContextLengthExceeded: it is longer than the model's context.
            QueueFull: too many requests wait.
        """
        ids = _text_ids(text, self.encoder)
        self._require_fit(len(ids))
        request = EmbedRequest(input_ids=ids, deadline_s=deadline_s, caller=Caller(client=client, priority="batch"))
        return self.engine.submit(request)[0]

    def _try_embed(self, text: str, deadline_s: float | None, client: str, *, can_wait: bool) -> EmbedTicket | None:
        """None when the queue is full and waiting for one of our own helps."""
        try:
            return self.start_embed(text, deadline_s=deadline_s, client=client)
        except QueueFull:
            if not can_wait:
                raise
            return None

    def _require_fit(self, num_tokens: int) -> None:
        if num_tokens > self.max_context_tokens:
            raise ContextLengthExceeded(
                f"{num_tokens} tokens are needed at least; the context holds {self.max_context_tokens}.",
                hint="shorten the text, or leave out the oldest messages",
            )


def make_messages(turns: Sequence[Turn]) -> tuple[Message, ...]:
    """Chat messages whose contents are all values.

    Raises:
        InvalidInput: one is not a role and a text.
    """
    made: list[Message] = []
    for number, turn in enumerate(turns):
        role, content = _ROLES.get(turn.get("role")), turn.get("content")
        if role is None:
            raise InvalidInput(
                f"Message {number} has the role {turn.get('role')!r:.40}.", hint=f"known: {', '.join(_ROLES.values())}"
            )
        if not isinstance(content, str) or len(turn) != 2:
            raise InvalidInput(f"Message {number} needs a role, a content that is a text, and nothing else.")
        made.append(Message(role=role, content=(Segment(text=content, trusted=False),)))
    return tuple(made)


def stream_sampled(
    call: Call, changes: Mapping[str, Any], encoder: PromptEncoder, engine: Engine, *, model: str
) -> TaskStream:
    """Submit a task's call with fields of `SamplingParams` (`changes`) instead of what its file says.

    The file's stop strings stay beside those of `changes`; the constraint is the task's own.
    """
    request = build_generate_request(call, encoder)
    stop = (*request.sampling.stop, *changes.get("stop", ()))
    request = replace(request, sampling=replace(request.sampling, **{**changes, "stop": stop}))
    (events,) = engine.submit(request)
    return TaskStream(call, events, model=model)


def _text_ids(text: str | Sequence[int], encoder: PromptEncoder) -> tuple[int, ...]:
    """Token ids of a value, or those that were given, if a value can have them."""
    if not text:
        raise InvalidInput("There is nothing to read.", hint="give at least one character, or one message")
    if isinstance(text, str):
        return tuple(encoder.tokenizer.tokenize(text, control=False))
    control = sorted(set(text) & encoder.tokenizer.control_ids)
    if control:
        raise InvalidInput(
            f"Token id {control[0]} is a control token.", hint="send chat messages: the model's turns are made here"
        )
    return tuple(text)
