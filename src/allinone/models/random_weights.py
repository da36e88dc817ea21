"""Random weights of any supported shape, made tensor by tensor: what the tests and the speed benchmark run on.

Speed does not depend on the values of the weights, so a model of the Qwen1.5-0.5B *shape* measures what the real one
would. Tensors are drawn on demand from a generator seeded by (seed, name): the same name always gives the same values,
and no more than one tensor is in memory.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from allinone.errors import WeightsMismatch
from allinone.models.weights import ModelConfig, WeightSource

QWEN1_5_0_5B = ModelConfig(
    architecture="qwen2",
    vocab_size=151_936,
    hidden_size=1024,
    intermediate_size=2816,
    num_layers=24,
    num_heads=16,
    num_kv_heads=16,
    head_dim=64,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    max_context_tokens=32_768,
    tie_word_embeddings=True,
)
QWEN2_5_0_5B = ModelConfig(
    architecture="qwen2",
    vocab_size=151_936,
    hidden_size=896,
    intermediate_size=4864,
    num_layers=24,
    num_heads=14,
    num_kv_heads=2,
    head_dim=64,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    max_context_tokens=32_768,
    tie_word_embeddings=True,
)
QWEN3_0_6B = ModelConfig(
    architecture="qwen3",
    vocab_size=151_936,
    hidden_size=1024,
    intermediate_size=3072,
    num_layers=28,
    num_heads=16,
    num_kv_heads=8,
    head_dim=128,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    max_context_tokens=40_960,
    tie_word_embeddings=True,
)


def decoder_tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Hugging Face name -> PyTorch shape of every tensor of a decoder with these numbers."""
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, config.hidden_size)}
    for layer in range(config.num_layers):
        prefix = f"model.layers.{layer}"
        shapes[f"{prefix}.input_layernorm.weight"] = (config.hidden_size,)
        for name, rows in (("q", queries), ("k", keys), ("v", keys)):
            shapes[f"{prefix}.self_attn.{name}_proj.weight"] = (rows, config.hidden_size)
            if config.architecture == "qwen2":
                shapes[f"{prefix}.self_attn.{name}_proj.bias"] = (rows,)
            elif name != "v":
                shapes[f"{prefix}.self_attn.{name}_norm.weight"] = (config.head_dim,)
        shapes[f"{prefix}.self_attn.o_proj.weight"] = (config.hidden_size, queries)
        shapes[f"{prefix}.post_attention_layernorm.weight"] = (config.hidden_size,)
        shapes[f"{prefix}.mlp.gate_proj.weight"] = (config.intermediate_size, config.hidden_size)
        shapes[f"{prefix}.mlp.up_proj.weight"] = (config.intermediate_size, config.hidden_size)
        shapes[f"{prefix}.mlp.down_proj.weight"] = (config.hidden_size, config.intermediate_size)
    shapes["model.norm.weight"] = (config.hidden_size,)
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, config.hidden_size)
    return shapes


class RandomWeights:
    """A `WeightSource` of normally distributed matrices (standard deviation 0.5 / sqrt(fan-in) unless `spread` says
    otherwise), small biases and norms near one.
    """

    def __init__(self, config: ModelConfig, seed: int = 0, *, name: str = "random", spread: float = 1.0) -> None:
        self._config, self._seed, self._name, self._spread = config, seed, name, spread
        self._shapes = decoder_tensor_shapes(config)

    @property
    def name(self) -> str:
        """Name given at construction."""
        return self._name

    @property
    def licence(self) -> str | None:
        """Nobody's work, so no licence."""
        return None

    @property
    def config(self) -> ModelConfig:
        """Configuration given at construction."""
        return self._config

    @property
    def stored_dtype(self) -> str:
        """Values are drawn in float32."""
        return "f32"

    def tensor_names(self) -> Iterator[str]:
        """Names in the order of the layers."""
        return iter(self._shapes)

    def load(self, name: str) -> NDArray[np.float32]:
        """Draw one tensor.

        Raises:
            WeightsMismatch: this architecture has no such tensor.
        """
        if name not in self._shapes:
            raise WeightsMismatch(f"{self._name} has no tensor {name!r}")
        shape = self._shapes[name]
        digest = hashlib.sha256(f"{self._seed}/{name}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        values = rng.standard_normal(shape, dtype=np.float32)
        if name.endswith("norm.weight"):
            values *= np.float32(0.1)
            values += np.float32(1.0)
        elif len(shape) == 1:
            values *= np.float32(0.1)
        else:
            values *= np.float32(self._spread / math.sqrt(shape[1]))
        return values

    def fingerprint(self) -> str:
        """SHA-256 of everything the values depend on."""
        return hashlib.sha256(f"{self._config}/{self._seed}/{self._spread}".encode()).hexdigest()


class OutlierWeights:
    """Equivalent weights with planted outlier channels: what real models have, and what ruins a plain int8 recipe.

    In each norm before a linear layer, `channels` weights are multiplied by `factor` and the matching input columns of
    the layers that read the norm are divided by it, so the function of the model is unchanged.
    """

    def __init__(self, source: WeightSource, *, channels: int = 3, factor: float = 200.0, seed: int = 0) -> None:
        self._source, self._factor = source, np.float32(factor)
        rng = np.random.default_rng(seed)
        self._planted = {
            f"model.layers.{layer}.{norm}": rng.choice(source.config.hidden_size, channels, replace=False)
            for layer in range(source.config.num_layers)
            for norm in ("input_layernorm", "post_attention_layernorm")
        }
        self._readers = {"self_attn": "input_layernorm", "mlp": "post_attention_layernorm"}

    @property
    def name(self) -> str:
        """Name of the original, marked."""
        return f"{self._source.name}-outliers"

    @property
    def licence(self) -> str | None:
        """Licence of the original."""
        return self._source.licence

    @property
    def config(self) -> ModelConfig:
        """Configuration of the original."""
        return self._source.config

    @property
    def stored_dtype(self) -> str:
        """Scaling needs float32."""
        return "f32"

    def tensor_names(self) -> Iterator[str]:
        """Names of the original."""
        return iter(self._source.tensor_names())

    def load(self, name: str) -> NDArray[np.float32]:
        """The original's tensor, with the planted channels scaled up (norms) or down (the columns that read them)."""
        values = self._source.load(name)
        stem = name.removesuffix(".weight")
        if stem in self._planted:
            values = values.copy()
            values[self._planted[stem]] *= self._factor
        elif stem.endswith(("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")) and name.endswith(".weight"):
            layer, block, _ = stem.rsplit(".", 2)
            values = values.copy()
            values[:, self._planted[f"{layer}.{self._readers[block]}"]] /= self._factor
        return values

    def fingerprint(self) -> str:
        """Differs from the original's, and by channel and factor."""
        planted = {name: channels.tolist() for name, channels in self._planted.items()}
        return hashlib.sha256(f"{self._source.fingerprint()}/{self._factor}/{planted}".encode()).hexdigest()
