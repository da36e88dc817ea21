"""Compiles a model as people have it into the folder that runs fast: graph, weights, embeddings, tokenizer, manifest.

Everything is written into a sibling folder and renamed at the end, so a compiled folder is whole or not there. Weights
stream: one layer is in memory at a time. No torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from allinone.backends.onnx.graph import DecoderGraph, HeadWeights
from allinone.backends.onnx.graph_builder import WEIGHTS_FILE, GraphBuilder
from allinone.backends.onnx.kernels import detect_cpu
from allinone.backends.onnx.layer_weights import load_head_rows, load_layer, quantize_layer
from allinone.backends.onnx.manifest import (
    EMBEDDINGS_FILE,
    GRAPH_FILE,
    HEAD_FILE,
    MANIFEST_FILE,
    Manifest,
    ModelShape,
    Quantization,
)
from allinone.backends.onnx.quantize import WeightType, make_linear
from allinone.models.files import ModelFiles
from allinone.models.weights import WeightSource

Progress: TypeAlias = Callable[[str, int, int], None]
ALIGNMENT = 65_536
EMBEDDING_ROWS = 8_192


def compile_model(
    files: ModelFiles,
    destination: Path,
    *,
    quantization: Quantization = "int8",
    max_label_logprob_error: float = 0.03,
    progress: Progress | None = None,
) -> Manifest:
    """Compile `files` into the folder `destination`."""
    temporary = destination.with_name(f"{destination.name}.{os.getpid()}.partial")
    temporary.mkdir(parents=True)
    manifest = compile_weights(files.weights, temporary, quantization=quantization, progress=progress)
    files.tokenizer.save(temporary)
    files.template.save(temporary)
    os.replace(temporary, destination)
    return manifest


def compile_weights(
    source: WeightSource, folder: Path, *, quantization: Quantization = "int8", progress: Progress | None = None
) -> Manifest:
    """Write graph, weights, embeddings and manifest of `source` into an existing folder."""
    config = source.config
    weight_type: WeightType = "float32" if quantization == "float32" else detect_cpu().weight_type
    with (folder / WEIGHTS_FILE).open("wb") as weights:

        def store(_name: str, values: NDArray[Any]) -> int:
            weights.write(b"\0" * (-weights.tell() % ALIGNMENT))
            offset = weights.tell()
            weights.write(np.ascontiguousarray(values).data)
            return offset

        builder = GraphBuilder(store)
        graph = DecoderGraph(config, builder)
        for index in range(config.num_layers):
            graph.add_layer(quantize_layer(load_layer(source, index), weight_type))
            if progress is not None:
                progress("layers", index + 1, config.num_layers)
        dtype: Literal["float16", "float32"] = "float32" if quantization == "float32" else "float16"
        embedding = source.load("model.embed_tokens.weight").astype(dtype)
        embedding.tofile(folder / EMBEDDINGS_FILE)
        head = embedding
        if not config.tie_word_embeddings:
            head = load_head_rows(source, config).astype(dtype)
            head.tofile(folder / HEAD_FILE)
        norm = source.load("model.norm.weight")
        model = graph.finish(HeadWeights(norm=norm, head=make_linear(head.astype(np.float32), None, weight_type)))
    (folder / GRAPH_FILE).write_bytes(model.SerializeToString())
    manifest = Manifest(
        model=source.name,
        licence=source.licence,
        source_fingerprint=source.fingerprint(),
        stored_dtype=source.stored_dtype,
        quantization=quantization,
        weight_type=weight_type,
        embedding_dtype=dtype,
        shape=ModelShape.of(config),
        onnxruntime_version=onnxruntime.__version__,
    )
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    return manifest
