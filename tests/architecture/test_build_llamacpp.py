"""`make llamacpp`: what is built, for which CPU, and what is done with one that crashes. Nothing is built here."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .places import ROOT

GCC = "c++ (Debian 12.2.0) 12.2.0\nCopyright (C) 2022 Free Software Foundation, Inc."
CLANG = "Debian clang version 14.0.6\nTarget: x86_64-pc-linux-gnu"


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """`scripts/build_llamacpp.py` as a module, with an empty cache and no compiler options of this machine's user."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import build_llamacpp

    for name in ("CXX", "CXXFLAGS", "CFLAGS", "CMAKE_ARGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALLINONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build_llamacpp, "STAMP", tmp_path / "stamp")
    return build_llamacpp


def _compiler(tmp_path: Path, says: str) -> str:
    compiler = tmp_path / "c++"
    compiler.write_text(f"#!/bin/sh\ncat <<'EOF'\n{says}\nEOF\n")
    compiler.chmod(0o755)
    return str(compiler)


@pytest.mark.parametrize(("says", "is_gcc"), [(GCC, True), (CLANG, False)])
def test_only_gcc_is_kept_from_dropping_stores(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, says: str, is_gcc: bool
) -> None:
    """GCC 12 drops the stores that fill AMX's tile configuration; clang does not know these options."""
    monkeypatch.setenv("CXX", _compiler(tmp_path, says))
    assert build.find_compiler() == (says.splitlines()[0], is_gcc)
    environment = build.build_environment(is_gcc)
    assert ("-fno-tree-dse -fno-dse" in environment.get("CXXFLAGS", "")) is is_gcc
    for option in ("-DLLAVA_BUILD=OFF", "-DLLAMA_BUILD_TOOLS=OFF", "-DLLAMA_BUILD_SERVER=OFF"):
        assert option in environment["CMAKE_ARGS"].split()


def test_options_of_the_user_are_kept(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who wants CUDA says so in the usual way; last, so that it wins."""
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=ON")
    monkeypatch.setenv("CXXFLAGS", "-g")
    environment = build.build_environment(True)
    assert environment["CMAKE_ARGS"].endswith(" -DGGML_CUDA=ON") and environment["CXXFLAGS"].endswith(" -g")


def test_missing_compiler_is_named_with_its_package(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is downloaded."""
    monkeypatch.setenv("CXX", "compiler-of-nowhere")
    with pytest.raises(SystemExit) as end:
        build.main()
    said = capsys.readouterr().err
    assert end.value.code == 1 and "compiler-of-nowhere" in said and "build-essential" in said


def test_wheels_of_other_cpus_compilers_and_options_lie_elsewhere(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A wheel with AMX in it crashes on a CPU without; home folders are shared between machines."""
    environment = build.build_environment(True)
    folders = {build.wheel_folder("1.0", "gcc 12", environment), build.wheel_folder("1.1", "gcc 12", environment)}
    folders |= {build.wheel_folder("1.0", "gcc 13", environment)}
    folders |= {build.wheel_folder("1.0", "gcc 12", build.build_environment(False))}
    again = build.wheel_folder("1.0", "gcc 12", environment)
    monkeypatch.setattr(build, "cpu_identity", lambda: "another CPU")
    folders |= {build.wheel_folder("1.0", "gcc 12", environment)}
    assert len(folders) == 5 and again in folders
    assert all(folder.parent == tmp_path / "cache" / "wheels" for folder in folders)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("  [14/140] /usr/bin/gcc -O3 -c ggml-cpu.c\n", ("14", "140")),
        ("[1/9] Linking\n", ("1", "9")),
        ("  *** Building project with Ninja...\n", None),
        ("  values[3/4] = 1\n", None),
    ],
)
def test_progress_is_read_from_the_compilers_lines(
    build: ModuleType, line: str, expected: tuple[str, str] | None
) -> None:
    """Some minutes without a sign of life look like a hanging program."""
    found = build.STEP.match(line)
    assert (found and (found["done"], found["total"])) == expected


def test_a_build_that_fails_leaves_no_wheel(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a wheel under its final name would be installed the next time."""
    pip = tmp_path / "python"
    pip.write_text("#!/bin/sh\necho '[1/2] c++'\necho 'fatal error: no such header'\nexit 1\n")
    pip.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(pip))
    folder = build.wheel_folder("1.0", "gcc", {})
    with pytest.raises(SystemExit):
        build.build_wheel("1.0", folder, {"PATH": "/usr/bin:/bin"})
    said = capsys.readouterr().err
    assert "no such header" in said and "clang" in said
    assert not folder.exists() and not list(folder.parent.iterdir())


def test_a_build_shows_its_progress_and_keeps_the_wheel(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In ten lines where the output is no terminal; the wheel comes whole, and nothing else stays."""
    pip = tmp_path / "python"
    steps = 'for i in $(seq 40); do echo "  [$i/40] c++"; done'
    wheel = 'while [ "$1" != --wheel-dir ]; do shift; done; echo whole > "$2/llama_cpp_python-1.0-py3-none-any.whl"'
    pip.write_text(f"#!/bin/sh\n{steps}\n{wheel}\n")
    pip.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(pip))
    folder = build.wheel_folder("1.0", "gcc", {})
    found = build.build_wheel("1.0", folder, {"PATH": "/usr/bin:/bin"})
    assert found.parent == folder and found.read_text() == "whole\n"
    assert list(folder.parent.iterdir()) == [folder]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 10 and "4 of 40" in said[0] and "40 of 40" in said[-1]


def test_a_wheel_that_was_built_is_found_again(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second environment has it at once, the second call does nothing at all."""
    monkeypatch.setenv("CXX", _compiler(tmp_path, GCC))
    done: list[str] = []

    def build_wheel(version: str, folder: Path, environment: dict[str, str]) -> Path:
        done.append("build")
        folder.mkdir(parents=True)
        (folder / "llama.whl").touch()
        return folder / "llama.whl"

    monkeypatch.setattr(build, "build_wheel", build_wheel)
    monkeypatch.setattr(build, "install", lambda wheel: done.append(f"install {wheel.name}"))
    monkeypatch.setattr(build, "probe", lambda wheel: done.append("probe"))
    monkeypatch.setattr(build, "installed_version", lambda: build.pinned_version() if done else None)
    build.main()
    assert done == ["build", "install llama.whl", "probe"]
    build.main()
    assert done == ["build", "install llama.whl", "probe"] and "is installed" in capsys.readouterr().err
    build.STAMP.unlink()
    build.main()
    assert done[3:] == ["install llama.whl", "probe"]


def test_a_library_that_crashes_is_taken_back(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real SIGSEGV, in the process that tries it out: said in words, and not met again by the product."""
    monkeypatch.setattr(build, "PROBE", f"import os; os.kill(os.getpid(), {signal.SIGSEGV:d})")
    run, commands = subprocess.run, list[list[str]]()

    def only_probe(command: list[str], **options: Any) -> Any:
        commands.append(command)
        return run(command if "-c" in command else [sys.executable, "-c", ""], **options)

    monkeypatch.setattr(subprocess, "run", only_probe)
    wheel = tmp_path / "cache" / "wheels" / "llama" / "llama.whl"
    wheel.parent.mkdir(parents=True)
    wheel.touch()
    with pytest.raises(SystemExit) as end:
        build.probe(wheel)
    said = capsys.readouterr().err
    assert end.value.code == 1 and "crashes (signal 11)" in said and "CC=clang CXX=clang++ make llamacpp" in said
    assert not wheel.parent.exists() and any("uninstall" in command for command in commands)


def test_what_the_extra_needs_is_pinned(build: ModuleType) -> None:
    """The version that is built is the one that is tested, and its few requirements come with it."""
    assert build.pinned_version().startswith("0.3.")
    assert [line.split("==")[0] for line in build.pinned_requirements()] == ["diskcache"]


@pytest.mark.llamacpp
def test_the_library_that_is_installed_passes_the_probe(build: ModuleType) -> None:
    """What `make llamacpp` runs at its end."""
    done = subprocess.run([sys.executable, "-c", build.PROBE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
