"""Fields that several of OpenAI's requests share, and how a field is refused that would change the answer.

What OpenAI's API has and this server has not is refused by name, never passed over; what cannot change an answer is
taken and does nothing. Knows pydantic, no model. Above: `openai_requests.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from allinone.server.fields import Body, Name, Text, bounded

MAX_CHOICES = 64
"""Answers to one request: `n` times the number of prompts."""
MAX_STOP_STRINGS = 16
MAX_LOGIT_BIASES = 1_024


class OpenAIBody(Body):
    """Base of OpenAI's requests: "1" is no number here, and null is the same as nothing."""

    model_config = ConfigDict(strict=True)


def only(reason: str, *allowed: Any) -> BeforeValidator:
    """Refuse every value but null, empty ones and `allowed`, and says why."""

    def check(value: Any) -> Any:
        if value in (None, [], {}):
            return None
        if value not in allowed:
            raise ValueError(reason)
        return value

    return BeforeValidator(check)


def _text_or_list(value: Any) -> str:
    return "list" if isinstance(value, list) else "text"


TEXT_OR_LIST = Discriminator(_text_or_list)
"""Tells a text from a list, so that a mistake has one place and not one for each."""

Refused: TypeAlias = Annotated[None, only("this is not supported here; leave it out")]
"""A field that would change the answer."""
Ignored: TypeAlias = dict[str, Any] | str | bool | None
"""A field that changes no answer."""


def _check_bias(bias: dict[str, float]) -> dict[str, float]:
    for token_id, value in bias.items():
        if not token_id.isdecimal() or not token_id.isascii() or len(token_id) > 10:
            raise ValueError("the keys are token ids, written as digits")
        if not -100 <= value <= 100:
            raise ValueError("a bias is between -100 and 100")
    return bias


StopString: TypeAlias = Annotated[str, Field(min_length=1, max_length=200)]
StopStrings: TypeAlias = Annotated[list[StopString], Field(max_length=MAX_STOP_STRINGS)]
TokenIds: TypeAlias = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1, fail_fast=True)]
LogitBias: TypeAlias = Annotated[
    dict[str, float], bounded(MAX_LOGIT_BIASES), Field(max_length=MAX_LOGIT_BIASES), AfterValidator(_check_bias)
]
Penalty: TypeAlias = Annotated[float, Field(ge=-2, le=2)]
Share: TypeAlias = Annotated[float, Field(gt=0, le=1)]


class StreamOptions(OpenAIBody):
    """What a stream tells beside the text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = Field(default=None, description="Accepted; nothing is obfuscated.")


class Sampled(OpenAIBody):
    """What `/v1/chat/completions` and `/v1/completions` have in common."""

    model: Name = Field(
        description="`allinone`, the name of the loaded model, or `allinone/TASK`.", examples=["allinone"]
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: Share | None = None
    stop: Annotated[Annotated[StopString, Tag("text")] | Annotated[StopStrings, Tag("list")], TEXT_OR_LIST] | None = (
        None
    )
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    max_tokens: int | None = Field(default=None, ge=1, lt=2**31)
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    top_k: int | None = Field(default=None, ge=0, lt=2**31, description="Not OpenAI's: keep the k likeliest tokens.")
    min_p: float | None = Field(default=None, ge=0, le=1, description="Not OpenAI's: drop what is less likely.")
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=10, description="Not OpenAI's: 1 is none.")
    user: Text | None = Field(default=None, description="Accepted, and neither used nor kept.")

    @property
    def num_choices(self) -> int:
        """Answers to each prompt."""
        return self.n or 1

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with its token counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def sampling(self, choice: int = 0) -> dict[str, Any]:
        """The fields of the engine's `SamplingParams` that the client gave, for one of several choices.

        With a seed, each choice has one of its own: otherwise all would be the same.
        """
        found: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN_FIELDS if getattr(self, name) is not None}
        if self.stop is not None:
            found["stop"] = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        if self.seed is not None:
            found["seed"] = (self.seed + choice) % 2**64
        if self.logit_bias:
            found["logit_bias"] = {int(token_id): value for token_id, value in self.logit_bias.items()}
        return found


_PLAIN_FIELDS = (
    "temperature", "top_p", "max_tokens", "presence_penalty", "frequency_penalty", "top_k", "min_p",
    "repetition_penalty",
)  # fmt: skip
