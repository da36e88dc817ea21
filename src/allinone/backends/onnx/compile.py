"""Compiles a model as people have it into the folder that runs fast: graph, weights, embeddings, tokenizer, manifest.

Weights stream: one layer is in memory at a time, and passes once through everything: the FP32 reference on the built-in
texts, smoothing, quantisation, the weights file. Then the compiled graph answers the same texts and the manifest says
how far apart they are; if too far, the matrices that lose most are kept in finer blocks, and the model is written
again. A killed import continues. No torch.

Source: docs/decisions/0003-int8-quantisation.md
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from allinone.backends.onnx.agreement import AgreementCase, builtin_cases, compare_labels, score_cases
from allinone.backends.onnx.backend import OnnxBackend
from allinone.backends.onnx.graph import DecoderGraph, HeadWeights
from allinone.backends.onnx.graph_builder import WEIGHTS_FILE, GraphBuilder
from allinone.backends.onnx.kernels import detect_cpu
from allinone.backends.onnx.layer_weights import (
    layer_from_arrays,
    layer_to_arrays,
    linear_from_arrays,
    linear_to_arrays,
    load_layer,
    quantize_layer,
)
from allinone.backends.onnx.linear import Linear
from allinone.backends.onnx.manifest import (
    EMBEDDINGS_FILE,
    FORMAT_VERSION,
    GRAPH_FILE,
    HEAD_FILE,
    LayerReport,
    Manifest,
    ModelShape,
    Quantization,
    write_manifest,
)
from allinone.backends.onnx.parts import PartsFile, is_unchanged, save_checksum
from allinone.backends.onnx.quantize import WeightType, quantize_head
from allinone.backends.onnx.reference import ReferenceRun
from allinone.backends.onnx.smoothing import choose_scales, smooth_layer
from allinone.backends.onnx.workspace import growing_folder
from allinone.errors import WeightsMismatch
from allinone.models.files import ModelFiles
from allinone.models.weights import ModelConfig, WeightSource

Progress: TypeAlias = Callable[[str, int, int], None]
FloatArray: TypeAlias = NDArray[np.float32]

MAX_LABEL_LOGPROB_ERROR = 0.03
"""Default bar: mean |difference| of label log-probabilities between FP32 and the compiled graph, in nats."""

REFINED_SHARES = (0.1, 0.2, 0.5, 1.0)
"""Shares of the matrices, those with the largest error first, that get finer blocks while the bar is not met."""

PLAN_FILE = "plan.json"
_ROWS_AT_ONCE = 8_192
_SAMPLED_HEAD_ROWS = 4_096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Plan:
    """What decides every byte of the weights. `in_blocks` names matrices: "3.down", "head"."""

    source: WeightSource
    quantization: Quantization
    weight_type: WeightType
    cases: tuple[AgreementCase, ...]
    is_smoothed: bool
    in_blocks: frozenset[str] = frozenset()

    def digest(self) -> str:
        """Equal for equal plans."""
        parts = (FORMAT_VERSION, self.source.fingerprint(), self.weight_type, self.cases, self.is_smoothed)
        return hashlib.sha256(repr((*parts, sorted(self.in_blocks))).encode()).hexdigest()


def compile_model(
    files: ModelFiles,
    destination: Path,
    *,
    quantization: Quantization = "int8",
    max_label_logprob_error: float = MAX_LABEL_LOGPROB_ERROR,
    progress: Progress | None = None,
) -> Manifest:
    """Compile a model into the folder `destination`, which appears whole or not at all.

    Args:
        files: the opened model.
        destination: an existing folder there is replaced.
        quantization: "int8", or "float32" for a graph that agrees with FP32 to 1e-3 in logits.
        max_label_logprob_error: the bar: largest mean |difference| of label log-probabilities, in nats.
        progress: called with (step, done, total).

    Returns:
        The manifest; its `agreement` says whether the bar holds.

    Raises:
        WeightsMismatch: a tensor is missing, damaged, or not finite.
        StoreError: the disk is full or cannot be written; nothing is left behind then.
    """
    config = files.weights.config
    with growing_folder(destination, _estimate_bytes(config, quantization)) as folder:
        files.tokenizer.save(folder)
        files.template.save(folder)
        return compile_weights(
            files.weights,
            folder,
            cases=builtin_cases(files.tokenizer, files.template),
            quantization=quantization,
            max_label_logprob_error=max_label_logprob_error,
            progress=progress,
        )


def compile_weights(
    source: WeightSource,
    folder: Path,
    *,
    cases: Sequence[AgreementCase] = (),
    quantization: Quantization = "int8",
    max_label_logprob_error: float = MAX_LABEL_LOGPROB_ERROR,
    is_smoothed: bool = True,
    in_blocks: Collection[str] = (),
    progress: Progress | None = None,
) -> Manifest:
    """Write graph, weights, embeddings and manifest of `source` into an existing folder.

    Args:
        source: the weights.
        folder: may hold the parts of an interrupted call, which are reused.
        cases: prompts to measure agreement on; without them nothing is smoothed, refined or measured.
        quantization: as in `compile_model`.
        max_label_logprob_error: as in `compile_model`.
        is_smoothed: False keeps the plain recipe, for comparison.
        in_blocks: matrices that get finer blocks from the start: "3.down", "head".
        progress: called with (step, done, total).
    """
    is_float = quantization == "float32"
    plan = _Plan(
        source=source,
        quantization=quantization,
        weight_type="float32" if is_float else detect_cpu().weight_type,
        cases=tuple(cases),
        is_smoothed=is_smoothed and not is_float,
        in_blocks=frozenset(in_blocks),
    )
    report = progress or _say_nothing
    manifest = _compile_and_check(plan, folder, max_label_logprob_error, report)
    tried = {plan: manifest}
    for share in REFINED_SHARES if plan.is_smoothed else ():
        if _holds(manifest):
            break
        plan = replace(plan, in_blocks=_worst_matrices(manifest.layers, share))
        manifest = tried[plan] = _compile_and_check(plan, folder, max_label_logprob_error, report)
    best = min(tried, key=lambda tried_plan: _mean_error(tried[tried_plan]))
    if not _holds(manifest) and best is not plan:
        manifest = _compile_and_check(best, folder, max_label_logprob_error, report)
    PartsFile(folder).remove_records()
    for leftover in (folder / PLAN_FILE, *folder.glob("*.checksum")):
        leftover.unlink()
    return manifest


def _compile_and_check(plan: _Plan, folder: Path, max_label_logprob_error: float, report: Progress) -> Manifest:
    """Write everything once, and measure."""
    manifest, expected = _Compilation(plan, folder, report).run()
    if not plan.cases:
        return manifest
    report("check", 0, 1)
    backend = OnnxBackend.load(folder)
    agreement = compare_labels(expected, score_cases(backend, plan.cases), max_label_logprob_error)
    backend.close()
    manifest = manifest.model_copy(update={"agreement": agreement})
    write_manifest(folder, manifest)
    report("check", 1, 1)
    return manifest


def _holds(manifest: Manifest) -> bool:
    return manifest.agreement is None or manifest.agreement.holds


def _mean_error(manifest: Manifest) -> float:
    return 0.0 if manifest.agreement is None else manifest.agreement.mean_logprob_error


class _Compilation:
    """One pass over the weights, in the order in which they are needed."""

    def __init__(self, plan: _Plan, folder: Path, report: Progress) -> None:
        self._plan, self._folder, self._report = plan, folder, report
        self._source, self._config = plan.source, plan.source.config
        self._num_steps = self._config.num_layers + 2
        _start_or_continue(folder, plan)
        self._parts = PartsFile(folder)
        self._graph = DecoderGraph(self._config, GraphBuilder(self._parts.offset_of))

    def run(self) -> tuple[Manifest, list[FloatArray]]:
        """Write everything; returns the manifest and the FP32 logits of each case's labels."""
        self._step(0)
        self._write_rows()
        dtype = self._rows_dtype()
        self._step(1)
        layers, reference = self._write_layers()
        head_name = EMBEDDINGS_FILE if self._config.tie_word_embeddings else HEAD_FILE
        head_rows = self._map_rows(head_name, dtype)
        norm = self._source.load("model.norm.weight")
        head, unsmooth, head_report = self._write_head(head_rows, norm, reference)
        scaled_norm = norm if unsmooth is None else norm / unsmooth
        model = self._graph.finish(HeadWeights(norm=scaled_norm, head=head, unsmooth=unsmooth))
        (self._folder / GRAPH_FILE).write_bytes(model.SerializeToString())
        manifest = Manifest(
            model=self._source.name,
            licence=self._source.licence,
            source_fingerprint=self._source.fingerprint(),
            stored_dtype=self._source.stored_dtype,
            quantization=self._plan.quantization,
            weight_type=self._plan.weight_type,
            embedding_dtype=dtype,
            shape=ModelShape.of(self._config),
            layers=(*layers, head_report),
            head_smoothing=() if unsmooth is None else tuple(unsmooth.tolist()),
            is_head_in_blocks="head" in self._plan.in_blocks,
            onnxruntime_version=onnxruntime.__version__,
        )
        write_manifest(self._folder, manifest)
        self._step(self._num_steps)
        return manifest, self._label_logits(head_rows, norm, reference)

    def _step(self, done: int) -> None:
        self._report("weights", done, self._num_steps)

    def _write_rows(self) -> None:
        """Write `embeddings.bin`, and `head.bin` where the head is not tied."""
        dtype = self._rows_dtype()
        names = {EMBEDDINGS_FILE: "model.embed_tokens.weight"}
        if not self._config.tie_word_embeddings:
            names[HEAD_FILE] = "lm_head.weight"
        for file_name, tensor in names.items():
            path = self._folder / file_name
            if is_unchanged(path):
                continue
            rows = self._source.load(tensor)
            temporary = path.with_suffix(".tmp")
            with temporary.open("wb") as file:
                for start in range(0, len(rows), _ROWS_AT_ONCE):
                    block = rows[start : start + _ROWS_AT_ONCE].astype(dtype)
                    if not np.isfinite(block).all():
                        raise WeightsMismatch(f"{self._source.name}: {tensor} holds values that are not finite")
                    file.write(block.data)
            temporary.replace(path)
            save_checksum(path)

    def _rows_dtype(self) -> Literal["float16", "float32"]:
        return "float32" if self._plan.weight_type == "float32" else "float16"

    def _map_rows(self, file_name: str, dtype: str) -> NDArray[Any]:
        shape = self._config.vocab_size, self._config.hidden_size
        return np.memmap(self._folder / file_name, np.dtype(dtype), mode="r", shape=shape)

    def _write_layers(self) -> tuple[list[LayerReport], ReferenceRun | None]:
        """Every layer: finished ones from the parts, the others from the source."""
        reports: list[LayerReport] = []
        for index in range(self._config.num_layers):
            part = self._parts.find(_layer_part(index))
            if part is None:
                break
            self._graph.add_layer(layer_from_arrays(part.arrays, index))
            reports.append(LayerReport.model_validate(part.notes))
            self._step(index + 2)
        reference = self._start_reference(len(reports))
        for index in range(len(reports), self._config.num_layers):
            reports.append(self._make_layer(index, reference))
            self._step(index + 2)
        return reports, reference

    def _start_reference(self, num_finished: int) -> ReferenceRun | None:
        """The FP32 run on the built-in texts, where the finished layers left it."""
        cases = self._plan.cases
        if not cases:
            return None
        lengths = [len(case.input_ids) for case in cases]
        ids = np.concatenate([np.array(case.input_ids) for case in cases])
        state = self._parts.load_state(_layer_part(num_finished - 1)) if num_finished else None
        if state is not None:
            return ReferenceRun(self._config, lengths, state)
        rows = self._map_rows(EMBEDDINGS_FILE, self._rows_dtype())
        run = ReferenceRun(self._config, lengths, np.asarray(rows[ids], np.float32))
        for index in range(num_finished):
            run.step(load_layer(self._source, index))
        return run

    def _make_layer(self, index: int, reference: ReferenceRun | None) -> LayerReport:
        """Reference, smoothing, quantisation and weights file for one layer."""
        plan, part = self._plan, _layer_part(index)
        prefix = f"{index}."
        in_blocks = [name.removeprefix(prefix) for name in plan.in_blocks if name.startswith(prefix)]
        layer = load_layer(self._source, index)
        report = LayerReport(name=str(index), blocks=tuple(sorted(in_blocks)))
        if reference is not None:
            inputs = reference.step(layer)
            if not np.isfinite(reference.hidden).all():
                raise WeightsMismatch(f"{self._source.name}: layer {index} computes values that are not finite")
            if plan.is_smoothed:
                report = smooth_layer(str(index), self._config, layer, inputs, in_blocks)
            self._parts.save_state(part, reference.hidden)
        weights = quantize_layer(layer, plan.weight_type, in_blocks)
        made = self._parts.write(part, *layer_to_arrays(weights, index), report.model_dump(mode="json"))
        self._graph.add_layer(layer_from_arrays(made.arrays, index))
        return report

    def _write_head(
        self, rows: NDArray[Any], norm: FloatArray, reference: ReferenceRun | None
    ) -> tuple[Linear, FloatArray | None, LayerReport]:
        """The head, its smoothing scales, and its report."""
        part = self._parts.find("head")
        if part is None:
            scales: FloatArray | None = None
            in_blocks = "head" in self._plan.in_blocks
            report = LayerReport(name="head", blocks=("head",) if in_blocks else ())
            if reference is not None and self._plan.is_smoothed:
                sample = np.asarray(rows[:: -(-len(rows) // _SAMPLED_HEAD_ROWS)], np.float32)
                blocks = ("head",) if in_blocks else ()
                scales, errors = choose_scales(reference.all_hidden(norm), [("head", sample)], blocks)
                smoothed = ("final_norm",) if scales is not None else ()
                report = LayerReport(name="head", smoothed=smoothed, blocks=blocks, error=errors)
            head = quantize_head(rows, scales, self._plan.weight_type, in_blocks=in_blocks)
            matrices, vectors = linear_to_arrays(head, "head")
            if scales is not None:
                vectors["unsmooth"] = scales
            part = self._parts.write("head", matrices, vectors, report.model_dump(mode="json"))
        return linear_from_arrays(part.arrays, "head"), part.arrays.get("unsmooth"), LayerReport(**part.notes)

    def _label_logits(self, rows: NDArray[Any], norm: FloatArray, reference: ReferenceRun | None) -> list[FloatArray]:
        if reference is None:
            return []
        hidden = reference.last_hidden(norm)
        labels = [np.asarray(rows[list(case.label_ids)], np.float32) for case in self._plan.cases]
        return [label_rows @ one for label_rows, one in zip(labels, hidden, strict=True)]


def _say_nothing(step: str, done: int, total: int) -> None:
    """Progress for callers that want none."""


def _layer_part(index: int) -> str:
    return f"layer-{index:03d}"


def _worst_matrices(layers: Sequence[LayerReport], share: float) -> frozenset[str]:
    """The share of all matrices whose output suffers most from int8."""
    errors = {
        name if layer.name == "head" else f"{layer.name}.{name}": error
        for layer in layers
        for name, error in layer.error.items()
    }
    ranked = sorted(errors, key=lambda name: errors[name], reverse=True)
    return frozenset(ranked[: max(1, round(share * len(ranked)))])


def _start_or_continue(folder: Path, plan: _Plan) -> None:
    """Keep the parts of the same plan, and the rows of the same source; remove those of others."""
    path = folder / PLAN_FILE
    record = {"source": plan.source.fingerprint(), "rows": plan.weight_type == "float32", "plan": plan.digest()}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    if found == record:
        return
    PartsFile(folder).remove_records()
    (folder / WEIGHTS_FILE).unlink()
    if {**found, "plan": ""} != {**record, "plan": ""}:
        for name in (EMBEDDINGS_FILE, HEAD_FILE):
            (folder / name).unlink(missing_ok=True)
            (folder / f"{name}.checksum").unlink(missing_ok=True)
    path.write_text(json.dumps(record), encoding="utf-8")


def _estimate_bytes(config: ModelConfig, quantization: Quantization) -> int:
    """Disk space of a compiled folder, tokenizer and all, with a little to spare."""
    attention = config.hidden_size * config.head_dim * 2 * (config.num_heads + config.num_kv_heads)
    layer = attention + 3 * config.hidden_size * config.intermediate_size
    head = config.vocab_size * config.hidden_size
    weight_bytes, row_bytes = (1, 2) if quantization == "int8" else (4, 4)
    files = 1 if config.tie_word_embeddings else 2
    return int(1.05 * ((config.num_layers * layer + head) * weight_bytes + files * head * row_bytes)) + 32_000_000
