"""The engine: one thread that owns the backend and turns requests into batches, one step after the other.

A step reads on one page (`_step`): take what came in, end what is over, admit what fits, schedule, run, post-process.
It knows token ids and numbers only; text is above (`tasks/`), tensors are below (`backends/`). The thread model and
what it guarantees: docs/decisions/0005-engine-thread.md; what is cached and why that is harmless: docs/caching.md.
"""

from __future__ import annotations

import atexit
import itertools
import queue
import threading
import time
from collections.abc import Sequence
from typing import Literal, TypeAlias, overload

from allinone.backends.base import Backend, FloatArray
from allinone.engine.admission import Admission
from allinone.engine.budget import BatchBudget
from allinone.engine.intake import Intake
from allinone.engine.memory import KVMemory
from allinone.engine.prefix_cache import Prefix, PrefixCache, SharedPrefixCache
from allinone.engine.requests import EmbedRequest, GenerateRequest, LabelScores, PrefillRequest, Request, ScoreRequest
from allinone.engine.running import Running
from allinone.engine.scheduler import Scheduler, Work
from allinone.engine.session import Session, SessionKV
from allinone.engine.stats import EngineStats, StepTimes
from allinone.engine.tickets import AnyTicket, EmbedTicket, PrefillTicket, ScoreTicket, Stream
from allinone.errors import AllInOneError, Cancelled, ConfigError, ModelError, QueueFull
from allinone.models.tokenizer import Tokenizer

PREFILL_CHUNK_TOKENS = 256
_Wake: TypeAlias = Literal["wake"]


