"""A classifier for labels and a language model for replies, side by side in one process: what the articles replace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.peers.serving import Request, serve
from benchmarks.peers.transformers import BATCH, TransformersPeer


class BertAndLlmPeer(TransformersPeer):
    """Labels from `AutoModelForSequenceClassification`, everything else from the language model."""

    def load(self, model: str, threads: int, second_model: str | None) -> None:
        super().load(model, threads, None)
        from transformers import AutoModelForSequenceClassification

        self._classifier: Any = AutoModelForSequenceClassification.from_pretrained(second_model).eval()
        self._vocab_size: int = self._classifier.config.vocab_size

    def label(self, request: Request, token_ids: Sequence[int]) -> None:
        self._classify([request])

    def labels(self, requests: Sequence[Request], token_ids: Sequence[int]) -> None:
        for start in range(0, len(requests), BATCH):
            self._classify(requests[start : start + BATCH])

    def _classify(self, requests: Sequence[Request]) -> None:
        """The text alone, as many tokens as the other peers feed behind their cached prefix."""
        torch = self._torch
        ids = torch.tensor([[token_id % self._vocab_size for token_id in one["ids"]] for one in requests])
        with torch.inference_mode():
            self._classifier(input_ids=ids).logits.argmax(-1).tolist()


if __name__ == "__main__":
    serve(BertAndLlmPeer())
