"""OpenAPI's description of what OpenAI's clients get.

The values are made in `openai_forms.py` and `openai_embeddings.py`; tests hold the two together: every answer is read
with these models. Above: `openai_api.py`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PromptTokensDetails(_Shape):
    """Tokens of the prompt that were there already: the text of a task or of the template, never a client's."""

    cached_tokens: int


class CompletionUsage(_Shape):
    """Token counts; a prompt with several answers is counted once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class LikelyToken(_Shape):
    """A token and its log-probability (nats), before temperature and penalties."""

    token: str
    logprob: float
    bytes: list[int]


class ChosenToken(LikelyToken):
    """A token of the answer."""

    top_logprobs: list[LikelyToken]


class ChatLogprobs(_Shape):
    """One entry for each token of the text."""

    content: list[ChosenToken]
    refusal: None


class AssistantMessage(_Shape):
    """The answer."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(_Shape):
    """One of `n` answers; "length" if it was cut short by max_tokens, the context or the time."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(_Shape):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: CompletionUsage


class CompletionLogprobs(_Shape):
    """One entry for each token of the text."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(_Shape):
    """One text."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"]


class Completion(_Shape):
    """Whole texts, in the order of the prompts."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: CompletionUsage


class EmbeddingUsage(_Shape):
    """Token counts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingItem(_Shape):
    """One vector of length 1: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Embeddings(_Shape):
    """Vectors in the order of the texts."""

    object: Literal["list"]
    data: list[EmbeddingItem]
    model: str
    usage: EmbeddingUsage


class Model(_Shape):
    """A model that can be asked."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(_Shape):
    """All that this key may use."""

    object: Literal["list"]
    data: list[Model]


class OpenAIError(_Shape):
    """What went wrong."""

    message: str
    type: str
    param: str | None = Field(description="The field that is at fault.")
    code: str | None


class OpenAIProblem(_Shape):
    """An error in OpenAI's shape."""

    error: OpenAIError


_MEANINGS = {
    400: "The request cannot be understood, or asks for what this server has not.",
    401: "A key is needed.",
    403: "This key may not use the model.",
    404: "There is no such model.",
    408: "The request came too slowly, or took too long.",
    413: "The request is too large, or nested too deeply.",
    429: "This key has asked too much; Retry-After says when to come back.",
    503: "The server is busy or being stopped; Retry-After says when to come back.",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": OpenAIProblem, "description": meaning} for status, meaning in _MEANINGS.items()
}
"""The error responses of every operation."""
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer, or its pieces as events: `data: {…}`, and `data: [DONE]` at the end.",
        "content": {"text/event-stream": {"schema": {"type": "object", "properties": {"data": {"type": "string"}}}}},
    },
    **PROBLEMS,
}
"""The responses of an operation that may stream."""
