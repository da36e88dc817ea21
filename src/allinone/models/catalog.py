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
        num_parameters: embeddings included, a tied head counted once; rounded.
        download_mb: of the files that are fetched; for a GGUF repository, of its Q8_0 file.
    """

    hub_id: str
    kind: Literal["chat", "base"]
    licence: str
    num_parameters: int
    download_mb: int
    file_format: Literal["safetensors", "gguf"]

    @property
    def name(self) -> str:
        """The hub id without its owner."""
        return self.hub_id.split("/")[1]


def _entry(
    hub_id: str, kind: Literal["chat", "base"], licence: str, num_parameters: int, download_mb: int
) -> CatalogEntry:
    return CatalogEntry(
        hub_id=hub_id,
        kind=kind,
        licence=licence,
        num_parameters=num_parameters,
        download_mb=download_mb,
        file_format="gguf" if hub_id.endswith("-GGUF") else "safetensors",
    )


CATALOG: Sequence[CatalogEntry] = (
    _entry("Qwen/Qwen1.5-0.5B-Chat", "chat", _RESEARCH, 464_000_000, 1250),
    _entry("Qwen/Qwen1.5-0.5B-Chat-GGUF", "chat", _RESEARCH, 464_000_000, 665),
    _entry("Qwen/Qwen1.5-0.5B", "base", _RESEARCH, 464_000_000, 1250),
    _entry("Qwen/Qwen2-0.5B-Instruct", "chat", _APACHE, 494_000_000, 1000),
    _entry("Qwen/Qwen2-0.5B-Instruct-GGUF", "chat", _APACHE, 494_000_000, 530),
    _entry("Qwen/Qwen2-0.5B", "base", _APACHE, 494_000_000, 1000),
    _entry("Qwen/Qwen2.5-0.5B-Instruct", "chat", _APACHE, 494_000_000, 1000),
    _entry("Qwen/Qwen2.5-0.5B-Instruct-GGUF", "chat", _APACHE, 494_000_000, 675),
    _entry("Qwen/Qwen2.5-0.5B", "base", _APACHE, 494_000_000, 1000),
    _entry("Qwen/Qwen3-0.6B", "chat", _APACHE, 596_000_000, 1515),
    _entry("Qwen/Qwen3-0.6B-GGUF", "chat", _APACHE, 596_000_000, 640),
    _entry("Qwen/Qwen3-0.6B-Base", "base", _APACHE, 596_000_000, 1200),
)


def find_in_catalog(name: str) -> CatalogEntry | None:
    """The entry of a hub id, or of its last part, whatever the case; GGUF files write blanks for its hyphens."""
    wanted = name.casefold().replace(" ", "-")
    for entry in CATALOG:
        if wanted in (entry.hub_id.casefold(), entry.name.casefold()):
            return entry
    return None


def split_quantization(name: str) -> tuple[str, str | None]:
    """`owner/name:q4_k_m` -> its two parts; the second names one file of a GGUF repository."""
    hub_id, colon, quantization = name.partition(":")
    return (hub_id, quantization) if colon and quantization else (name, None)
