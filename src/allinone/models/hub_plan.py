"""What a pull will fetch: the files of a hub repository that the product needs, with sizes and hashes.

Nothing is downloaded here. Above: `hub.py`, which fetches them, and the command line, which shows licence and
size first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allinone.config import Settings
from allinone.errors import ConfigError, UnknownModel, WeightsNotFound, did_you_mean
from allinone.models.catalog import CATALOG, find_in_catalog, split_quantization
from allinone.models.hub_errors import hub_endpoint, hub_errors, require_online

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_QUANTIZATION = re.compile(r"[-._](i?q\d\w*|f16|f32|bf16|fp16)\.gguf$", re.IGNORECASE)
_SPLIT_GGUF = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_SINGLE_FILE = "model.safetensors"
_INDEX_FILE = "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_SMALL_FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja", "LICENSE")
_SPELLED_TOKENIZER = ("vocab.json", "merges.txt", "added_tokens.json")
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """One file of a repository; size and hash where the hub states them."""

    name: str
    num_bytes: int | None
    sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadPlan:
    """Everything a download needs to know. `revision` is a commit: all files are of one state of the repository."""

    hub_id: str
    revision: str
    endpoint: str
    licence: str
    files: tuple[HubFile, ...]
    destination: Path

    @property
    def num_bytes(self) -> int:
        """Size of all files as far as the hub states it."""
        return sum(file.num_bytes or 0 for file in self.files)


def plan_download(name: str, settings: Settings | None = None) -> DownloadPlan:
    """Ask the hub what a model consists of, and choose the files that are needed.

    Args:
        name: `owner/name` or a name of the catalog; `owner/name:q4_k_m` chooses a file of a GGUF repository.
        settings: of the environment where not given.

    Raises:
        UnknownModel: not a hub id, or the hub has no such model.
        WeightsNotFound: offline, unreachable, gated, or the repository holds no weights the product can read.
        ConfigError: the quantisation is not there, or has to be chosen.
    """
    settings = settings or Settings.from_env()
    hub_id, quantization = split_quantization(name)
    entry = find_in_catalog(hub_id)
    hub_id = entry.hub_id if entry else hub_id
    if not _HUB_ID.fullmatch(hub_id):
        known = did_you_mean(hub_id, [entry.hub_id for entry in CATALOG])
        raise UnknownModel(f"{hub_id!r} is not a hub id (owner/name). {known}")
    endpoint = hub_endpoint()
    require_online(hub_id)
    from huggingface_hub import HfApi

    with hub_errors(hub_id, endpoint):
        info = HfApi(endpoint=endpoint).model_info(hub_id, files_metadata=True, timeout=_TIMEOUT_S)
    listed: dict[str, Any] = {sibling.rfilename: sibling for sibling in info.siblings or []}
    names = choose_files(list(listed), hub_id=hub_id, quantization=quantization)
    return DownloadPlan(
        hub_id=hub_id,
        revision=info.sha or "main",
        endpoint=endpoint,
        licence=entry.licence if entry else str((info.card_data or {}).get("license") or "not stated"),
        files=tuple(_hub_file(listed[name]) for name in names),
        destination=settings.models_dir.joinpath(*hub_id.split("/")),
    )


def choose_files(names: Sequence[str], *, hub_id: str, quantization: str | None = None) -> list[str]:
    """The files to fetch, sorted: one GGUF, or the safetensors with what belongs to them.

    Raises:
        WeightsNotFound: there are no weights the product can read.
        ConfigError: the quantisation is not there, or there are several and none is the default.
    """
    if quantization is None and (_SINGLE_FILE in names or _INDEX_FILE in names):
        weights = [name for name in names if _SHARD.fullmatch(name)] if _INDEX_FILE in names else [_SINGLE_FILE]
        index = [_INDEX_FILE] if _INDEX_FILE in names else []
        tokenizer = ["tokenizer.json"] if "tokenizer.json" in names else [n for n in names if n in _SPELLED_TOKENIZER]
        return sorted([*weights, *index, *tokenizer, *(name for name in names if name in _SMALL_FILES)])
    ggufs = {gguf_quantization(name): name for name in names if "/" not in name and gguf_quantization(name)}
    if not ggufs:
        raise WeightsNotFound(
            f"{hub_id} has no weights that can be read: {', '.join(sorted(names)[:8]) or 'it is empty'}",
            hint="a repository with *.safetensors or a single-file *.gguf is needed",
        )
    chosen = choose_quantization(ggufs, quantization, name=hub_id)
    return sorted([chosen, *(name for name in names if name == "LICENSE")])


def gguf_quantization(file_name: str) -> str:
    """The quantisation that a GGUF's name states, in lower case; empty where it states none, or is a part."""
    match = None if _SPLIT_GGUF.search(file_name) else _QUANTIZATION.search(file_name)
    return match[1].lower() if match else ""


def choose_quantization(files: dict[str, str], quantization: str | None, *, name: str, hint: str = "") -> str:
    """One of several GGUF files: the one asked for, the only one, or Q8_0.

    Args:
        files: quantisation -> file.
        quantization: as asked for, whatever its case.
        name: of the model, for the message.
        hint: where to look for one that is not there.

    Raises:
        ConfigError: it is not there, or has to be chosen; the message lists what is there.
    """
    wanted = (quantization or ("q8_0" if "q8_0" in files else "")).lower()
    if not wanted and len(files) == 1:
        return next(iter(files.values()))
    if wanted in files:
        return files[wanted]
    if wanted:
        problem, hint = f"has no quantisation {wanted!r}", hint or f"name one, as in {name}:{min(files)}"
    else:
        problem, hint = "has several quantisations", f"name one, as in {name}:{min(files)}"
    raise ConfigError(f"{name} {problem}. {did_you_mean(wanted, files)}", hint=hint)


def _hub_file(sibling: Any) -> HubFile:
    return HubFile(
        name=sibling.rfilename, num_bytes=sibling.size, sha256=sibling.lfs["sha256"] if sibling.lfs else None
    )
