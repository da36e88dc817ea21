"""Small models for the tests of the ONNX backend: one shape for each variant of the architecture family."""

from __future__ import annotations

from pathlib import Path

from allinone.backends.onnx.compile import compile_weights
from allinone.backends.onnx.manifest import Quantization
from allinone.models.random_weights import RandomWeights
from allinone.models.weights import Architecture, ModelConfig


def small_config(
    architecture: Architecture = "qwen2",
    *,
    num_heads: int = 4,
    num_kv_heads: int = 4,
    head_dim: int = 16,
    tied: bool = True,
    vocab_size: int = 512,
) -> ModelConfig:
    """A decoder of three layers that runs in milliseconds."""
    return ModelConfig(
        architecture=architecture,
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=160,
        num_layers=3,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        max_context_tokens=1024,
        tie_word_embeddings=tied,
    )


VARIANTS: dict[str, ModelConfig] = {
    "qwen2_tied": small_config(),
    "qwen2_grouped_tied": small_config(num_kv_heads=2),
    "qwen2_grouped_untied": small_config(num_kv_heads=1, tied=False),
    "qwen3": small_config("qwen3", num_kv_heads=2, head_dim=32),
}


def compiled(folder: Path, config: ModelConfig, quantization: Quantization = "int8", seed: int = 0) -> Path:
    """A compiled folder of random weights, without tokenizer and template."""
    folder.mkdir(parents=True, exist_ok=True)
    compile_weights(RandomWeights(config, seed), folder, quantization=quantization)
    return folder
