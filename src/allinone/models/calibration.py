"""What the makers of a model measured about its confidence: one temperature for each label task.

A temperature T was fitted on texts kept out of training; label probabilities become softmax(log-probabilities / T). It
belongs to the weights, so it travels with them: as metadata of a GGUF (`allinone.temperature.TASK`), as
`calibration.json` in a folder. Above: `files.py` reads it, `tasks/label.py` applies it.

Source: Guo et al., On Calibration of Modern Neural Networks, 2017
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from allinone.errors import ModelError, TokenizerMismatch, WeightsMismatch
from allinone.models.tokenizer_files import read_file

CALIBRATION_FILE = "calibration.json"
METADATA_PREFIX = "allinone.temperature."
_NEEDED = "a positive number is needed"


class _SavedCalibration(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    temperatures: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """`temperatures`: name of a label task -> T > 0. Above 1 makes probabilities more modest, below 1 bolder."""

    temperatures: Mapping[str, float] = field(default_factory=dict[str, float])

    def temperature_of(self, task: str) -> float:
        """T of a task: its own (`sentiment.en`), else that of the task it is a variant of, else 1."""
        return self.temperatures.get(task, self.temperatures.get(task.partition(".")[0], 1.0))

    def save(self, folder: Path) -> None:
        """Write `calibration.json`."""
        content = _SavedCalibration(temperatures=dict(self.temperatures)).model_dump_json(indent=2)
        (folder / CALIBRATION_FILE).write_text(content + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Calibration:
        """What `save` wrote; a folder without the file is a model that nobody calibrated.

        Raises:
            ModelError: the file is damaged, or a temperature is not a positive number.
        """
        file = folder / CALIBRATION_FILE
        if not file.is_file():
            return cls()
        try:
            temperatures = read_file(_SavedCalibration, file).temperatures
        except (OSError, TokenizerMismatch) as error:
            raise ModelError(f"{file} cannot be read: {error}", hint="import the model again") from error
        for task, temperature in temperatures.items():
            if not _is_temperature(temperature):
                raise ModelError(f"{file} is damaged: the temperature of {task!r} is {temperature!r}, {_NEEDED}")
        return cls(temperatures=temperatures)


def read_gguf_calibration(metadata: Mapping[str, Any], *, file: str) -> Calibration:
    """The temperatures among a GGUF's metadata.

    Raises:
        WeightsMismatch: one is not a positive number.
    """
    temperatures: dict[str, float] = {}
    for key, value in metadata.items():
        if key.startswith(METADATA_PREFIX):
            if not _is_temperature(value):
                raise WeightsMismatch(f"{file}: metadata {key} is {value!r}, {_NEEDED}")
            temperatures[key.removeprefix(METADATA_PREFIX)] = float(value)
    return Calibration(temperatures=temperatures)


def _is_temperature(value: object) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return math.isfinite(value) and value > 0
