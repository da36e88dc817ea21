"""What could run a model on this machine: each backend that is installed, with each type of weights it can have.

Looks at files and installed packages; loads no weights. Above: `tuning/tune.py`. Below: `models/`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from allinone.errors import AllInOneError, UsageError
from allinone.models.gguf import GgufHeader, gguf_model_name, gguf_stored_dtype, read_gguf_header
from allinone.models.locate import ModelLocation

CandidateBackend = Literal["onnx", "transformers", "llamacpp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A backend with its weights.

    Attributes:
        weights: as `BackendChoice.weights`.
        path: what it loads.
    """

    backend: CandidateBackend
    weights: str
    path: Path

    @property
    def name(self) -> str:
        """As tables show it: "onnx int8"."""
        return f"{self.backend} {self.weights}"

    @property
    def is_reference(self) -> bool:
        """Whether the others' answers are compared with this one's."""
        return (self.backend, self.weights) == ("onnx", "float32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """What was not measured, and why."""

    name: str
    reason: str


def find_candidates(location: ModelLocation) -> tuple[list[Candidate], list[Skipped]]:
    """Everything that can run this model here, the FP32 reference first; and what could, if something were different.

    Raises:
        UsageError: a compiled folder, which has its weights in one form only.
        WeightsMismatch: the GGUF file is damaged.
    """
    if location.kind == "compiled":
        raise UsageError(
            f"{location.path} is a compiled folder: nothing is left to choose.",
            hint="name the file or folder that it was compiled from",
        )
    candidates = [Candidate(backend="onnx", weights=kind, path=location.path) for kind in ("float32", "int8")]
    skipped: list[Skipped] = []
    _add_llamacpp(location, candidates, skipped)
    missing = [name for name in ("torch", "transformers") if not _is_installed(name)]
    if missing:
        reason = f"{' and '.join(missing)} not installed: pip install 'qwen-allinone[transformers]'"
        skipped.append(Skipped(name="transformers", reason=reason))
    else:
        kinds = ("float32", "bfloat16")
        candidates += [Candidate(backend="transformers", weights=kind, path=location.path) for kind in kinds]
    return candidates, skipped


def _add_llamacpp(location: ModelLocation, candidates: list[Candidate], skipped: list[Skipped]) -> None:
    if location.kind != "gguf":
        skipped.append(Skipped(name="llamacpp", reason="it runs GGUF files, and this model is a folder of safetensors"))
    elif not _is_installed("llama_cpp"):
        skipped.append(Skipped(name="llamacpp", reason="not installed: make llamacpp"))
    else:
        files = {gguf_stored_dtype(header): header.path for header in reversed(_same_model(location.path))}
        candidates += [Candidate(backend="llamacpp", weights=kind, path=path) for kind, path in sorted(files.items())]


def _same_model(file: Path) -> Sequence[GgufHeader]:
    """The header of a GGUF, and those of its other quantisations in the same folder."""
    header = read_gguf_header(file)
    found = [header]
    for other in sorted(file.parent.glob("*.gguf")):
        if other == file:
            continue
        try:
            candidate = read_gguf_header(other)
        except AllInOneError:  # a damaged neighbour is not this model's business
            continue
        if _identity(candidate) == _identity(header):
            found.append(candidate)
    return found


def _identity(header: GgufHeader) -> tuple[Any, ...]:
    """What all quantisations of one model have in common."""
    architecture = header.metadata.get("general.architecture")
    sizes = [header.metadata.get(f"{architecture}.{key}") for key in ("block_count", "embedding_length")]
    return gguf_model_name(header), architecture, *sizes, len(header.tensors)


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