class Engine:
    """Many requests, one model.

    Args:
        backend: used by the engine's thread only, from now until `close`, which does not close it.
        tokenizer: of the same model.
        max_prefix_tokens: budget of the prefix cache.
        max_cached_tokens: budget of all KV memory: prefixes, sessions and running requests.
        max_batch_tokens: most tokens fed in one step; a `BatchBudget` finds them by measuring.
        max_queue: most requests waiting for admission; more are refused.
        prefixes: another prefix cache (the naive one, in tests).
    """

    def __init__(
        self,
        backend: Backend,
        tokenizer: Tokenizer,
        *,
        max_prefix_tokens: int = 4096,
        max_cached_tokens: int = 16_384,
        max_batch_tokens: int | BatchBudget = 512,
        max_queue: int = 1024,
        prefixes: PrefixCache | None = None,
    ) -> None:
        budget = max_batch_tokens if isinstance(max_batch_tokens, BatchBudget) else BatchBudget(max_batch_tokens)
        for name, value, least in (
            ("max_prefix_tokens", max_prefix_tokens, 0),
            ("max_cached_tokens", max_cached_tokens, 1),
            ("max_batch_tokens", budget.num_tokens, 2),
            ("max_queue", max_queue, 1),
        ):
            if value < least:
                raise ConfigError(f"{name} = {value} is not possible.", hint=f"It must be at least {least}.")
        self._backend = backend
        self._budget = budget
        self._chunk_tokens = min(PREFILL_CHUNK_TOKENS, budget.num_tokens // 2)
        self._intake = Intake(backend, tokenizer, max_label_tokens=self._chunk_tokens)
        self._max_queue = max_queue
        clock = itertools.count()
        self._prefixes = prefixes or SharedPrefixCache(backend, max_tokens=max_prefix_tokens, clock=clock)
        self._memory = KVMemory(backend, self._prefixes, clock=clock, max_tokens=max_cached_tokens)
        self._inbox: queue.SimpleQueue[list[Running] | SessionKV | _Wake] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._num_waiting = 0  # guarded by the lock
        self._is_closed = False  # guarded by the lock
        self._failure: BaseException | None = None

        self._admission = Admission(self._memory)  # from here on: engine thread only
        self._waiting = self._admission.waiting
        self._scheduler = Scheduler(self._chunk_tokens)
        self._running: list[Running] = []
        self._times = StepTimes()
        self._stats = EngineStats()
        self._thread = threading.Thread(target=self._run_thread, name="allinone-engine", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # a daemon thread must not be inside the backend when the interpreter ends

    # For callers, from any thread.

    def check(self, request: Request) -> None:
        """Refuse a request that `submit` would refuse for what it is, without running it.

        Raises:
            InvalidInput, ContextLengthExceeded, VerbalizerError, UsageError: it is malformed.
        """
        self._intake.make(request)

    @overload
    def submit(self, request: ScoreRequest, /) -> tuple[ScoreTicket]: ...
    @overload
    def submit(self, request: GenerateRequest, /) -> tuple[Stream]: ...
    @overload
    def submit(self, request: PrefillRequest, /) -> tuple[PrefillTicket]: ...
    @overload
    def submit(self, request: EmbedRequest, /) -> tuple[EmbedTicket]: ...
    @overload
    def submit(self, first: ScoreRequest, second: PrefillRequest, /) -> tuple[ScoreTicket, PrefillTicket]: ...
    @overload
    def submit(self, *requests: ScoreRequest) -> tuple[ScoreTicket, ...]: ...
    @overload
    def submit(self, *requests: Request) -> tuple[AnyTicket, ...]: ...
    def submit(self, *requests: Request) -> tuple[AnyTicket, ...]:
        """Queue requests together; when nobody else waits, what fits the batch budget runs in the same step.

        Returns:
            One ticket per request, in order: a `Stream` for generations, a `Ticket` for everything else.

        Raises:
            QueueFull: there is no room for all of them; none was queued.
            InvalidInput, VerbalizerError, UsageError: a request is malformed; none was queued.
            Cancelled: the engine is closed.
        """
        made = [self._intake.make(request) for request in requests]
        sessions = [running.session for running, _ in made if running.session is not None]
        with self._lock:
            self._require_open()
            if self._num_waiting + len(made) > self._max_queue:
                raise QueueFull(
                    f"{self._num_waiting} requests wait, {len(made)} more would exceed the limit of {self._max_queue}.",
                    hint="Try again later, or submit fewer at a time.",
                    retry_after_s=self._stats.expected_wait_s(self._num_waiting + len(made) - self._max_queue),
                )
            for done, session in enumerate(sessions):
                try:
                    session.reserve()
                except AllInOneError:
                    for reserved in sessions[:done]:
                        reserved.unreserve()
                    raise
            self._num_waiting += len(made)
            self._inbox.put([running for running, _ in made])
        return tuple(ticket for _, ticket in made)

    def score(self, request: ScoreRequest) -> LabelScores:
        """Submit and wait."""
        return self.submit(request)[0].result()

    def stream(self, request: GenerateRequest) -> Stream:
        """Submit and return the stream."""
        return self.submit(request)[0]

    def open_session(self, prefix_ids: Sequence[int] = (), *, history_ids: Sequence[int] = ()) -> Session:
        """A conversation that starts with this operator text; costs nothing until its first request.

        Args:
            prefix_ids: shared with all who start with the same.
            history_ids: what was fed and sampled in it before, elsewhere; its own.
        """
        prefix, history = tuple(prefix_ids), tuple(history_ids)
        self._intake.check_ids(prefix + history)
        with self._lock:
            self._require_open()
        return Session(prefix, self._inbox.put, history)

    @property
    def is_open(self) -> bool:
        """Requests are taken: it was not closed, and did not fail."""
        return not self._is_closed

    def stats(self) -> EngineStats:
        """Counts and state after the last step."""
        return self._stats

    def close(self) -> None:
        """Cancel everything, free everything, end the thread. Idempotent."""
        with self._lock:
            self._is_closed = True
            self._inbox.put("wake")
        if threading.current_thread() is not self._thread:
            self._thread.join()
        atexit.unregister(self.close)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # The engine thread.

    def _run_thread(self) -> None:
        reason: BaseException = Cancelled("The engine was closed.")
        try:
            while not self._is_closed:
                self._step()
        except BaseException as error:  # nothing may kill the thread silently: every caller hears of it
            self._failure = reason = error
        with self._lock:
            self._is_closed = True
        try:
            self._shut_down(reason)
        except Exception as error:  # every caller was answered; who comes later is told
            self._failure = self._failure or error

    def _step(self) -> None:
        """Schedule, run, post-process."""
        self._take_inbox(wait=not self._waiting and not self._running)
        self._end_cancelled_and_late()
        self._admit()
        batch = self._scheduler.next_batch(
            self._running,
            [prefix for prefix in self._prefixes.prefixes() if not prefix.is_ready],
            max_batch_tokens=self._budget.size_for(sum(running.num_to_feed for running in self._running)),
        )
        if batch:
            started = time.perf_counter()
            outputs = self._run(batch)
            self._account(batch, time.perf_counter() - started, has_failed=not outputs)
            self._post_process(batch, outputs)
        elif self._running or self._waiting:
            raise ModelError("The scheduler found nothing to run although requests are there: a bug of the engine.")
        self._stats = self._stats.after_step(
            batch,
            times=self._times,
            max_batch_tokens=self._budget.num_tokens,
            num_waiting=len(self._waiting),
            num_running=len(self._running),
            num_sequences=self._backend.num_sequences(),
            num_kv_tokens=self._memory.num_tokens,
            num_resident_sessions=self._memory.num_resident_sessions,
            prefixes=self._prefixes.stats,
        )

    def _take_inbox(self, *, wait: bool) -> None:
        try:
            while True:
                message = self._inbox.get(block=wait)
                wait = False
                if isinstance(message, list):
                    for running in message:
                        self._waiting.push(running)
                elif isinstance(message, SessionKV):
                    self._memory.settle(message)
        except queue.Empty:
            return

    def _end_cancelled_and_late(self) -> None:
        now = time.monotonic()
        for running in (*self._waiting, *self._running):
            if running.outlet.is_cancelled:
                running.cancel()
            elif running.deadline_at is not None and now >= running.deadline_at:
                running.expire()
        self._retire_ended()

    def _admit(self) -> None:
        """Let those begin whose turn it is, and fork the prefixes that became ready."""
        failed: list[Running] = []
        admitted = self._admission.admit(
            tuple(self._running),
            max_ahead=self._budget.max_ahead_tokens,
            chunk_tokens=self._chunk_tokens,
            on_failed=failed.append,
        )
        for running in admitted:
            self._count_waiting(-1)
            self._running.append(running)
        self._end(failed, ())
        for running in self._running:
            self._memory.start(running)

    def _run(self, batch: list[Work]) -> list[FloatArray | None]:
        now = time.monotonic()
        for work in batch:
            if isinstance(work.owner, Running) and work.owner.clocks.started is None:
                work.owner.clocks.started = now
        try:
            return self._backend.extend([work.chunk for work in batch])
        except Exception as error:
            self._fail_batch(batch, error)
            return []

    def _account(self, batch: list[Work], seconds: float, *, has_failed: bool) -> None:
        """Whose tokens they were, and how long they took."""
        decoded = [work for work in batch if work.is_decode and isinstance(work.owner, Running)]
        for work in decoded:
            if isinstance(work.owner, Running):
                self._waiting.charge(work.owner, len(work.chunk.input_ids))
        num_tokens = sum(len(work.chunk.input_ids) for work in batch)
        self._times.add_step(num_tokens, seconds)
        if has_failed:
            self._budget.step_failed()
        elif not decoded:
            self._budget.report(num_tokens, seconds)

    def _post_process(self, batch: list[Work], outputs: list[FloatArray | None]) -> None:
        for work, output in zip(batch, outputs, strict=False):  # no outputs: the whole batch failed
            if isinstance(work.owner, Prefix):
                work.owner.num_filled += len(work.chunk.input_ids)
                continue
            try:
                work.owner.accept(work.chunk, output)
            except Exception as error:
                work.owner.fail(_as_ours(error))
        self._retire_ended()

    def _fail_batch(self, batch: list[Work], error: Exception) -> None:
        """A step failed: its requests end with the error, and what their sequences hold is in doubt."""
        failure = _as_ours(error)
        broken = {id(work.owner) for work in batch}
        for running in tuple(self._running):
            if id(running) in broken or id(running.prefix) in broken:
                running.fail(failure)
                self._memory.retire(running, is_damaged=True)
        for work in batch:
            if isinstance(work.owner, Prefix):
                self._prefixes.discard(work.owner)

    def _retire_ended(self) -> None:
        waiting = [running for running in self._waiting if running.deliver is not None]
        admitted = [running for running in self._running if running.deliver is not None]
        for running in waiting:
            self._admission.forget(running)
        self._running = [running for running in self._running if running.deliver is None]
        self._end(waiting, admitted)

    def _end(self, waiting: Sequence[Running], admitted: Sequence[Running]) -> None:
        """Give all memory back first, then the answers: who reads one finds its session free.

        Raises:
            Exception: the backend would not free a sequence; the answers were given all the same.
        """
        problems: list[Exception] = []
        for running in admitted:
            try:
                self._memory.retire(running)
            except Exception as error:
                problems.append(error)
        self._count_waiting(-len(waiting))
        ended = (*waiting, *admitted)
        for running in ended:
            if running.session is not None:
                running.session.unreserve()
        self._times.add_ended(ended)
        for running in ended:
            if running.deliver is not None:
                running.deliver()
        if problems:
            raise problems[0]

    def _shut_down(self, reason: BaseException) -> None:
        """End every request and free every sequence."""
        self._take_inbox(wait=False)
        for running in (*self._waiting, *self._running):
            running.fail(reason)
        try:
            self._retire_ended()
        finally:
            self._memory.clear()

    def _count_waiting(self, change: int) -> None:
        with self._lock:
            self._num_waiting += change

    def _require_open(self) -> None:
        if self._failure is not None:
            raise ModelError(f"The engine stopped: {self._failure}") from self._failure
        if self._is_closed:
            raise Cancelled("The engine is closed.")


def _as_ours(error: Exception) -> AllInOneError:
    """An error of the tree; a stranger becomes a ModelError that keeps it as its cause."""
    if isinstance(error, AllInOneError):
        return error
    failure = ModelError(f"The model failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
