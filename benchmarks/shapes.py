"""Random weights of a shape, in every file format that a peer reads; made once into a cache folder.

Speed does not depend on the values of the weights. All formats come from one folder of BF16 safetensors, so that all
peers compute the same function and their answers can be compared. The tokenizer is the bundled model's, padded to the
size of the shape's vocabulary. Above: `run.py`. Below: the product's readers and the `gguf` library.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from allinone.backends.onnx.kernels import weight_signedness
from allinone.backends.onnx.manifest import FORMAT_VERSION
from allinone.models.files import open_model
from allinone.models.gguf import read_gguf_header
from allinone.models.locate import locate_model
from allinone.models.random_weights import QWEN1_5_0_5B, QWEN2_5_0_5B, RandomWeights, decoder_tensor_shapes
from allinone.models.weights import ModelConfig, WeightSource

SHAPES: Mapping[str, ModelConfig] = {
    "qwen1.5-0.5b": QWEN1_5_0_5B,
    "qwen2.5-0.5b": QWEN2_5_0_5B,
    # for trying out the harness: the same architecture in a few megabytes
    "tiny": replace(
        QWEN1_5_0_5B, vocab_size=12_288, hidden_size=256, intermediate_size=512, num_layers=2, num_heads=4,
        num_kv_heads=4,
    ),
}  # fmt: skip
BERT_BASE_CHINESE = {
    "vocab_size": 21_128, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3_072, "num_labels": 2,
}  # fmt: skip
_GGUF_PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
}


def num_linear_parameters(config: ModelConfig) -> int:
    """Parameters of the matrices that every token goes through: all but the embedding and the head."""
    query, key = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    attention = config.hidden_size * (2 * query + 2 * key)
    return config.num_layers * (attention + 3 * config.hidden_size * config.intermediate_size)


def prepare(form: str, shape: str, folder: Path, commands: Mapping[str, list[str]]) -> Path:
    """Make one form of a shape's model unless it is there, and say where it is.

    Args:
        form: "safetensors", "bert", "compiled", "q8_0.gguf" (or another type of llama.cpp), or a key of `commands`.
        shape: a key of `SHAPES`.
        folder: the cache folder.
        commands: form -> command line that converts `{source}` into `{target}`.

    Raises:
        subprocess.CalledProcessError, OSError: a converter failed or is not installed.
    """
    target = folder / shape / (form if form != "compiled" else f"compiled-{weight_signedness()}-v{FORMAT_VERSION}")
    if target.exists():
        return target
    source = target if form == "safetensors" else prepare("safetensors", shape, folder, commands)
    print(f"making {form} of {shape} …", file=sys.stderr, flush=True)
    unfinished = target.with_name(f"unfinished-{target.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    if form == "safetensors":
        write_safetensors(unfinished, RandomWeights(SHAPES[shape]))
    elif form == "bert":
        write_bert(unfinished, is_tiny=shape == "tiny")
    elif form == "compiled":
        # random weights have no labels to agree on: an unreachable bar would only bring finer, slower blocks
        command = [sys.executable, "-m", "allinone", "models", "import", str(source), "-o", str(unfinished)]
        subprocess.run([*command, "--max-error", "100"], check=True, stdout=sys.stderr)
    elif form.endswith(".gguf"):
        write_gguf(unfinished, open_model(source).weights, form.removesuffix(".gguf"))
    else:
        command = [part.format(source=source, target=unfinished) for part in commands[form]]
        subprocess.run(command, check=True, stdout=sys.stderr)
    os.replace(unfinished, target)
    return target


def size_bytes(path: Path) -> int:
    """Bytes on disk of a file or of everything in a folder."""
    files: Iterable[Path] = [path] if path.is_file() else (file for file in path.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files)


def write_safetensors(folder: Path, source: WeightSource) -> None:
    """Config, BF16 weights, tokenizer and chat template, as Hugging Face lays a model out."""
    folder.mkdir(parents=True)
    shape = source.config
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "hidden_act": "silu",
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_theta": shape.rope_theta,
        "max_position_embeddings": shape.max_context_tokens,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    bundled = open_model(locate_model("bundled").path)
    bundled.tokenizer.save(folder)
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": bundled.template.source,
        "eos_token": bundled.template.eos_token,
        "unk_token": bundled.template.eos_token,
        "pad_token": bundled.template.eos_token,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config), encoding="utf-8")
    _write_tensors(folder / "model.safetensors", source)


def _write_tensors(file: Path, source: WeightSource) -> None:
    """A safetensors file in BF16, one tensor in memory at a time."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, shape in decoder_tensor_shapes(source.config).items():
        end = start + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
        start = end
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with file.open("wb") as out:
        out.write(len(encoded).to_bytes(8, "little") + encoded)
        for name in header:
            if name != "__metadata__":
                bits = np.ascontiguousarray(source.load(name)).view(np.uint32)
                rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # to nearest, ties to even
                out.write(rounded.astype("<u2").tobytes())


def write_bert(folder: Path, *, is_tiny: bool) -> None:
    """A classifier of the shape of bert-base-chinese, random FP32 weights. Needs torch and transformers."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    numbers = BERT_BASE_CHINESE | ({"num_hidden_layers": 2} if is_tiny else {})
    BertForSequenceClassification(BertConfig(**numbers)).save_pretrained(folder)


def write_gguf(file: Path, source: WeightSource, kind: str) -> None:
    """A GGUF with its matrices (the embedding too) in one type; vectors stay F32, as llama.cpp keeps them.

    Args:
        file: to be written.
        source: Qwen2 weights.
        kind: "q8_0", "q4_0" or "bf16".
    """
    import gguf

    shape, quantization = source.config, gguf.GGMLQuantizationType[kind.upper()]
    writer = gguf.GGUFWriter(file, shape.architecture)
    writer.add_name(f"random-{kind}")
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind.upper()}"])
    writer.add_block_count(shape.num_layers)
    writer.add_context_length(shape.max_context_tokens)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_heads)
    writer.add_head_count_kv(shape.num_kv_heads)
    writer.add_layer_norm_rms_eps(shape.rms_norm_eps)
    writer.add_rope_freq_base(shape.rope_theta)
    _add_tokenizer(writer, shape.vocab_size)
    for name in source.tensor_names():
        values = source.load(name)
        target = quantization if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(_gguf_name(name), gguf.quants.quantize(values, target), raw_dtype=target)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_name(name: str) -> str:
    """llama.cpp's name of a Hugging Face tensor."""
    stem, suffix = name.rsplit(".", 1)
    if stem in _GGUF_PARTS:
        return f"{_GGUF_PARTS[stem]}.{suffix}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{_GGUF_PARTS[part]}.{suffix}"


def _add_tokenizer(writer: Any, vocab_size: int) -> None:
    """The bundled model's tokenizer, padded with tokens that are never used."""
    import gguf

    known = read_gguf_header(locate_model("bundled").path).metadata
    tokens, types = list(known["tokenizer.ggml.tokens"]), list(known["tokenizer.ggml.token_type"])
    padding = [f"[PAD{token_id}]" for token_id in range(len(tokens), vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*tokens, *padding])
    writer.add_token_types([*types, *[gguf.TokenType.UNUSED] * len(padding)])
    writer.add_token_merges(list(known["tokenizer.ggml.merges"]))
    writer.add_eos_token_id(known["tokenizer.ggml.eos_token_id"])
    writer.add_bos_token_id(known["tokenizer.ggml.bos_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(known["tokenizer.chat_template"])
