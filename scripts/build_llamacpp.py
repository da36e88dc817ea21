"""Build llama.cpp for this machine's CPU, install it into this environment, and try it out: what `make llamacpp` calls.

    .venv/bin/python scripts/build_llamacpp.py

`llama-cpp-python` comes as source only, and what it is good for comes from being built for the CPU it runs on: a few
minutes, once. The wheel is kept in the user's cache under a name that says what it was built from and for, so the next
environment has it at once. GCC 12 drops stores that AMX needs, and the library crashes then: GCC builds without that
optimisation, and the result is tried in a process of its own before anybody relies on it.
Source: docs/decisions/0011-llamacpp-backend.md
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from allinone.backends.cpu import detect_cpu
from allinone.config import Settings

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "llama-cpp-python"
CONSTRAINTS = ROOT / "constraints.txt"
STAMP = Path(sys.prefix) / ".installed-llamacpp"
CMAKE_OPTIONS = tuple(
    f"-D{name}=OFF"
    for name in (
        "LLAVA_BUILD", "LLAMA_BUILD_TOOLS", "LLAMA_BUILD_SERVER", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES",
    )
)  # fmt: skip
GCC_OPTIONS = "-fno-tree-dse -fno-dse"
STEP = re.compile(r"^\s*\[(?P<done>\d+)/(?P<total>\d+)\] ")
PROBE = """
import numpy as np
from allinone.backends.base import Chunk
from allinone.loading import load_model

backend = load_model("bundled", backend="llamacpp").backend
sequence = backend.fork()
ids = range(2, 98)
for chunk in (ids, [5], [6], [7]):
    logits = backend.extend([Chunk(sequence=sequence, input_ids=list(chunk), wanted="last_logits")])[0]
    assert np.isfinite(logits).all() and logits.std() > 0, "the numbers make no sense"
backend.close()
"""


def say(text: str) -> None:
    """One line on stderr."""
    print(text, file=sys.stderr, flush=True)


def refuse(text: str, hint: str) -> NoReturn:
    """Leave with a reason and what to do about it."""
    say(f"error: {text}\n  hint: {hint}")
    raise SystemExit(1)


def pinned_version() -> str:
    """The version that this project is tested with."""
    found = re.search(rf"^{re.escape(PACKAGE)}==(\S+)", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None, f"{CONSTRAINTS.name} pins {PACKAGE}"
    return found[1]


def find_compiler() -> tuple[str, bool]:
    """What the C++ compiler that CMake will take says it is, and whether it is GCC; refuses where there is none."""
    command = shlex.split(os.environ.get("CXX") or "c++")
    if shutil.which(command[0]) is None:
        refuse(
            f"No C++ compiler: {command[0]} is not installed.",
            "Debian and Ubuntu: sudo apt install build-essential; macOS: xcode-select --install; or set CXX",
        )
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    words = done.stdout.strip().splitlines() or [command[0]]
    return words[0], "clang" not in done.stdout.lower() and "free software foundation" in done.stdout.lower()


def build_environment(is_gcc: bool) -> dict[str, str]:
    """The environment of the build; what the user set is kept and goes last."""
    environment = dict(os.environ)
    environment["CMAKE_ARGS"] = " ".join([*CMAKE_OPTIONS, os.environ.get("CMAKE_ARGS", "")]).strip()
    if is_gcc:
        environment["CXXFLAGS"] = f"{GCC_OPTIONS} {os.environ.get('CXXFLAGS', '')}".strip()
    environment["PIP_CONSTRAINT"] = environment["PIP_BUILD_CONSTRAINT"] = str(CONSTRAINTS)
    return environment


def wheel_folder(version: str, compiler: str, environment: dict[str, str]) -> Path:
    """Where the wheel of this version for this CPU, by this compiler with these options, is kept."""
    parts = [version, compiler, platform.system(), cpu_identity()]
    parts += [environment.get(name, "") for name in ("CMAKE_ARGS", "CXXFLAGS", "CFLAGS")]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
    return Settings.from_env().cache / "wheels" / f"llama-cpp-{version}-{platform.machine()}-{digest}"


def cpu_identity() -> str:
    """Everything that a compiler could make use of: the code is for this CPU and would crash on a lesser one."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.is_file() else ""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return " ".join([platform.machine(), detect_cpu().name, *sorted(flags[1].split() if flags else ())])


