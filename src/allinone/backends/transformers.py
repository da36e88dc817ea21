"""The reference backend: Hugging Face transformers on torch, simple and right rather than fast.

Numbers of the other backends are measured against it. A sequence is a tuple of key and value tensors that are never
written to: a fork shares them, an extension makes new ones. Chunks run one by one, so neighbours cannot matter.
Extra `transformers`; nothing here is imported unless the backend is asked for.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from allinone.backends.base import BackendInfo, Chunk, FloatArray, SequenceId, check_batch
from allinone.errors import ModelError, UsageError, WeightsNotFound
from allinone.models.weights import ModelConfig, WeightSource

DType = Literal["float32", "bfloat16"]
KV: TypeAlias = tuple[tuple[Any, Any], ...]
"""Per layer keys and values, torch (1, num_kv_heads, num_tokens, head_dim)."""


class TransformersBackend:
    """A causal language model of Hugging Face as a `Backend`. Use `load` or `from_source`.

    Args:
        model: a `PreTrainedModel` with `model` and `lm_head`, on its device, in its dtype.
        compile: run it through `torch.compile` (slow first steps, faster later ones).
    """

    def __init__(self, model: Any, *, name: str, dtype: DType, compile: bool = False) -> None:
        torch = _import("torch")
        self._model: Any = model.eval()
        self._body: Any = torch.compile(model.model, dynamic=True) if compile else model.model
        config = model.config
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._info = BackendInfo(
            name="transformers",
            model=name,
            quantization=dtype,
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            max_context_tokens=config.max_position_embeddings,
            kv_bytes_per_token=2
            * config.num_hidden_layers
            * config.num_key_value_heads
            * head_dim
            * (4 if dtype == "float32" else 2),
            num_threads=torch.get_num_threads(),
        )
        self._sequences: dict[SequenceId, KV] = {}
        self._next_id = 0

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        dtype: DType = "float32",
        device: str = "cpu",
        compile: bool = False,
        num_threads: int | None = None,
    ) -> TransformersBackend:
        """From a folder of safetensors as Hugging Face writes it: any causal model that has `model` and `lm_head`.

        Raises:
            WeightsNotFound: there is no such folder.
            ModelError: torch or transformers is not installed, or they cannot read the folder.
        """
        torch, folder = _import("torch"), Path(path)
        if not (folder / "config.json").is_file():
            raise WeightsNotFound(f"{folder} is not a model folder: it has no config.json.")
        _set_threads(torch, num_threads)
        try:
            model = _import("transformers").AutoModelForCausalLM.from_pretrained(
                os.fspath(folder), dtype=getattr(torch, dtype), local_files_only=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"transformers cannot read {folder}: {error}") from error
        return cls(model.to(device), name=folder.name, dtype=dtype, compile=compile)

    @classmethod
    def from_source(
        cls,
        source: WeightSource,
        *,
        dtype: DType = "float32",
        device: str = "cpu",
        compile: bool = False,
        num_threads: int | None = None,
    ) -> TransformersBackend:
        """From any weights the product can read, a GGUF's too: the architecture is built and filled tensor by tensor.

        Raises:
            ModelError: torch or transformers is not installed.
            WeightsMismatch: tensors are missing or damaged.
        """
        torch = _import("torch")
        _set_threads(torch, num_threads)
        config = _hugging_face_config(source.config)
        with torch.device("meta"):
            model = _import("transformers").AutoModelForCausalLM.from_config(config)
        state = {
            name: torch.from_numpy(np.ascontiguousarray(source.load(name))).to(getattr(torch, dtype))
            for name in source.tensor_names()
        }
        if source.config.tie_word_embeddings:
            state["lm_head.weight"] = state["model.embed_tokens.weight"]
        try:
            model.load_state_dict(state, assign=True)
        except RuntimeError as error:
            raise ModelError(f"The weights of {source.name} do not fit their architecture: {error}") from error
        model.tie_weights()
        model.model.rotary_emb = type(model.model.rotary_emb)(config=config)  # its table is not a weight
        return cls(model.to(device), name=source.name, dtype=dtype, compile=compile)

    @property
    def info(self) -> BackendInfo:
        """Static description."""
        return self._info

    def extend(self, batch: Sequence[Chunk]) -> list[FloatArray | None]:
        """See `Backend.extend`; one pass per chunk."""
        check_batch(batch, self._info, self.num_cached_tokens)
        return [self._extend_one(chunk) for chunk in batch]

    def fork(self, source: SequenceId | None = None) -> SequenceId:
        """See `Backend.fork`."""
        sequence = SequenceId(self._next_id)
        self._next_id += 1
        self._sequences[sequence] = () if source is None else self._kv(source)
        return sequence

    def trim(self, sequence: SequenceId, num_tokens: int) -> None:
        """See `Backend.trim`."""
        held = self.num_cached_tokens(sequence)
        if not 0 <= num_tokens <= held:
            raise UsageError(f"Cannot trim sequence {sequence} to {num_tokens} tokens: it holds {held}.")
        kept = [(k[:, :, :num_tokens].clone(), v[:, :, :num_tokens].clone()) for k, v in self._kv(sequence)]
        self._sequences[sequence] = tuple(kept) if num_tokens else ()

    def free(self, sequence: SequenceId) -> None:
        """See `Backend.free`."""
        self._kv(sequence)
        del self._sequences[sequence]

    def num_cached_tokens(self, sequence: SequenceId) -> int:
        """See `Backend.num_cached_tokens`."""
        kv = self._kv(sequence)
        return int(kv[0][0].shape[2]) if kv else 0

    def num_sequences(self) -> int:
        """See `Backend.num_sequences`."""
        return len(self._sequences)

    def close(self) -> None:
        """See `Backend.close`."""
        self._sequences.clear()
        self._model = self._body = None

    def _kv(self, sequence: SequenceId) -> KV:
        if sequence not in self._sequences:
            raise UsageError(f"Unknown sequence {sequence}: it was freed or never forked.")
        return self._sequences[sequence]

    def _extend_one(self, chunk: Chunk) -> FloatArray | None:
        torch, cache = _import("torch"), _import("transformers").DynamicCache()
        for layer, (keys, values) in enumerate(self._sequences[chunk.sequence]):
            cache.update(keys, values, layer)
        with torch.inference_mode():
            input_ids = torch.tensor([list(chunk.input_ids)], device=self._model.device)
            hidden = self._body(input_ids=input_ids, past_key_values=cache, use_cache=True).last_hidden_state[0]
            output = self._wanted(chunk, hidden)
        self._sequences[chunk.sequence] = tuple((layer.keys, layer.values) for layer in cache.layers)
        return None if output is None else output.float().cpu().numpy()

    def _wanted(self, chunk: Chunk, hidden: Any) -> Any:
        """What the chunk wants of `hidden`, torch (num_tokens, hidden_size), after the final norm."""
        if chunk.wanted == "nothing":
            return None
        if chunk.wanted == "last_hidden":
            return hidden[-1]
        if chunk.wanted == "tail_logits":
            return self._model.lm_head(hidden[-chunk.num_rows :])
        logits = self._model.lm_head(hidden[-1])
        return logits[list(chunk.token_ids)] if chunk.wanted == "token_logits" else logits


def _hugging_face_config(config: ModelConfig) -> Any:
    """Our numbers in transformers' words."""
    transformers = _import("transformers")
    family = {"qwen2": transformers.Qwen2Config, "qwen3": transformers.Qwen3Config}[config.architecture]
    return family(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        rms_norm_eps=config.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        max_position_embeddings=config.max_context_tokens,
        tie_word_embeddings=config.tie_word_embeddings,
        use_sliding_window=False,
    )


def _import(package: str) -> Any:
    """Torch or transformers, untyped: the edge where they enter."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ModelError(
            f"The transformers backend needs {error.name}, which is not installed.",
            hint="pip install 'qwen-allinone[transformers]'",
        ) from error


def _set_threads(torch: Any, num_threads: int | None) -> None:
    if num_threads is not None:
        torch.set_num_threads(num_threads)
