"""`allinone keys`: make, list and revoke the keys of a server. A running server notices within a second."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allinone.cli.options import JsonOption
from allinone.config import Settings

if TYPE_CHECKING:
    from allinone.server.key_file import KeyFile, KeyRecord

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Keys of the server: who may do what.")

KeyFileOption = Annotated[
    Path | None,
    typer.Option("--key-file", metavar="FILE", help="The key file. Default: keys.json in the data folder."),
]


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for; shown in lists.")],
    key_file: KeyFileOption = None,
    allow: Annotated[
        str | None, typer.Option(metavar="TASK,…", help="Only these tasks; `model` is the model without a task.")
    ] = None,
    per_minute: Annotated[int | None, typer.Option(min=1, help="Most requests a minute.")] = None,
    streams: Annotated[int | None, typer.Option(min=1, help="Most replies being written at once.")] = None,
    tokens_per_day: Annotated[int | None, typer.Option(min=1, help="Most tokens a day (UTC).")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="May edit prompts and read the metrics.")] = False,
    owner: Annotated[
        str | None,
        typer.Option(metavar="OWNER", help="Sees what this owner's keys see: give the old key's to replace it."),
    ] = None,
) -> None:
    """Make a key and print it, once: only its hash is kept.

    [bold]Examples[/]

    allinone keys new phone
    allinone keys new shop --allow sentiment,intent --per-minute 600
    allinone keys new monitoring --admin
    """
    from allinone.cli.output import note, print_line

    tasks = None if allow is None else tuple(part.strip() for part in allow.split(",") if part.strip())
    file = _open(key_file)
    record, key = file.add(
        name,
        owner=owner,
        allowed_tasks=tasks,
        max_requests_per_minute=per_minute,
        max_streams=streams,
        max_tokens_per_day=tokens_per_day,
        is_admin=admin,
    )
    print_line(key)
    note(f"Key {record.id} ({name}) is in {file.path}. It is shown this once: keep it where it is used.")


@app.command("list")
def list_(key_file: KeyFileOption = None, json: JsonOption = False) -> None:
    """List the keys: their public part, what each may do, which were revoked."""
    from allinone.cli.output import note, print_json, print_table

    file = _open(key_file)
    records = file.load()
    if json:
        print_json([record.model_dump(mode="json", exclude={"hash"}) for record in records])
    elif records:
        columns = ("id", "name", "owner", "tasks", "a minute", "streams", "tokens a day", "admin", "made", "revoked")
        print_table(columns, [_row(record) for record in records])
    else:
        note(f"There are no keys in {file.path}. `allinone keys new NAME` makes one.")


@app.command("revoke")
def revoke(
    key: Annotated[str, typer.Argument(metavar="ID|NAME", help="Id or name of the key.")],
    key_file: KeyFileOption = None,
) -> None:
    """Let a key work no more. What belongs to its owner stays."""
    from allinone.cli.output import note

    record = _open(key_file).revoke(key)
    note(f"Key {record.id} ({record.name}) works no more.")


def _open(path: Path | None) -> KeyFile:
    from allinone.cli.serve import require_extra

    require_extra()
    from allinone.server.key_file import KeyFile

    return KeyFile(Settings.from_env().home / "keys.json" if path is None else path.expanduser())


def _row(record: KeyRecord) -> tuple[str, ...]:
    def shown(value: Any) -> str:
        return "-" if value is None else str(value)

    return (
        record.id,
        record.name,
        record.owner,
        "all" if record.allowed_tasks is None else ",".join(record.allowed_tasks),
        shown(record.max_requests_per_minute),
        shown(record.max_streams),
        shown(record.max_tokens_per_day),
        "yes" if record.is_admin else "-",
        f"{record.created_at:%Y-%m-%d}",
        "-" if record.revoked_at is None else f"{record.revoked_at:%Y-%m-%d}",
    )
