"""The models the product knows by name: where they are, how large they are, and under which licence.

Facts only; nothing here reads a disk or a network. Sizes are what a download takes, rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_RESEARCH = "Tongyi Qianwen RESEARCH licence (no commercial use)"
_APACHE = "Apache-2.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """A model on the hub.

    Attributes:
        hub_id: `owner/name`.
        kind: "chat" models follow instructions in turns; "base" models only continue text.
        file_format: "safetensors" or "gguf".
        licence: in words; anything but Apache-2.0 is shown before a download.
        num_parameters: in millions, embeddings included.
        download_mb: of the files that are fetched; for a GGUF repository, of its Q8_0 file.
    """

    hub_id: str
    kind: Literal["chat", "base"]
    licence: str
    num_parameters: int
    download_mb: int
    file_format: Literal["safetensors", "gguf"] = "safetensors"

    @property
    def name(self) -> str:
        """The hub id without its owner."""
        return self.hub_id.split("/")[1]


def _gguf(hub_id: str, licence: str, num_parameters: int, download_mb: int) -> CatalogEntry:
    return CatalogEntry(
        hub_id=hub_id,
        kind="chat",
        licence=licence,
        num_parameters=num_parameters,
        download_mb=download_mb,
        file_format="gguf",
    )


def _folder(hub_id: str, kind: Literal["chat", "base"], licence: str, parameters: int, megabytes: int) -> CatalogEntry:
    return CatalogEntry(hub_id=hub_id, kind=kind, licence=licence, num_parameters=parameters, download_mb=megabytes)


CATALOG: Sequence[CatalogEntry] = (
    _folder("Qwen/Qwen1.5-0.5B-Chat", "chat", _RESEARCH, 464, 1250),
    _gguf("Qwen/Qwen1.5-0.5B-Chat-GGUF", _RESEARCH, 464, 665),
    _folder("Qwen/Qwen1.5-0.5B", "base", _RESEARCH, 464, 1250),
    _folder("Qwen/Qwen2-0.5B-Instruct", "chat", _APACHE, 494, 1000),
    _gguf("Qwen/Qwen2-0.5B-Instruct-GGUF", _APACHE, 494, 530),
    _folder("Qwen/Qwen2-0.5B", "base", _APACHE, 494, 1000),
    _folder("Qwen/Qwen2.5-0.5B-Instruct", "chat", _APACHE, 494, 1000),
    _gguf("Qwen/Qwen2.5-0.5B-Instruct-GGUF", _APACHE, 494, 675),
    _folder("Qwen/Qwen2.5-0.5B", "base", _APACHE, 494, 1000),
    _folder("Qwen/Qwen3-0.6B", "chat", _APACHE, 596, 1515),
    _gguf("Qwen/Qwen3-0.6B-GGUF", _APACHE, 596, 640),
    _folder("Qwen/Qwen3-0.6B-Base", "base", _APACHE, 596, 1200),
)


def find_in_catalog(name: str) -> CatalogEntry | None:
    """The entry of a hub id, or of its last part, whatever the case."""
    wanted = name.casefold()
    for entry in CATALOG:
        if wanted in (entry.hub_id.casefold(), entry.name.casefold()):
            return entry
    return None


def split_quantization(name: str) -> tuple[str, str | None]:
    """`owner/name:q4_k_m` -> its two parts; the second names one file of a GGUF repository."""
    hub_id, colon, quantization = name.partition(":")
    return (hub_id, quantization) if colon and quantization else (name, None)
