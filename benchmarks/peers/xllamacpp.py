"""xllamacpp: llama.cpp's server in process, prefix caching and parallel slots on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.peers.serving import Peer, Request, serve

NUM_SLOTS = 16
CONTEXT_TOKENS = 8_192
"""Shared by all slots: the chat of 50 turns, or 16 short requests."""


class XllamaCppPeer(Peer):
    """`Server.handle_completions` with prompts of token ids, called from as many threads as there are requests."""

    distributions = ("xllamacpp",)

    def load(self, model: str, threads: int, second_model: str | None) -> None:
        import xllamacpp

        self._server: Any = xllamacpp.Server(server_params(model, threads, num_slots=NUM_SLOTS))
        self._threads = ThreadPoolExecutor(64)

    def label(self, request: Request, token_ids: Sequence[int]) -> None:
        self._complete(_prompt(request), 1)

    def labels(self, requests: Sequence[Request], token_ids: Sequence[int]) -> None:
        list(self._threads.map(lambda one: self._complete(_prompt(one), 1), requests))

    def next_tokens(self, requests: Sequence[Request]) -> list[int]:
        answers = (self._complete(_prompt(one), 1, logprobs=1) for one in requests)
        return [int(answer["choices"][0]["logprobs"]["content"][0]["id"]) for answer in answers]

    def decode(self, requests: Sequence[Request], num_tokens: int) -> list[list[float]]:
        def stream(one: Request) -> list[float]:
            times: list[float] = []
            self._complete(_prompt(one), num_tokens, on_part=lambda: times.append(time.perf_counter()))
            return times

        return list(self._threads.map(stream, requests))

    def first_token(self, prompt: Sequence[int]) -> None:
        self._complete(list(prompt), 1)

    def _complete(
        self, prompt: list[int], num_tokens: int, on_part: Callable[[], None] | None = None, **options: Any
    ) -> Any:
        """Greedy, exactly `num_tokens`; the whole answer, or one call of `on_part` for each token."""
        request = {"prompt": prompt, "n_predict": num_tokens, "temperature": 0, "ignore_eos": True, **options}
        if on_part is None:
            answer = self._server.handle_completions(request)
            if not isinstance(answer, dict) or "error" in answer:
                raise RuntimeError(str(answer))
            return answer
        failures: list[Any] = []

        def receive(part: Any) -> bool:
            if isinstance(part, dict) and "error" in part:
                failures.append(part)
            elif not _is_last(part):
                on_part()
            return False

        self._server.handle_completions({**request, "stream": True}, receive)
        if failures:
            raise RuntimeError(str(failures[0]))
        return None


def server_params(model: str, threads: int, *, num_slots: int) -> Any:
    """llama.cpp's server as it serves many at once best: one memory for all slots, prefix caching on."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = num_slots
    params.kv_unified = True
    params.cont_batching = True
    params.cache_prompt = True
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.verbosity = 0
    params.warmup = True
    return params


def _is_last(part: Any) -> bool:
    """What says why the stream ended comes after the last token."""
    return part["choices"][0]["finish_reason"] is not None


def _prompt(request: Request) -> list[int]:
    return [*request["prefix"], *request["ids"]]


if __name__ == "__main__":
    serve(XllamaCppPeer())
