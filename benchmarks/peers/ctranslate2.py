"""CTranslate2: INT8, the beginning of the prompt cached as its static prompt."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.serving import Peer, Request, serve


class CTranslate2Peer(Peer):
    """`Generator.generate_batch`. One call has one static prompt, so requests of several tasks are several calls."""

    distributions = ("ctranslate2",)

    def load(self, model: str, threads: int, second_model: str | None) -> None:
        import ctranslate2

        self._generator: Any = ctranslate2.Generator(
            model, device="cpu", compute_type="int8", inter_threads=1, intra_threads=threads
        )
        self._tokens: list[str] = json.loads((Path(model) / "vocabulary.json").read_text(encoding="utf-8"))
        self._history: list[int] | None = None

    def label(self, request: Request, token_ids: Sequence[int]) -> None:
        self._generate([request], 1)

    def labels(self, requests: Sequence[Request], token_ids: Sequence[int]) -> None:
        by_prefix: dict[tuple[int, ...], list[Request]] = defaultdict(list)
        for one in requests:
            by_prefix[tuple(one["prefix"])].append(one)
        for group in by_prefix.values():
            self._generate(group, 1)

    def next_tokens(self, requests: Sequence[Request]) -> list[int]:
        return [self._generate([one], 1)[0].sequences_ids[0][0] for one in requests]

    def decode(self, requests: Sequence[Request], num_tokens: int) -> list[list[float]]:
        times: list[list[float]] = [[] for _ in requests]

        def note(step: Any) -> bool:
            times[step.batch_id].append(time.perf_counter())
            return False

        self._generate(requests, num_tokens, callback=note)
        return times

    def time_chat(self, *, history: Sequence[int], turns: Sequence[Sequence[int]]) -> dict[str, Any]:
        """As for everybody, the history being the static prompt."""
        self._history = list(history)
        return super().time_chat(history=history, turns=turns)

    def time_reply(self, *, pairs: Sequence[Sequence[Request]], token_ids: Sequence[int]) -> dict[str, Any]:
        """As for everybody, what the chat's prompt begins with being the static prompt."""
        self._history = list(pairs[0][1]["prefix"])
        return super().time_reply(pairs=pairs, token_ids=token_ids)

    def first_token(self, prompt: Sequence[int]) -> None:
        history = self._history or []
        self._generate([{"prefix": history, "ids": prompt[len(history) :]}], 1)

    def _generate(self, requests: Sequence[Request], num_tokens: int, **options: Any) -> Any:
        """Greedy, exactly `num_tokens` for each request; all have one prefix."""
        return self._generator.generate_batch(
            [[self._tokens[token_id] for token_id in one["ids"]] for one in requests],
            static_prompt=[self._tokens[token_id] for token_id in requests[0]["prefix"]],
            cache_static_prompt=True,
            include_prompt_in_result=False,
            min_length=num_tokens,
            max_length=num_tokens,
            **options,
        )


if __name__ == "__main__":
    serve(CTranslate2Peer())
