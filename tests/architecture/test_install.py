"""What `make run` and `make test` call first: clear refusals, honest stamps. No test here installs anything."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .places import ROOT


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """`scripts/install.py` as a module, working in an empty folder."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import install

    monkeypatch.setattr(install, "VENV", str(tmp_path / ".venv"))
    monkeypatch.setattr(install, "VENV_PYTHON", str(tmp_path / ".venv" / "bin" / "python"))
    return install


def _fail_to_import(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    real = builtins.__import__

    def importer(name: str, *args: Any, **options: Any) -> Any:
        if name == missing:
            raise ImportError(f"No module named {name!r}", name=name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", importer)


def test_install_refuses_an_old_python(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An old Python must hear which one is needed, not a syntax error from somewhere inside."""
    monkeypatch.setattr(sys, "version_info", (3, 8, 10))
    with pytest.raises(SystemExit) as end:
        install.require_python()
    said = capsys.readouterr().err
    assert end.value.code == 1
    assert "Python 3.10 or newer is needed" in said and "3.8.10" in said and "make run PYTHON=python3" in said


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_install_names_the_missing_package(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], module: str
) -> None:
    """Debian splits venv from Python; the remedy is one command, so say it."""
    _fail_to_import(monkeypatch, module)
    with pytest.raises(SystemExit) as end:
        install.require_python()
    assert end.value.code == 1
    assert "sudo apt install python3-venv" in capsys.readouterr().err


def test_install_refuses_an_unknown_extra(install: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """A typo must not install the wrong thing quietly."""
    with pytest.raises(SystemExit):
        install.main(["defualt"])
    assert "default, dev, server, train, transformers" in capsys.readouterr().err


def test_install_writes_no_stamp_when_pip_fails(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A stamp without packages would make `make run` start a program that is not there."""
    bin_folder = tmp_path / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    failing = bin_folder / "python"
    failing.write_text("#!/bin/sh\necho 'ERROR: no matching distribution'\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setattr(install, "make_venv", lambda version: None)
    with pytest.raises(SystemExit) as end:
        install.main(["dev"])
    assert end.value.code == 1
    assert not list((tmp_path / ".venv").glob(".installed-*"))


@pytest.mark.parametrize(
    ("line", "name", "size"),
    [
        ("  Downloading onnx-1.23.2-cp311-cp311-manylinux_2_28_x86_64.whl (8.9 MB)\n", "onnx", "8.9 MB"),
        ("  Using cached hf_xet-1.8.0-cp38-abi3-manylinux2014_x86_64.whl (4.3 MB)\n", "hf_xet", "4.3 MB"),
        ("Processing ./wheels/gguf-0.19.0-py3-none-any.whl (from qwen-allinone==0.1.0)\n", "gguf", None),
        ("  Downloading typer-0.29.2-py3-none-any.whl.metadata (15 kB)\n", None, None),
        ("Collecting onnx>=1.17\n", None, None),
    ],
)
def test_install_reads_pips_progress(install: ModuleType, line: str, name: str | None, size: str | None) -> None:
    """How far it is comes from pip's own lines, in all of their forms."""
    found = install.WHEEL.match(line)
    assert (found and found["name"]) == name
    assert (found and found["size"]) == size


def test_install_knows_about_how_many_packages_come(install: ModuleType) -> None:
    """The count in `12 of about 50` must not be off by half."""
    counts = {extra: install.count_pins(extra) for extra in ("default", "server", "dev", "transformers")}
    assert 35 <= counts["default"] <= 60
    assert counts["default"] < counts["server"] < counts["dev"] < counts["transformers"]


def test_make_without_python_says_what_is_missing(tmp_path: Path) -> None:
    """The very first command of a stranger may meet a machine without Python."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "install.py").write_text("")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "run", "PYTHON=python-of-nowhere"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "python-of-nowhere is not installed" in done.stderr and "hint:" in done.stderr
    assert done.stdout == ""
