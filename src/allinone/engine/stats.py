"""What the engine did and holds, as numbers for people and monitors. Counts only: no texts, no ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from allinone.engine.prefix_cache import PrefixStats
from allinone.engine.running import Running
from allinone.engine.scheduler import Work

RECENT = 0.1
"""Weight of the newest step in running means."""


@dataclass(slots=True)
class StepTimes:
    """Sums since the start, kept by the engine thread.

    Attributes:
        step_s, max_step_s: time of all steps, and of the longest.
        queue_s: from submission to the first step, summed over the requests that ended.
        num_ended, num_failed, num_cancelled: requests that ended, and those of them without a whole answer.
        recent_tokens_per_s: tokens fed, wrong guesses too: running mean over the last steps.
    """

    step_s: float = 0.0
    max_step_s: float = 0.0
    queue_s: float = 0.0
    num_ended: int = 0
    num_failed: int = 0
    num_cancelled: int = 0
    recent_tokens_per_s: float = 0.0

    def add_step(self, num_tokens: int, seconds: float) -> None:
        """One step more."""
        self.step_s += seconds
        self.max_step_s = max(self.max_step_s, seconds)
        rate = num_tokens / max(seconds, 1e-9)
        old = self.recent_tokens_per_s or rate
        self.recent_tokens_per_s = (1 - RECENT) * old + RECENT * rate

    def add_ended(self, ended: Iterable[Running]) -> None:
        """These requests are over."""
        for running in ended:
            self.num_ended += 1
            self.queue_s += running.clocks.timings().queue_s
            self.num_cancelled += running.outlet.is_cancelled
            self.num_failed += running.has_failed and not running.outlet.is_cancelled


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """Counts since the start, and the state after the last step.

    Attributes:
        num_chunks: of all batches; divided by `num_steps` it is the mean batch size.
        num_decoded_tokens: fed by streams, and the later ids of labels; all others are prefilled.
        num_draft_tokens, num_accepted_tokens: guessed by streams (`prompt_lookup_num_tokens`), and those of them that
            were right; wrong ones are no decoded tokens.
        num_kv_tokens: of prefixes, conversations and running requests, as the budget counts them.
        step_s, max_step_s, queue_s, num_ended, num_failed, num_cancelled, recent_tokens_per_s: see `StepTimes`.
        max_batch_tokens: most tokens of the next step.
        prefix_hits, prefix_misses: requests that found their prefix there (or being filled), or had it filled.
    """

    num_steps: int = 0
    num_waiting: int = 0
    num_running: int = 0
    num_prefilled_tokens: int = 0
    num_decoded_tokens: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    num_chunks: int = 0
    max_chunks_in_step: int = 0
    num_kv_tokens: int = 0
    num_sequences: int = 0
    num_resident_sessions: int = 0
    prefix_hits: int = 0
    prefix_misses: int = 0
    prefix_hit_tokens: int = 0
    prefix_evictions: int = 0
    num_prefixes: int = 0
    num_prefix_tokens: int = 0
    max_batch_tokens: int = 0
    step_s: float = 0.0
    max_step_s: float = 0.0
    queue_s: float = 0.0
    num_ended: int = 0
    num_failed: int = 0
    num_cancelled: int = 0
    recent_tokens_per_s: float = 0.0

    def expected_wait_s(self, num_requests: int) -> float:
        """Seconds until the engine has ended so many requests, going by those so far; a second before the first."""
        return round(max(0.05, num_requests * self.step_s / self.num_ended), 2) if self.num_ended else 1.0

    def after_step(
        self,
        batch: Sequence[Work],
        *,
        times: StepTimes,
        max_batch_tokens: int,
        num_waiting: int,
        num_running: int,
        num_sequences: int,
        num_kv_tokens: int,
        num_resident_sessions: int,
        prefixes: PrefixStats,
    ) -> EngineStats:
        """These counts with one more step, and the state after it."""
        num_fed = sum(len(work.chunk.input_ids) for work in batch)
        num_decoded = sum(len(work.chunk.input_ids) for work in batch if work.is_decode)
        drafts = [work for work in batch if work.chunk.is_draft]
        num_guessed = sum(len(work.chunk.input_ids) - 1 for work in drafts)
        num_right = sum(work.owner.num_right for work in drafts if isinstance(work.owner, Running))
        return EngineStats(
            num_steps=self.num_steps + bool(batch),
            num_waiting=num_waiting,
            num_running=num_running,
            num_prefilled_tokens=self.num_prefilled_tokens + num_fed - num_decoded,
            num_decoded_tokens=self.num_decoded_tokens + num_decoded - (num_guessed - num_right),
            num_draft_tokens=self.num_draft_tokens + num_guessed,
            num_accepted_tokens=self.num_accepted_tokens + num_right,
            num_chunks=self.num_chunks + len(batch),
            max_chunks_in_step=max(self.max_chunks_in_step, len(batch)),
            num_kv_tokens=num_kv_tokens,
            num_sequences=num_sequences,
            num_resident_sessions=num_resident_sessions,
            prefix_hits=prefixes.hits,
            prefix_misses=prefixes.misses,
            prefix_hit_tokens=prefixes.hit_tokens,
            prefix_evictions=prefixes.evictions,
            num_prefixes=prefixes.num_prefixes,
            num_prefix_tokens=prefixes.num_tokens,
            max_batch_tokens=max_batch_tokens,
            **asdict(times),
        )
