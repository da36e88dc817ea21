"""Requests on their way through the engine: what each wants fed next, and what it makes of the numbers.

One class per kind of request (streams, with their decode loop, are in `running_generate`). Each gives chunks
(`next_chunks`) and takes outputs (`accept`) until `deliver` is set; none knows its neighbours, so an answer cannot
depend on them. The scheduler decides which chunks run, the engine runs them.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from allinone.backends.base import Backend, Chunk, FloatArray, SequenceId, Wanted
from allinone.engine.prefix_cache import Prefix
from allinone.engine.requests import Embedding, EmbedRequest, LabelScores, PrefillRequest, Request, ScoreRequest
from allinone.engine.scoring import LabelTrie, Path, label_logprobs
from allinone.engine.session import Session
from allinone.engine.tickets import Outlet, Promise
from allinone.errors import Cancelled, DeadlineExceeded, ModelError
from allinone.types import Timings, Usage


@dataclass(slots=True)
class Clocks:
    """When one request was submitted, first scheduled, and first answered (monotonic seconds)."""

    submitted: float
    started: float | None = None
    first_token: float | None = None

    def timings(self) -> Timings:
        """Durations so far."""
        now = time.monotonic()
        started, first = self.started or now, self.first_token or now
        return Timings(queue_s=started - self.submitted, ttft_s=first - self.submitted, total_s=now - self.submitted)


class Running(ABC):
    """A request from its submission to its end.

    Attributes:
        caller: whose it is.
        prefix_ids: the shared prefix it starts with; empty for none.
        min_tail, max_tail: least and most tokens it will hold beyond its input (output, branches of labels).
        longest_tail: the part of `min_tail` that one sequence must hold.
        num_sequences: most sequences it will hold at a time beside its prefix: its own, and branches of labels.
        num_own_tokens: most tokens it will hold beyond the prefix; reserved at admission.
        prefix: held from admission to release.
        sequence: its own, or its session's; None until the prefix is ready.
        num_session_tokens: ids the session had before; it goes back to them if the request comes to nothing.
        num_skipped: steps in a row in which it had a chunk and got no place.
        keeps_session: what it fed to its session stays there, even if it is cancelled or late from now on.
        is_short: a label; is_stream: somebody may be reading its tokens as they come.
        may_guess: it may feed tokens that it only expects to be chosen; set by the scheduler.
        num_right: of the guesses in its last draft, how many were right; 0 until that is known.
        has_failed: it ended without its whole answer.
        deliver: set when it has ended; hands the answer over, once its memory was given back.
        wanted, wanted_ids: what is wanted of the last `num_wanted_rows` positions of its input.
    """

    is_short = False
    is_stream = False
    wanted: Wanted = "nothing"
    wanted_ids: tuple[int, ...] = ()
    num_wanted_rows = 0

    def __init__(self, request: Request, *, outlet: Outlet, session: Session | None = None) -> None:
        self.outlet = outlet
        self.session = session
        self.caller = request.caller
        self.clocks = Clocks(time.monotonic())
        self.deadline_at = None if request.deadline_s is None else self.clocks.submitted + request.deadline_s
        self.prefix_ids: tuple[int, ...] = ()
        self.input_ids: tuple[int, ...] = ()
        self.min_tail = self.max_tail = self.longest_tail = 0
        self.num_sequences = 1
        self.num_own_tokens = 0
        self.prefix: Prefix | None = None
        self.sequence: SequenceId | None = None
        self.num_cached_tokens = 0
        self.num_skipped = 0
        self.keeps_session = False
        self.may_guess = False
        self.num_right = 0
        self.has_failed = False
        self.deliver: Callable[[], None] | None = None
        self.num_prompt_tokens = 0
        self.num_session_tokens = 0
        self._feed: tuple[int, ...] = ()
        self._num_fed = self._num_past = 0
        self._outputs: list[FloatArray] = []

    def admit(self, feed: tuple[int, ...], *, num_past: int = 0) -> None:
        """Set what is to be prefilled after the prefix (and after what the session holds).

        Args:
            feed: tokens.
            num_past: the first of them, where an evicted session is computed again. They are chunks of their own, as
                they were before: a reply whose session was evicted after its prefill gets the same numbers.
        """
        self._feed, self._num_past = feed, num_past

    def limit_tail(self, num_tokens: int) -> None:
        """There is room for no more than this beyond its input."""
        self.max_tail = min(self.max_tail, num_tokens)

    @property
    def is_prefilling(self) -> bool:
        """Some of its own input is not fed yet."""
        return self._num_fed < len(self._feed)

    @property
    def num_to_feed(self) -> int:
        """Tokens still to be prefilled."""
        return len(self._feed) - self._num_fed

    def next_chunks(self, max_tokens: int) -> Iterator[Chunk]:
        """What it wants fed next; several chunks may run together, or one after the other.

        Prefill chunks start at multiples of `max_tokens` of its past and of its own input, whatever else runs.
        """
        if self.sequence is None:
            return
        if self.is_prefilling:
            start = self._num_fed
            end = self._num_past if start < self._num_past else len(self._feed)
            yield self._prefill_chunk(self.sequence, self._feed[start : min(start + max_tokens, end)])
        else:
            yield from self.chunks_after_prefill(max_tokens)

    def _prefill_chunk(self, sequence: SequenceId, ids: tuple[int, ...]) -> Chunk:
        """The wanted rows are at the end of the input, and may begin before its last chunk does."""
        num_left = self.num_to_feed - len(ids)
        num_rows = min(self.num_wanted_rows - num_left, len(ids))
        if num_rows <= 0:
            return Chunk(sequence=sequence, input_ids=ids)
        return Chunk(sequence=sequence, input_ids=ids, wanted=self.wanted, token_ids=self.wanted_ids, num_rows=num_rows)

    def accept(self, chunk: Chunk, output: FloatArray | None) -> None:
        """Take the output of one of its chunks."""
        if output is None and chunk.wanted != "nothing":
            raise ModelError("The backend gave no numbers where some were wanted.")
        if self.is_prefilling:
            self._num_fed += len(chunk.input_ids)
            if output is not None:
                self._outputs.append(output)
            if not self.is_prefilling:
                self.prefilled(self._outputs)
        elif output is not None:
            self.decoded(chunk, output)

    @abstractmethod
    def prefilled(self, outputs: Sequence[FloatArray]) -> None:
        """All input is fed; `outputs` are what was wanted of it, by chunk."""

    def chunks_after_prefill(self, max_tokens: int) -> Iterator[Chunk]:
        """What to feed once the input is, at most so many tokens in a chunk."""
        return iter(())

    def decoded(self, chunk: Chunk, output: FloatArray) -> None:
        """Take the output of a chunk of `chunks_after_prefill`."""
        raise ModelError(f"{type(self).__name__} asked for nothing after its prefill.")

    def fail(self, error: BaseException) -> None:
        """End it with an error; its session forgets it."""
        self.keeps_session = False
        self.has_failed = True
        self.deliver = lambda: self.outlet.fail(error)

    def expire(self) -> None:
        """The deadline passed."""
        self.fail(DeadlineExceeded("The deadline passed before the answer was complete."))

    def cancel(self) -> None:
        """The caller wants no answer any more."""
        self.fail(Cancelled("The request was cancelled."))

    def branch_sequences(self) -> Sequence[SequenceId]:
        """Sequences it forked beside `sequence` and has not freed."""
        return ()

    def usage(self, num_output_tokens: int = 0) -> Usage:
        """Token counts so far."""
        return Usage(
            num_prompt_tokens=self.num_prompt_tokens,
            num_cached_tokens=self.num_cached_tokens,
            num_output_tokens=num_output_tokens,
        )


class RunningScore(Running):
    """Labels: one prefill, and one forked batch of branches where several go on after their first id.

    A single branch is fed right behind the input: its rows come with the answer position's, and no second step is
    needed. With several the second step cannot be saved, and the answer position needs its few logits only.
    """

    is_short = True

    def __init__(
        self, request: ScoreRequest, promise: Promise[LabelScores], *, backend: Backend, stop_ids: frozenset[int]
    ) -> None:
        super().__init__(request, outlet=promise)
        self.prefix_ids = request.prefix_ids
        self.input_ids = request.input_ids
        self._promise = promise
        self._backend = backend
        self._stop_ids = stop_ids
        self._trie = LabelTrie.build(request.label_ids)
        self._appended: Path = self._trie.branches[0] if len(self._trie.branches) == 1 else ()
        self._first_logits: FloatArray = np.empty(0, np.float32)
        self._branches: dict[SequenceId, Path] = {}
        self._branch_logits: dict[Path, FloatArray] = {}
        self.min_tail = self.max_tail = sum(len(branch) for branch in self._trie.branches)
        self.longest_tail = max((len(branch) for branch in self._trie.branches), default=0)
        self.num_sequences = 1 if self._appended else 1 + len(self._trie.branches)
        self.num_wanted_rows = 1 + len(self._appended)
        if self._appended:
            self.wanted = "tail_logits"
        else:
            self.wanted, self.wanted_ids = "token_logits", self._trie.first_ids

    def admit(self, feed: tuple[int, ...], *, num_past: int = 0) -> None:
        """See `Running.admit`."""
        super().admit(feed + self._appended, num_past=num_past)

    def prefilled(self, outputs: Sequence[FloatArray]) -> None:
        """Done, unless several branches go on: then fork once for each."""
        rows = np.concatenate(outputs)
        if self._appended:
            self._first_logits = rows[0, list(self._trie.first_ids)]
            self._branch_logits[self._appended] = rows[1:]
        else:
            self._first_logits = rows
            for branch in self._trie.branches:
                self._branches[self._backend.fork(self.sequence)] = branch
        self._finish_if_complete()

    def chunks_after_prefill(self, max_tokens: int) -> Iterator[Chunk]:
        """The branches that were not fed yet; the intake refuses longer ones."""
        for sequence, branch in self._branches.items():
            yield Chunk(sequence=sequence, input_ids=branch, wanted="tail_logits", num_rows=len(branch))

    def decoded(self, chunk: Chunk, output: FloatArray) -> None:
        """One branch came back; it is not needed any more."""
        self._branch_logits[self._branches.pop(chunk.sequence)] = output
        self._backend.free(chunk.sequence)
        self._finish_if_complete()

    def branch_sequences(self) -> Sequence[SequenceId]:
        """The forks that are left."""
        return tuple(self._branches)

    def _finish_if_complete(self) -> None:
        if self._branches:
            return
        logprobs = label_logprobs(self._trie, self._first_logits, self._branch_logits, self._stop_ids)
        if not all(np.isfinite(value) or value == -np.inf for value in logprobs.values()):
            raise ModelError(f"The model computed label log-probabilities that are not numbers: {logprobs}.")
        scores = LabelScores(logprobs=logprobs, usage=self.usage(), timings=self.clocks.timings())
        self.deliver = lambda: self._promise.resolve(scores)


class RunningPrefill(Running):
    """Ids appended to a session, nothing asked; the answer is how many there were and how many were still known."""

    def __init__(self, request: PrefillRequest, promise: Promise[Usage]) -> None:
        super().__init__(request, outlet=promise, session=request.session)
        self.input_ids = request.input_ids
        self.prefix_ids = request.session.prefix_ids
        self._promise = promise

    def prefilled(self, outputs: Sequence[FloatArray]) -> None:
        """Done."""
        self.keeps_session = True
        usage = self.usage()
        self.deliver = lambda: self._promise.resolve(usage)


class RunningEmbed(Running):
    """The hidden state at the last token of a text: one prefill without a head."""

    wanted = "last_hidden"
    num_wanted_rows = 1

    def __init__(self, request: EmbedRequest, promise: Promise[Embedding]) -> None:
        super().__init__(request, outlet=promise)
        self.input_ids = request.input_ids
        self._promise = promise

    def prefilled(self, outputs: Sequence[FloatArray]) -> None:
        """Done."""
        (vector,) = outputs
        if not np.isfinite(vector).all():
            raise ModelError("The model computed a hidden state that is not made of numbers.")
        embedding = Embedding(vector=vector, usage=self.usage(), timings=self.clocks.timings())
        self.deliver = lambda: self._promise.resolve(embedding)
