"""What the engine did and holds, as numbers for people and monitors. Counts only: no texts, no ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from allinone.engine.prefix_cache import PrefixStats
from allinone.engine.scheduler import Work


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """Counts since the start, and the state after the last step.

    Attributes:
        num_chunks: of all batches; divided by `num_steps` it is the mean batch size.
        num_decoded_tokens: fed one by one by streams, and the later ids of labels; all others are prefilled.
        num_kv_tokens: of prefixes, conversations and running requests, as the budget counts them.
        prefix_hits, prefix_misses: requests that found their prefix there (or being filled), or had it filled.
    """

    num_steps: int = 0
    num_waiting: int = 0
    num_running: int = 0
    num_prefilled_tokens: int = 0
    num_decoded_tokens: int = 0
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

    def after_step(
        self,
        batch: Sequence[Work],
        *,
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
        return EngineStats(
            num_steps=self.num_steps + bool(batch),
            num_waiting=num_waiting,
            num_running=num_running,
            num_prefilled_tokens=self.num_prefilled_tokens + num_fed - num_decoded,
            num_decoded_tokens=self.num_decoded_tokens + num_decoded,
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
        )
