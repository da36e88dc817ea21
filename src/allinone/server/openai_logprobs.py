"""Log-probabilities of tokens beside the text they belong to, in the two shapes of OpenAI's API.

A token is told with the text that it is part of: not while its text is held back, and never when it belonged to a stop
string. So the bytes of the tokens told are the bytes of the text, streamed or whole. Knows no HTTP and no model; the
tokenizer says what an id stands for. Above: `openai_choices.py`, `openai_forms.py`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from allinone.engine.detokenize import StreamDetokenizer
from allinone.engine.requests import TokenEvent
from allinone.models.tokenizer import Tokenizer
from allinone.types import Result

LEAST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON has not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """One token, how likely the model found it, and what else it found likely.

    Attributes:
        spelling: its bytes; a control token has its name.
        logprob: nats.
        start: where the text that it is part of begins, in characters of the answer.
        likeliest: likeliest first; may hold the token itself.
    """

    spelling: bytes
    logprob: float
    start: int = 0
    likeliest: tuple[TokenLogprob, ...] = ()


class LogprobReader:
    """Reads the events of one stream."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._names = {token_id: name.encode("utf-8") for name, token_id in tokenizer.control_tokens.items()}
        self._detokenizer = StreamDetokenizer(tokenizer.token_bytes)
        self._held: deque[TokenLogprob] = deque()
        self._num_said = 0
        self._num_released = 0

    def push(self, event: TokenEvent) -> tuple[TokenLogprob, ...]:
        """The tokens whose text is out with this event."""
        is_stop = event.token_id in self._tokenizer.stop_ids
        if event.token_id is not None and event.logprob is not None and not is_stop:
            self._held.append(self._read(event.token_id, event))
            self._num_said += len(self._detokenizer.push(event.token_id))
        self._num_released += len(event.text)
        if event.finish_reason is not None and (is_stop or event.finish_reason != "stop"):
            released, self._held = tuple(self._held), deque()
            return released
        released = ()
        while self._held and self._held[0].start < self._num_released:
            released = (*released, self._held.popleft())
        return released

    def _read(self, token_id: int, event: TokenEvent) -> TokenLogprob:
        assert event.logprob is not None
        return TokenLogprob(
            spelling=self._spell(token_id),
            logprob=event.logprob,
            start=self._num_said,
            likeliest=tuple(
                TokenLogprob(spelling=self._spell(one), logprob=logprob) for one, logprob in event.top_logprobs
            ),
        )

    def _spell(self, token_id: int) -> bytes:
        return self._tokenizer.token_bytes(token_id) or self._names.get(token_id, b"")


def label_logprob(result: Result, num_likeliest: int) -> TokenLogprob:
    """A label as one token: its probability is that among the labels asked for."""
    assert result.label is not None and result.probs is not None
    ranked = sorted(result.probs.items(), key=lambda entry: -entry[1])
    return TokenLogprob(
        spelling=result.label.encode("utf-8"),
        logprob=_log(result.probs[result.label]),
        likeliest=tuple(
            TokenLogprob(spelling=label.encode("utf-8"), logprob=_log(prob)) for label, prob in ranked[:num_likeliest]
        ),
    )


def chat_shape(tokens: Iterable[TokenLogprob]) -> dict[str, Any]:
    """`logprobs` of a chat completion."""
    return {
        "content": [
            {**_describe(token), "top_logprobs": [_describe(other) for other in token.likeliest]} for token in tokens
        ],
        "refusal": None,
    }


def completion_shape(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """`logprobs` of a completion; the chosen token is among the likeliest, whether it was or not."""
    return {
        "tokens": [_show(token) for token in tokens],
        "token_logprobs": [_finite(token.logprob) for token in tokens],
        "top_logprobs": [
            {_show(other): _finite(other.logprob) for other in (*token.likeliest, token)} for token in tokens
        ],
        "text_offset": [token.start for token in tokens],
    }


def _describe(token: TokenLogprob) -> dict[str, Any]:
    return {
        "token": token.spelling.decode("utf-8", errors="replace"),
        "logprob": _finite(token.logprob),
        "bytes": list(token.spelling),
    }


def _show(token: TokenLogprob) -> str:
    """As text; a part of a character as its bytes, so that no two tokens look alike."""
    try:
        return token.spelling.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.spelling)


def _finite(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)


def _log(prob: float) -> float:
    return math.log(prob) if prob > 0 else -math.inf
