"""Structured output: which tokens may come next, so that the output matches a JSON Schema, a choice or a regex.

`llguidance` does the work; here its tokenizer is built from ours, once, and its errors become ours.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from allinone.engine.requests import Constraint
from allinone.errors import ModelError, UsageError
from allinone.models.tokenizer import Tokenizer


class ConstraintCompiler:
    """Makes matchers for one tokenizer, on any thread. The vocabulary is handed to llguidance at the first use.

    Args:
        vocab_size: length of the model's logits; ids the tokenizer does not know are never allowed.
    """

    def __init__(self, tokenizer: Tokenizer, *, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._ll_tokenizer: LLTokenizer | None = None
        self._lock = threading.Lock()

    def check(self, constraint: Constraint) -> None:
        """Refuse a malformed constraint, without the vocabulary and so in no time.

        Raises:
            UsageError: the schema, choice or pattern is malformed or not supported; says where.
        """
        problem = LLMatcher.validate_grammar(_grammar(constraint))
        if problem and not problem.startswith("WARNING"):
            raise _unusable(constraint, problem)

    def compile(self, constraint: Constraint) -> ConstraintMatcher:
        """A matcher at the start of the output.

        Raises:
            UsageError: as `check`.
        """
        self.check(constraint)
        matcher = LLMatcher(self._vocabulary(), _grammar(constraint), log_level=0)
        return ConstraintMatcher(matcher, constraint, self._vocab_size)

    def _vocabulary(self) -> LLTokenizer:
        with self._lock:
            if self._ll_tokenizer is None:
                self._ll_tokenizer = LLTokenizer(
                    TokenizerWrapper(_Vocabulary(self._tokenizer, self._vocab_size)),
                    n_vocab=self._vocab_size,
                    eos_token=sorted(self._tokenizer.stop_ids),
                )
            return self._ll_tokenizer


class ConstraintMatcher:
    """Where one output stands in its grammar.

    Raises:
        UsageError: nothing can match: what only shows in the first step, which is so computed by the caller's thread.
    """

    def __init__(self, matcher: LLMatcher, constraint: Constraint, vocab_size: int) -> None:
        self._matcher = matcher
        self._constraint = constraint
        self._vocab_size = vocab_size
        self._allowed: NDArray[np.bool_] | None = None
        self._allowed = self.allowed()

    def allowed(self) -> NDArray[np.bool_]:
        """(vocab_size,), True for every token that may come next; stop ids where the output may end.

        Raises:
            UsageError: the grammar is too complex to go on with.
        """
        if self._allowed is not None:
            return self._allowed
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise _unusable(self._constraint, self._matcher.get_error())
        return np.unpackbits(bits, bitorder="little")[: self._vocab_size].astype(np.bool_)

    def consume(self, token_id: int) -> None:
        """Take one token of the output."""
        self._allowed = None
        self._matcher.consume_token(token_id)
        if self._matcher.is_error():
            raise ModelError(f"The constraint did not take a token that it allowed: {self._matcher.get_error()}")

    @property
    def is_finished(self) -> bool:
        """The output is complete and nothing but a stop token could follow."""
        return self._matcher.is_stopped()


_HINTS = {
    "json_schema": "Use plain JSON Schema keywords: type, properties, required, items, enum, minItems, pattern …",
    "choice": "Give one or more strings that are not empty.",
    "regex": "Use the syntax of Rust's regex crate: no look-around, no back-references.",
}


def _unusable(constraint: Constraint, problem: str) -> UsageError:
    """What the parser says, without the dump of its state that it adds."""
    problem = problem.split("<state>")[0].strip()
    return UsageError(f"This {constraint.kind} cannot constrain an output: {problem}", hint=_HINTS[constraint.kind])


def _grammar(constraint: Constraint) -> str:
    """The grammar in llguidance's own language.

    Raises:
        UsageError: the value has the wrong type, or is empty.
    """
    kind, value = constraint.kind, constraint.value
    if kind == "json_schema" and isinstance(value, Mapping):
        options: dict[str, Any] = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
        try:
            return LLMatcher.grammar_from_json_schema(json.dumps(value, ensure_ascii=False), overrides=options)  # pyright: ignore[reportArgumentType]
        except (ValueError, RecursionError) as error:  # nested deeper than its parser, or ours, goes
            raise _unusable(constraint, str(error)) from error
    if kind == "choice" and isinstance(value, (tuple, list)) and value and all(isinstance(v, str) and v for v in value):
        return LLMatcher.grammar_from_lark("start: " + " | ".join(json.dumps(v, ensure_ascii=False) for v in value))
    if kind == "regex" and isinstance(value, str) and value:
        return LLMatcher.grammar_from_regex(value)
    raise UsageError(
        f"{value!r} is not a {kind} constraint.", hint=_HINTS.get(kind, "Known: json_schema, choice, regex")
    )


class _Vocabulary:
    """Our tokenizer in the shape llguidance's TokenizerWrapper expects."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        names = {token_id: name for name, token_id in tokenizer.control_tokens.items()}
        spelled = [
            b"" if token_id in names else tokenizer.token_bytes(token_id) for token_id in range(tokenizer.vocab_size)
        ] + [b""] * (vocab_size - tokenizer.vocab_size)
        self.eos_token_id = min(tokenizer.stop_ids)
        self.bos_token_id = None
        self.special_token_ids = [token_id for token_id, text in enumerate(spelled) if not text]
        self.tokens = [
            text or names.get(token_id, f"<unused_{token_id}>").encode("utf-8") for token_id, text in enumerate(spelled)
        ]

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenizer.tokenize(text.decode("utf-8", errors="replace"), control=False)
