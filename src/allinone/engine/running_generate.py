"""The decode loop of one stream: sample, detokenize, publish, until something ends it.

Knows its own logits, constraint and stop strings; nothing of batches. Neighbours: `running` (what every request has in
common), `sampling` (which token), `detokenize` (which text), `logprobs` (how likely).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from allinone.backends.base import Backend, Chunk, FloatArray
from allinone.engine.constraints import ConstraintMatcher
from allinone.engine.detokenize import StopStrings, StreamDetokenizer
from allinone.engine.logprobs import token_logprobs
from allinone.engine.prompt_lookup import PromptLookup
from allinone.engine.requests import GenerateRequest, TokenEvent
from allinone.engine.running import Running
from allinone.engine.sampling import Sampler
from allinone.engine.tickets import Channel
from allinone.types import FinishReason, Usage


class RunningGenerate(Running):
    """A stream from its submission to its end."""

    is_stream = True
    wanted = "last_logits"
    num_wanted_rows = 1

    def __init__(
        self,
        request: GenerateRequest,
        channel: Channel,
        *,
        sampler: Sampler,
        detokenizer: StreamDetokenizer,
        matcher: ConstraintMatcher | None,
        stop_ids: frozenset[int],
        backend: Backend,
    ) -> None:
        super().__init__(request, outlet=channel, session=request.session)
        self.input_ids = request.input_ids
        self.prefix_ids = request.session.prefix_ids if request.session is not None else request.prefix_ids
        self.min_tail = self.longest_tail = 1
        self.max_tail = request.sampling.max_tokens
        self._channel = channel
        self._sampler = sampler
        self._detokenizer = detokenizer
        self._matcher = matcher
        self._stop_ids = stop_ids
        self._stop_strings = StopStrings(request.sampling.stop)
        self._num_logprobs = request.sampling.num_logprobs
        self._max_cached_tokens = request.max_cached_tokens
        self._num_output_tokens = 0
        self._num_characters = [0]  # of the output, after each of its tokens
        self._num_released = 0
        self._last_id = -1
        self._backend = backend
        lookup = request.sampling.prompt_lookup_num_tokens if backend.info.has_exact_drafts else 0
        self._lookup = PromptLookup(request.input_ids, max_tokens=lookup) if lookup else None

    def usage(self, num_output_tokens: int = 0) -> Usage:
        """See `Running.usage`; what was prefilled for this request is not counted as cached."""
        usage, most = super().usage(num_output_tokens), self._max_cached_tokens
        return usage if most is None else replace(usage, num_cached_tokens=min(usage.num_cached_tokens, most))

    def prefilled(self, outputs: Sequence[FloatArray]) -> None:
        """The first token."""
        (logits,) = outputs
        self._choose(logits)

    def chunks_after_prefill(self, max_tokens: int) -> Iterator[Chunk]:
        """The token that was sampled last, and guesses of what may follow it."""
        if self.sequence is None:
            return
        num_left = self.max_tail - self._num_output_tokens  # of which the last one is never fed
        guess = self._lookup.guess(min(num_left, max_tokens) - 1) if self._lookup and self.may_guess else ()
        if guess:
            self.num_right = 0
            ids, num_rows = (self._last_id, *guess), 1 + len(guess)
            yield Chunk(sequence=self.sequence, input_ids=ids, wanted="tail_logits", num_rows=num_rows, is_draft=True)
        else:
            yield Chunk(sequence=self.sequence, input_ids=(self._last_id,), wanted="last_logits")

    def decoded(self, chunk: Chunk, output: FloatArray) -> None:
        """The next token; after a guess, the next ones as far as it was right."""
        if not chunk.is_draft:
            return self._choose(output)
        guess = chunk.input_ids[1:]
        num_right = 0
        for logits, expected in zip(output, (*guess, None), strict=True):
            self._choose(logits)
            if self.deliver is not None or self._last_id != expected:
                break
            num_right += 1
        self.num_right = num_right
        num_wrong = len(guess) - num_right
        self._backend.trim(chunk.sequence, self._backend.num_cached_tokens(chunk.sequence) - num_wrong)
        if self._lookup is not None:
            self._lookup.learn(num_guessed=len(guess), num_right=num_right)

    def expire(self) -> None:
        """End the stream with the text so far."""
        self.has_failed = True
        self._end("deadline")

    def cancel(self) -> None:
        """End the stream with the text so far."""
        self._end("cancelled")

    def _choose(self, logits: FloatArray) -> None:
        allowed = None if self._matcher is None else self._matcher.allowed()
        token_id = self._sampler.sample(logits, allowed)
        token = TokenEvent(text="", token_id=token_id)
        if self._num_logprobs is not None:
            logprob, likeliest = token_logprobs(logits, token_id, self._num_logprobs)
            token = replace(token, logprob=logprob, top_logprobs=likeliest)
        self._last_id = token_id
        self._num_output_tokens += 1
        if self.clocks.first_token is None:
            self.clocks.first_token = time.monotonic()
        self.keeps_session = True  # a reply that has begun stays in the conversation as far as it comes
        if (
            token_id in self._stop_ids
        ):  # it is no part of the reply: the template ends the turn, however the reply ended
            return self._end("stop", token)
        if self.session is not None:
            self.session.append((token_id,))
        if self._matcher is not None:
            self._matcher.consume(token_id)
        if self._lookup is not None:
            self._lookup.push(token_id)
        said = self._detokenizer.push(token_id)
        self._num_characters.append(self._num_characters[-1] + len(said))
        text, is_stopped = self._stop_strings.push(said)
        self._num_released += len(text)
        if is_stopped:
            self._take_back_stop_string()
        if is_stopped or (self._matcher is not None and self._matcher.is_finished):
            return self._end("stop", replace(token, text=text))
        if self._num_output_tokens >= self.max_tail:
            return self._end("length", replace(token, text=text))
        self._channel.publish(replace(token, text=text))

    def _take_back_stop_string(self) -> None:
        """Leave in the session what was shown: tokens that belong to the stop string alone are forgotten."""
        if self.session is not None:
            num_kept = sum(start < self._num_released for start in self._num_characters[:-1])
            self.session.rollback(self.num_session_tokens + len(self.input_ids) + num_kept)

    def _end(self, reason: FinishReason, last: TokenEvent | None = None) -> None:
        last = last or TokenEvent(text="")
        event = replace(
            last,
            text=last.text + self._stop_strings.flush(),
            finish_reason=reason,
            usage=self.usage(self._num_output_tokens),
            timings=self.clocks.timings(),
        )
        self.deliver = lambda: self._channel.publish(event)
