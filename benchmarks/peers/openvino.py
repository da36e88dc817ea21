"""OpenVINO GenAI: INT8 weights, prefix caching and continuous batching."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.peers.serving import Peer, Request, serve

CACHE_GB = 1
"""Room for some 10,000 tokens of this shape; the cache is taken as it is needed."""


class OpenVinoPeer(Peer):
    """`ContinuousBatchingPipeline`, given token ids, stepped by hand."""

    distributions = ("openvino", "openvino-genai")

    def load(self, model: str, threads: int, second_model: str | None) -> None:
        import numpy
        import openvino
        import openvino_genai

        self._numpy, self._openvino, self._genai = numpy, openvino, openvino_genai
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = True
        scheduler.cache_size = CACHE_GB
        scheduler.max_num_batched_tokens = 2048
        scheduler.max_num_seqs = 64
        properties = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        self._pipeline: Any = openvino_genai.ContinuousBatchingPipeline(model, scheduler, "CPU", properties)
        self._next_id = 0

    def label(self, request: Request, token_ids: Sequence[int]) -> None:
        self._generate([_prompt(request)], 1)

    def labels(self, requests: Sequence[Request], token_ids: Sequence[int]) -> None:
        self._generate([_prompt(one) for one in requests], 1)

    def next_tokens(self, requests: Sequence[Request]) -> list[int]:
        return [ids[0] for ids, _ in self._generate([_prompt(one) for one in requests], 1)]

    def decode(self, requests: Sequence[Request], num_tokens: int) -> list[list[float]]:
        return [times for _, times in self._generate([_prompt(one) for one in requests], num_tokens)]

    def first_token(self, prompt: Sequence[int]) -> None:
        self._generate([prompt], 1)

    def _generate(self, prompts: Sequence[Sequence[int]], num_tokens: int) -> list[tuple[list[int], list[float]]]:
        """Greedy, exactly `num_tokens` for each prompt: their ids, and when each of them came."""
        config = self._genai.GenerationConfig()
        config.max_new_tokens = num_tokens
        config.ignore_eos = True
        config.do_sample = False
        config.apply_chat_template = False
        handles = []
        for ids in prompts:
            tensor = self._openvino.Tensor(self._numpy.array([ids], dtype=self._numpy.int64))
            handles.append(self._pipeline.add_request(self._next_id, tensor, config))
            self._next_id += 1
        answers: list[tuple[list[int], list[float]]] = [([], []) for _ in prompts]
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            now = time.perf_counter()
            for handle, (ids, times) in zip(handles, answers, strict=True):
                while handle.can_read():
                    for output in handle.read().values():
                        ids.extend(output.generated_ids)
                        times.extend([now] * len(output.generated_ids))
        return answers


def _prompt(request: Request) -> list[int]:
    return [*request["prefix"], *request["ids"]]


if __name__ == "__main__":
    serve(OpenVinoPeer())
