"""`allinone models …`: one file per command."""

from __future__ import annotations

import typer

from allinone.cli.models.import_ import import_
from allinone.cli.models.info import info
from allinone.cli.models.list import list_
from allinone.cli.models.pull import pull
from allinone.cli.models.tune import tune

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Models: what there is, what is here, get more.")
app.command("list")(list_)
app.command("pull")(pull)
app.command("import")(import_)
app.command("info")(info)
app.command("tune")(tune)
