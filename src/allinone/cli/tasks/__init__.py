"""`allinone tasks …`: one file per command."""

from __future__ import annotations

import typer

from allinone.cli.tasks.check import check
from allinone.cli.tasks.list import list_
from allinone.cli.tasks.new import new
from allinone.cli.tasks.show import show

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Tasks: list, look at, test and write them.")
app.command("list")(list_)
app.command("show")(show)
app.command("check")(check)
app.command("new")(new)
