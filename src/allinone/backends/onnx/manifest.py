"""What a compiled model folder says about itself: `manifest.json`, written last, checked first.

Owns the format and its version. Above: `compile.py` writes it, `backend.py` and `allinone models info` read it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from allinone.backends.onnx.quantize import WeightType
from allinone.errors import WeightsMismatch, WeightsNotFound
from allinone.models.weights import Architecture, ModelConfig

FORMAT_VERSION = 3
MANIFEST_FILE = "manifest.json"
GRAPH_FILE = "graph.onnx"
EMBEDDINGS_FILE = "embeddings.bin"
HEAD_FILE = "head.bin"

Quantization = Literal["int8", "float32"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelShape(_Record):
    """`ModelConfig` as it is written to disk."""

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

    @classmethod
    def of(cls, config: ModelConfig) -> ModelShape:
        """The record of a configuration."""
        return cls.model_validate({name: getattr(config, name) for name in cls.model_fields})

    def to_config(self) -> ModelConfig:
        """The configuration of a record."""
        return ModelConfig(**self.model_dump())


class LayerReport(_Record):
    """How the matrices of one decoder layer (or the head) were quantised, and what it cost.

    Attributes:
        smoothed: inputs whose scales were folded into what comes before: "input_norm", "post_norm", "v", "up".
        blocks: matrices kept in finer blocks.
        error: matrix name -> relative error of its output on the built-in texts, after smoothing.
    """

    name: str
    smoothed: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    error: dict[str, float] = {}


class AgreementReport(_Record):
    """FP32 against the compiled graph on the built-in texts.

    Attributes:
        num_texts: how many texts were compared.
        label_agreement: share of texts with the same best label.
        decided_agreement: the same among texts whose FP32 margin is above `min_margin` nats.
        mean_logprob_error, max_logprob_error: of |difference| over all texts and labels, in nats.
        max_allowed_error: the bar that was asked for on `mean_logprob_error`.
        measured: "here" by this import, or "plan": by the makers of the model, on theirs (`import_plan.py`).
    """

    num_texts: int
    label_agreement: float
    decided_agreement: float
    min_margin: float
    mean_logprob_error: float
    max_logprob_error: float
    max_allowed_error: float
    measured: Literal["here", "plan"] = "here"

    @property
    def holds(self) -> bool:
        """Whether the bar is met."""
        return self.decided_agreement == 1.0 and self.mean_logprob_error <= self.max_allowed_error


class Manifest(_Record):
    """The whole of `manifest.json`.

    `head_smoothing`: what the head's input channels were multiplied by before quantisation; empty for nothing.
    """

    format_version: int = FORMAT_VERSION
    model: str
    licence: str | None
    source_fingerprint: str
    stored_dtype: str
    quantization: Quantization
    weight_type: WeightType
    embedding_dtype: Literal["float16", "float32"]
    shape: ModelShape
    layers: tuple[LayerReport, ...] = ()
    agreement: AgreementReport | None = None
    head_smoothing: tuple[float, ...] = ()
    is_head_in_blocks: bool = False
    onnxruntime_version: str


def read_manifest(folder: Path) -> Manifest:
    """Read and check a folder's manifest.

    Raises:
        WeightsNotFound: there is no compiled model in the folder.
        WeightsMismatch: the manifest is damaged or of another format version.
    """
    path = folder / MANIFEST_FILE
    again = "import the model again: `allinone models import`"
    if not path.is_file():
        raise WeightsNotFound(f"No compiled model in {folder}: {MANIFEST_FILE} is missing", hint=again)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.get("format_version") if isinstance(content, dict) else None
        if version != FORMAT_VERSION:
            message = f"{path}: compiled model format {version!r}; this version reads {FORMAT_VERSION}"
            raise WeightsMismatch(message, hint=again)
        return Manifest.model_validate(content)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, ValidationError) as error:
        raise WeightsMismatch(f"{path} is damaged: {error}", hint=again) from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a folder whole or not at all; it is the last file, and makes the folder a model."""
    temporary = folder / f"{MANIFEST_FILE}.tmp"
    temporary.write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    temporary.replace(folder / MANIFEST_FILE)
