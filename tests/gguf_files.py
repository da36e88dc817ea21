"""Any weights of the product as a GGUF that llama.cpp reads too, with a byte-level vocabulary and ChatML turns."""

from __future__ import annotations

from pathlib import Path

import gguf

from allinone.models.gguf import _LAYER_NAMES, _TOP_NAMES
from allinone.models.tokenizer import _byte_characters
from allinone.models.weights import WeightSource

_CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_gguf(source: WeightSource, file: Path, *, kind: str = "F32", architecture: str | None = None) -> Path:
    """Write `source` as a GGUF; its vocabulary has 256 bytes, one merge, three control tokens, and padding."""
    config = source.config
    writer = gguf.GGUFWriter(file, architecture or config.architecture)
    writer.add_name(source.name)
    writer.add_block_count(config.num_layers)
    writer.add_context_length(config.max_context_tokens)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    bytes_in_order = sorted(_byte_characters(), key=lambda character: _byte_characters()[character])
    tokens = [*bytes_in_order, "he", *_CONTROL]
    padding = [f"[PAD{token_id}]" for token_id in range(len(tokens), config.vocab_size)]
    types = [gguf.TokenType.NORMAL] * 257 + [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.UNUSED] * len(padding)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*tokens, *padding])
    writer.add_token_types(types)
    writer.add_token_merges(["h e"])
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_bos_token_id(tokens.index("<|endoftext|>"))
    writer.add_chat_template(_TEMPLATE)
    for name in source.tensor_names():
        values = source.load(name)
        target = gguf.GGMLQuantizationType[kind if values.ndim == 2 else "F32"]
        writer.add_tensor(_gguf_name(name), gguf.quants.quantize(values, target), raw_dtype=target)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _gguf_name(name: str) -> str:
    top = {ours: theirs for theirs, ours in _TOP_NAMES.items()}
    if name in top:
        return top[name]
    stem, kind = name.removeprefix("model.layers.").rsplit(".", 1)
    layer, part = stem.split(".", 1)
    return f"blk.{layer}.{({ours: theirs for theirs, ours in _LAYER_NAMES.items()})[part]}.{kind}"
