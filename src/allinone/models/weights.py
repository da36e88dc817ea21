"""What a set of weights is, whatever file it came in: its configuration and named float tensors.

Readers (`models/gguf.py`, `models/safetensors.py`) implement `WeightSource`; the backends consume it. Tensor names are
Hugging Face's (`model.layers.0.self_attn.q_proj.weight`), shapes PyTorch's (out_features, in_features).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Architecture = Literal["qwen2", "qwen3"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The numbers of a decoder. Qwen1.5, Qwen2 and Qwen2.5 are all `qwen2` (bias on q/k/v); `qwen3` has q/k norms and
    no bias. `head_dim` is explicit: in Qwen3 it is not hidden_size / num_heads.
    """

    architecture: Architecture
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    max_context_tokens: int
    tie_word_embeddings: bool


class WeightSource(Protocol):
    """Named tensors, read one at a time so that import needs little memory."""

    @property
    def name(self) -> str:
        """Short name of the model, e.g. "Qwen1.5-0.5B-Chat"."""
        ...

    @property
    def licence(self) -> str | None:
        """Licence named by the file, if any."""
        ...

    @property
    def config(self) -> ModelConfig:
        """Architecture and sizes."""
        ...

    @property
    def stored_dtype(self) -> str:
        """The type most of the weights are stored in: "f32", "bf16", "q8_0", …"""
        ...

    def tensor_names(self) -> Iterable[str]:
        """Hugging Face names of all tensors."""
        ...

    def load(self, name: str) -> NDArray[np.float32]:
        """One tensor, dequantised to float32.

        Raises:
            WeightsMismatch: missing, truncated, or a quantisation that cannot be dequantised.
        """
        ...

    def fingerprint(self) -> str:
        """SHA-256 over the file(s), hex."""
        ...


def sha256_files(files: Iterable[Path]) -> str:
    """SHA-256 over the contents of the files, one after another, hex."""
    digest = hashlib.sha256()
    block = memoryview(bytearray(1 << 18))
    for path in files:
        with path.open("rb", buffering=0) as file:
            while num_bytes := file.readinto(block):
                digest.update(block[:num_bytes])
    return digest.hexdigest()
