"""Who holds KV memory: prefixes, sessions and running requests share one budget of tokens.

Running requests reserve the most they can come to hold, so nothing ever runs out half-way. What is only kept for later
(unused prefixes, idle sessions) is evicted when room is needed, least recently used first. Knows no queue and no steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from allinone.backends.base import Backend
from allinone.engine.prefix_cache import Prefix, PrefixCache
from allinone.engine.running import Running
from allinone.engine.session import Session, SessionKV
from allinone.errors import CacheFull, ContextLengthExceeded, InvalidInput


class KVMemory:
    """The token budget and the sequences of sessions. Engine thread only.

    Args:
        clock: the ticks `prefixes` uses too, so that sessions and prefixes are compared by last use.
        max_tokens: budget of all prefixes, sessions and running requests together.
    """

    def __init__(self, backend: Backend, prefixes: PrefixCache, *, clock: Iterator[int], max_tokens: int) -> None:
        self._backend = backend
        self._prefixes = prefixes
        self._clock = clock
        self._max_tokens = max_tokens
        self._max_sequences = backend.info.max_sequences
        self._resident: set[SessionKV] = set()
        self._running: set[Running] = set()

    @property
    def num_tokens(self) -> int:
        """Tokens spent: prefixes, idle sessions, and what running requests reserved."""
        idle = sum(kv.num_tokens for kv in self._resident if not kv.is_running)
        return self._prefixes.num_tokens + idle + sum(running.num_own_tokens for running in self._running)

    @property
    def num_sequences(self) -> int:
        """Sequences of prefixes and idle sessions, and those that running requests reserved."""
        idle = sum(not kv.is_running for kv in self._resident)
        return len(self._prefixes.prefixes()) + idle + sum(running.num_sequences for running in self._running)

    @property
    def num_resident_sessions(self) -> int:
        """Sessions that hold a sequence."""
        return len(self._resident)

    def admit(self, running: Running) -> bool:
        """Reserve room for a request and give it its prefix; False when there is no room yet.

        Raises:
            InvalidInput: there is nothing to feed.
            ContextLengthExceeded: it is longer than the model's context.
            CacheFull: it is longer than the whole budget, or needs more sequences than the backend has.
        """
        session = running.session
        history = running.prefix_ids if session is None else session.ids
        num_input = len(history) + len(running.input_ids)
        self._require_fit(running, num_input)
        own_tokens = num_input + running.max_tail - len(running.prefix_ids)
        kv = None if session is None else session.kv
        has_prefix = not running.prefix_ids or (kv is not None and kv.prefix is not None)
        shared = None if has_prefix else self._prefixes.find(running.prefix_ids)
        is_filled = not has_prefix and shared is None
        num_tokens = own_tokens + is_filled * len(running.prefix_ids) - (kv.num_tokens if kv else 0)
        num_sequences = running.num_sequences + is_filled - (kv in self._resident)
        if not self._make_room(num_tokens, num_sequences, spare=(kv, shared)):
            return False
        running.num_own_tokens = own_tokens
        running.num_prompt_tokens = num_input
        self._running.add(running)
        if kv is not None and session is not None:
            self._enter_session(running, session, kv, is_shared=shared is not None)
        else:
            running.prefix = self._prefixes.acquire(running.prefix_ids) if running.prefix_ids else None
            running.num_cached_tokens = len(running.prefix_ids) if shared else 0
            running.admit(running.input_ids)
        return True

    def start(self, running: Running) -> None:
        """Fork the prefix, once it is ready, for a request that has no sequence yet."""
        if running.sequence is not None or (running.prefix is not None and not running.prefix.is_ready):
            return
        running.sequence = self._backend.fork(None if running.prefix is None else running.prefix.sequence)
        if running.session is not None:
            running.session.kv.sequence = running.sequence

    def retire(self, running: Running, *, is_damaged: bool = False) -> None:
        """Give back what a request held; its session keeps the sequence, unless a failed step left it in doubt."""
        if running not in self._running:
            return
        self._running.remove(running)
        for branch in running.branch_sequences():
            self._backend.free(branch)
        if running.session is not None:
            self._leave_session(running, running.session, running.session.kv, is_damaged=is_damaged)
        elif running.sequence is not None:
            self._backend.free(running.sequence)
        if running.session is None and running.prefix is not None:
            self._prefixes.release(running.prefix)
        running.sequence = running.prefix = None

    def settle(self, kv: SessionKV) -> None:
        """A session was shortened or closed by its owner: free what it does not need."""
        if kv.is_running:
            return
        if kv.is_closed:
            self.evict(kv)
        else:
            self._trim(kv)

    def evict(self, kv: SessionKV) -> None:
        """Free the sequence of an idle session; its ids stay with the session."""
        if kv.sequence is not None:
            self._backend.free(kv.sequence)
        if kv.prefix is not None:
            self._prefixes.release(kv.prefix)
        kv.sequence, kv.prefix, kv.num_valid, kv.num_tokens = None, None, 0, 0
        self._resident.discard(kv)

    def clear(self) -> None:
        """Free all sessions and prefixes; for closing, when nothing runs."""
        for kv in tuple(self._resident):
            self.evict(kv)
        self._prefixes.clear()

    def check_integrity(self) -> None:
        """Raise AssertionError when the books do not match the backend; between steps only."""
        self._prefixes.check_integrity()
        assert self.num_tokens <= self._max_tokens, f"{self.num_tokens} tokens exceed {self._max_tokens}"
        for kv in self._resident:
            if not kv.is_running:
                assert kv.sequence is not None, "an idle session without a sequence counts as resident"
                held = self._backend.num_cached_tokens(kv.sequence)
                assert held == kv.num_valid, f"a session holds {held} tokens, says {kv.num_valid}"
                assert held == kv.num_tokens + (0 if kv.prefix is None else len(kv.prefix.ids)), "count is off"
        own = {running.sequence for running in self._running} | {kv.sequence for kv in self._resident}
        own |= {sequence for running in self._running for sequence in running.branch_sequences()}
        expected = len(own - {None}) + len(self._prefixes.prefixes())
        assert self._backend.num_sequences() == expected, f"{self._backend.num_sequences()} sequences, not {expected}"

    def _require_fit(self, running: Running, num_input: int) -> None:
        """Clamp what a request may generate to the room there is in the best case; refuse it when that is none."""
        session = running.session
        if session is not None and num_input == _num_held(session):
            raise InvalidInput("There is nothing to continue from.", hint="Give at least one input id.")
        context = self._backend.info.max_context_tokens
        if num_input + running.longest_tail > context:
            raise ContextLengthExceeded(
                f"{num_input} input tokens do not fit the model's context of {context} tokens.",
                hint="Shorten the text, or forget the oldest turns of the conversation.",
            )
        if num_input + running.min_tail > self._max_tokens:
            raise CacheFull(
                f"{num_input} input tokens do not fit the KV budget of {self._max_tokens} tokens.",
                hint="Raise the budget, or shorten the text.",
            )
        most = self._max_sequences
        if most is not None and running.num_sequences + bool(running.prefix_ids) > most:
            raise CacheFull(
                f"{running.num_sequences} sequences at a time are too many: the backend has {most}.",
                hint="Offer fewer labels that begin alike, or use the backend 'onnx'.",
            )
        running.limit_tail(min(context, self._max_tokens) - num_input)

    def _make_room(self, num_tokens: int, num_sequences: int, *, spare: tuple[SessionKV | None, Prefix | None]) -> bool:
        """Evict until so many more fit; False, and nothing is evicted, when all there is would not be enough."""
        sessions, prefixes = self._evictable(spare)
        idle_tokens = sum(kv.num_tokens for kv in sessions) + sum(len(prefix.ids) for prefix in prefixes)
        if not self._has_room(num_tokens - idle_tokens, num_sequences - len(sessions) - len(prefixes)):
            return False
        while not self._has_room(num_tokens, num_sequences):
            idle = [kv for kv in self._resident if not kv.is_running and kv is not spare[0]]
            session = min(idle, key=lambda kv: kv.last_used, default=None)
            prefix = self._prefixes.least_recently_used(spare=spare[1])
            if session is not None and (prefix is None or session.last_used < prefix.last_used):
                self.evict(session)
            elif prefix is not None:
                self._prefixes.evict(prefix)
            else:
                return False
        return True

    def _has_room(self, num_tokens: int, num_sequences: int) -> bool:
        is_within = self._max_sequences is None or self.num_sequences + num_sequences <= self._max_sequences
        return is_within and self.num_tokens + num_tokens <= self._max_tokens

    def _evictable(self, spare: tuple[SessionKV | None, Prefix | None]) -> tuple[list[SessionKV], list[Prefix]]:
        """Idle sessions, and the prefixes that nobody but those would hold; neither of the two to spare."""
        sessions = [kv for kv in self._resident if not kv.is_running and kv is not spare[0]]
        num_idle = Counter(id(kv.prefix) for kv in sessions if kv.prefix)
        prefixes = [p for p in self._prefixes.prefixes() if p is not spare[1] and p.num_users == num_idle[id(p)]]
        return sessions, prefixes

    def _enter_session(self, running: Running, session: Session, kv: SessionKV, *, is_shared: bool) -> None:
        """Continue the session's sequence, or begin to rebuild it from its ids."""
        is_rebuilt = kv.sequence is None
        if is_rebuilt:
            kv.prefix = self._prefixes.acquire(running.prefix_ids) if running.prefix_ids else None
            kv.num_valid = len(running.prefix_ids)
            running.num_cached_tokens = kv.num_valid if is_shared else 0
        else:
            self._trim(kv)
            running.num_cached_tokens = kv.num_valid
        running.prefix, running.sequence = kv.prefix, kv.sequence
        kv.is_running = True
        self._resident.add(kv)
        running.num_session_tokens = session.num_tokens
        past = session.ids[kv.num_valid :]
        session.append(running.input_ids)
        running.admit(past + running.input_ids, num_past=len(past) if is_rebuilt else 0)

    def _leave_session(self, running: Running, session: Session, kv: SessionKV, *, is_damaged: bool) -> None:
        kv.is_running = False
        kv.last_used = next(self._clock)
        if kv.sequence is not None:
            kv.num_valid = min(self._backend.num_cached_tokens(kv.sequence), session.num_tokens)
        if not running.keeps_session:
            session.rollback(running.num_session_tokens)
        if kv.sequence is None or kv.is_closed or is_damaged:
            self.evict(kv)
        else:
            self._trim(kv)

    def _trim(self, kv: SessionKV) -> None:
        """Forget the tokens that the session's ids do not have any more."""
        if kv.sequence is None:
            kv.num_valid = kv.num_tokens = 0
            return
        if self._backend.num_cached_tokens(kv.sequence) > kv.num_valid:
            self._backend.trim(kv.sequence, kv.num_valid)
        kv.num_tokens = kv.num_valid - (0 if kv.prefix is None else len(kv.prefix.ids))


def _num_held(session: Session) -> int:
    """Ids at the start of a session that need not be fed: those of its sequence, or the prefix it will fork."""
    return len(session.prefix_ids) if session.kv.sequence is None else session.kv.num_valid
