"""Which backend was found best for a model on this machine: written by `allinone models tune`, read when a model loads.

One small JSON file for each model and machine, in the cache folder. A choice for another CPU, or for a file that has
changed since or is gone, counts as none. Above: `loading.py` and `tuning/`. Below: the settings and `models/locate.py`.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from allinone.backends.cpu import detect_cpu
from allinone.config import Settings
from allinone.errors import AllInOneError, StoreError
from allinone.models.locate import ModelLocation, locate_model


class BackendChoice(BaseModel):
    """What runs a model best here.

    Attributes:
        backend: its name.
        weights: "int8" or "float32" (onnx), "float32" or "bfloat16" (transformers), the file's own type (llamacpp).
        path: the model's file or folder that the backend loads: another quantisation of it, maybe.
        cache_key: state of `path` when it was measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: Literal["onnx", "transformers", "llamacpp"]
    weights: str
    path: Path
    cache_key: str


def remember_choice(location: ModelLocation, choice: BackendChoice) -> Path:
    """Keep a choice for this model on this machine; the file it is in.

    Raises:
        StoreError: the cache folder cannot be written.
    """
    file = _choice_file(location)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, encoding="utf-8", delete=False) as unfinished:
            unfinished.write(choice.model_dump_json(indent=2) + "\n")
        os.replace(unfinished.name, file)
    except OSError as error:
        raise StoreError(
            f"The choice cannot be kept in {file.parent}: {error.strerror}",
            hint="set ALLINONE_CACHE to a folder that can be written",
        ) from error
    return file


def find_choice(location: ModelLocation) -> BackendChoice | None:
    """The choice for this model on this machine, if there is one and its file is as it was.

    Raises:
        StoreError: the file of the choice is damaged.
    """
    file = _choice_file(location)
    if not file.is_file():
        return None
    try:
        choice = BackendChoice.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise StoreError(
            f"{file} is damaged or was written by another version: {error.errors()[0]['msg']}",
            hint="remove it, or measure again: allinone models tune",
        ) from error
    try:
        is_same = locate_model(choice.path).cache_key == choice.cache_key
    except AllInOneError:  # it is gone
        return None
    return choice if is_same else None


def forget_choice(location: ModelLocation) -> bool:
    """Remove the choice for this model on this machine; whether there was one."""
    file = _choice_file(location)
    was_there = file.is_file()
    file.unlink(missing_ok=True)
    return was_there


def _choice_file(location: ModelLocation) -> Path:
    """Named by the model, its state and the machine: folders may be shared between machines."""
    cpu = detect_cpu()
    parts = (str(location.path), location.cache_key, cpu.name, cpu.machine, *cpu.features, str(cpu.num_physical_cores))
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
    return Settings.from_env().cache / "tuned" / f"{location.path.stem}-{digest}.json"
