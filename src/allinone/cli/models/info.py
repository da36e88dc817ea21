"""`allinone models info`: what a model is: sizes, licence, quantisation per layer, agreement, and its card."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allinone.cli.options import JsonOption

if TYPE_CHECKING:
    from allinone.backends.onnx.manifest import Manifest
    from allinone.models.locate import ModelLocation


def info(
    name: Annotated[str, typer.Argument(metavar="NAME|PATH|ID", help="bundled, a path, or a hub id that was pulled.")],
    json: JsonOption = False,
) -> None:
    """Show sizes, licence, and, once compiled, quantisation and agreement.

    [bold]Examples[/]

    allinone models info bundled
    allinone models info ./qwen2.5-compiled --json
    """
    from allinone.cli.models.import_ import print_agreement
    from allinone.cli.output import print_facts, print_json, print_line, visible
    from allinone.loading import compiled_folder
    from allinone.models.locate import BUNDLED, locate_model

    location = locate_model(name)
    facts = describe_files(location)
    compiled = compiled_folder(location, "int8")
    manifest = _find_manifest(compiled)
    card = _find_card(location.path) if name == BUNDLED else None
    if json:
        compiled_facts = {"path": str(compiled), **manifest.model_dump(mode="json")} if manifest else None
        print_json({**facts, "compiled": compiled_facts, "card": card})
        return
    named = {key.removesuffix("_bytes").replace("_", " "): value for key, value in facts.items()}
    print_facts({key: _show(key, value) for key, value in named.items()})
    if manifest is None:
        print_line("compiled: not yet; it happens on the first use, or with `allinone models import`")
    else:
        print_line(f"compiled: {compiled}")
        print_agreement(manifest)
    if card is not None:
        print_line()
        print_line(visible(card))


def describe_files(location: ModelLocation) -> dict[str, Any]:
    """What the files say: name, form, licence, sizes. No weight is read."""
    from allinone.backends.onnx.manifest import read_manifest
    from allinone.models.files import open_model

    files = [location.path] if location.path.is_file() else [f for f in location.path.rglob("*") if f.is_file()]
    facts: dict[str, Any] = {"path": str(location.path), "kind": location.kind}
    if location.kind == "compiled":
        manifest = read_manifest(location.path)
        facts |= {"model": manifest.model, "licence": manifest.licence, "stored_dtype": manifest.stored_dtype}
        config = manifest.shape.model_dump()
    else:
        model = open_model(location.path)
        facts |= {"model": model.name, "licence": model.licence, "stored_dtype": model.weights.stored_dtype}
        config = asdict(model.weights.config)
    return {**facts, "size_bytes": sum(file.stat().st_size for file in files), "config": config}


def _find_manifest(folder: Path) -> Manifest | None:
    from allinone.backends.onnx.manifest import MANIFEST_FILE, read_manifest

    return read_manifest(folder) if (folder / MANIFEST_FILE).is_file() else None


def _find_card(model: Path) -> str | None:
    card = model.parent / "CARD.md"
    return card.read_text(encoding="utf-8") if card.is_file() else None


def _show(key: str, value: Any) -> str:
    from allinone.cli.output import format_bytes

    if key == "config":
        return "\n".join(f"{name} {number}" for name, number in value.items())
    if key == "size":
        return format_bytes(value)
    return "not stated" if value is None else str(value)
