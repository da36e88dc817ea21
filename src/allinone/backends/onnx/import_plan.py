"""What an import measured, kept beside the model so that later imports only quantise: `NAME.plan.json`.

Owns the file and its checks: smoothing scales, matrices in finer blocks, errors and the agreement report, tied to the
SHA-256 of the weights, the compiled format and the settings of the measurement. Above: `compile.py` asks whether a plan
fits and writes new ones, `passes.py` follows it. Knows no graph and no weights.

Source: docs/decisions/0009-import-plans.md
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from allinone.backends.onnx.layer_weights import MATRICES
from allinone.backends.onnx.manifest import FORMAT_VERSION, AgreementReport, LayerReport
from allinone.backends.onnx.smoothing import site_share, site_widths
from allinone.backends.onnx.workspace import disk_errors
from allinone.errors import WeightsMismatch
from allinone.models.weights import ModelConfig

Scales: TypeAlias = Mapping[str, NDArray[np.float32]]
"""Site of a layer -> what its input channels are divided by."""

PLAN_VERSION = 1
PLAN_SUFFIX = ".plan.json"
HEAD_SITE = "final_norm"
_VERSIONS = {"plan_version": PLAN_VERSION, "format_version": FORMAT_VERSION}


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PlannedLayer(_Record):
    """One decoder layer, or the head. `scales`: site -> base64 of little-endian float32, so they come back exactly."""

    report: LayerReport
    scales: dict[str, str] = {}

    @classmethod
    def of(cls, report: LayerReport, scales: Scales) -> PlannedLayer:
        """The record of a report and its scales."""
        encoded = {site: base64.b64encode(values.astype("<f4").tobytes()).decode() for site, values in scales.items()}
        return cls(report=report, scales=encoded)

    def load_scales(self) -> dict[str, NDArray[np.float32]]:
        """The scales of each site.

        Raises:
            ValueError: they are not base64 of float32.
        """
        contents = {site: base64.b64decode(text, validate=True) for site, text in self.scales.items()}
        return {site: np.frombuffer(content, "<f4").astype(np.float32) for site, content in contents.items()}

    def check(self, config: ModelConfig) -> None:
        """Check names, and that scales are positive, one per channel, and shared where they must be.

        Raises:
            ValueError: one is not what this model needs.
        """
        is_head = self.report.name == "head"
        if unknown := set(self.report.blocks) - set(("head",) if is_head else MATRICES):
            raise ValueError(f"layer {self.report.name} has no matrix {min(unknown)!r}")
        if set(self.scales) != set(self.report.smoothed):
            raise ValueError(f"layer {self.report.name} has scales for other inputs than it says are smoothed")
        widths = {HEAD_SITE: config.hidden_size} if is_head else site_widths(config)
        for site, scales in self.load_scales().items():
            share = site_share(site, config)
            is_usable = scales.shape == (widths.get(site),) and bool((np.isfinite(scales) & (scales > 0)).all())
            if not is_usable or (share is not None and not np.array_equal(share(scales), scales)):
                raise ValueError(f"the scales {site!r} of layer {self.report.name} cannot be used")


class ImportPlan(_Record):
    """The whole of a plan file. Both integer weight types hold the same values, so one plan serves both.

    Attributes:
        source_fingerprint: of the weights it was made from.
        settings: digest of the prompts and numbers that decide what is measured and chosen.
        layers: every layer in order, then the head.
        agreement: what the makers measured; its `max_allowed_error` is the bar they asked for.
    """

    plan_version: Literal[1] = PLAN_VERSION
    format_version: int = FORMAT_VERSION
    source_fingerprint: str
    settings: str
    layers: tuple[PlannedLayer, ...]
    agreement: AgreementReport

    def check(self, config: ModelConfig) -> None:
        """Check that it can be followed for a model of these sizes.

        Raises:
            ValueError: it cannot; says why.
        """
        names = [layer.report.name for layer in self.layers]
        if names != [*map(str, range(config.num_layers)), "head"]:
            raise ValueError(f"it has the layers {', '.join(names)}")
        for layer in self.layers:
            layer.check(config)


def plan_file(path: Path) -> Path:
    """Where the plan of a model lies: beside a GGUF file under its name, in a folder beside `model.safetensors`."""
    return path / f"model{PLAN_SUFFIX}" if path.is_dir() else path.with_suffix(PLAN_SUFFIX)


def find_import_plan(
    file: Path, config: ModelConfig, *, fingerprint: str, settings: str, max_allowed_error: float
) -> ImportPlan | None:
    """The plan in a file, if it is there and an import of these weights with these settings would measure the same.

    Raises:
        WeightsMismatch: the file is damaged.
    """
    if not file.is_file():
        return None
    hint = "remove it, or fetch it again together with the model; without a plan the import measures by itself"
    try:
        plan = _read(file)
        mine = (fingerprint, settings, max_allowed_error)
        if plan is None or (plan.source_fingerprint, plan.settings, plan.agreement.max_allowed_error) != mine:
            return None
        plan.check(config)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        problem = f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
        raise WeightsMismatch(f"{file} is damaged: {problem}", hint=hint) from error
    except (OSError, ValueError) as error:
        raise WeightsMismatch(f"{file} is damaged: {error}", hint=hint) from error
    return plan


def _read(file: Path) -> ImportPlan | None:
    """What a file says; None where it says that another version of this program wrote it."""
    content: Any = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(content, dict):
        versions = {key: cast(dict[str, Any], content).get(key) for key in _VERSIONS}
        if all(isinstance(value, int) for value in versions.values()) and versions != _VERSIONS:
            return None
    return ImportPlan.model_validate(content)


def write_import_plan(file: Path, plan: ImportPlan) -> None:
    """Write a plan whole or not at all; the same plan gives the same bytes.

    Raises:
        StoreError: the disk is full or cannot be written.
    """
    with disk_errors(file.parent):
        temporary = file.with_name(f"{file.name}.tmp")
        temporary.write_text(plan.model_dump_json(indent=1) + "\n", encoding="utf-8", newline="\n")
        temporary.replace(file)
