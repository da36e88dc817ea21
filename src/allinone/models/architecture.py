"""Which decoders the product runs, and which tensors each of them must have.

Owns the table of supported architectures and the checks that a file's configuration and tensor shapes make one of them.
Knows no file format: the readers (`gguf.py`, `safetensors.py`) call it before they read any weight.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from allinone.errors import WeightsMismatch
from allinone.models.weights import Architecture, ModelConfig

SUPPORTED: Mapping[Architecture, str] = {"qwen2": "Qwen1.5, Qwen2 and Qwen2.5", "qwen3": "Qwen3"}
_MAX_LAYERS = 1024  # no family comes near; a damaged number must not become a table of that length
# Written by some exporters, used by no computation: the rotary table is computed from the configuration.
_IGNORED = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")


def require_supported(name: str, *, file: str) -> Architecture:
    """The architecture by its name in the file (`general.architecture`, `model_type`).

    Raises:
        WeightsMismatch: any other one; the message names it and those that are supported.
    """
    for architecture in SUPPORTED:
        if name == architecture:
            return architecture
    known = ", ".join(f"{key} ({families})" for key, families in SUPPORTED.items())
    raise WeightsMismatch(
        f"{file} is of the architecture {name!r}, which is not supported. Supported: {known}",
        hint="`allinone models list` shows models that work; mixtures of experts and vision models do not",
    )


def check_config(config: ModelConfig, *, file: str) -> None:
    """Refuse sizes that no decoder can have, so that a damaged file fails here and not inside a kernel.

    Raises:
        WeightsMismatch: naming the value and the rule.
    """
    sizes = {
        name: getattr(config, name)
        for name in (
            "vocab_size", "hidden_size", "intermediate_size", "num_layers",
            "num_heads", "num_kv_heads", "head_dim", "max_context_tokens",
        )
    }  # fmt: skip
    for name, value in sizes.items():
        if value < 1:
            raise WeightsMismatch(f"{file}: {name} is {value}, it must be at least 1")
    if config.num_layers > _MAX_LAYERS:
        raise WeightsMismatch(f"{file}: num_layers is {config.num_layers}, more than {_MAX_LAYERS} cannot be right")
    if config.num_heads % config.num_kv_heads:
        raise WeightsMismatch(
            f"{file}: num_heads {config.num_heads} is not a multiple of num_kv_heads {config.num_kv_heads}"
        )
    if config.head_dim % 2:
        raise WeightsMismatch(f"{file}: head_dim {config.head_dim} is odd; rotary positions need pairs")
    if not config.rms_norm_eps > 0 or not config.rope_theta > 0:
        raise WeightsMismatch(
            f"{file}: rms_norm_eps {config.rms_norm_eps} and rope_theta {config.rope_theta} must be positive"
        )


def expected_tensors(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of the model by its Hugging Face name, with its shape."""
    hidden, inner = config.hidden_size, config.intermediate_size
    query, key_value = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (query, hidden),
        "self_attn.k_proj.weight": (key_value, hidden),
        "self_attn.v_proj.weight": (key_value, hidden),
        "self_attn.o_proj.weight": (hidden, query),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }
    if config.architecture == "qwen2":
        layer |= {
            "self_attn.q_proj.bias": (query,),
            "self_attn.k_proj.bias": (key_value,),
            "self_attn.v_proj.bias": (key_value,),
        }
    else:
        layer |= {"self_attn.q_norm.weight": (config.head_dim,), "self_attn.k_norm.weight": (config.head_dim,)}
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, hidden)}
    for index in range(config.num_layers):
        tensors |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    tensors["model.norm.weight"] = (hidden,)
    if not config.tie_word_embeddings:
        tensors["lm_head.weight"] = (config.vocab_size, hidden)
    return tensors


def check_tensors(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]], *, file: str) -> None:
    """The file's tensors are exactly those of the architecture.

    Raises:
        WeightsMismatch: a tensor is missing, has another shape, or belongs to no part of the architecture.
    """
    expected = expected_tensors(config)
    for name, shape in expected.items():
        if name not in shapes:
            raise WeightsMismatch(
                f"{file} has no tensor {name!r}; a {config.architecture} model of {config.num_layers} layers needs it",
                hint="the file is incomplete, or is an adapter or an embedding model",
            )
        if shapes[name] != shape:
            raise WeightsMismatch(
                f"{file}: tensor {name!r} has shape {shapes[name]}, the configuration asks for {shape}"
            )
    tied_head = {"lm_head.weight"} if config.tie_word_embeddings else set[str]()
    unexpected = [
        name for name in shapes if name not in expected | dict.fromkeys(tied_head) and not _IGNORED.fullmatch(name)
    ]
    if unexpected:
        raise WeightsMismatch(
            f"{file} has tensors that a {config.architecture} model does not use: {', '.join(sorted(unexpected)[:3])}"
            f"{' …' if len(unexpected) > 3 else ''}"
        )
