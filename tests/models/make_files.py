"""Small models as files, for tests: every architecture variant, as a safetensors folder and as a GGUF.

The writers are not the product's readers turned round: GGUF goes through `gguf.GGUFWriter`, and BF16 is cut by hand.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from chat_templates import QWEN1_5
from gguf.quants import quantize
from numpy.typing import NDArray

from allinone.models.architecture import expected_tensors
from allinone.models.tokenizer import _byte_characters
from allinone.models.weights import ModelConfig

FloatArray = NDArray[np.float32]
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = (("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "hello"), ("ä", "½"), ("ä½", "ł"))
NUM_TOKENS = 256 + len(MERGES) + len(CONTROL)


def tiny_config(variant: str) -> ModelConfig:
    """`qwen2` (as many key heads as query heads, tied), `qwen2.5` (grouped heads, own output head), `qwen3`."""
    return ModelConfig(
        architecture="qwen3" if variant == "qwen3" else "qwen2",
        vocab_size=288,  # 22 rows of padding
        hidden_size=256,
        intermediate_size=512,
        num_layers=1,
        num_heads=4,
        num_kv_heads=4 if variant == "qwen2" else 2,
        head_dim=128 if variant == "qwen3" else 64,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        max_context_tokens=512,
        tie_word_embeddings=variant != "qwen2.5",
    )


def random_tensors(config: ModelConfig, seed: int = 0) -> dict[str, FloatArray]:
    """Float32 tensors of a model, by Hugging Face name."""
    generator = np.random.default_rng(seed)
    return {
        name: generator.normal(scale=0.05, size=shape).astype(np.float32)
        for name, shape in expected_tensors(config).items()
    }


def tokens() -> list[str]:
    """Byte-level spellings in the order of their ids; control tokens last."""
    alphabet = sorted(_byte_characters(), key=lambda character: _byte_characters()[character])
    return [*alphabet, *("".join(merge) for merge in MERGES), *CONTROL]


def encode(values: FloatArray, dtype: str) -> bytes:
    """A tensor's bytes in a safetensors file."""
    if dtype == "BF16":
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype({"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype]).tobytes()


def rounded(values: FloatArray, dtype: str) -> FloatArray:
    """What must come back after a tensor went through `dtype`."""
    if dtype == "BF16":
        return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return values.astype({"F32": np.float32, "F16": np.float16, "F64": np.float64}[dtype]).astype(np.float32)


def write_safetensors(file: Path, tensors: Mapping[str, FloatArray], dtype: str) -> None:
    """One safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, values in tensors.items():
        raw = encode(values, dtype)
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    head = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(head)) + head + data)


def hf_config(config: ModelConfig) -> dict[str, Any]:
    """`config.json` as Hugging Face writes it."""
    return {
        "architectures": [{"qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}[config.architecture]],
        "model_type": config.architecture,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        **({"head_dim": config.head_dim} if config.architecture == "qwen3" else {}),
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "max_position_embeddings": config.max_context_tokens,
        "tie_word_embeddings": config.tie_word_embeddings,
        "use_sliding_window": False,
        "sliding_window": 32768,
    }


def write_folder(
    folder: Path,
    variant: str = "qwen2",
    *,
    dtype: str = "BF16",
    num_shards: int = 1,
    template: str | None = QWEN1_5,
    seed: int = 0,
) -> dict[str, FloatArray]:
    """A whole model folder; returns the tensors that went in."""
    folder.mkdir(parents=True, exist_ok=True)
    config = tiny_config(variant)
    tensors = random_tensors(config, seed)
    (folder / "config.json").write_text(json.dumps(hf_config(config)))
    if num_shards == 1:
        write_safetensors(folder / "model.safetensors", tensors, dtype)
    else:
        weight_map: dict[str, str] = {}
        for shard in range(num_shards):
            file = f"model-{shard + 1:05d}-of-{num_shards:05d}.safetensors"
            part = dict(list(tensors.items())[shard::num_shards])
            weight_map |= dict.fromkeys(part, file)
            write_safetensors(folder / file, part, dtype)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    write_tokenizer_files(folder, template=template)
    return tensors


def write_tokenizer_files(folder: Path, *, template: str | None = QWEN1_5) -> None:
    """`vocab.json`, `merges.txt` and `tokenizer_config.json`."""
    spelled = tokens()[: -len(CONTROL)]
    (folder / "vocab.json").write_text(json.dumps({text: i for i, text in enumerate(spelled)}), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in MERGES)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
    added = {str(len(spelled) + place): {"content": text, **flags} for place, text in enumerate(CONTROL)}
    config: dict[str, Any] = {"added_tokens_decoder": added, "bos_token": None, "eos_token": CONTROL[2]}
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


_GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    """llama.cpp's name of a Hugging Face tensor."""
    top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    stem, suffix = name.rsplit(".", 1)
    if stem in top:
        return f"{top[stem]}.{suffix}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{_GGUF_NAMES[part]}.{suffix}"


def write_gguf(
    file: Path,
    variant: str = "qwen2",
    *,
    quantization: str = "Q8_0",
    template: str | None = QWEN1_5,
    name: str = "Tiny-Chat",
    architecture: str | None = None,
    metadata: Mapping[str, int | float | str] | None = None,
    token_types: list[int] | None = None,
    pre: str | None = "qwen2",
    seed: int = 0,
) -> dict[str, FloatArray]:
    """A whole GGUF; returns the tensors that went in. Vectors stay F32, as llama.cpp keeps them."""
    config = tiny_config(variant)
    tensors = random_tensors(config, seed)
    arch = architecture or config.architecture
    writer = gguf.GGUFWriter(file, arch)
    writer.add_name(name)
    writer.add_license("apache-2.0")
    writer.add_block_count(config.num_layers)
    writer.add_context_length(config.max_context_tokens)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    if config.architecture == "qwen3":
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    for key, value in (metadata or {}).items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        add(key, value)
    listed = tokens()
    padding = [f"[PAD{token_id}]" for token_id in range(len(listed), config.vocab_size)]
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list([*listed, *padding])
    control_types = token_types or [gguf.TokenType.CONTROL] * len(CONTROL)
    normal = [gguf.TokenType.NORMAL] * (len(listed) - len(CONTROL))
    writer.add_token_types([*normal, *control_types, *[gguf.TokenType.UNUSED] * len(padding)])
    writer.add_token_merges([" ".join(merge) for merge in MERGES])
    writer.add_eos_token_id(listed.index("<|im_end|>"))
    writer.add_bos_token_id(listed.index("<|endoftext|>"))
    if template is not None:
        writer.add_chat_template(template)
    kind = gguf.GGMLQuantizationType[quantization]
    for tensor_name, values in tensors.items():
        target = kind if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(gguf_name(tensor_name), quantize(values, target), raw_dtype=target)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors
