"""Measure every candidate for a model on this machine, compare it with the reference, and choose.

Owns the comparison and the rule of the choice: the fastest of those whose labels agree with FP32, or with the file as
it is where our own engine does not know the model and cannot make FP32 of it. Prints nothing.
Above: `allinone models tune`. Below: `candidates.py`, `measure.py`, and `backends/choice.py`, which remembers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from allinone.backends.choice import BackendChoice
from allinone.backends.cpu import detect_cpu
from allinone.backends.onnx.agreement import compare_labels
from allinone.backends.onnx.manifest import AgreementReport
from allinone.errors import AllInOneError
from allinone.loading import compiled_folder, import_model
from allinone.models.locate import ModelLocation, locate_model
from allinone.tuning.candidates import Candidate, Skipped, find_candidates
from allinone.tuning.measure import Measurement, measure_apart

MAX_LABEL_LOGPROB_ERROR = 0.03
"""Nats: the bar on the mean |difference| from the reference; the same as for an import."""
_BUSY_SHARE = 0.5

Progress: TypeAlias = Callable[[str, int, int], None]
Measure: TypeAlias = Callable[[Candidate], Measurement]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A candidate, and what was found; no measurement where it `failed`, no agreement without a measurement."""

    candidate: Candidate
    measurement: Measurement | None = None
    agreement: AgreementReport | None = None
    failed: str | None = None

    def to_record(self) -> dict[str, Any]:
        """For JSON: everything but the logits."""
        record: dict[str, Any] = {
            "backend": self.candidate.backend,
            "weights": self.candidate.weights,
            "path": str(self.candidate.path),
            "error": self.failed,
        }
        if self.measurement is not None:
            names = ("load_s", "label_ms", "labels_per_s", "decode_tokens_per_s", "peak_bytes", "added_bytes")
            record |= {name: round(getattr(self.measurement, name), 3) for name in names}
        if self.agreement is not None:
            record |= {
                "label_agreement": self.agreement.label_agreement,
                "decided_agreement": self.agreement.decided_agreement,
                "mean_logprob_error": self.agreement.mean_logprob_error,
                "agrees": self.agreement.holds,
            }
        return record


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneReport:
    """All that was found.

    Attributes:
        best: the fastest of those that agree.
        was_busy: something else used the machine, so the speeds are too low and maybe in the wrong order.
    """

    location: ModelLocation
    outcomes: Sequence[Outcome]
    skipped: Sequence[Skipped]
    best: Candidate
    was_busy: bool

    @property
    def reference(self) -> Candidate:
        """Whose answers the others were compared with."""
        return self.outcomes[0].candidate

    def to_choice(self) -> BackendChoice:
        """What is worth remembering."""
        return BackendChoice(
            backend=self.best.backend,
            weights=self.best.weights,
            path=self.best.path,
            cache_key=locate_model(self.best.path).cache_key,
        )


def tune_model(
    location: ModelLocation,
    *,
    num_threads: int | None = None,
    seconds: float = 1.5,
    on_progress: Progress | None = None,
    measure: Measure | None = None,
) -> TuneReport:
    """Measure, compare and choose; several minutes for a model of 0.5 B parameters.

    Args:
        location: the model, not a compiled one.
        num_threads: the physical cores where None.
        seconds: for each speed of each candidate.
        on_progress: (what is done now, steps done, steps in all).
        measure: measures one candidate; in a process of its own where None.

    Raises:
        UsageError: a compiled folder.
        WeightsMismatch: nothing that is here can read the model.
        RunError: the reference cannot be measured, so nothing can be compared; where it cannot even be compiled, what
            an import raises.
    """
    was_busy = _is_busy()
    candidates, skipped = find_candidates(location)
    report = on_progress or _no_progress
    measure = measure or (lambda one: measure_apart(one, num_threads=num_threads, seconds=seconds))
    outcomes: list[Outcome] = []
    for place, candidate in enumerate(candidates):
        try:
            report(f"compiling {candidate.name}", place, len(candidates))
            _compile(candidate)
            report(candidate.name, place, len(candidates))
            found = measure(candidate)
        except AllInOneError as error:
            if candidate.is_reference:
                raise
            outcomes.append(Outcome(candidate=candidate, failed=error.message))
            continue
        reference = outcomes[0].measurement if outcomes else found
        assert reference is not None, "a reference that fails ends everything"
        outcomes.append(Outcome(candidate=candidate, measurement=found, agreement=_compare(reference, found)))
    report("done", len(candidates), len(candidates))
    return TuneReport(location=location, outcomes=outcomes, skipped=skipped, best=choose(outcomes), was_busy=was_busy)


def choose(outcomes: Sequence[Outcome]) -> Candidate:
    """The fastest candidate whose labels agree with the reference: by the geometric mean of the three speeds.

    A candidate that is first in one of them and far behind in another is not the best for a program that does both.
    """
    able = [(o.candidate, o.measurement) for o in outcomes if o.measurement and o.agreement and o.agreement.holds]
    return max(able, key=lambda one: _speed(one[1]))[0]


def _speed(found: Measurement) -> float:
    return math.exp(
        (math.log(1000 / found.label_ms) + math.log(found.labels_per_s) + math.log(found.decode_tokens_per_s)) / 3
    )


def _compare(reference: Measurement, found: Measurement) -> AgreementReport:
    expected, got = ([np.array(row, np.float32) for row in one.label_logits] for one in (reference, found))
    return compare_labels(expected, got, MAX_LABEL_LOGPROB_ERROR)


def _compile(candidate: Candidate) -> None:
    """Importing is no part of running: it comes first, and not in the process that is measured."""
    if candidate.backend != "onnx":
        return
    location = locate_model(candidate.path)
    folder = compiled_folder(location, candidate.weights)
    if not (folder / "manifest.json").is_file():
        import_model(location, folder, quantization="int8" if candidate.weights == "int8" else "float32")


def _is_busy() -> bool:
    if not hasattr(os, "getloadavg"):
        return False
    return os.getloadavg()[0] > _BUSY_SHARE * detect_cpu().num_physical_cores


def _no_progress(step: str, done: int, total: int) -> None:
    """Nobody wants to know."""
