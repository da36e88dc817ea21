"""`allinone models tune`: measure the engines and weight types that are here, and remember the best for this model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from allinone.cli.options import JsonOption, ThreadsOption
from allinone.errors import UsageError

if TYPE_CHECKING:
    from allinone.tuning.candidates import Candidate
    from allinone.tuning.tune import Outcome, TuneReport


def tune(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME|PATH|ID", help="bundled, a GGUF file, a safetensors folder, or a pulled hub id."),
    ],
    threads: ThreadsOption = None,
    seconds: Annotated[
        float, typer.Option(min=0.05, max=60.0, help="For each of the three speeds of each candidate.")
    ] = 1.5,
    no_remember: Annotated[bool, typer.Option("--no-remember", help="Measure only; change nothing.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Forget what was remembered; measure nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Measure what runs a model best on this machine, and remember it.

    [bold]Examples[/]

    allinone models tune bundled
    allinone models tune Qwen/Qwen2.5-0.5B-Instruct-GGUF --json
    allinone models tune bundled --forget

    Candidates: onnx with int8 and float32 weights, llama.cpp (make llamacpp)
    with each quantisation of the model that lies in its folder, transformers
    with float32 and bfloat16. Chosen is the fastest whose labels agree with
    FP32 on built-in texts, or, where llama.cpp alone knows the model, with
    the file as it is; commands without --backend use it from then on, for
    this model on this machine.
    """
    from allinone.backends.choice import forget_choice, remember_choice
    from allinone.cli.output import note, print_json, print_line
    from allinone.cli.session import ImportProgress
    from allinone.models.locate import locate_model
    from allinone.tuning.tune import tune_model

    location = locate_model(name)
    if forget:
        if no_remember:
            raise UsageError("--forget and --no-remember exclude each other.")
        print_line("Forgotten." if forget_choice(location) else "Nothing was remembered for this model.")
        return
    with ImportProgress(f"Measuring {location.path.name}") as progress:
        report = tune_model(location, num_threads=threads, seconds=seconds, on_progress=progress.show)
    if report.was_busy:
        note("The machine is busy with something else: measure again when it is quiet, the order may change.")
    file = None if no_remember else remember_choice(location, report.to_choice())
    if json:
        print_json(describe(report) | {"remembered": None if file is None else str(file)})
        return
    _print(report)
    if file is not None:
        print_line(f"Remembered: without --backend, {report.best.name} runs this model on this machine.")


def describe(report: TuneReport) -> dict[str, object]:
    """The whole report as one JSON object."""
    return {
        "model": str(report.location.path),
        "was_busy": report.was_busy,
        "best": _record(report.best),
        "reference": _record(report.reference) | {"form": report.reference.form},
        "candidates": [outcome.to_record() for outcome in report.outcomes],
        "skipped": [{"backend": one.name, "reason": one.reason} for one in report.skipped],
    }


def _record(candidate: Candidate) -> dict[str, object]:
    return {"backend": candidate.backend, "weights": candidate.weights, "path": str(candidate.path)}


def _print(report: TuneReport) -> None:
    from allinone.cli.output import print_line, print_table

    columns = (
        "engine, weights",
        "one label",
        "labels/s",
        "decode",
        "memory",
        "added",
        "same label",
        "|Δ log-prob|",
        "",
    )
    rows = [_row(outcome, is_best=outcome.candidate == report.best) for outcome in report.outcomes]
    print_table(columns, rows)
    print_line(f"Agreement is with {report.reference.form} ({report.reference.name}).")
    for outcome in report.outcomes:
        if outcome.failed is not None:
            print_line(f"{outcome.candidate.name}: {outcome.failed}")
    for skipped in report.skipped:
        print_line(f"{skipped.name}: not measured, {skipped.reason}")


def _row(outcome: Outcome, *, is_best: bool) -> tuple[str, ...]:
    from allinone.cli.output import format_bytes

    found, agreement = outcome.measurement, outcome.agreement
    if found is None or agreement is None:
        return (outcome.candidate.name, *[""] * 7, "failed")
    verdict = "best" if is_best else "" if agreement.holds else "differs too much"
    return (
        outcome.candidate.name,
        f"{found.label_ms:.1f} ms",
        f"{found.labels_per_s:,.0f}",
        f"{found.decode_tokens_per_s:,.0f} tok/s",
        format_bytes(found.peak_bytes) if found.peak_bytes else "unknown",
        format_bytes(found.added_bytes) if found.peak_bytes else "unknown",
        f"{agreement.label_agreement:.1%}",
        f"{agreement.mean_logprob_error:.4f}",
        "reference" if outcome.candidate.is_reference and not is_best else verdict,
    )
