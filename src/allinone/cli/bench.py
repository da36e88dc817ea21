"""`allinone bench`: what the room `bench/` measured, as a table, JSON or a picture, and beside an earlier run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allinone.cli.options import BackendOption, JsonOption, ModelOption, ThreadsOption, choose_backend
from allinone.errors import ConfigError, StoreError, UsageError

if TYPE_CHECKING:
    from allinone.bench.compare import Comparison
    from allinone.bench.report import BenchReport

QuickOption = Annotated[
    bool, typer.Option("--quick", help="Fewer repetitions: under 40 s on two cores with the bundled model.")
]
PlotOption = Annotated[str | None, typer.Option("--plot", metavar="FILE.svg", help="Draw the figures, too.")]
CompareOption = Annotated[
    str | None,
    typer.Option("--compare", metavar="BEFORE.json", help="Say what changed since a run that was saved with --json."),
]
ShapeOption = Annotated[
    str | None,
    typer.Option(
        metavar="qwen1.5-0.5b|qwen2.5-0.5b|qwen3-0.6b",
        help="Measure random weights of this shape, made once (minutes, 1 GB in the cache folder).",
    ),
]


def bench(
    quick: QuickOption = False,
    json: JsonOption = False,
    plot: PlotOption = None,
    compare: CompareOption = None,
    shape: ShapeOption = None,
    model: ModelOption = None,
    backend: BackendOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Measure how fast a model runs here, and whether that changed.

    [bold]Examples[/]

    allinone bench
    allinone bench --quick --json > before.json
    allinone bench --quick --compare before.json
    allinone bench --model Qwen/Qwen2.5-0.5B-Instruct --plot speed.svg
    allinone bench --shape qwen1.5-0.5b --threads 2

    Cold start, labels alone and in flight, decoding, first tokens of replies
    and memory: medians and 95 % intervals of repeated measurements. A change
    that is within what the figures vary by is called noise. It says when
    the machine was too busy to trust them.
    """
    from allinone.bench.compare import compare_reports
    from allinone.bench.report import read_report
    from allinone.cli.output import note, print_line, to_json

    chosen = choose_backend(backend)
    _check_choice(shape, model=model, backend=chosen)
    _check_picture(plot)
    before = read_report(compare) if compare is not None else None
    report = _measure(shape, model=model, backend=chosen, threads=threads, is_quick=quick)
    comparison = compare_reports(before, report) if before is not None else None
    if plot is not None:
        _write_picture(Path(plot), report)
    if json:
        found = {} if comparison is None else {"comparison": comparison.to_document()}
        print_line(to_json({**report.to_document(), **found}))
        if report.busy:
            note(f"The machine was busy: {report.busy_reason}. Do not trust these figures.")
        return
    _print_report(report)
    if comparison is not None and before is not None:
        _print_comparison(comparison, before, report)


def _measure(
    shape: str | None, *, model: str | None, backend: str | None, threads: int | None, is_quick: bool
) -> BenchReport:
    """Make the model where that is asked for, and measure; progress on stderr."""
    from allinone.bench.measure import run_bench
    from allinone.bench.runner import Target
    from allinone.bench.shapes import SHAPES, make_model
    from allinone.cli.session import ImportProgress

    if shape is not None:
        with ImportProgress(f"Making random weights of the shape {shape} (once)") as making:
            model, backend = str(make_model(shape, SHAPES[shape], on_progress=making.show)), "onnx"
    target = Target(model=model, backend=backend, threads=threads)
    with ImportProgress() as importing, ImportProgress("Measuring") as measuring:
        return run_bench(target, is_quick=is_quick, on_import=importing.show, on_progress=measuring.show)


def _check_choice(shape: str | None, *, model: str | None, backend: str | None) -> None:
    """Refuse a shape that is unknown or does not go with the other options.

    Raises:
        ConfigError, UsageError.
    """
    from allinone.bench.shapes import require_shape

    if shape is None:
        return
    require_shape(shape)
    if model is not None:
        raise UsageError("--shape and --model are both given.", hint="use one of them")
    if backend not in (None, "onnx"):
        raise ConfigError(f"--shape makes a model for the backend 'onnx', not {backend!r}.", hint="leave out --backend")


def _check_picture(path: str | None) -> None:
    """Refuse what could not be written before anything is measured.

    Raises:
        ConfigError: not an .svg file, or there is no such folder.
    """
    if path is None:
        return
    target = Path(path)
    if target.suffix.lower() != ".svg":
        raise ConfigError(f"--plot {path!r} does not end in .svg.", hint="the picture is an SVG: --plot speed.svg")
    if not target.parent.is_dir():
        raise ConfigError(f"There is no folder {str(target.parent)!r}.", hint="make it, or choose another --plot")
    if target.is_dir():
        raise ConfigError(f"{path!r} is a folder.", hint="name a file in it with --plot")


def _write_picture(path: Path, report: BenchReport) -> None:
    """Write the picture, whole or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    from allinone.bench.plot import draw

    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(draw(report), encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise StoreError(f"{path} cannot be written: {error.strerror}.") from error


def _print_report(report: BenchReport) -> None:
    from allinone.bench.figures import FIGURES
    from allinone.bench.plot import format_value
    from allinone.cli.output import print_line, print_table

    machine = report.machine
    print_line(f"{report.model} on {machine.cpu}, {machine.threads} of {machine.cores} cores, {machine.kernel}")
    rows = [
        (
            FIGURES[name].title,
            format_value(figure.value, figure.unit),
            f"{format_value(figure.low, figure.unit)} to {format_value(figure.high, figure.unit)}",
            str(len(figure.samples)),
        )
        for name, figure in report.figures.items()
    ]
    print_table(("figure", "value", "95 % interval", "samples"), rows)
    print_line(f"Measured in {report.seconds:.0f} s with {report.workload.label_tokens} new tokens for each label.")
    if report.busy:
        print_line(f"✗ The machine was busy: {report.busy_reason}. Do not trust these figures.")
    elif report.busy is None:
        print_line(f"· Whether the machine was busy is {report.busy_reason}.")
    else:
        print_line(f"The machine was free: {report.busy_reason}.")


def _print_comparison(comparison: Comparison, before: BenchReport, after: BenchReport) -> None:
    from allinone.bench.figures import FIGURES
    from allinone.bench.plot import format_value
    from allinone.cli.output import print_line, print_table

    rows = [
        (
            FIGURES[name].title,
            format_value(before.figures[name].value, before.figures[name].unit),
            format_value(after.figures[name].value, after.figures[name].unit),
            f"{change.change:+.1%}",
            f"{change.low:+.1%} to {change.high:+.1%}",
            change.verdict,
        )
        for name, change in comparison.changes.items()
    ]
    print_line()
    print_table(("figure", "before", "now", "change", "99 % interval", "verdict"), rows)
    for name in comparison.missing:
        print_line(f"· only one of the two runs has: {FIGURES[name].title if name in FIGURES else name}")
    for warning in comparison.warnings:
        print_line(f"· {warning}")
