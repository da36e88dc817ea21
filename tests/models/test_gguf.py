"""Every quantisation that users have: dequantised as llama.cpp defines it, checked against references written here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from make_files import FloatArray, gguf_name, random_tensors, tiny_config, write_gguf
from numpy.typing import NDArray

from allinone.errors import WeightsMismatch
from allinone.models.gguf import GgufWeights, read_gguf_header

Bytes = NDArray[np.uint8]


@pytest.mark.parametrize(
    ("quantization", "largest_error"),
    [("F32", 0.0), ("F16", 2e-4), ("BF16", 2e-3), ("Q8_0", 2e-3), ("Q5_1", 1.2e-2), ("Q4_0", 3e-2), ("Q4_1", 2.5e-2)],
)
def test_load_gives_back_the_weights(tmp_path: Path, quantization: str, largest_error: float) -> None:
    """Up to the rounding of the type: half a step of a block whose largest value is about 0.25."""
    tensors = write_gguf(tmp_path / "tiny.gguf", quantization=quantization)
    weights = GgufWeights(read_gguf_header(tmp_path / "tiny.gguf"))
    assert weights.stored_dtype == quantization.lower()
    for name, values in tensors.items():
        loaded = weights.load(name)
        assert loaded.dtype == np.float32
        assert loaded.shape == values.shape
        assert np.abs(loaded - values).max() <= (largest_error if values.ndim == 2 else 0.0)


def reference_q8_0(block: Bytes) -> FloatArray:
    """llama.cpp: half d, then 32 signed bytes."""
    return block[:2].view(np.float16).astype(np.float32) * block[2:].view(np.int8)


def reference_q4_0(block: Bytes) -> FloatArray:
    """llama.cpp: half d, then 16 bytes; low nibbles are the first 16 values."""
    nibbles = np.concatenate([block[2:] & 15, block[2:] >> 4]).astype(np.float32)
    return block[:2].view(np.float16).astype(np.float32) * (nibbles - 8)


def reference_q4_k(block: Bytes) -> FloatArray:
    """llama.cpp `dequantize_row_q4_K`, written as its loops are."""
    d, dmin = (float(value) for value in block[:4].view(np.float16))
    scales, quants = block[4:16], block[16:]
    values: list[float] = []
    for pair in range(4):
        q = quants[32 * pair : 32 * pair + 32]
        for half in range(2):
            scale, minimum = _scale_and_minimum(2 * pair + half, scales)
            values += [d * scale * int(v & 15 if half == 0 else v >> 4) - dmin * minimum for v in q]
    return np.array(values, dtype=np.float32)


def reference_q5_k(block: Bytes) -> FloatArray:
    """llama.cpp `dequantize_row_q5_K`."""
    d, dmin = (float(value) for value in block[:4].view(np.float16))
    scales, high, quants = block[4:16], block[16:48], block[48:]
    values: list[float] = []
    for pair in range(4):
        q = quants[32 * pair : 32 * pair + 32]
        for half in range(2):
            scale, minimum = _scale_and_minimum(2 * pair + half, scales)
            bit = 1 << (2 * pair + half)
            for low, h in zip(q, high, strict=True):
                number = int(low & 15 if half == 0 else low >> 4) + (16 if h & bit else 0)
                values.append(d * scale * number - dmin * minimum)
    return np.array(values, dtype=np.float32)


def reference_q6_k(block: Bytes) -> FloatArray:
    """llama.cpp `dequantize_row_q6_K`."""
    low, high, scales = block[:128], block[128:192], block[192:208].view(np.int8)
    d = float(block[208:].view(np.float16)[0])
    values = np.zeros(256, dtype=np.float32)
    for half in range(2):
        ql, qh, sc, base = low[64 * half :], high[32 * half :], scales[8 * half :], 128 * half
        for i in range(32):
            for quarter in range(4):
                nibble = ql[i + 32 * (quarter % 2)]
                four = int(nibble & 15 if quarter < 2 else nibble >> 4)
                number = (four | (int(qh[i] >> (2 * quarter)) & 3) << 4) - 32
                values[base + i + 32 * quarter] = d * int(sc[i // 16 + 2 * quarter]) * number
    return values


def _scale_and_minimum(index: int, packed: Bytes) -> tuple[int, int]:
    """llama.cpp `get_scale_min_k4`: eight 6-bit scales and minima in twelve bytes."""
    q = [int(value) for value in packed]
    if index < 4:
        return q[index] & 63, q[index + 4] & 63
    return (q[index + 4] & 15) | ((q[index - 4] >> 6) << 4), (q[index + 4] >> 4) | ((q[index] >> 6) << 4)


REFERENCES: dict[str, Callable[[Bytes], FloatArray]] = {
    "Q8_0": reference_q8_0,
    "Q4_0": reference_q4_0,
    "Q4_K": reference_q4_k,
    "Q5_K": reference_q5_k,
    "Q6_K": reference_q6_k,
}
HALF_OFFSETS = {"Q8_0": (0,), "Q4_0": (0,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}


@pytest.mark.parametrize(
    ("matrices", "embedding"),
    [("Q8_0", "Q8_0"), ("Q4_0", "Q6_K"), ("Q4_K", "Q6_K"), ("Q5_K", "Q6_K"), ("Q6_K", "Q6_K")],
    ids=["Q8_0", "Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K"],
)
def test_load_dequantises_blocks_as_llama_cpp_does(tmp_path: Path, matrices: str, embedding: str) -> None:
    """Random blocks of each type of the mixes that llama.cpp makes, against its formulas."""
    blocks = _write_random_blocks(tmp_path / "tiny.gguf", matrices, embedding)
    weights = GgufWeights(read_gguf_header(tmp_path / "tiny.gguf"))
    assert weights.stored_dtype == matrices.lower()
    for name in ("model.embed_tokens.weight", "model.layers.0.mlp.down_proj.weight"):
        kind, raw = blocks[name]
        expected = np.stack([REFERENCES[kind](block) for block in raw[:40]])
        loaded = weights.load(name).reshape(raw.shape[0], -1)[:40]
        np.testing.assert_allclose(loaded, expected, rtol=1e-5, atol=1e-6)
        assert np.abs(loaded).max() > 1e-3


@pytest.mark.parametrize("kind", ["Q8_0", "F16", "F32"])
def test_types_read_by_hand_equal_the_library_bit_for_bit(tmp_path: Path, kind: str) -> None:
    """A shortcut may save time, never change a weight."""
    write_gguf(tmp_path / "tiny.gguf", quantization=kind)
    header = read_gguf_header(tmp_path / "tiny.gguf")
    entry = header.tensors["token_embd.weight"]
    block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    num_bytes = int(np.prod(entry.shape)) // block * block_bytes
    raw = np.fromfile(tmp_path / "tiny.gguf", np.uint8, num_bytes, offset=entry.offset).reshape(entry.shape[0], -1)
    expected = gguf.dequantize(raw, gguf.GGMLQuantizationType[kind])
    assert GgufWeights(header).load("model.embed_tokens.weight").tobytes() == expected.tobytes()


def test_open_refuses_a_type_it_cannot_dequantise(tmp_path: Path) -> None:
    """Named before any weight is read: type, tensor, and what to take instead."""
    write_gguf(tmp_path / "tiny.gguf", quantization="Q8_0")
    header = read_gguf_header(tmp_path / "tiny.gguf")
    entry = header.tensors["token_embd.weight"]
    for type_id, message in (
        (gguf.GGMLQuantizationType.I64.value, "I64, which cannot be dequantised"),
        (999, "type 999"),
    ):
        changed = {**header.tensors, "token_embd.weight": _with(entry, type_id=type_id)}
        with pytest.raises(WeightsMismatch, match=message):
            GgufWeights(_with(header, tensors=changed))
    changed = {**header.tensors, "token_embd.weight": _with(entry, shape=(288, 250))}
    with pytest.raises(WeightsMismatch, match=r"shape \(288, 250\) cannot be Q8_0"):
        GgufWeights(_with(header, tensors=changed))


def _write_random_blocks(file: Path, matrices: str, embedding: str) -> dict[str, tuple[str, Bytes]]:
    """A GGUF whose matrices are random bytes with sensible scales; returns type and blocks by tensor."""
    generator = np.random.default_rng(0)
    config = tiny_config("qwen2")
    write_gguf(file, quantization="F32")
    metadata = read_gguf_header(file).metadata
    writer = gguf.GGUFWriter(file, "qwen2")
    for key, value in metadata.items():
        if key == "general.architecture":
            continue
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_array(key, value)
    blocks: dict[str, tuple[str, Bytes]] = {}
    for name, values in random_tensors(config).items():
        if values.ndim == 1:
            writer.add_tensor(gguf_name(name), values)
            continue
        kind = embedding if name == "model.embed_tokens.weight" else matrices
        quantization = gguf.GGMLQuantizationType[kind]
        block_size, block_bytes = gguf.GGML_QUANT_SIZES[quantization]
        raw = generator.integers(0, 256, size=(values.size // block_size, block_bytes), dtype=np.uint8)
        for offset in HALF_OFFSETS[kind]:
            halves = generator.uniform(1e-4, 1e-3, size=raw.shape[0]).astype(np.float16)
            raw[:, offset : offset + 2] = halves[:, None].view(np.uint8)
        blocks[name] = (kind, raw)
        writer.add_tensor(gguf_name(name), raw.reshape(values.shape[0], -1), raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return blocks


def _with(value: object, **changes: object) -> object:
    import dataclasses

    return dataclasses.replace(value, **changes)  # type: ignore[type-var]
