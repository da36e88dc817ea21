"""From a request to something that can run: everything that can be refused is refused here, on the caller's thread.

Knows the model's vocabulary and limits, nothing of queues and steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from allinone.backends.base import Backend, FloatArray
from allinone.engine.constraints import ConstraintCompiler
from allinone.engine.detokenize import StreamDetokenizer
from allinone.engine.requests import (
    Embedding,
    EmbedRequest,
    GenerateRequest,
    LabelScores,
    PrefillRequest,
    Request,
    SamplingParams,
    ScoreRequest,
)
from allinone.engine.running import Running, RunningEmbed, RunningPrefill, RunningScore
from allinone.engine.running_generate import RunningGenerate
from allinone.engine.sampling import Sampler, check_sampling
from allinone.engine.tickets import AnyTicket, Channel, Promise, Stream, Ticket
from allinone.errors import ContextLengthExceeded, InvalidInput, TokenizerMismatch, VerbalizerError
from allinone.models.tokenizer import Tokenizer
from allinone.types import Usage


class Intake:
    """Makes running requests and their tickets for one model.

    Args:
        max_label_tokens: longer labels are refused: they would not fit a step.

    Raises:
        TokenizerMismatch: the tokenizer has more ids than the model has logits, or no stop id.
    """

    def __init__(self, backend: Backend, tokenizer: Tokenizer, *, max_label_tokens: int) -> None:
        self._max_label_tokens = max_label_tokens
        self._backend = backend
        self._tokenizer = tokenizer
        self._vocab_size = backend.info.vocab_size
        if tokenizer.vocab_size > self._vocab_size or not tokenizer.stop_ids:
            raise TokenizerMismatch(
                f"The tokenizer has {tokenizer.vocab_size} ids and the stop ids {sorted(tokenizer.stop_ids)}; "
                f"the model knows {self._vocab_size} ids.",
                hint="Use the tokenizer that came with the weights.",
            )
        self._stop_ids = frozenset(tokenizer.stop_ids)
        self._control_ids = frozenset(tokenizer.control_ids) | self._stop_ids
        self._bias = np.zeros(self._vocab_size, np.float32)
        self._bias[_find_forbidden_ids(tokenizer, self._vocab_size)] = -np.inf
        self._constraints = ConstraintCompiler(tokenizer, vocab_size=self._vocab_size)

    def make(self, request: Request) -> tuple[Running, AnyTicket]:
        """The request as the engine runs it, and the caller's end.

        Raises:
            InvalidInput: ids outside the vocabulary, nothing to feed, impossible sampling parameters or deadline.
            ContextLengthExceeded: it is longer than the model's context.
            VerbalizerError: labels that cannot be told apart.
            UsageError: a malformed constraint, or a session together with a prefix.
        """
        self.check_ids(request.input_ids)
        if request.deadline_s is not None and math.isnan(request.deadline_s):
            raise InvalidInput("deadline_s = nan is not possible.", hint="Give seconds, or None for no deadline.")
        if isinstance(request, ScoreRequest):
            return self._make_score(request)
        if isinstance(request, PrefillRequest):
            self._require_input(request.input_ids)
            done = Promise[Usage]()
            return RunningPrefill(request, done), Ticket(done)
        if isinstance(request, EmbedRequest):
            self._require_input(request.input_ids)
            self._check_length((), request.input_ids)
            promise = Promise[Embedding]()
            return RunningEmbed(request, promise), Ticket(promise)
        return self._make_generate(request)

    def check_ids(self, ids: Sequence[int]) -> None:
        """Refuse ids that the model does not know."""
        for token_id in (min(ids, default=0), max(ids, default=0)):
            if not 0 <= token_id < self._vocab_size:
                raise InvalidInput(f"Token id {token_id} is outside the model's vocabulary of {self._vocab_size} ids.")

    def _make_score(self, request: ScoreRequest) -> tuple[Running, AnyTicket]:
        self._require_input(request.input_ids)
        self._check_length(request.prefix_ids, request.input_ids)
        for label, ids in request.label_ids.items():
            self.check_ids(ids)
            if len(ids) > self._max_label_tokens:
                raise VerbalizerError(
                    f"Label {label!r} is {len(ids)} tokens long; the most is {self._max_label_tokens}.",
                    hint="A label is a word or a short phrase.",
                )
        promise = Promise[LabelScores]()
        return RunningScore(request, promise, backend=self._backend, stop_ids=self._stop_ids), Ticket(promise)

    def _make_generate(self, request: GenerateRequest) -> tuple[Running, AnyTicket]:
        check_sampling(request.sampling)
        if request.session is None:
            self._require_input(request.input_ids)
            self._check_length(request.prefix_ids, request.input_ids)
        elif request.prefix_ids:
            raise InvalidInput("A request of a session has no prefix of its own.", hint="The session has one.")
        constraint = request.sampling.constraint
        matcher = None if constraint is None else self._constraints.compile(constraint)
        channel = Channel()
        running = RunningGenerate(
            request,
            channel,
            sampler=Sampler(
                request.sampling,
                input_ids=request.input_ids,
                control_ids=self._control_ids,
                bias=self._bias_of(request.sampling),
            ),
            detokenizer=StreamDetokenizer(self._tokenizer.token_bytes),
            matcher=matcher,
            stop_ids=self._stop_ids,
            backend=self._backend,
        )
        return running, Stream(channel)

    def _bias_of(self, sampling: SamplingParams) -> FloatArray:
        """What is added to all logits of a request; -inf stays -inf."""
        if not sampling.logit_bias:
            return self._bias
        self.check_ids(tuple(sampling.logit_bias))
        bias = self._bias.copy()
        bias[list(sampling.logit_bias)] += np.array(list(sampling.logit_bias.values()), np.float32)
        return bias

    def _check_length(self, prefix_ids: Sequence[int], input_ids: Sequence[int]) -> None:
        self.check_ids(prefix_ids)
        num_tokens, context = len(prefix_ids) + len(input_ids), self._backend.info.max_context_tokens
        if num_tokens > context:
            raise ContextLengthExceeded(
                f"{len(prefix_ids)} prompt + {len(input_ids)} input tokens exceed the model's context of {context}.",
                hint="Shorten the text.",
            )

    @staticmethod
    def _require_input(input_ids: Sequence[int]) -> None:
        if not input_ids:
            raise InvalidInput("There is nothing to feed: input_ids is empty.", hint="Give at least one id.")


def _find_forbidden_ids(tokenizer: Tokenizer, vocab_size: int) -> list[int]:
    """Ids that are never sampled: control tokens that neither end a reply nor have a text, and the padding rows at the
    end of the vocabulary.
    """
    silent = {
        token_id for token_id in tokenizer.control_ids - tokenizer.stop_ids if not tokenizer.token_bytes(token_id)
    }
    known = tokenizer.vocab_size
    while known and known - 1 not in tokenizer.control_ids and not tokenizer.token_bytes(known - 1):
        known -= 1
    return sorted((silent | set(range(known, vocab_size))) - tokenizer.stop_ids)
