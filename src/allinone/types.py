"""The plain values that cross rooms: messages, results, counts and times. No behaviour beyond convenience."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["label", "text", "json", "chat"]
Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "cancelled", "deadline"]
Priority = Literal["interactive", "batch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks: clients that wait at the same time get the same share of the model, whatever each of them sends.

    `priority` "batch" is bulk work: people's requests go before it, though not for ever.
    """

    client: str = ""
    priority: Priority = "interactive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A piece of a prompt before tokenisation.

    `trusted` text was written by the operator (template text, role markers): control tokens in it are real. A value
    (user text, history, retrieved passages) is tokenised alone, with control tokens off, and is never altered.
    """

    text: str
    trusted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a prompt: a role and the segments of its content."""

    role: Role
    content: tuple[Segment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts of one request."""

    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_output_tokens: int = 0
    truncated_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Wall-clock seconds of one request, measured from its submission."""

    queue_s: float = 0.0
    ttft_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The answer of one task to one input.

    Attributes:
        task: name of the task (with its variant, `sentiment.en`).
        version: content hash of the prompt that answered.
        model: name of the model and its quantisation.
        label, name: for label tasks the label as written in the file and its short English name.
        probs: for label tasks, label -> probability, summing to 1 over the labels asked for, at the temperature that
            the model brings for the task (1 where it brings none).
        p_max: the largest of `probs`.
        text: for text and chat tasks the reply; for json tasks the raw JSON text.
        data: for json tasks the parsed value.
        cached: the whole result came from the result cache.
    """

    task: str
    version: str
    model: str
    kind: Kind
    label: str | None = None
    name: str | None = None
    emoji: str | None = None
    probs: Mapping[str, float] | None = None
    p_max: float | None = None
    text: str | None = None
    data: Any = None
    finish_reason: FinishReason = "stop"
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)
    cached: bool = False
