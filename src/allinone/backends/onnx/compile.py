"""Compiles a model as people have it into the folder that runs fast: graph, weights, embeddings, tokenizer, manifest.

The first pass over the weights (`passes.py`) measures, smooths and quantises them. Then the compiled graph answers the
built-in texts, and the manifest says how far it is from FP32; if too far, the matrices that lose most are made again in
finer blocks. Where an import plan of exactly these weights lies beside them (`import_plan.py`), nothing is measured.
A killed import continues. No torch.

Source: docs/decisions/0003-int8-quantisation.md, docs/decisions/0009-import-plans.md
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from allinone.backends.cpu import detect_cpu
from allinone.backends.onnx import quantize, smoothing
from allinone.backends.onnx.agreement import MIN_MARGIN, AgreementCase, builtin_cases, compare_labels, score_cases
from allinone.backends.onnx.backend import OnnxBackend
from allinone.backends.onnx.graph import DecoderGraph, HeadWeights
from allinone.backends.onnx.graph_builder import WEIGHTS_FILE, GraphBuilder
from allinone.backends.onnx.import_plan import ImportPlan, find_import_plan, plan_file, write_import_plan
from allinone.backends.onnx.layer_weights import layer_from_arrays, linear_from_arrays
from allinone.backends.onnx.manifest import (
    EMBEDDINGS_FILE,
    FORMAT_VERSION,
    GRAPH_FILE,
    HEAD_FILE,
    AgreementReport,
    LayerReport,
    Manifest,
    ModelShape,
    Quantization,
    write_manifest,
)
from allinone.backends.onnx.parts import Part, PartsFile
from allinone.backends.onnx.passes import (
    HEAD_PART,
    SAMPLED_HEAD_ROWS,
    FirstPass,
    Plan,
    planned_layers,
    rewrite_blocks,
    write_rows,
)
from allinone.backends.onnx.workspace import growing_folder
from allinone.models.files import ModelFiles
from allinone.models.weights import ModelConfig, WeightSource

Progress: TypeAlias = Callable[[str, int, int], None]
FloatArray: TypeAlias = NDArray[np.float32]

MAX_LABEL_LOGPROB_ERROR = 0.03
"""Default bar: mean |difference| of label log-probabilities between FP32 and the compiled graph, in nats."""

REFINED_SHARES = (0.1, 0.25, 0.5, 1.0)
"""Shares of the matrices, those with the largest error first, that get finer blocks while the bar is not met."""

_SETTINGS = (
    (MIN_MARGIN, REFINED_SHARES, SAMPLED_HEAD_ROWS),
    (smoothing.STRENGTHS, smoothing.MIN_GAIN, smoothing.MAX_SAMPLED_TOKENS),
    (quantize.MAX_BLOCKS, quantize.BLOCK_MULTIPLE),
)
"""What decides, besides weights, prompts and bar, what an import measures and chooses."""

PROGRESS_FILE = "progress.json"


def compile_model(
    files: ModelFiles,
    destination: Path,
    *,
    quantization: Quantization = "int8",
    max_label_logprob_error: float = MAX_LABEL_LOGPROB_ERROR,
    measure: bool = False,
    write_plan: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Compile a model into the folder `destination`, which appears whole or not at all.

    Args:
        files: the opened model.
        destination: an existing folder there is replaced.
        quantization: "int8", or "float32" for a graph that agrees with FP32 to 1e-3 in logits.
        max_label_logprob_error: the bar: largest mean |difference| of label log-probabilities, in nats.
        measure: measure even where an import plan fits.
        write_plan: measure, and leave the import plan (of int8) beside the model.
        progress: called with (step, done, total).

    Returns:
        The manifest; its `agreement` says whether the bar holds.

    Raises:
        WeightsMismatch: a tensor is missing, damaged, or not finite; or the import plan is damaged.
        StoreError: the disk is full or cannot be written; nothing is left behind then.
    """
    config = files.weights.config
    with growing_folder(destination, _estimate_bytes(config, quantization)) as folder:
        files.tokenizer.save(folder)
        files.template.save(folder)
        files.calibration.save(folder)
        return compile_weights(
            files.weights,
            folder,
            cases=builtin_cases(files.tokenizer, files.template),
            quantization=quantization,
            max_label_logprob_error=max_label_logprob_error,
            read_plan=None if measure or write_plan else plan_file(files.path),
            write_plan=plan_file(files.path) if write_plan else None,
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
    read_plan: Path | None = None,
    write_plan: Path | None = None,
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
        read_plan: import plan that is followed if it is there and fits; for int8 only.
        write_plan: where the import plan of what was measured goes.
        progress: called with (step, done, total).
    """
    is_float = quantization == "float32"
    fingerprint = source.fingerprint()
    settings = _digest(tuple(cases), *_SETTINGS)
    known = None
    if read_plan is not None and not is_float:
        known = find_import_plan(
            read_plan,
            source.config,
            fingerprint=fingerprint,
            settings=settings,
            max_allowed_error=max_label_logprob_error,
        )
    plan = Plan(
        source=source,
        fingerprint=fingerprint,
        weight_type="float32" if is_float else detect_cpu().weight_type,
        cases=() if known else tuple(cases),
        is_smoothed=is_smoothed and not is_float,
        in_blocks=frozenset(in_blocks),
        known=known,
    )
    report = progress or _say_nothing
    num_steps = source.config.num_layers + 2
    step = partial(_report_weights, report, num_steps)
    step(0)
    _start_or_continue(folder, plan)
    write_rows(plan, folder)
    step(1)
    parts, expected = FirstPass(plan, folder).run(step)
    step(num_steps)
    if known is not None:
        manifest = _assemble(plan, folder, parts, known.agreement.model_copy(update={"measured": "plan"}))
    else:
        manifest, parts = _refine(plan, folder, parts, expected, max_label_logprob_error, report)
    if write_plan is not None and manifest.agreement is not None:
        layers = planned_layers(parts)
        made = ImportPlan(
            source_fingerprint=fingerprint, settings=settings, layers=layers, agreement=manifest.agreement
        )
        write_import_plan(write_plan, made)
    PartsFile(folder).remove_records()
    for leftover in (folder / PROGRESS_FILE, *folder.glob("*.checksum")):
        leftover.unlink()
    return manifest


def _refine(
    plan: Plan,
    folder: Path,
    parts: list[Part],
    expected: list[FloatArray],
    max_label_logprob_error: float,
    report: Progress,
) -> tuple[Manifest, list[Part]]:
    """Assemble and check; give more and more matrices finer blocks while the bar is missed, and keep the best try."""
    check = partial(_assemble_and_check, plan, folder, expected, max_label_logprob_error, report)
    manifest = check(parts)
    tried = {plan.in_blocks: manifest}
    for share in REFINED_SHARES if plan.is_smoothed else ():
        if _holds(manifest):
            break
        finer = _worst_matrices(manifest.layers, share)
        parts = rewrite_blocks(plan, folder, parts, finer)
        manifest = tried[finer] = check(parts)
    best = min(tried, key=lambda blocks: _mean_error(tried[blocks]))
    if not _holds(manifest) and manifest is not tried[best]:
        parts = rewrite_blocks(plan, folder, parts, best)
        manifest = check(parts)
    return manifest, parts


def _assemble_and_check(
    plan: Plan,
    folder: Path,
    expected: list[FloatArray],
    max_label_logprob_error: float,
    report: Progress,
    parts: list[Part],
) -> Manifest:
    """Write graph and manifest of finished parts; measure the agreement with FP32 where there are cases."""
    manifest = _assemble(plan, folder, parts, agreement=None)
    if plan.cases:
        report("check", 0, 1)
        backend = OnnxBackend.load(folder)
        agreement = compare_labels(expected, score_cases(backend, plan.cases), max_label_logprob_error)
        backend.close()
        manifest = manifest.model_copy(update={"agreement": agreement})
        write_manifest(folder, manifest)
        report("check", 1, 1)
    return manifest


def _assemble(plan: Plan, folder: Path, parts: list[Part], agreement: AgreementReport | None) -> Manifest:
    source, config = plan.source, plan.source.config
    offsets = {name: offset for part in parts for name, offset in part.offsets.items()}
    graph = DecoderGraph(config, GraphBuilder(lambda name, _: offsets[name]))
    for index, part in enumerate(parts[:-1]):
        graph.add_layer(layer_from_arrays(part.arrays, index))
    norm, unsmooth = source.load("model.norm.weight"), parts[-1].arrays.get("unsmooth")
    head = HeadWeights(
        norm=norm if unsmooth is None else np.divide(norm, unsmooth, dtype=np.float32),
        head=linear_from_arrays(parts[-1].arrays, HEAD_PART),
        unsmooth=unsmooth,
    )
    (folder / GRAPH_FILE).write_bytes(graph.finish(head).SerializeToString())
    reports = tuple(LayerReport.model_validate(part.notes) for part in parts)
    manifest = Manifest(
        model=source.name,
        licence=source.licence,
        source_fingerprint=plan.fingerprint,
        stored_dtype=source.stored_dtype,
        quantization="float32" if plan.weight_type == "float32" else "int8",
        weight_type=plan.weight_type,
        embedding_dtype=plan.rows_dtype,
        shape=ModelShape.of(config),
        layers=reports,
        agreement=agreement,
        head_smoothing=() if unsmooth is None else tuple(unsmooth.tolist()),
        is_head_in_blocks=bool(reports[-1].blocks),
        onnxruntime_version=onnxruntime.__version__,
    )
    write_manifest(folder, manifest)
    return manifest


def _holds(manifest: Manifest) -> bool:
    return manifest.agreement is None or manifest.agreement.holds


def _mean_error(manifest: Manifest) -> float:
    return 0.0 if manifest.agreement is None else manifest.agreement.mean_logprob_error


def _report_weights(report: Progress, total: int, done: int) -> None:
    report("weights", done, total)


def _say_nothing(step: str, done: int, total: int) -> None:
    """Progress for callers that want none."""


def _worst_matrices(layers: Sequence[LayerReport], share: float) -> frozenset[str]:
    """The share of all matrices whose output suffers most from int8."""
    errors = {
        name if layer.name == "head" else f"{layer.name}.{name}": error
        for layer in layers
        for name, error in layer.error.items()
    }
    ranked = sorted(errors, key=lambda name: errors[name], reverse=True)
    return frozenset(ranked[: max(1, round(share * len(ranked)))])


def _digest(*values: object) -> str:
    """Equal for equal values, whatever the process."""
    return hashlib.sha256(repr(values).encode()).hexdigest()


def _digest_of_parts(plan: Plan) -> str:
    """Equal for plans that give the same parts."""
    known = None if plan.known is None else plan.known.model_dump_json()
    blocks = sorted(plan.in_blocks)
    return _digest(FORMAT_VERSION, plan.fingerprint, plan.weight_type, plan.cases, plan.is_smoothed, blocks, known)


def _start_or_continue(folder: Path, plan: Plan) -> None:
    """Keep the parts of the same plan, and the rows of the same source; remove those of others."""
    path = folder / PROGRESS_FILE
    record = {"source": plan.fingerprint, "rows": plan.weight_type == "float32", "plan": _digest_of_parts(plan)}
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
