"""GGUF files: the header and the plain types read by hand, all other tensors dequantised by the `gguf` library.

The header is parsed here, not by `gguf.GGUFReader`, because a 150,000-token vocabulary takes that class seconds and
because a truncated file must end in a sentence with sizes, not in a reshape error. Tensors are read with plain reads (a
mapped file that shrinks meanwhile would kill the process). llama.cpp's converter does not permute q and k for Qwen.
"""

from __future__ import annotations

import math
import mmap
import re
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

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_DEQUANTIZE_ELEMENTS = 1 << 18
_F32, _F16, _Q8_0 = 0, 1, 8
_PLAIN_TYPES = {_F32: ("f32", 1, 4), _F16: ("f16", 1, 2), _Q8_0: ("q8_0", 32, 34)}
"""Types that need no library, by ggml's number: name, elements and bytes of a block."""

_TOP_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """Where one tensor lies: `type_id` is ggml's number of its type, `shape` is (rows, columns), `offset` absolute."""

    type_id: int
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """All that a GGUF says before its weights. `tensors` are by GGUF name; `num_bytes` is the size of the file."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorEntry]
    num_bytes: int


class _Cursor:
    """Reads little-endian values one after another; running past the end is a truncated file."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.position = data, path, 0

    def take(self, num_bytes: int) -> bytes:
        end = self.position + num_bytes
        if end > len(self.data):
            raise WeightsMismatch(
                f"{self.path} is truncated or damaged: its header needs at least {end:,} bytes, the file has "
                f"{len(self.data):,}",
                hint="download it again",
            )
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def scalar(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def string(self) -> str:
        raw = self.take(self.scalar("Q"))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise WeightsMismatch(
                f"{self.path} is damaged: text that is not UTF-8 before byte {self.position}"
            ) from error

    def value(self, type_id: int) -> Any:
        if type_id == _STRING:
            return self.string()
        if type_id == _ARRAY:
            return self.array(self.scalar("I"), self.scalar("Q"))
        return self.scalar(self.code(type_id))

    def array(self, type_id: int, length: int) -> list[Any]:
        if type_id == _STRING:
            return [self.string() for _ in range(length)]
        dtype = np.dtype("<" + self.code(type_id))
        return np.frombuffer(self.take(length * dtype.itemsize), dtype=dtype).tolist()

    def code(self, type_id: int) -> str:
        if type_id not in _SCALARS:
            raise WeightsMismatch(f"{self.path} is damaged: value type {type_id} at byte {self.position}")
        return _SCALARS[type_id]


def read_gguf_header(path: Path) -> GgufHeader:
    """Metadata and tensor table, with every offset checked against the size of the file. Reads no weights.

    Raises:
        WeightsNotFound: no such file.
        WeightsMismatch: not a GGUF, truncated, damaged, big-endian, or one part of a split file.
    """
    if not path.is_file():
        raise WeightsNotFound(f"No such file: {path}")
    num_bytes = path.stat().st_size
    if num_bytes < 24:
        raise WeightsMismatch(
            f"{path} is not a GGUF file: it has {num_bytes} bytes, a header alone has 24", hint="download it again"
        )
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        cursor = _Cursor(data, path)
        if (magic := cursor.take(4)) != b"GGUF":
            raise WeightsMismatch(
                f"{path} is not a GGUF file: it starts with {magic!r}",
                hint="give a .gguf file; if it is one, download it again",
            )
        if (version := cursor.scalar("I")) not in _VERSIONS:
            raise WeightsMismatch(
                f"{path} has GGUF version {version}; supported: {', '.join(map(str, _VERSIONS))}, little-endian"
            )
        num_tensors, num_values = cursor.scalar("Q"), cursor.scalar("Q")
        metadata: dict[str, Any] = {}
        for _ in range(num_values):
            key = cursor.string()
            metadata[key] = cursor.value(cursor.scalar("I"))
        if metadata.get("split.count", 1) > 1:
            raise WeightsMismatch(
                f"{path} is one part of {metadata['split.count']}", hint="join them with llama.cpp's gguf-split --merge"
            )
        raw = [_read_entry(cursor) for _ in range(num_tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise WeightsMismatch(f"{path} is damaged: general.alignment is {alignment!r}")
        start = -(-cursor.position // alignment) * alignment
    tensors = {
        name: TensorEntry(type_id=entry.type_id, shape=entry.shape, offset=start + entry.offset) for name, entry in raw
    }
    return GgufHeader(path=path, metadata=metadata, tensors=tensors, num_bytes=num_bytes)


def gguf_stored_dtype(header: GgufHeader) -> str:
    """Type that holds most of a file's weights, by ggml's name in lower case; of any architecture.

    Raises:
        WeightsMismatch: a type that the `gguf` library does not know.
    """
    counts: dict[int, int] = {}
    for entry in header.tensors.values():
        counts[entry.type_id] = counts.get(entry.type_id, 0) + math.prod(entry.shape)
    type_id = max(counts, key=lambda type_id: counts[type_id])
    plain = _PLAIN_TYPES.get(type_id)
    return plain[0] if plain else _quantization_type(type_id, str(header.path)).name.lower()


def gguf_model_name(header: GgufHeader) -> str:
    """`general.name`, or the file's own name."""
    return str(header.metadata.get("general.name") or header.path.stem)


def gguf_licence(header: GgufHeader) -> str | None:
    """`general.license`, if the file has one; `general.license.name` where that says "other"."""
    licence = header.metadata.get("general.license")
    if licence == "other":
        licence = header.metadata.get("general.license.name", licence)
    return str(licence) if licence else None


def _read_entry(cursor: _Cursor) -> tuple[str, TensorEntry]:
    name = cursor.string()
    dimensions = cursor.array(10, cursor.scalar("I"))
    return name, TensorEntry(type_id=cursor.scalar("I"), shape=tuple(reversed(dimensions)), offset=cursor.scalar("Q"))


class GgufWeights:
    """A GGUF file as a `WeightSource`. Everything but the weights is checked when it is opened."""

    def __init__(self, header: GgufHeader) -> None:
        self.header = header
        self._file = str(header.path)
        self._config = _read_config(header)  # first: another architecture is not said to have strange tensors
        self._entries = {_hugging_face_name(name, self._file): entry for name, entry in header.tensors.items()}
        self._sizes = {name: self._num_bytes(name, entry) for name, entry in self._entries.items()}
        check_config(self._config, file=self._file)
        check_tensors(self._config, {name: entry.shape for name, entry in self._entries.items()}, file=self._file)
        end = max(entry.offset + self._sizes[name] for name, entry in self._entries.items())
        if end > header.num_bytes:
            raise WeightsMismatch(
                f"{self._file} is truncated: its tensors need {end:,} bytes, the file has {header.num_bytes:,}",
                hint="download it again",
            )

    @property
    def name(self) -> str:
        """`general.name`, or the file's own name."""
        return gguf_model_name(self.header)

    @property
    def licence(self) -> str | None:
        """`general.license`, if the file has one; `general.license.name` where that says "other"."""
        return gguf_licence(self.header)

    @property
    def config(self) -> ModelConfig:
        """Architecture and sizes, from the metadata."""
        return self._config

    @property
    def stored_dtype(self) -> str:
        """Type that holds most of the weights, by ggml's name in lower case: "q8_0", "q4_k", "bf16"."""
        return gguf_stored_dtype(self.header)

    def tensor_names(self) -> Iterable[str]:
        """Hugging Face names of all tensors, in the order of the file."""
        return self._entries.keys()

    def load(self, name: str) -> NDArray[np.float32]:
        """One tensor, dequantised to float32.

        Raises:
            WeightsMismatch: there is no such tensor, or the file has become shorter since it was opened.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise WeightsMismatch(f"{self._file} has no tensor {name!r}")
        raw = np.fromfile(self.header.path, dtype=np.uint8, count=self._sizes[name], offset=entry.offset)
        if raw.size != self._sizes[name]:
            raise WeightsMismatch(f"{self._file}: tensor {name!r} has {raw.size:,} of {self._sizes[name]:,} bytes")
        if entry.type_id in _PLAIN_TYPES:
            return _read_plain(raw, entry.type_id).reshape(entry.shape)
        rows = raw.reshape(math.prod(entry.shape[:-1]), -1)
        return _dequantize(rows, _quantization_type(entry.type_id, self._file), entry.shape[-1]).reshape(entry.shape)

    def fingerprint(self) -> str:
        """SHA-256 of the file, hex."""
        return sha256_files([self.header.path])

    def _num_bytes(self, name: str, entry: TensorEntry) -> int:
        """Size of a tensor on disk; refuses types and row lengths that cannot be dequantised."""
        what = f"{self._file}: tensor {name!r}"
        type_name, block, block_bytes = _PLAIN_TYPES.get(entry.type_id) or _block_of(entry.type_id, self._file, what)
        if not entry.shape or entry.shape[-1] % block:
            raise WeightsMismatch(f"{what} of shape {entry.shape} cannot be {type_name.upper()}")
        return math.prod(entry.shape) // block * block_bytes


def _read_plain(raw: NDArray[np.uint8], type_id: int) -> NDArray[np.float32]:
    """The values of a tensor of a plain type, flat; the same numbers as the library's, in half the time."""
    if type_id != _Q8_0:
        return raw.view("<f4" if type_id == _F32 else "<f2").astype(np.float32)
    _, size, num_bytes = _PLAIN_TYPES[_Q8_0]
    blocks = raw.reshape(-1, num_bytes)  # a float16 scale, then 32 int8
    scales = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    values = np.empty((len(blocks), size), np.float32)
    step = _DEQUANTIZE_ELEMENTS // size
    for start in range(0, len(blocks), step):
        some = slice(start, start + step)
        np.multiply(blocks[some, 2:].view(np.int8), scales[some], out=values[some])
    return values


def _block_of(type_id: int, file: str, what: str) -> tuple[str, int, int]:
    """Name, elements and bytes of a block of a type that the library must dequantise; refused where it cannot."""
    from gguf.constants import GGML_QUANT_SIZES
    from gguf.quants import dequantize

    quantization = _quantization_type(type_id, file)
    block, block_bytes = GGML_QUANT_SIZES[quantization]
    try:
        dequantize(np.zeros((1, block_bytes), dtype=np.uint8), quantization)
    except NotImplementedError as error:
        raise WeightsMismatch(
            f"{what} is {quantization.name}, which cannot be dequantised",
            hint="take a Q8_0, Q4_K_M or F16 file of the same model",
        ) from error
    return quantization.name, block, block_bytes


def _dequantize(rows: NDArray[np.uint8], quantization: Any, num_columns: int) -> NDArray[np.float32]:
    """Float32 (num_rows, num_columns), a few rows at a time: the library's intermediate arrays stay small."""
    from gguf.quants import dequantize

    values = np.empty((rows.shape[0], num_columns), dtype=np.float32)
    step = max(1, _DEQUANTIZE_ELEMENTS // num_columns)
    for start in range(0, rows.shape[0], step):
        values[start : start + step] = dequantize(rows[start : start + step], quantization)
    return values


def _quantization_type(type_id: int, file: str) -> Any:
    from gguf.constants import GGMLQuantizationType

    try:
        return GGMLQuantizationType(type_id)
    except ValueError as error:
        raise WeightsMismatch(f"{file}: unknown tensor type {type_id}") from error


def _hugging_face_name(name: str, file: str) -> str:
    if name in _TOP_NAMES:
        return _TOP_NAMES[name]
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if match is None or match[2] not in _LAYER_NAMES:
        raise WeightsMismatch(f"{file} has a tensor {name!r} that no supported architecture uses")
    return f"model.layers.{match[1]}.{_LAYER_NAMES[match[2]]}.{match[3]}"


def _read_config(header: GgufHeader) -> ModelConfig:
    file, metadata = str(header.path), header.metadata
    architecture = require_supported(str(metadata.get("general.architecture")), file=file)
    if "token_embd.weight" not in header.tensors:
        raise WeightsMismatch(f"{file} holds a vocabulary but no weights", hint="take the model's own GGUF file")

    def real(key: str, default: float | None = None) -> float:
        value = metadata.get(f"{architecture}.{key}", default)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise WeightsMismatch(f"{file}: metadata {architecture}.{key} is {value!r}, a number is needed")
        return value

    def whole(key: str, default: int | None = None) -> int:
        value = real(key, default)
        if not isinstance(value, int):
            raise WeightsMismatch(f"{file}: metadata {architecture}.{key} is {value!r}, a whole number is needed")
        return value

    scaling = metadata.get(f"{architecture}.rope.scaling.type", "none")
    if scaling != "none":
        raise WeightsMismatch(f"{file} uses rotary scaling {scaling!r}, which is not supported")
    hidden_size, num_heads = whole("embedding_length"), whole("attention.head_count")
    return ModelConfig(
        architecture=architecture,
        vocab_size=header.tensors["token_embd.weight"].shape[0],
        hidden_size=hidden_size,
        intermediate_size=whole("feed_forward_length"),
        num_layers=whole("block_count"),
        num_heads=num_heads,
        num_kv_heads=whole("attention.head_count_kv", num_heads),
        head_dim=whole("attention.key_length", hidden_size // max(num_heads, 1)),
        rms_norm_eps=float(real("attention.layer_norm_rms_epsilon")),
        rope_theta=float(real("rope.freq_base", 10000.0)),
        max_context_tokens=whole("context_length"),
        tie_word_embeddings="output.weight" not in header.tensors,
    )
