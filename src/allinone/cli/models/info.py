"""`allinone models info`: what a model is: sizes, licence, temperatures, quantisation, agreement, and its card."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allinone.cli.options import JsonOption

if TYPE_CHECKING:
    from allinone.backends.onnx.manifest import Manifest
    from allinone.models.locate import ModelLocation
    from allinone.models.weights import ModelConfig

CARD_FILE = "CARD.md"


def info(
    name: Annotated[str, typer.Argument(metavar="NAME|PATH|ID", help="bundled, a path, or a hub id that was pulled.")],
    json: JsonOption = False,
) -> None:
    """Show sizes, licence and card, and, once compiled, the agreement with FP32.

    [bold]Examples[/]

    allinone models info bundled
    allinone models info ./qwen2.5-compiled --json

    The card is the CARD.md beside the weights: what a model was made of, what
    it can do, and what it is bad at.
    """
    from allinone.cli.models.import_ import print_agreement
    from allinone.cli.output import print_facts, print_json, print_line
    from allinone.loading import compiled_folder
    from allinone.models.locate import locate_model

    location = locate_model(name)
    facts = describe_files(location)
    compiled = compiled_folder(location, "int8")
    manifest = _find_manifest(compiled)
    card = find_card(location)
    if json:
        compiled_facts = {"path": str(compiled), **manifest.model_dump(mode="json")} if manifest else None
        print_json({**facts, "compiled": compiled_facts, "card": card})
        return
    print_facts(_facts_for_people(facts))
    if manifest is None:
        print_line("compiled: not yet; it happens on the first use, or with `allinone models import`")
    else:
        print_line(f"compiled: {compiled}")
        print_agreement(manifest)
    print_line()
    if card is None:
        print_line(f"card: none; a {CARD_FILE} beside the weights would be shown here")
    else:
        _print_card(card)


def describe_files(location: ModelLocation) -> dict[str, Any]:
    """What the files say: name, form, licence, temperatures, sizes. No weight is read."""
    from dataclasses import asdict
    from math import prod

    from allinone.backends.onnx.manifest import read_manifest
    from allinone.models.architecture import expected_tensors
    from allinone.models.calibration import Calibration
    from allinone.models.files import open_model

    files = [location.path] if location.path.is_file() else [f for f in location.path.rglob("*") if f.is_file()]
    facts: dict[str, Any] = {"path": str(location.path), "kind": location.kind}
    config: ModelConfig
    if location.kind == "compiled":
        manifest = read_manifest(location.path)
        facts |= {"model": manifest.model, "licence": manifest.licence, "stored_dtype": manifest.stored_dtype}
        config, calibration = manifest.shape.to_config(), Calibration.load(location.path)
    else:
        model = open_model(location.path)
        facts |= {"model": model.name, "licence": model.licence, "stored_dtype": model.weights.stored_dtype}
        config, calibration = model.weights.config, model.calibration
    return {
        **facts,
        "num_parameters": sum(prod(shape) for shape in expected_tensors(config).values()),
        "size_bytes": sum(file.stat().st_size for file in files),
        "temperatures": dict(calibration.temperatures),
        "config": asdict(config),
    }


def find_card(location: ModelLocation) -> str | None:
    """The text of the card: inside a model's folder, or beside a model that is one file."""
    folder = location.path if location.path.is_dir() else location.path.parent
    card = folder / CARD_FILE
    return card.read_text(encoding="utf-8", errors="replace") if card.is_file() else None


def _find_manifest(folder: Path) -> Manifest | None:
    from allinone.backends.onnx.manifest import MANIFEST_FILE, read_manifest

    return read_manifest(folder) if (folder / MANIFEST_FILE).is_file() else None


def _facts_for_people(facts: Mapping[str, Any]) -> dict[str, str]:
    """The same facts in the words and the order in which people look for them."""
    from allinone.cli.output import format_bytes

    config: Mapping[str, Any] = facts["config"]
    details = ("vocab_size", "head_dim", "rms_norm_eps", "rope_theta", "tie_word_embeddings")
    temperatures = ", ".join(f"{task} {value:.3g}" for task, value in facts["temperatures"].items())
    return {
        "name": facts["model"],
        "path": facts["path"],
        "form": f"{facts['kind']}, weights stored as {facts['stored_dtype']}",
        "size": format_bytes(facts["size_bytes"]),
        "licence": facts["licence"] or "not stated",
        "parameters": f"{facts['num_parameters'] / 1e6:,.1f} million",
        "architecture": (
            f"{config['architecture']}: {config['num_layers']} layers, hidden {config['hidden_size']}, "
            f"FFN {config['intermediate_size']}, {config['num_heads']} heads ({config['num_kv_heads']} for keys)"
        ),
        "": ", ".join(f"{name} {_number(config[name])}" for name in details),
        "context": f"{config['max_context_tokens']:,} tokens",
        "temperatures": temperatures or "none: probabilities are as the model gives them",
    }


def _number(value: float) -> str:
    """As it was meant: a float32 of a file is 1e-06, not 9.99999997e-07."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _print_card(card: str) -> None:
    """Laid out at a terminal; as it was written where the output goes into a file or a pipe."""
    from allinone.cli.output import print_line, print_markdown, visible

    if sys.stdout.isatty():
        print_markdown(card)
    else:
        print_line(visible(card))
