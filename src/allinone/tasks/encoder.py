"""Messages → segments → token ids. The one place where text becomes ids, and where trust decides how.

Trusted segments are tokenised with control tokens on, values alone with control tokens off. Nothing is ever formatted
into one string first. Above: the task kinds. Below: the model's tokenizer and chat template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from allinone.models.chat_template import ChatTemplate
from allinone.models.tokenizer import Tokenizer
from allinone.types import Message, Segment

MAX_KEPT_TEXTS = 1_024
"""Texts of the operator whose token ids are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPrompt:
    """Token ids of a prompt, split where sharing ends.

    Attributes:
        prefix_ids: the longest leading run of trusted segments: operator text only, safe to share between requests.
        input_ids: everything after it; never empty.
    """

    prefix_ids: tuple[int, ...]
    input_ids: tuple[int, ...]


class PromptEncoder:
    """A model's tokenizer and chat template, applied to messages."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self._keep = lru_cache(maxsize=MAX_KEPT_TEXTS)(self._tokenize)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Strings that end an answer where the model has no turn tokens (base models)."""
        return tuple(self.template.stop_strings)

    def segments(self, messages: Sequence[Message]) -> tuple[Segment, ...]:
        """The prompt as trusted and value segments, ending where the answer begins."""
        return tuple(self.template.render(messages, add_generation_prompt=True))

    def ids(self, segments: Sequence[Segment]) -> tuple[int, ...]:
        """Token ids of segments, each tokenised alone.

        Raises:
            InvalidInput: a segment holds a lone surrogate.
        """
        ids: list[int] = []
        for segment in segments:
            ids += (
                self.operator_ids(segment.text, control=True)
                if segment.trusted
                else self._tokenize(segment.text, False)
            )
        return tuple(ids)

    def operator_ids(self, text: str, *, control: bool) -> tuple[int, ...]:
        """Token ids of a text that the operator wrote: the same few come with every request, so they are kept.

        A user's texts never are: the time that an answer takes would tell whether somebody said the same before.
        """
        return self._keep(text, control)

    def encode(self, segments: Sequence[Segment]) -> EncodedPrompt:
        """Token ids of a whole prompt, split after its leading trusted segments.

        A prompt without any value keeps its last id as input, so that there is always something to feed.
        """
        num_trusted = next((i for i, segment in enumerate(segments) if not segment.trusted), len(segments))
        prefix_ids, input_ids = self.ids(segments[:num_trusted]), self.ids(segments[num_trusted:])
        if not input_ids:
            prefix_ids, input_ids = prefix_ids[:-1], prefix_ids[-1:]
        return EncodedPrompt(prefix_ids=prefix_ids, input_ids=input_ids)

    def _tokenize(self, text: str, control: bool) -> tuple[int, ...]:
        return tuple(self.tokenizer.tokenize(text, control=control))

    def shorten(self, text: str, max_tokens: int) -> tuple[str, int]:
        """The longest head of `text` that is at most `max_tokens` long, and how many tokens that drops.

        The cut never splits a character.
        """
        ids = self.tokenizer.tokenize(text, control=False)
        if len(ids) <= max_tokens:
            return text, 0
        data = b"".join(self.tokenizer.token_bytes(token_id) for token_id in ids[:max_tokens])
        return data.decode("utf-8", errors="ignore"), len(ids) - max_tokens
