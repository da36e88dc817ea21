"""Folders of safetensors: every stored type, read as the format's own library reads it."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from make_files import random_tensors, rounded, tiny_config, write_folder, write_safetensors
from safetensors.numpy import save_file

from allinone.errors import WeightsMismatch
from allinone.models.safetensors import SafetensorsWeights


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F64"])
def test_load_reads_every_float_type(tmp_path: Path, dtype: str) -> None:
    """Exactly, as float32."""
    tensors = write_folder(tmp_path, dtype=dtype)
    weights = SafetensorsWeights(tmp_path)
    assert weights.stored_dtype == dtype.lower()
    for name, values in tensors.items():
        loaded = weights.load(name)
        assert loaded.dtype == np.float32
        np.testing.assert_array_equal(loaded, rounded(values, dtype))


def test_load_reads_what_the_library_writes(tmp_path: Path) -> None:
    """An oracle that is not ours."""
    write_folder(tmp_path)
    tensors = random_tensors(tiny_config("qwen2"), seed=5)
    save_file({name: values.astype(np.float16) for name, values in tensors.items()}, tmp_path / "model.safetensors")
    weights = SafetensorsWeights(tmp_path)
    for name, values in tensors.items():
        np.testing.assert_array_equal(weights.load(name), values.astype(np.float16).astype(np.float32))


def test_name_of_a_hugging_face_cache_is_the_model(tmp_path: Path) -> None:
    """The folder there is named after a commit."""
    folder = tmp_path / "models--Qwen--Qwen2-0.5B" / "snapshots" / "0123abcd"
    write_folder(folder)
    assert SafetensorsWeights(folder).name == "Qwen2-0.5B"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"dtype": "I8", "shape": [4], "data_offsets": [0, 4]},
            "is I8, which is not supported. Supported: F32",
        ),
        ({"dtype": "F32", "shape": [4], "data_offsets": [0, 4]}, "of shape (4,) has 4 bytes"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}, "of shape (1,) has 4 bytes"),
        ({"dtype": "F32", "shape": "many"}, "the entry of tensor 'x'"),
        (["not", "an", "entry"], "the entry of tensor 'x'"),
    ],
)
def test_open_refuses_damaged_entries(tmp_path: Path, entry: object, message: str) -> None:
    """Tensor and file are named."""
    write_folder(tmp_path)
    head = json.dumps({"x": entry}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(64))
    with pytest.raises(WeightsMismatch) as caught:
        SafetensorsWeights(tmp_path)
    assert message in str(caught.value)
    assert "model.safetensors" in str(caught.value)


def test_open_refuses_a_damaged_index(tmp_path: Path) -> None:
    """No map of weights; or one that points outside the folder."""
    write_folder(tmp_path, num_shards=2)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text("{}")
    with pytest.raises(WeightsMismatch, match="no weight_map"):
        SafetensorsWeights(tmp_path)
    write_safetensors(tmp_path.parent / "outside.safetensors", {}, "F32")
    index.write_text(json.dumps({"weight_map": {"x": "../outside.safetensors"}}))
    with pytest.raises(Exception, match=r"1 of 1 weight files: \.\./outside\.safetensors"):
        SafetensorsWeights(tmp_path)
