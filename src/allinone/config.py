"""Where things live, and what the environment says: one immutable value, read once, wrong values refused.

Owns the names of the environment variables. Knows no model: `models/locate.py` looks into the folders named here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from allinone.errors import ConfigError, did_you_mean

Language = Literal["zh", "en"]
LANGUAGES: tuple[Language, ...] = ("zh", "en")
_MAX_THREADS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment asks for.

    Attributes:
        model: ALLINONE_MODEL, "bundled", a path or a hub id; None where not set.
        task_dirs: ALLINONE_TASKS, folders of `.prompt` files, separated as in PATH; later ones win.
        threads: ALLINONE_THREADS; None lets the backend take the physical cores.
        lang: ALLINONE_LANG, else by the locale: "zh" where it is Chinese or names no language (C, POSIX, not set),
            "en" for every other.
        home: ALLINONE_HOME, else the platform's folder for user data; downloaded models live in it.
        cache: ALLINONE_CACHE, else the platform's cache folder; everything in it can be made again.
        store: ALLINONE_STORE, URL of the server's database; None where not set.
        api_key: ALLINONE_API_KEY, the one key of a server; None where not set.
    """

    model: str | None
    task_dirs: tuple[Path, ...]
    threads: int | None
    lang: Language
    home: Path
    cache: Path
    store: str | None = field(default=None, repr=False)  # it may hold a password
    api_key: str | None = field(default=None, repr=False)

    @property
    def models_dir(self) -> Path:
        """Downloaded models, as `owner/name` folders."""
        return self.home / "models"

    @property
    def compiled_dir(self) -> Path:
        """Compiled models."""
        return self.cache / "compiled"

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Settings of an environment; that of the process where none is given. Empty values count as not set.

        Raises:
            ConfigError: a value cannot be used; names the variable.
        """
        variables = {key: value for key, value in (os.environ if env is None else env).items() if value.strip()}
        return cls(
            model=variables.get("ALLINONE_MODEL"),
            task_dirs=tuple(
                Path(part).expanduser() for part in variables.get("ALLINONE_TASKS", "").split(os.pathsep) if part
            ),
            threads=_threads(variables),
            lang=_language(variables),
            home=_folder(variables, "ALLINONE_HOME", "data"),
            cache=_folder(variables, "ALLINONE_CACHE", "cache"),
            store=variables.get("ALLINONE_STORE"),
            api_key=variables.get("ALLINONE_API_KEY"),
        )


def _threads(variables: Mapping[str, str]) -> int | None:
    value = variables.get("ALLINONE_THREADS")
    if value is None:
        return None
    try:
        threads = int(value)
    except ValueError:
        threads = 0
    if not 1 <= threads <= _MAX_THREADS:
        raise ConfigError(f"ALLINONE_THREADS is {value!r}; a whole number from 1 to {_MAX_THREADS} is needed")
    return threads


def _language(variables: Mapping[str, str]) -> Language:
    value = variables.get("ALLINONE_LANG")
    if value is None:
        locale = next((variables[key] for key in ("LC_ALL", "LC_MESSAGES", "LANG") if key in variables), "")
        name = locale.split(".")[0].lower()
        return "zh" if name in ("", "c", "posix") or name.startswith("zh") else "en"
    for language in LANGUAGES:
        if value == language:
            return language
    raise ConfigError(f"ALLINONE_LANG is {value!r}. {did_you_mean(value, LANGUAGES)}")


def _folder(variables: Mapping[str, str], name: str, kind: Literal["data", "cache"]) -> Path:
    """A folder named by the environment, or the platform's own; on Linux XDG_DATA_HOME and XDG_CACHE_HOME count."""
    value = variables.get(name)
    if value is None:
        import platformdirs

        return Path(
            platformdirs.user_data_dir("allinone") if kind == "data" else platformdirs.user_cache_dir("allinone")
        )
    folder = Path(value).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{name} is {value!r}, which is a file; a folder is needed")
    return folder.absolute()
