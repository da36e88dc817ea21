"""Folders of safetensors as Hugging Face publishes them: `config.json` and one file, or shards with an index.

The format is a JSON header and raw little-endian tensors, so it is read here without a library; BF16, which numpy does
not know, is widened by hand. Tensors are read with plain reads (a mapped file that shrinks would kill the process).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allinone.errors import WeightsMismatch, WeightsNotFound
from allinone.models.architecture import check_config, check_tensors, require_supported
from allinone.models.weights import ModelConfig, sha256_files

_DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2"), "F64": np.dtype("<f8")}
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int


class SafetensorsWeights:
    """A model folder as a `WeightSource`. Everything but the weights is checked when it is opened.

    Args:
        folder: with `config.json` and the weights.
        licence: what is known about the licence; the format itself does not say.
    """

    def __init__(self, folder: Path, *, licence: str | None = None) -> None:
        self.folder = folder
        self._licence = licence
        self._config = read_config(folder / "config.json")
        self._shards = _find_shards(folder)
        self._entries: dict[str, _Entry] = {}
        for shard in self._shards:
            self._entries |= _read_entries(shard)
        check_config(self._config, file=str(folder))
        check_tensors(self._config, {name: entry.shape for name, entry in self._entries.items()}, file=str(folder))

    @property
    def name(self) -> str:
        """Name of the folder, or of the model in a Hugging Face cache."""
        return folder_model_name(self.folder)

    @property
    def licence(self) -> str | None:
        """As given when it was opened."""
        return self._licence

    @property
    def config(self) -> ModelConfig:
        """Architecture and sizes, from `config.json`."""
        return self._config

    @property
    def stored_dtype(self) -> str:
        """The type that holds most of the weights: "bf16", "f16", "f32"."""
        counts: dict[str, int] = {}
        for entry in self._entries.values():
            counts[entry.dtype] = counts.get(entry.dtype, 0) + math.prod(entry.shape)
        return max(counts, key=lambda dtype: counts[dtype]).lower()

    def tensor_names(self) -> Iterable[str]:
        """Names of all tensors, in the order of the files."""
        return self._entries.keys()

    def load(self, name: str) -> NDArray[np.float32]:
        """One tensor as float32.

        Raises:
            WeightsMismatch: there is no such tensor, or the file has become shorter since it was opened.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise WeightsMismatch(f"{self.folder} has no tensor {name!r}")
        count = math.prod(entry.shape)
        raw = np.fromfile(entry.file, dtype=_DTYPES[entry.dtype], count=count, offset=entry.offset)
        if raw.size != count:
            raise WeightsMismatch(f"{entry.file}: tensor {name!r} has {raw.size:,} of {count:,} values")
        if entry.dtype == "BF16":
            wide = raw.astype(np.uint32)
            wide <<= 16
            return wide.view(np.float32).reshape(entry.shape)
        return raw.astype(np.float32, copy=False).reshape(entry.shape)

    def fingerprint(self) -> str:
        """SHA-256 over `config.json` and the weight files, hex."""
        return sha256_files([self.folder / "config.json", *self._shards])


def folder_model_name(folder: Path) -> str:
    """A folder's name; in a Hugging Face cache (`models--Qwen--Qwen2-0.5B/snapshots/COMMIT`) that of the model."""
    folder = folder.resolve()
    is_snapshot = folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")
    return folder.parent.parent.name.split("--")[-1] if is_snapshot else folder.name