def build_wheel(version: str, folder: Path, environment: dict[str, str]) -> Path:
    """Compile, showing how far it is; the wheel appears in `folder` whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    started, log = time.monotonic(), []
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as unfinished:
        command = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--no-input", "--no-deps", "-v"]
        command += ["--no-cache-dir", "--wheel-dir", unfinished, f"{PACKAGE}=={version}"]
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as pip:
            assert pip.stdout is not None
            for line in pip.stdout:
                log.append(line)
                if found := STEP.match(line):
                    show_progress(int(found["done"]), int(found["total"]), time.monotonic() - started)
        if pip.returncode != 0:
            print(*log[-40:], sep="", file=sys.stderr)
            refuse(
                "llama.cpp was not built; what was said stands above.",
                "cmake and a C++17 compiler are needed; with another compiler: CC=clang CXX=clang++ make llamacpp",
            )
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unfinished, folder)
        Path(unfinished).mkdir()  # for the context manager to remove
    return next(folder.glob("*.whl"))


def show_progress(done: int, total: int, seconds: float) -> None:
    """One line that is written over on a terminal; elsewhere a line for each tenth."""
    text = f"      compiling {done:3} of {total}, {seconds:.0f} s"
    if sys.stderr.isatty():
        print(f"\r{text}", end="\n" if done == total else "", file=sys.stderr, flush=True)
    elif done * 10 // total != (done - 1) * 10 // total:
        say(text)


def install(wheel: Path) -> None:
    """The wheel and the little that it needs, in the tested versions."""
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet"]
    command += ["--only-binary=:all:", "--force-reinstall", "--no-deps", str(wheel), *pinned_requirements()]
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        refuse("pip did not install the wheel; what it said stands above.", "check the network or pip's index settings")


def pinned_requirements() -> list[str]:
    """What else the extra needs: the lines under its heading in the constraints file."""
    section = CONSTRAINTS.read_text(encoding="utf-8").split("# extra: llamacpp\n")[1].split("\n#")[0]
    return [line for line in section.splitlines() if "==" in line and not line.startswith(PACKAGE)]


def probe(wheel: Path) -> None:
    """Run the bundled model in another process; take everything back where that crashes or gives nonsense."""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    shutil.rmtree(wheel.parent, ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", PACKAGE], check=False, capture_output=True
    )
    said = done.stderr.strip().splitlines()
    reason = f"crashes (signal {-done.returncode})" if done.returncode < 0 else f"fails: {said[-1] if said else '?'}"
    refuse(
        f"The llama.cpp that was built {reason} on this CPU ({detect_cpu().name}); it was removed again.",
        "build it with another compiler: CC=clang CXX=clang++ make llamacpp",
    )


def main() -> None:
    """Build or find the wheel, install it, try it; nothing where all of that was done before."""
    version = pinned_version()
    compiler, is_gcc = find_compiler()
    environment = build_environment(is_gcc)
    folder = wheel_folder(version, compiler, environment)
    if STAMP.is_file() and STAMP.read_text(encoding="utf-8") == folder.name and installed_version() == version:
        say(f"{PACKAGE} {version} for this CPU is installed.")
        return
    STAMP.unlink(missing_ok=True)
    wheel = next(folder.glob("*.whl"), None)
    if wheel is None:
        say(f"[1/3] Building {PACKAGE} {version} for {detect_cpu().name} with {compiler}: some minutes, once")
        wheel = build_wheel(version, folder, environment)
    else:
        say(f"[1/3] {PACKAGE} {version} was built before: {wheel}")
    say("[2/3] Installing it")
    install(wheel)
    say("[3/3] Running the bundled model with it")
    probe(wheel)
    STAMP.write_text(folder.name, encoding="utf-8")
    say("It works. Use it: allinone --backend llamacpp, or let it be measured: allinone models tune bundled")


def installed_version() -> str | None:
    """Of the package in this environment."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        say("\nInterrupted; nothing was kept. Repeat the command to start again.")
        raise SystemExit(130) from None
