"""Writes the averaged weights as the product's GGUF (Q8_0) and as a Hugging Face folder with the same values.

Tensor names, types and metadata are those of llama.cpp's converter for Qwen2: matrices Q8_0, norms and biases F32, no
output matrix because it is the embedding.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from training.settings import ModelShape, Settings, load_settings
from training.tokenizer import CONTROL_TOKENS, Codec

DEFAULT_SYSTEM = "你是一个温暖、真诚的聊天伙伴。用对方的语言自然、简短地回答。Reply in the user's language."
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\n" + DEFAULT_SYSTEM.replace("'", "\\'") + "<|im_end|>\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LAYER_NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}


def gguf_name(name: str) -> str:
    """GGUF name of a checkpoint tensor."""
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, index, rest = name.split(".", 3)
    return f"blk.{index}.{LAYER_NAMES[rest]}"


def exported_file(settings: Settings) -> Path:
    """Where a profile's GGUF is written: beside its checkpoints, under the model's name."""
    return settings.run / f"{settings.weights}.gguf"


def write_metadata(writer: gguf.GGUFWriter, name: str, shape: ModelShape, codec: Codec) -> None:
    """Everything but the tensors: name, shape, licence, tokenizer, template."""
    writer.add_name(name)
    writer.add_description(
        "The small bilingual demo model bundled with allinone, trained from scratch by its own recipe."
    )
    writer.add_license("other")
    writer.add_license_name("demo weights; some training sets have unclear licences, see CARD.md")
    writer.add_languages(["zh", "en"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.eps)
    writer.add_vocab_size(shape.vocab_size)
    tokens = sorted(codec.vocab, key=codec.vocab.__getitem__) + list(CONTROL_TOKENS)
    kinds = [gguf.TokenType.NORMAL] * len(codec.vocab) + [gguf.TokenType.CONTROL] * len(CONTROL_TOKENS)
    if len(tokens) != shape.vocab_size:
        raise SystemExit(f"The tokenizer has {len(tokens)} tokens, the model {shape.vocab_size}.")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(codec.merges)
    writer.add_bos_token_id(codec.end_of_text)
    writer.add_pad_token_id(codec.end_of_text)
    writer.add_eos_token_id(codec.im_end)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def write_gguf(weights: Mapping[str, Tensor], shape: ModelShape, codec: Codec, target: Path) -> None:
    """Writes the GGUF atomically."""
    partial = target.with_suffix(".gguf.partial")
    writer = gguf.GGUFWriter(partial, "qwen2")
    write_metadata(writer, target.stem, shape, codec)
    for name, tensor in weights.items():
        values = np.ascontiguousarray(tensor.float().numpy())
        if values.ndim == 2:
            packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(gguf_name(name), packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(gguf_name(name), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(target)


def read_gguf(path: Path) -> tuple[ModelShape, dict[str, Tensor]]:
    """Shape and dequantised weights of an exported GGUF, under checkpoint names."""
    reader = gguf.GGUFReader(path)

    def number(key: str) -> float:
        return reader.fields[f"qwen2.{key}"].contents()

    shape = ModelShape(
        vocab_size=int(number("vocab_size")),
        hidden=int(number("embedding_length")),
        layers=int(number("block_count")),
        heads=int(number("attention.head_count")),
        kv_heads=int(number("attention.head_count_kv")),
        ffn=int(number("feed_forward_length")),
        rope_theta=round(float(number("rope.freq_base")), 3),
        eps=round(float(number("attention.layer_norm_rms_epsilon")), 12),
        context=int(number("context_length")),
    )
    back = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    for layer in range(shape.layers):
        back |= {f"blk.{layer}.{new}": f"model.layers.{layer}.{old}" for old, new in LAYER_NAMES.items()}
    weights = {
        back[t.name]: torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32).copy())
        for t in reader.tensors
    }
    return shape, weights


def write_hugging_face(weights: Mapping[str, Tensor], shape: ModelShape, codec: Codec, settings: Settings) -> Path:
    """A folder for `transformers`: config, tokenizer, safetensors."""
    folder = settings.run / "hf"
    folder.mkdir(exist_ok=True)
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.eps,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "bos_token_id": codec.end_of_text,
        "eos_token_id": codec.im_end,
        "torch_dtype": "float32",
    }
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": shape.context,
        "chat_template": CHAT_TEMPLATE,
    }
    generation = {"eos_token_id": codec.im_end, "pad_token_id": codec.end_of_text}
    for name, content in (
        ("config.json", config),
        ("tokenizer_config.json", tokenizer),
        ("generation_config.json", generation),
    ):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").write_bytes((settings.run / "tokenizer.json").read_bytes())
    save_file({n: t.contiguous() for n, t in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def main() -> None:
    """Exports the averaged weights of a profile's last checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--target", type=Path, help="GGUF to write (default: in the run folder)")
    args = parser.parse_args()
    settings = load_settings(args.profile)
    codec = Codec.load(settings.run / "tokenizer.json")
    target = args.target or exported_file(settings)
    target.parent.mkdir(parents=True, exist_ok=True)
    weights = torch.load(settings.run / "ema.pt", weights_only=True, map_location="cpu")
    write_gguf(weights, settings.model, codec, target)
    shape, dequantised = read_gguf(target)
    folder = write_hugging_face(dequantised, shape, codec, settings)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB; {folder}")


if __name__ == "__main__":
    main()
