"""The passes over the weights while a model is compiled. Each leaves finished parts in the weights file.

The first pass streams: one layer is in memory at a time and goes through the FP32 reference on the built-in texts,
smoothing and quantisation; with an import plan only through quantisation, as the plan says. A later pass makes some
matrices finer; it knows the smoothing already, reads only layers that change and copies the others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from allinone.backends.onnx.agreement import AgreementCase
from allinone.backends.onnx.import_plan import HEAD_SITE, ImportPlan, PlannedLayer
from allinone.backends.onnx.layer_weights import (
    MATRICES,
    FloatLayer,
    layer_from_arrays,
    layer_to_arrays,
    linear_from_arrays,
    linear_to_arrays,
    load_layer,
    quantize_layer,
)
from allinone.backends.onnx.manifest import EMBEDDINGS_FILE, HEAD_FILE, LayerReport
from allinone.backends.onnx.parts import Part, PartsFile, is_unchanged, save_checksum
from allinone.backends.onnx.quantize import WeightType, quantize_head
from allinone.backends.onnx.reference import ReferenceRun
from allinone.backends.onnx.smoothing import apply_scales, choose_scales, smooth_layer
from allinone.errors import WeightsMismatch
from allinone.models.weights import WeightSource

FloatArray: TypeAlias = NDArray[np.float32]
Step: TypeAlias = Callable[[int], None]
"""Told how many of `num_layers + 2` steps are done."""

HEAD_PART = "head"
_REFINED = "refined-"
_ROWS_AT_ONCE = 8_192
SAMPLED_HEAD_ROWS = 4_096
_SMOOTH = "smooth."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """What decides every byte of the first pass.

    Attributes:
        fingerprint: of the source, computed once: it reads the whole file.
        cases: prompts to measure on; none where nothing is measured.
        in_blocks: names of matrices: "3.down", "head".
        known: an import plan that fits; what it says is not measured again.
    """

    source: WeightSource
    fingerprint: str
    weight_type: WeightType
    cases: tuple[AgreementCase, ...]
    is_smoothed: bool
    in_blocks: frozenset[str] = frozenset()
    known: ImportPlan | None = None

    @property
    def rows_dtype(self) -> Literal["float16", "float32"]:
        """How the rows of the embeddings and of the head are stored."""
        return "float32" if self.weight_type == "float32" else "float16"

    @property
    def head_file(self) -> str:
        """The file that holds the rows of the head."""
        return EMBEDDINGS_FILE if self.source.config.tie_word_embeddings else HEAD_FILE


def map_rows(plan: Plan, folder: Path, file_name: str) -> NDArray[Any]:
    """The rows (vocab_size, hidden_size) of a finished rows file."""
    shape = plan.source.config.vocab_size, plan.source.config.hidden_size
    return np.memmap(folder / file_name, np.dtype(plan.rows_dtype), mode="r", shape=shape)


def write_rows(plan: Plan, folder: Path) -> None:
    """Write `embeddings.bin`, and `head.bin` where the head is not tied; what is there and whole stays."""
    source = plan.source
    names = {EMBEDDINGS_FILE: "model.embed_tokens.weight"}
    if not source.config.tie_word_embeddings:
        names[HEAD_FILE] = "lm_head.weight"
    for file_name, tensor in names.items():
        path = folder / file_name
        if is_unchanged(path):
            continue
        rows = source.load(tensor)
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                block = rows[start : start + _ROWS_AT_ONCE].astype(plan.rows_dtype)
                if not np.isfinite(block).all():
                    raise WeightsMismatch(f"{source.name}: {tensor} holds values that are not finite")
                file.write(block.data)
        temporary.replace(path)
        save_checksum(path)


class FirstPass:
    """Every part from float weights, in the order in which the reference needs them."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan, self._folder = plan, folder
        self._source, self._config = plan.source, plan.source.config
        self._parts = PartsFile(folder)

    def run(self, step: Step) -> tuple[list[Part], list[FloatArray]]:
        """Write what is not there yet.

        Returns:
            The layers, then the head; and the FP32 logits of each case's labels.
        """
        made, reference = self._layers(step)
        norm = self._source.load("model.norm.weight")
        rows = map_rows(self._plan, self._folder, self._plan.head_file)
        made.append(self._parts.find(HEAD_PART) or self._make_head(rows, norm, reference))
        return made, self._label_logits(rows, norm, reference)

    def _layers(self, step: Step) -> tuple[list[Part], ReferenceRun | None]:
        """Every layer: finished ones from the parts, the others from the source."""
        made: list[Part] = []
        for index in range(self._config.num_layers):
            part = self._parts.find(_layer_part(index))
            if part is None:
                break
            made.append(part)
            step(index + 2)
        reference = self._start_reference(len(made))
        for index in range(len(made), self._config.num_layers):
            made.append(self._make_layer(index, reference))
            step(index + 2)
        return made, reference

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
        rows = map_rows(self._plan, self._folder, EMBEDDINGS_FILE)
        run = ReferenceRun(self._config, lengths, np.asarray(rows[ids], np.float32))
        for index in range(num_finished):
            run.step(load_layer(self._source, index))
        return run

    def _make_layer(self, index: int, reference: ReferenceRun | None) -> Part:
        """Reference, smoothing, quantisation and weights file for one layer."""
        plan, part = self._plan, _layer_part(index)
        layer = load_layer(self._source, index)
        if plan.known is not None:
            report, scales = plan.known.layers[index].report, plan.known.layers[index].load_scales()
            apply_scales(self._config, layer, scales)
        else:
            report, scales = self._measure_layer(index, layer, reference)
        matrices, vectors = layer_to_arrays(quantize_layer(layer, plan.weight_type, report.blocks), index)
        vectors |= {f"{_SMOOTH}{site}": values for site, values in scales.items()}
        return self._parts.write(part, matrices, vectors, report.model_dump(mode="json"))

    def _measure_layer(
        self, index: int, layer: FloatLayer, reference: ReferenceRun | None
    ) -> tuple[LayerReport, dict[str, FloatArray]]:
        """Let the reference go through a layer, then smooth it, in place, where that pays; its report and scales."""
        scales: dict[str, FloatArray] = {}
        errors: dict[str, float] = {}
        if reference is not None:
            inputs = reference.step(layer)
            if not np.isfinite(reference.hidden).all():
                raise WeightsMismatch(f"{self._source.name}: layer {index} computes values that are not finite")
            if self._plan.is_smoothed:
                scales, errors = smooth_layer(self._config, layer, inputs)
            self._parts.save_state(_layer_part(index), reference.hidden)
        blocks = blocks_of_layer(self._plan.in_blocks, index)
        return LayerReport(name=str(index), smoothed=tuple(scales), blocks=blocks, error=errors), scales

    def _make_head(self, rows: NDArray[Any], norm: FloatArray, reference: ReferenceRun | None) -> Part:
        """The head, its smoothing scales ("unsmooth"), and its report."""
        scales: FloatArray | None = None
        if (known := self._plan.known) is not None:
            scales = known.layers[-1].load_scales().get(HEAD_SITE)
            return write_head(self._parts, rows, scales, self._plan.weight_type, known.layers[-1].report)
        errors: dict[str, float] = {}
        if reference is not None and self._plan.is_smoothed:
            sample = np.asarray(rows[:: -(-len(rows) // SAMPLED_HEAD_ROWS)], np.float32)
            scales, errors = choose_scales(reference.all_hidden(norm), [("head", sample)])
        report = LayerReport(
            name="head",
            smoothed=() if scales is None else (HEAD_SITE,),
            blocks=("head",) if "head" in self._plan.in_blocks else (),
            error=errors,
        )
        return write_head(self._parts, rows, scales, self._plan.weight_type, report)

    def _label_logits(self, rows: NDArray[Any], norm: FloatArray, reference: ReferenceRun | None) -> list[FloatArray]:
        if reference is None:
            return []
        hidden = reference.last_hidden(norm)
        labels = [np.asarray(rows[list(case.label_ids)], np.float32) for case in self._plan.cases]
        return [label_rows @ one for label_rows, one in zip(labels, hidden, strict=True)]


def rewrite_blocks(plan: Plan, folder: Path, parts: list[Part], in_blocks: Collection[str]) -> list[Part]:
    """Write all parts again with exactly these matrices in finer blocks; what does not change is copied.

    Args:
        plan: of the first pass.
        folder: where the parts lie.
        parts: the layers, then the head. Emptied: the file they are mapped from is replaced.
        in_blocks: names of matrices: "3.down", "head".

    Returns:
        The new parts.
    """
    beside = PartsFile(folder, _REFINED)
    config = plan.source.config
    for index, part in enumerate(parts[:-1]):
        report = LayerReport.model_validate(part.notes)
        blocks = blocks_of_layer(in_blocks, index)
        weights = layer_from_arrays(part.arrays, index)
        scales = _layer_scales(part)
        changed = set(blocks) ^ set(report.blocks)
        if changed:
            layer = load_layer(plan.source, index)
            apply_scales(config, layer, scales)
            already = {name: getattr(weights, name) for name in MATRICES if name not in changed}
            weights = quantize_layer(layer, plan.weight_type, blocks, already=already)
        matrices, vectors = layer_to_arrays(weights, index)
        vectors |= {f"{_SMOOTH}{site}": values for site, values in scales.items()}
        report = report.model_copy(update={"blocks": blocks})
        beside.write(_layer_part(index), matrices, vectors, report.model_dump(mode="json"))
    _rewrite_head(plan, folder, parts[-1], beside, is_in_blocks="head" in in_blocks)
    parts.clear()
    del beside
    PartsFile.promote(folder, _REFINED)
    return _find_all(PartsFile(folder), config.num_layers)


def _rewrite_head(plan: Plan, folder: Path, part: Part, beside: PartsFile, *, is_in_blocks: bool) -> None:
    report = LayerReport.model_validate(part.notes)
    blocks = ("head",) if is_in_blocks else ()
    if blocks != report.blocks:
        rows = map_rows(plan, folder, plan.head_file)
        report = report.model_copy(update={"blocks": blocks})
        write_head(beside, rows, part.arrays.get("unsmooth"), plan.weight_type, report)
        return
    matrices, vectors = linear_to_arrays(linear_from_arrays(part.arrays, HEAD_PART), HEAD_PART)
    if "unsmooth" in part.arrays:
        vectors["unsmooth"] = part.arrays["unsmooth"]
    beside.write(HEAD_PART, matrices, vectors, part.notes)


def planned_layers(parts: Sequence[Part]) -> tuple[PlannedLayer, ...]:
    """What an import plan says about finished parts: the layers, then the head."""
    layers = [PlannedLayer.of(LayerReport.model_validate(part.notes), _layer_scales(part)) for part in parts[:-1]]
    unsmooth = parts[-1].arrays.get("unsmooth")
    scales = {} if unsmooth is None else {HEAD_SITE: unsmooth}
    return (*layers, PlannedLayer.of(LayerReport.model_validate(parts[-1].notes), scales))


def _layer_scales(part: Part) -> dict[str, FloatArray]:
    """Smoothing scales of a finished layer, by site."""
    return {name.removeprefix(_SMOOTH): values for name, values in part.arrays.items() if name.startswith(_SMOOTH)}


def write_head(
    parts: PartsFile, rows: NDArray[Any], scales: FloatArray | None, weight_type: WeightType, report: LayerReport
) -> Part:
    """Quantise the head as its report says, and keep it."""
    head = quantize_head(rows, scales, weight_type, in_blocks=bool(report.blocks))
    matrices, vectors = linear_to_arrays(head, HEAD_PART)
    if scales is not None:
        vectors["unsmooth"] = scales
    return parts.write(HEAD_PART, matrices, vectors, report.model_dump(mode="json"))


def blocks_of_layer(in_blocks: Collection[str], index: int) -> tuple[str, ...]:
    """Which matrices of a layer are among these: "down" for "3.down"."""
    prefix = f"{index}."
    return tuple(sorted(name.removeprefix(prefix) for name in in_blocks if name.startswith(prefix)))


def _find_all(file: PartsFile, num_layers: int) -> list[Part]:
    """Parts that were just written.

    Raises:
        WeightsMismatch: the disk does not give back what it was given.
    """
    found: Sequence[Part | None] = [file.find(name) for name in (*map(_layer_part, range(num_layers)), HEAD_PART)]
    parts = [part for part in found if part is not None]
    if len(parts) != len(found):
        raise WeightsMismatch("the weights file changed while it was written", hint="import again; check the disk")
    return parts


def _layer_part(index: int) -> str:
    return f"layer-{index:03d}"
