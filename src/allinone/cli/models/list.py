"""`allinone models list`: the catalog and what is on this machine, with licence and size before any download."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from allinone.cli.options import JsonOption
from allinone.errors import AllInOneError


def list_(json: JsonOption = False) -> None:
    """List models: the bundled one, the catalog, and what is already here.

    [bold]Examples[/]

    allinone models list
    allinone models list --json

    State: "ready" is compiled and starts at once, "downloaded" is compiled on
    its first use, "-" is not here.
    """
    from allinone.cli.output import print_json, print_line, print_table

    models = describe_models()
    if json:
        print_json(models)
        return
    rows = [
        (
            model["name"],
            model["kind"] or "",
            f"{model['num_parameters'] / 1e6:.0f} M" if model["num_parameters"] else "",
            f"{model['download_mb']:,} MB" if model["download_mb"] else "",
            model["state"],
            model["licence"] or "not stated",
        )
        for model in models
    ]
    print_table(("model", "kind", "parameters", "download", "state", "licence"), rows)
    print_line("Get one: allinone models pull ID · use it: --model ID or ALLINONE_MODEL=ID")


def describe_models() -> list[dict[str, Any]]:
    """The bundled model, the catalog, and pulled models that are not in it."""
    from allinone.config import Settings
    from allinone.models.catalog import CATALOG
    from allinone.models.files import open_model
    from allinone.models.locate import BUNDLED, downloaded_models

    pulled = downloaded_models(Settings.from_env())
    unknown: dict[str, Any] = dict.fromkeys(
        ("kind", "licence", "num_parameters", "download_mb", "file_format", "default_quantization")
    )
    models = [{"name": BUNDLED, **unknown, "kind": "chat"}]
    for entry in CATALOG:
        fields = asdict(entry)
        models.append({"name": fields.pop("hub_id"), **unknown, **fields})
    in_catalog = {entry.hub_id for entry in CATALOG}
    models += [{"name": name, **unknown} for name in pulled if name not in in_catalog]
    for model in models:
        model |= _find_state(model["name"])
        if model["path"] and model["licence"] is None:
            model["licence"] = open_model(Path(model["path"])).licence
    return models


def _find_state(name: str) -> dict[str, Any]:
    """Where a model is, and whether its compiled form is there."""
    from allinone.loading import compiled_folder
    from allinone.models.locate import locate_model

    try:
        location = locate_model(name)
    except AllInOneError:  # not on this machine
        return {"state": "-", "path": None, "compiled": None}
    compiled: Path = compiled_folder(location, "int8")
    is_ready = (compiled / "manifest.json").is_file()
    return {
        "state": "ready" if is_ready else "downloaded",
        "path": str(location.path),
        "compiled": str(compiled) if is_ready else None,
    }
