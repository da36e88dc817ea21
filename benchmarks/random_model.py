"""A model folder of the Qwen1.5-0.5B shape with random BF16 weights, as `allinone models import` and transformers read.

Speed does not depend on the values of the weights. The tokenizer is the bundled model's, padded to Qwen's size.
"""

from __future__ import annotations

import json
from pathlib import Path

from allinone.models.files import open_model
from allinone.models.locate import locate_model
from allinone.models.random_weights import QWEN1_5_0_5B, RandomWeights


def write_random_model(folder: Path) -> None:
    """Write config, weights (BF16, 0.93 GB), tokenizer and chat template into `folder`."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    shape = QWEN1_5_0_5B
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
    tokenizer_config = {"chat_template": bundled.template.source, "eos_token": bundled.template.eos_token}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config), encoding="utf-8")
    source = RandomWeights(shape)
    tensors = {name: torch.from_numpy(source.load(name)).bfloat16() for name in source.tensor_names()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
