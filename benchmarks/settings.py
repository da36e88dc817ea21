"""`peers.toml`, read and checked: who can be measured, and where each lives."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:
    raise SystemExit("error: the benchmark needs Python 3.11 or newer (tomllib)") from None

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
_SCRIPTS = "Scripts" if os.name == "nt" else "bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A venv: the checkout's own, or one below `.venvs/` that `setup_peers.py` makes."""

    folder: Path
    requirements: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    reuses_project: bool = False

    @property
    def scripts(self) -> Path:
        """Where its programs lie."""
        return self.folder / _SCRIPTS

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.scripts / "python"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSettings:
    """One table of `peers.toml`; the keys are explained there."""

    name: str
    title: str
    about: str
    adapter: str
    environment: Environment
    install: str
    distributions: tuple[str, ...]
    form: str
    quantization: str
    second_form: str | None = None
    works: tuple[str, ...] | None = None
    num_slow: int = 3
    is_server: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All peers by name, and how other tools' models are made: form -> command line."""

    peers: Mapping[str, PeerSettings]
    environments: Mapping[str, Environment]
    commands: Mapping[str, list[str]]


def read_settings(file: Path = HERE / "peers.toml") -> Settings:
    """The settings of the benchmark.

    Raises:
        KeyError, TypeError: a table lacks a key or has one that means nothing.
    """
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    convert = tables.pop("convert")
    commands = convert.pop("commands")
    convert.pop("title")
    environments = {"convert": _environment(convert)}
    peers: dict[str, PeerSettings] = {}
    for name, table in tables.items():
        environments[name] = environment = _environment(table)
        install = table.pop("install", f"python benchmarks/setup_peers.py {name}")
        table |= {key: tuple(table[key]) for key in ("distributions", "works") if key in table}
        peers[name] = PeerSettings(name=name, environment=environment, install=install, **table)
    scripts = str(environments["convert"].scripts)
    commands = {form: [part.replace("{bin}", scripts) for part in command] for form, command in commands.items()}
    return Settings(peers=peers, environments=environments, commands=commands)


def _environment(table: dict[str, object]) -> Environment:
    """Takes the keys of an environment out of a table."""
    venv = str(table.pop("venv"))
    return Environment(
        folder=project_folder() if venv == "project" else HERE / ".venvs" / venv,
        requirements=_texts(table.pop("requirements", [])),
        without=_texts(table.pop("without", [])),
        reuses_project=bool(table.pop("reuses_project", False)),
    )


def project_folder() -> Path:
    """The checkout's own environment; where there is none, the one that this program runs in."""
    return ROOT / ".venv" if (ROOT / ".venv").is_dir() else Path(sys.prefix)


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError(f"a list of strings is needed, not {values!r}")
    return tuple(map(str, values))
