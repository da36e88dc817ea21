"""What can be asked of the engine, and what comes back: token ids in, token events and label scores out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from allinone.types import Caller, FinishReason, Timings, Usage

if TYPE_CHECKING:
    from allinone.backends.base import FloatArray
    from allinone.engine.session import Session

ConstraintKind = Literal["json_schema", "choice", "regex"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """The output must match: a JSON Schema (mapping), one of several strings (tuple), or a regular expression (str)."""

    kind: ConstraintKind
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the next token is chosen. `temperature` 0 is greedy; every limit is off at its default.

    Attributes:
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the smallest set of tokens whose probability reaches p.
        min_p: drop tokens less likely than min_p times the likeliest.
        repetition_penalty: > 1 makes tokens of the input and the output so far less likely (Keskar et al., 2019).
        presence_penalty: subtracted from the logits of tokens that occur in the output so far.
        frequency_penalty: subtracted once for each time that a token occurs in the output so far.
        logit_bias: token id -> what is added to its logit; what may not be said is not made sayable by it.
        seed: makes sampling repeatable; each request has its own generator.
        stop: strings that end the output; they are not part of it.
        max_tokens: most tokens to generate; `finish_reason` is then "length".
        num_logprobs: None computes none; else each token comes with its log-probability and those of so many of the
            likeliest tokens, in the model's own distribution: before temperature, penalties, bias and constraint.
        prompt_lookup_num_tokens: most tokens that are guessed from the input and checked in one step, at most 32; 0
            guesses none. The output is the same, bit for bit; what repeats much of its input comes sooner. Where a
            backend has no exact drafts, and beside other streams, nothing is guessed.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict[int, float])
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int = 256
    constraint: Constraint | None = None
    num_logprobs: int | None = None
    prompt_lookup_num_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What every request says about itself.

    Attributes:
        deadline_s: seconds from submission, waiting included.
        caller: whose turn it is when others wait too.
    """

    deadline_s: float | None = None
    caller: Caller = field(default_factory=Caller)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest(_Request):
    """Which of these labels follows? `label_ids` maps each label to its token ids, in task order.

    `prefix_ids` is operator text only: it is prefilled once, frozen, and shared. `input_ids` is this request's own.
    """

    prefix_ids: tuple[int, ...]
    input_ids: tuple[int, ...]
    label_ids: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest(_Request):
    """Continue `prefix_ids + input_ids`, or continue a conversation: then `session` holds the past and `prefix_ids` is
    empty.

    Attributes:
        max_cached_tokens: so many tokens count as cached at most; what was prefilled for this very request does not.
    """

    prefix_ids: tuple[int, ...] = ()
    input_ids: tuple[int, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    session: Session | None = None
    max_cached_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillRequest(_Request):
    """Append ids to a conversation's sequence without generating; what mood → reply does while the mood is scored."""

    session: Session
    input_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest(_Request):
    """What does the model make of these ids? Nothing of them is shared, and nothing is generated."""

    input_ids: tuple[int, ...]


Request: TypeAlias = ScoreRequest | GenerateRequest | PrefillRequest | EmbedRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScores:
    """`logprobs`: label -> nats, renormalised over the labels asked for."""

    logprobs: Mapping[str, float]
    usage: Usage
    timings: Timings

    def probs(self, temperature: float = 1.0) -> dict[str, float]:
        """Label -> probability, softmax(logprobs / temperature); sums to 1.

        Args:
            temperature: > 0. Whatever it is, the labels keep their order; 1 gives the model's own probabilities.
        """
        if temperature == 1:
            return {label: math.exp(value) for label, value in self.logprobs.items()}
        peak = self.logprobs[self.best]
        weights = {label: math.exp((value - peak) / temperature) for label, value in self.logprobs.items()}
        total = math.fsum(weights.values())
        return {label: weight / total for label, weight in weights.items()}

    @property
    def best(self) -> str:
        """The most likely label; the earlier one in task order at a tie."""
        return max(self.logprobs, key=lambda label: self.logprobs[label])


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """`vector`: float32 (hidden_size,), the hidden state at the last token, after the final norm."""

    vector: FloatArray
    usage: Usage
    timings: Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEvent:
    """One step of a stream. `text` ends at a complete UTF-8 character and may be empty; the last event of a stream has
    a `finish_reason`, and with it the final `usage` and `timings`.

    `logprob` and `top_logprobs` (token id, nats; likeliest first) are there where `num_logprobs` asked for them.
    """

    text: str
    token_id: int | None = None
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    timings: Timings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A drained stream. `logprobs` and `top_logprobs` have one entry for each of `token_ids`, or none at all."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings

    @classmethod
    def from_events(cls, events: Sequence[TokenEvent]) -> Generation:
        """The whole of a stream whose last event says how it ended."""
        last = events[-1]
        assert last.finish_reason and last.usage and last.timings, "the last event of a stream says how it ended"
        return cls(
            text="".join(event.text for event in events),
            token_ids=tuple(event.token_id for event in events if event.token_id is not None),
            logprobs=tuple(event.logprob for event in events if event.logprob is not None),
            top_logprobs=tuple(event.top_logprobs for event in events if event.logprob is not None),
            finish_reason=last.finish_reason,
            usage=last.usage,
            timings=last.timings,
        )
