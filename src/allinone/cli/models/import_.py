"""`allinone models import`: a model as people have it → the folder that runs fast, with a measured agreement report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allinone.cli.options import JsonOption
from allinone.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from allinone.backends.onnx.manifest import Manifest


def import_(
    source: Annotated[
        str, typer.Argument(metavar="PATH|ID", help="A GGUF file, a safetensors folder, or a hub id that was pulled.")
    ],
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FOLDER", help="Where to put it. Default: the cache folder.")
    ] = None,
    quantization: Annotated[str, typer.Option(metavar="int8|float32", help="Of the weights and activations.")] = "int8",
    max_error: Annotated[
        float | None,
        typer.Option(
            "--max-error",
            min=0.0,
            metavar="NATS",
            help="Mean |Δ label log-prob| that a layer's quantisation must hold.",
        ),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure here, even where the model brings an import plan.")
    ] = False,
    write_plan: Annotated[
        bool,
        typer.Option("--write-plan", help="Measure, and write the import plan beside the model, for whoever gets it."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Compile a model for this machine, and report how it agrees with FP32.

    [bold]Examples[/]

    allinone models import ./qwen1_5-0_5b-chat-q8_0.gguf
    allinone models import Qwen/Qwen2.5-0.5B-Instruct -o ./qwen2.5-compiled
    allinone run sentiment --model ./qwen2.5-compiled "这家店太棒了"

    A model is compiled by itself on its first use; this command is for
    choosing where, and for seeing the report.
    """
    from allinone.cli.output import print_json, print_line
    from allinone.cli.session import ImportProgress
    from allinone.loading import compiled_folder, import_model
    from allinone.models.locate import locate_model

    if quantization not in ("int8", "float32"):
        raise ConfigError(f"Unknown quantization {quantization!r}. Known: int8, float32")
    if write_plan and quantization != "int8":
        raise UsageError(
            f"There is no import plan for {quantization}.", hint="leave out --write-plan or --quantization"
        )
    location = locate_model(source)
    destination = Path(output) if output is not None else compiled_folder(location, quantization)
    if output is not None and destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise UsageError(f"{output} is there already.", hint="choose another folder with -o, or remove it")
    start = time.perf_counter()
    with ImportProgress(f"Importing {location.path.name}") as progress:
        manifest = import_model(
            location,
            destination,
            quantization=quantization,
            on_progress=progress.show,
            max_label_logprob_error=max_error,
            measure=measure,
            write_plan=write_plan,
        )
    seconds = time.perf_counter() - start
    if json:
        print_json({"path": str(destination), "seconds": round(seconds, 2), **manifest.model_dump(mode="json")})
        return
    print_line(f"{manifest.model}: compiled in {seconds:.1f} s to {destination}")
    print_agreement(manifest)
    print_line(f'Try it: allinone run sentiment --model {source if output is None else destination} "…"')


def print_agreement(manifest: Manifest) -> None:
    """How a compiled model compares with FP32, for people."""
    from allinone.cli.output import print_facts

    facts = {"quantisation": f"{manifest.quantization} ({manifest.weight_type}), stored as {manifest.stored_dtype}"}
    smoothed = [f"{layer.name}: {', '.join(layer.smoothed)}" for layer in manifest.layers if layer.smoothed]
    in_blocks = [f"{layer.name}: {', '.join(layer.blocks)}" for layer in manifest.layers if layer.blocks]
    facts["smoothed"] = "\n".join(smoothed) or "no layer needed it"
    facts["finer blocks"] = "\n".join(in_blocks) or "no layer needed them"
    if (agreement := manifest.agreement) is not None:
        facts["agreement with FP32"] = (
            f"{agreement.label_agreement:.1%} of {agreement.num_texts} texts get the same label, "
            f"{agreement.decided_agreement:.1%} where FP32 is decided (margin over {agreement.min_margin:g} nats)"
        )
        facts["|Δ log-prob|"] = (
            f"mean {agreement.mean_logprob_error:.3f}, largest {agreement.max_logprob_error:.3f} nats; "
            f"the bar is {agreement.max_allowed_error:g}: {'held' if agreement.holds else 'MISSED'}"
        )
        if agreement.measured == "plan":
            facts["measured"] = "by the makers of the file; `allinone models import --measure` measures here"
    print_facts(facts)