def read_config(file: Path) -> ModelConfig:
    """The configuration of a Hugging Face model.

    Raises:
        WeightsNotFound: no such file.
        WeightsMismatch: another architecture, or an option that changes the computation and is not supported.
    """
    if not file.is_file():
        raise WeightsNotFound(
            f"{file.parent} has no config.json: it is not a model folder",
            hint="give the folder that holds config.json and *.safetensors, or a .gguf file",
        )
    document = _read_json(file)
    architecture = require_supported(str(document.get("model_type")), file=str(file))
    rope = document.get("rope_parameters") or document.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise WeightsMismatch(f"{file}: rotary parameters are {rope!r}, an object is needed")
    _refuse_unsupported(document, rope, file)

    def real(key: str, default: float) -> float:
        value = document.get(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise WeightsMismatch(f"{file}: {key} is {value!r}, a number is needed")
        return value

    def whole(key: str, default: int | None = None) -> int:
        value = document.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool):
            raise WeightsMismatch(f"{file}: {key} is {value!r}, a whole number is needed")
        return value

    hidden_size, num_heads = whole("hidden_size"), whole("num_attention_heads")
    return ModelConfig(
        architecture=architecture,
        vocab_size=whole("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=whole("intermediate_size"),
        num_layers=whole("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=whole("num_key_value_heads", num_heads),
        head_dim=whole("head_dim", 128 if architecture == "qwen3" else hidden_size // max(num_heads, 1)),
        rms_norm_eps=float(real("rms_norm_eps", 1e-6)),
        rope_theta=float(rope.get("rope_theta") or real("rope_theta", 10000.0)),
        max_context_tokens=whole("max_position_embeddings"),
        tie_word_embeddings=bool(document.get("tie_word_embeddings", False)),
    )


def _refuse_unsupported(document: Mapping[str, Any], rope: Mapping[str, Any], file: Path) -> None:
    """Options that other exporters set; ignoring one of them would give wrong answers without a word."""
    quantization = document.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method", "unknown") if isinstance(quantization, dict) else quantization
        raise WeightsMismatch(
            f"{file}: the weights are quantised with {method!r}, which is not supported",
            hint="take the original weights, or a GGUF file of the same model",
        )
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    supported = {
        "rotary scaling": (rope_type, ("default",)),
        "hidden_act": (document.get("hidden_act", "silu"), ("silu",)),
        "use_sliding_window": (document.get("use_sliding_window") or False, (False,)),
    }
    if document.get("model_type") == "qwen3":
        supported["attention_bias"] = (document.get("attention_bias") or False, (False,))
    for option, (value, known) in supported.items():
        if value not in known:
            raise WeightsMismatch(f"{file}: {option} {value!r} is not supported. Supported: {known[0]!r}")


def _find_shards(folder: Path) -> list[Path]:
    """The weight files, in the order of their names."""
    if (folder / _INDEX).is_file():
        weight_map = _read_json(folder / _INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise WeightsMismatch(f"{folder / _INDEX} is damaged: it has no weight_map")
        names = sorted({str(name) for name in weight_map.values()})
        missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
        if missing:
            raise WeightsNotFound(
                f"{folder} lacks {len(missing)} of {len(names)} weight files: {', '.join(missing)}",
                hint="the download is incomplete: fetch it again",
            )
        return [folder / name for name in names]
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    has_pickle = any(folder.glob("pytorch_model*.bin"))
    raise WeightsNotFound(
        f"{folder} has no weights: neither {_SINGLE} nor {_INDEX}",
        hint="its pytorch_model.bin must be converted to safetensors first" if has_pickle else None,
    )


def _read_entries(file: Path) -> dict[str, _Entry]:
    """Tensor table of one file, every offset checked against its size."""
    num_bytes = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        header_bytes = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= header_bytes <= _MAX_HEADER_BYTES:
            raise WeightsMismatch(f"{file} is not a safetensors file ({num_bytes:,} bytes)")
        if 8 + header_bytes > num_bytes:
            raise WeightsMismatch(
                f"{file} is truncated: its header needs {8 + header_bytes:,} bytes, the file has {num_bytes:,}",
                hint="download it again",
            )
        header = _parse_json(stream.read(header_bytes), file)
    header.pop("__metadata__", None)
    start, end, entries = 8 + header_bytes, 8 + header_bytes, dict[str, _Entry]()
    for name, tensor in header.items():
        try:
            dtype, shape = str(tensor["dtype"]), tuple(int(size) for size in tensor["shape"])
            first, last = (int(offset) for offset in tensor["data_offsets"])
        except (TypeError, KeyError, ValueError) as error:
            raise WeightsMismatch(f"{file} is damaged: the entry of tensor {name!r} is {tensor!r}") from error
        if dtype not in _DTYPES:
            raise WeightsMismatch(
                f"{file}: tensor {name!r} is {dtype}, which is not supported. Supported: {', '.join(_DTYPES)}"
            )
        if first < 0 or last - first != math.prod(shape) * _DTYPES[dtype].itemsize:
            raise WeightsMismatch(f"{file} is damaged: tensor {name!r} of shape {shape} has {last - first:,} bytes")
        entries[name] = _Entry(file=file, dtype=dtype, shape=shape, offset=start + first)
        end = max(end, start + last)
    if end > num_bytes:
        raise WeightsMismatch(
            f"{file} is truncated: its tensors need {end:,} bytes, the file has {num_bytes:,}", hint="download it again"
        )
    return entries


def _read_json(file: Path) -> dict[str, Any]:
    return _parse_json(file.read_bytes(), file)


def _parse_json(data: bytes, file: Path) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except ValueError as error:
        raise WeightsMismatch(f"{file} is damaged: {error}", hint="download it again") from error
    if not isinstance(document, dict):
        raise WeightsMismatch(f"{file} is damaged: it holds a {type(document).__name__}, not an object")
    return document
