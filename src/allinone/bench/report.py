"""What a run of `allinone bench` found, as it is saved, read and compared. Format and field names are a contract."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from allinone.bench.figures import FIGURES, Unit
from allinone.bench.statistics import Rounds, compute_interval, compute_quantile
from allinone.errors import InvalidInput, StoreError, UsageError

FORMAT_VERSION = 1
_Direction = Literal["lower", "higher"]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Measurement(_Part):
    """One figure with everything that it was computed from.

    Attributes:
        value: the median, or the percentile that the figure is.
        low, high: percentile bootstrap interval of the value, 95 %.
        samples: in the order in which they were taken.
        rounds: how many of them each round of the run gave.
    """

    value: _Positive
    unit: Unit
    better: _Direction
    low: _Positive
    high: _Positive
    samples: list[_Positive] = Field(min_length=1)
    rounds: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_rounds(self) -> Measurement:
        if sum(self.rounds) != len(self.samples):
            raise ValueError(f"rounds {self.rounds} do not add up to {len(self.samples)} samples")
        return self

    def by_round(self) -> Rounds:
        """The samples of each round."""
        ends = list(accumulate(self.rounds))
        return [self.samples[end - count : end] for count, end in zip(self.rounds, ends, strict=True)]


class Machine(_Part):
    """Where a run was made.

    Attributes:
        cores: that the process may use.
        features: of the CPU, those that matter to int8 products.
        load: load average before the start; None where the system has none.
        versions: package -> version.
    """

    cpu: str
    cores: int
    threads: int
    features: tuple[str, ...]
    kernel: str
    load: float | None
    system: str
    versions: dict[str, str]


class Workload(_Part):
    """What was fed. `digest` is equal for equal texts and prompts.

    Attributes:
        prefix_tokens: of the label task, cached.
        label_tokens: fed for one label.
        history_tokens: of the conversation before its 50th turn.
    """

    digest: str
    prefix_tokens: int
    label_tokens: int
    history_tokens: int | None


class Busy(_Part):
    """Whether the machine was too busy to trust the figures; None where the system does not say."""

    is_busy: bool | None
    reason: str


class BenchReport(_Part):
    """A whole run. `seconds` is what it took, models made or imported on the way not counted."""

    bench: int = FORMAT_VERSION
    model: str
    backend: str
    quick: bool
    machine: Machine
    workload: Workload
    busy: bool | None
    busy_reason: str
    figures: dict[str, Measurement]
    seconds: float

    def to_document(self) -> dict[str, Any]:
        """The report as JSON carries it."""
        return self.model_dump(mode="json")


def measurement(name: str, rounds: Rounds) -> Measurement:
    """The samples of a figure, summed up.

    Args:
        name: one of `FIGURES`.
        rounds: samples of each round; rounds without any are left out.
    """
    figure = FIGURES[name]
    rounds = [samples for samples in rounds if samples]
    low, high = compute_interval(rounds, figure.quantile)
    value = compute_quantile(rounds, figure.quantile)
    return Measurement(
        value=_rounded(value),
        unit=figure.unit,
        better=figure.better,
        low=_rounded(min(low, value)),
        high=_rounded(max(high, value)),
        samples=[_rounded(sample) for samples in rounds for sample in samples],
        rounds=[len(samples) for samples in rounds],
    )


def read_report(path: str | Path) -> BenchReport:
    """A report that `allinone bench --json` printed.

    Raises:
        UsageError: it is not there, has another format, or is none.
        InvalidInput: it is damaged; names the field.
        StoreError: it cannot be read.
    """
    try:
        text = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"There is no file '{path}'.", hint="save one: allinone bench --json > before.json") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
    version = _read_version(text)
    if version is None:
        raise UsageError(f"{path} is no report of a benchmark.", hint="save one: allinone bench --json > before.json")
    if version != FORMAT_VERSION:
        raise UsageError(
            f"{path} has format {version!r} of `allinone bench`; this version writes and compares {FORMAT_VERSION}.",
            hint="measure again with one version of the program: allinone bench --json > before.json",
        )
    try:
        return _SavedReport.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise InvalidInput(f"{path} is damaged: {place}: {first['msg']}.", hint="measure again") from error


class _Version(BaseModel):
    bench: Any = None


class _SavedReport(BenchReport):
    """A report as it lies on disk: a comparison that was printed with it is not read."""

    comparison: Any = Field(default=None, exclude=True)


def _read_version(text: bytes) -> Any:
    try:
        return _Version.model_validate_json(text).bench
    except ValidationError:
        return None


def _rounded(value: float) -> float:
    """Seven significant digits: more than any clock gives, and files stay small."""
    return float(f"{value:.7g}")
