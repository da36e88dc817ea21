"""What OpenAI's clients get: chat completions and completions, whole and in chunks.

Knows the JSON of the answers, nothing of how they are made. Above: `openai_api.py`. Below: `openai_logprobs.py`.
"""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from allinone.server.openai_choices import Piece, Whole
from allinone.server.openai_logprobs import chat_shape, completion_shape
from allinone.types import Usage


class Form(ABC):
    """The shape of one answer.

    Args:
        model: as the client named it.
        fingerprint: of model and server.
        has_logprobs: they were asked for.
        includes_usage: chunks say that token counts will follow.
        num_choices: of each prompt; prompts are counted once, whatever is made of them.
    """

    id_prefix = ""
    kind = ""
    chunk_kind = ""

    def __init__(
        self, *, model: str, fingerprint: str, has_logprobs: bool, includes_usage: bool, num_choices: int
    ) -> None:
        self._head = {
            "id": f"{self.id_prefix}-{secrets.token_urlsafe(16)}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }
        self._has_logprobs = has_logprobs
        self._includes_usage = includes_usage
        self._num_choices = num_choices

    def whole(self, answers: Sequence[Whole]) -> dict[str, Any]:
        """The body of a response."""
        choices = [self.choice(place, answer) for place, answer in enumerate(answers)]
        usages = [answer.usage for answer in answers]
        return {**self._head, "object": self.kind, "choices": choices, "usage": self.usage(usages)}

    def chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        """An event of a stream."""
        return {**self._head, "object": self.chunk_kind, "choices": [choice]} | (
            {"usage": None} if self._includes_usage else {}
        )

    def usage_chunk(self, usages: Sequence[Usage]) -> dict[str, Any]:
        """The last event of a stream, where it was asked for."""
        return {**self._head, "object": self.chunk_kind, "choices": [], "usage": self.usage(usages)}

    def usage(self, usages: Sequence[Usage]) -> dict[str, Any]:
        """Token counts of all choices."""
        per_prompt = usages[:: self._num_choices]
        num_prompt = sum(usage.num_prompt_tokens for usage in per_prompt)
        num_output = sum(usage.num_output_tokens for usage in usages)
        return {
            "prompt_tokens": num_prompt,
            "completion_tokens": num_output,
            "total_tokens": num_prompt + num_output,
            "prompt_tokens_details": {"cached_tokens": sum(usage.num_cached_tokens for usage in per_prompt)},
        }

    def first_chunk(self, place: int) -> dict[str, Any] | None:
        """What a stream says before there is any text."""
        return None

    @abstractmethod
    def choice(self, place: int, answer: Whole) -> dict[str, Any]:
        """A whole answer."""

    @abstractmethod
    def piece_chunk(self, place: int, piece: Piece) -> dict[str, Any]:
        """A piece of an answer."""


class ChatForm(Form):
    """`/v1/chat/completions`."""

    id_prefix, kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def first_chunk(self, place: int) -> dict[str, Any]:
        """Who speaks."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return self.chunk({"index": place, "delta": delta, "logprobs": None, "finish_reason": None})

    def choice(self, place: int, answer: Whole) -> dict[str, Any]:
        """See `Form.choice`."""
        return {
            "index": place,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": chat_shape(answer.tokens) if self._has_logprobs else None,
            "finish_reason": answer.finish,
        }

    def piece_chunk(self, place: int, piece: Piece) -> dict[str, Any]:
        """See `Form.piece_chunk`."""
        return self.chunk(
            {
                "index": place,
                "delta": {"content": piece.text} if piece.text else {},
                "logprobs": chat_shape(piece.tokens) if self._has_logprobs else None,
                "finish_reason": piece.finish,
            }
        )


class CompletionForm(Form):
    """`/v1/completions`."""

    id_prefix, kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def choice(self, place: int, answer: Whole) -> dict[str, Any]:
        """See `Form.choice`."""
        return {
            "index": place,
            "text": answer.text,
            "logprobs": completion_shape(answer.tokens) if self._has_logprobs else None,
            "finish_reason": answer.finish,
        }

    def piece_chunk(self, place: int, piece: Piece) -> dict[str, Any]:
        """See `Form.piece_chunk`."""
        logprobs = completion_shape(piece.tokens) if self._has_logprobs else None
        return self.chunk({"index": place, "text": piece.text, "logprobs": logprobs, "finish_reason": piece.finish})
