"""A command line that runs in this process, on the fake backend, with folders of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest
from typer.testing import CliRunner, Result

from allinone.cli.main import app

Cli: TypeAlias = Callable[..., Result]
"""Runs the program: arguments, and `stdin` and `env` by name."""


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine it runs on counts: no settings, no models, no locale, no terminal width."""
    for name in ("MODEL", "TASKS", "THREADS", "LANG", "DEBUG", "API_KEY", "STORE"):
        monkeypatch.delenv(f"ALLINONE_{name}", raising=False)
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.setenv(name, "C")
    monkeypatch.setenv("ALLINONE_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("ALLINONE_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def cli() -> Cli:
    """The program, without a backend chosen."""

    def invoke(
        *arguments: str | Path, stdin: str | bytes | None = None, env: Mapping[str, str] | None = None
    ) -> Result:
        return CliRunner().invoke(app, [str(a) for a in arguments], input=stdin, env=env, prog_name="allinone")

    return invoke


@pytest.fixture
def fake(cli: Cli) -> Cli:
    """The program on the fake backend."""

    def invoke(
        *arguments: str | Path, stdin: str | bytes | None = None, env: Mapping[str, str] | None = None
    ) -> Result:
        return cli(*arguments, "--backend", "fake", stdin=stdin, env=env)

    return invoke
