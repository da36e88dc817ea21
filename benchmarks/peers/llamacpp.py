"""llama-cpp-python's high-level API: one sequence that keeps the common beginning of consecutive prompts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

from benchmarks.peers.serving import Peer, Request, serve

CONTEXT_TOKENS = 4_096


class LlamaCppPeer(Peer):
    """`Llama.generate`, which `create_completion` calls too: token ids in, token ids out."""

    distributions = ("llama-cpp-python",)

    def load(self, model: str, threads: int, second_model: str | None) -> None:
        from llama_cpp import Llama

        self._llama: Any = Llama(
            model, n_ctx=CONTEXT_TOKENS, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False
        )

    def label(self, request: Request, token_ids: Sequence[int]) -> None:
        self._generate(_prompt(request), 1)

    def labels(self, requests: Sequence[Request], token_ids: Sequence[int]) -> None:
        for one in sorted(requests, key=lambda one: one["prefix"]):  # those of one task follow each other
            self._generate(_prompt(one), 1)

    def next_tokens(self, requests: Sequence[Request]) -> list[int]:
        return [self._generate(_prompt(one), 1)[0] for one in requests]

    def decode(self, requests: Sequence[Request], num_tokens: int) -> list[list[float]]:
        if len(requests) > 1:
            raise NotImplementedError("the high-level API runs one stream at a time")
        times: list[float] = []
        self._generate(_prompt(requests[0]), num_tokens, times)
        return [times]

    def first_token(self, prompt: Sequence[int]) -> None:
        self._generate(list(prompt), 1)

    def _generate(self, prompt: list[int], num_tokens: int, times: list[float] | None = None) -> list[int]:
        """Greedy, exactly `num_tokens`."""
        ids = []
        for token_id in islice(self._llama.generate(prompt, top_k=1, temp=0.0), num_tokens):
            ids.append(int(token_id))
            if times is not None:
                times.append(time.perf_counter())
        return ids


def _prompt(request: Request) -> list[int]:
    return [*request["prefix"], *request["ids"]]


if __name__ == "__main__":
    serve(LlamaCppPeer())
