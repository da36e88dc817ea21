"""The articles' way: `transformers` in FP32, the whole prompt each time, ten tokens to read a label from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.peers.serving import Peer, Request, serve

ANSWER_TOKENS = 10
BATCH = 16


class TransformersPeer(Peer):
    """`AutoModelForCausalLM.generate`."""

    distributions = ("torch", "transformers")

    def load(self, model: str, threads: int, second_model: str | None) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        self._torch: Any = torch
        self._model: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

    def label(self, request: Request, token_ids: Sequence[int]) -> None:
        self._generate([_prompt(request)], ANSWER_TOKENS)

    def labels(self, requests: Sequence[Request], token_ids: Sequence[int]) -> None:
        for start in range(0, len(requests), BATCH):
            self._generate([_prompt(one) for one in requests[start : start + BATCH]], ANSWER_TOKENS)

    def next_tokens(self, requests: Sequence[Request]) -> list[int]:
        return [int(self._generate([_prompt(one)], 1)[0, -1]) for one in requests]

    def decode(self, requests: Sequence[Request], num_tokens: int) -> list[list[float]]:
        times: list[float] = []
        self._generate([_prompt(one) for one in requests], num_tokens, times)
        return [times] * len(requests)

    def first_token(self, prompt: Sequence[int]) -> None:
        self._generate([prompt], 1)

    def _generate(self, prompts: Sequence[Sequence[int]], num_tokens: int, times: list[float] | None = None) -> Any:
        """Greedy, exactly `num_tokens` for each prompt, padded on the left; `times` gets the moment of each step."""
        from transformers import StoppingCriteria

        torch = self._torch

        class Clock(StoppingCriteria):
            """Never stops; called once for each step."""

            def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
                if times is not None:
                    times.append(time.perf_counter())
                return torch.zeros(len(input_ids), dtype=torch.bool)

        longest = max(map(len, prompts))
        with torch.inference_mode():
            return self._model.generate(
                torch.tensor([[0] * (longest - len(ids)) + list(ids) for ids in prompts]),
                attention_mask=torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]),
                do_sample=False,
                min_new_tokens=num_tokens,
                max_new_tokens=num_tokens,
                pad_token_id=0,
                stopping_criteria=[Clock()],
            )


def _prompt(request: Request) -> list[int]:
    return [*request["prefix"], *request["ids"]]


if __name__ == "__main__":
    serve(TransformersPeer())
