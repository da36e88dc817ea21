"""What could run a model on this machine: each backend that is installed, with each type of weights it can have.

Looks at files and installed packages; loads no weights. Above: `tuning/tune.py`. Below: `models/`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from allinone.errors import AllInOneError, UsageError, WeightsMismatch
from allinone.models.gguf import GgufHeader, GgufWeights, gguf_model_name, gguf_stored_dtype, read_gguf_header
from allinone.models.locate import ModelLocation

CandidateBackend = Literal["onnx", "transformers", "llamacpp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A backend with its weights.

    Attributes:
        weights: as `BackendChoice.weights`.
        path: what it loads.
        is_reference: the others' answers are compared with this one's.
    """

    backend: CandidateBackend
    weights: str
    path: Path
    is_reference: bool = False

    @property
    def name(self) -> str:
        """As tables show it: "onnx int8"."""
        return f"{self.backend} {self.weights}"

    @property
    def form(self) -> str:
        """What one agrees with who agrees with this one: "FP32", or a file that is taken as it is."""
        return f"{self.path.name} as it is" if self.backend == "llamacpp" else "FP32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """What was not measured, and why."""

    name: str
    reason: str


def find_candidates(location: ModelLocation) -> tuple[list[Candidate], list[Skipped]]:
    """Everything that can run this model here, the reference first; and what could, if something were different.

    The reference is FP32 in our own engine; where that does not know the model, the most precise of its files, in
    llama.cpp.

    Raises:
        UsageError: a compiled folder, which has its weights in one form only.
        WeightsMismatch: the GGUF file is damaged, or only llama.cpp may know it, which is not installed.
    """
    if location.kind == "compiled":
        raise UsageError(
            f"{location.path} is a compiled folder: nothing is left to choose.",
            hint="name the file or folder that it was compiled from",
        )
    llamacpp, skipped = _llamacpp_candidates(location)
    if location.kind == "gguf":
        try:
            GgufWeights(read_gguf_header(location.path))
        except WeightsMismatch as error:
            if not llamacpp:
                hint = "; ".join(filter(None, (error.hint, "llama.cpp knows more models: make llamacpp")))
                raise WeightsMismatch(error.message, hint=hint) from error
            ours = [Skipped(name=name, reason=error.message) for name in ("onnx", "transformers")]
            return _reference_first(llamacpp), [*ours, *skipped]
    candidates = [
        Candidate(backend="onnx", weights="float32", path=location.path, is_reference=True),
        Candidate(backend="onnx", weights="int8", path=location.path),
        *llamacpp,
    ]
    missing = [name for name in ("torch", "transformers") if not _is_installed(name)]
    if missing:
        reason = f"{' and '.join(missing)} not installed: pip install 'qwen-allinone[transformers]'"
        skipped.append(Skipped(name="transformers", reason=reason))
    else:
        kinds = ("float32", "bfloat16")
        candidates += [Candidate(backend="transformers", weights=kind, path=location.path) for kind in kinds]
    return candidates, skipped


def _llamacpp_candidates(location: ModelLocation) -> tuple[list[Candidate], list[Skipped]]:
    if location.kind != "gguf":
        reason = "it runs GGUF files, and this model is a folder of safetensors"
        return [], [Skipped(name="llamacpp", reason=reason)]
    if not _is_installed("llama_cpp"):
        return [], [Skipped(name="llamacpp", reason="not installed: make llamacpp")]
    files = {gguf_stored_dtype(header): header.path for header in reversed(_same_model(location.path))}
    return [Candidate(backend="llamacpp", weights=kind, path=path) for kind, path in sorted(files.items())], []


def _reference_first(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Files of one model: the largest holds most of each weight, and the others are compared with it."""
    largest = max(candidates, key=lambda one: one.path.stat().st_size)
    return [replace(largest, is_reference=True), *(one for one in candidates if one is not largest)]


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
