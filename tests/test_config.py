"""Settings: what the environment says, and a clear refusal of what it cannot mean."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from allinone.config import Settings
from allinone.errors import ConfigError


def test_settings_of_an_empty_environment() -> None:
    """Nothing set: the defaults, and folders of the platform."""
    settings = Settings.from_env({})
    assert (settings.model, settings.task_dirs, settings.threads, settings.lang) == (None, (), None, "zh")
    assert settings.home.is_absolute()
    assert settings.cache.is_absolute()
    assert settings.home != settings.cache


def test_settings_read_every_variable(tmp_path: Path) -> None:
    """One of each, and the folders that follow from them."""
    settings = Settings.from_env(
        {
            "ALLINONE_MODEL": "Qwen/Qwen2-0.5B-Instruct",
            "ALLINONE_TASKS": f"{tmp_path}{os.pathsep}~/more",
            "ALLINONE_THREADS": "3",
            "ALLINONE_LANG": "zh",
            "ALLINONE_HOME": str(tmp_path / "home"),
            "ALLINONE_CACHE": str(tmp_path / "cache"),
        }
    )
    assert settings.model == "Qwen/Qwen2-0.5B-Instruct"
    assert settings.task_dirs == (tmp_path, Path.home() / "more")
    assert (settings.threads, settings.lang) == (3, "zh")
    assert settings.models_dir == tmp_path / "home" / "models"
    assert settings.compiled_dir == tmp_path / "cache" / "compiled"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALLINONE_THREADS", "two"),
        ("ALLINONE_THREADS", "0"),
        ("ALLINONE_THREADS", "-1"),
        ("ALLINONE_THREADS", "1.5"),
        ("ALLINONE_THREADS", "99999"),
        ("ALLINONE_LANG", "fr"),
        ("ALLINONE_CACHE", __file__),
        ("ALLINONE_HOME", __file__),
    ],
)
def test_settings_refuse_bad_values(name: str, value: str) -> None:
    """Variable and value are both named; nothing is guessed."""
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({name: value})
    assert name in str(caught.value)
    assert value in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "lang"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "en_GB.UTF-8"}, "en"),
        ({"LANG": "C", "LC_MESSAGES": "zh_TW"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "ALLINONE_LANG": "en"}, "en"),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": ""}, "en"),
        ({"LANG": "C.UTF-8"}, "zh"),
        ({}, "zh"),
    ],
)
def test_language_follows_the_locale(variables: dict[str, str], lang: str) -> None:
    """Chinese where the locale is Chinese or none at all; our own variable wins."""
    assert Settings.from_env(variables).lang == lang


def test_empty_values_count_as_not_set() -> None:
    """`ALLINONE_THREADS= allinone` is the usual way to unset one."""
    assert Settings.from_env({"ALLINONE_THREADS": " ", "ALLINONE_MODEL": ""}).threads is None


def test_folders_follow_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Linux the base directories of the desktop standard are respected."""
    import sys

    if not sys.platform.startswith("linux"):
        pytest.skip("XDG is a Linux standard")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    settings = Settings.from_env({})
    assert settings.models_dir == tmp_path / "data" / "allinone" / "models"
    assert settings.compiled_dir == tmp_path / "cache" / "allinone" / "compiled"


def test_settings_read_the_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default source."""
    monkeypatch.setenv("ALLINONE_MODEL", "some/model")
    assert Settings.from_env().model == "some/model"
