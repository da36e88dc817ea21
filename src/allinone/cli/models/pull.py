"""`allinone models pull`: licence and size first, then the download, resumed and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from allinone.cli.options import JsonOption

if TYPE_CHECKING:
    from allinone.models.hub_plan import DownloadPlan

FREE_LICENCES = frozenset({"apache-2.0", "mit", "bsd-3-clause"})


def pull(
    model: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="owner/name, or a name of the catalog; :q4_k_m after it chooses one of several GGUF files.",
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Accept the licence; do not ask.")] = False,
    json: JsonOption = False,
) -> None:
    """Download a model from the hub; shows its licence and size first.

    [bold]Examples[/]

    allinone models pull Qwen/Qwen2.5-0.5B-Instruct
    allinone models pull Qwen/Qwen1.5-0.5B-Chat-GGUF:q4_k_m --yes
    HF_ENDPOINT=https://hf-mirror.com allinone models pull Qwen/Qwen3-0.6B

    An interrupted download continues where it stopped; every file is
    checked. HF_ENDPOINT names a mirror, ALLINONE_HOME the folder for models.
    Qwen1.5-0.5B is under a research licence (no commercial use), the newer
    ones are Apache-2.0.
    """
    from allinone.cli.output import can_ask, print_json, print_line
    from allinone.cli.session import ImportProgress
    from allinone.models.hub import download
    from allinone.models.hub_plan import plan_download

    plan = plan_download(model)
    show_plan(plan)
    if plan.licence.lower() not in FREE_LICENCES and not yes and can_ask():
        typer.confirm(f"Do you accept the licence ({plan.licence})?", abort=True, err=True)
    with ImportProgress(f"Downloading {plan.hub_id}", unit="bytes") as progress:
        folder = download(plan, on_progress=progress.show)
    if json:
        files = [file.name for file in plan.files]
        print_json({"id": plan.hub_id, "path": str(folder), "licence": plan.licence, "files": files})
    else:
        print_line(f"{plan.hub_id} is in {folder}")
        print_line(f"Use it: allinone --model {plan.hub_id}")


def show_plan(plan: DownloadPlan) -> None:
    """Licence and size, on stderr, before a byte is fetched."""
    from allinone.cli.output import format_bytes, note

    size = format_bytes(plan.num_bytes) if plan.num_bytes else "unknown size"
    note(f"{plan.hub_id} · {size} in {len(plan.files)} files · licence: {plan.licence}")
    note(f"from {plan.endpoint} to {plan.destination}")
