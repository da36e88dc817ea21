"""From what a user calls a model to where it lies on this machine. Nothing is downloaded here.

Owns the layout of the models folder (`owner/name`). Above: `loading.py` and the command line. Below: the catalog
and the settings.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from allinone.config import Settings
from allinone.errors import UnknownModel, WeightsNotFound, did_you_mean
from allinone.models.catalog import CATALOG, find_in_catalog, split_quantization
from allinone.models.hub_plan import choose_quantization, gguf_quantization

BUNDLED = "bundled"
ModelKind = Literal["gguf", "safetensors", "compiled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLocation:
    """Where a model lies, and in which form.

    Attributes:
        spec: what it was asked for by.
        path: a GGUF file, a safetensors folder or a compiled folder.
        cache_key: names its compiled form: readable, and different for another file or another state of it.
    """

    spec: str
    path: Path
    kind: ModelKind
    cache_key: str


def locate_model(spec: str | Path | None = None, settings: Settings | None = None) -> ModelLocation:
    """Find a model by "bundled" (the default), a path, a hub id, or a name of the catalog.

    A name is a path if something is there; otherwise it is looked up among the downloaded models and in Hugging Face's
    own cache. `owner/name:q4_k_m` names one file of several.

    Raises:
        UnknownModel: no such name and no such path.
        WeightsNotFound: the model is known, but not on this machine.
        ConfigError: there are several quantisations, or not this one.
    """
    name = str(spec) if spec is not None else BUNDLED
    if not name.strip():
        raise UnknownModel(f"The model's name is empty. {_choices(name)}")
    if name == BUNDLED:
        return _locate_path(name, _bundled_file())
    path = Path(name).expanduser()
    if path.exists():
        return _locate_path(name, path)
    hub_id, quantization = split_quantization(name)
    entry = find_in_catalog(hub_id)
    hub_id = entry.hub_id if entry else hub_id
    folder = _find_downloaded(hub_id, settings or Settings.from_env()) or _find_cached_snapshot(hub_id)
    if folder is not None:
        return _locate_path(name, folder, quantization)
    if entry is not None:
        raise WeightsNotFound(
            f"{entry.hub_id} is not on this machine ({entry.download_mb:,} MB, {entry.licence})",
            hint=f"allinone models pull {entry.hub_id}",
        )
    if isinstance(spec, Path) or _looks_like_path(name):
        raise WeightsNotFound(f"No such file or folder: {name}", hint="`allinone models list` shows what is here")
    hint = f"if it is a model on the hub: allinone models pull {name}" if name.count("/") == 1 else None
    raise UnknownModel(f"Unknown model {name!r}. {_choices(name)}", hint=hint)


def _find_downloaded(hub_id: str, settings: Settings) -> Path | None:
    """The folder of a model that was pulled completely; downloads in progress live elsewhere."""
    parts = hub_id.split("/")
    if len(parts) != 2 or any(not part or part.startswith(".") for part in parts):
        return None
    folder = settings.models_dir.joinpath(*parts)
    return folder if folder.is_dir() else None


def downloaded_models(settings: Settings) -> list[str]:
    """Hub ids of all pulled models, sorted."""
    if not settings.models_dir.is_dir():
        return []
    owners = (folder for folder in settings.models_dir.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    return sorted(f"{owner.name}/{model.name}" for owner in owners for model in owner.iterdir() if model.is_dir())


def _locate_path(spec: str, path: Path, quantization: str | None = None) -> ModelLocation:
    """What kind of model lies at a path that exists."""
    path = path.absolute()
    if path.is_file() and path.suffix == ".safetensors":
        path = path.parent
    elif path.is_file() and path.suffix != ".gguf":
        raise UnknownModel(
            f"{path} is not a model file", hint="a .gguf file, a folder of safetensors or a compiled folder is needed"
        )
    if (path / "manifest.json").is_file():
        return ModelLocation(spec=spec, path=path, kind="compiled", cache_key=path.name)
    if path.is_dir() and (quantization or not (path / "config.json").is_file()):
        files = {gguf_quantization(file.name) or file.name: str(file) for file in sorted(path.glob("*.gguf"))}
        if files:
            hint = f"these are on this machine; for another: allinone models pull {spec}"
            path = Path(choose_quantization(files, quantization, name=spec.partition(":")[0], hint=hint))
    kind: ModelKind = "gguf" if path.is_file() else "safetensors"
    return ModelLocation(spec=spec, path=path, kind=kind, cache_key=_cache_key(path))


def _cache_key(path: Path) -> str:
    """Name and a digest of path, sizes and times: another or a changed file never meets an old compiled form."""
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    files = [file for file in files if not file.name.endswith(".plan.json")]  # it changes the time an import takes
    states = [f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files]
    digest = hashlib.sha256("\n".join([str(path.resolve()), *states]).encode()).hexdigest()
    return f"{path.stem if path.is_file() else path.name}-{digest[:12]}"


def _bundled_file() -> Path:
    folder = Path(str(resources.files("allinone.models") / "bundled"))
    files = sorted(folder.glob("*.gguf"), key=lambda file: (len(file.name), file.name))  # bundled-10 after bundled-9
    if not files:
        raise WeightsNotFound(
            f"The bundled model is missing from this installation ({folder})",
            hint="install the package again, or choose a model with --model",
        )
    return files[-1]


def _find_cached_snapshot(hub_id: str) -> Path | None:
    """A model that transformers or `hf download` has fetched before, in Hugging Face's own cache."""
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    hf_home = Path(os.environ.get("HF_HOME") or cache_home / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or hf_home / "hub").expanduser()
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    reference = repository / "refs" / "main"
    if hub_id.count("/") != 1 or not reference.is_file():
        return None
    snapshot = repository / "snapshots" / reference.read_text(encoding="utf-8").strip()
    has_weights = any(any(snapshot.glob(pattern)) for pattern in ("model*.safetensors", "*.gguf"))
    return snapshot if has_weights else None


def _choices(name: str) -> str:
    return did_you_mean(name, [BUNDLED, *(entry.hub_id for entry in CATALOG)])


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.endswith((".gguf", ".safetensors")) or "\\" in name
