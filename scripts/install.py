#!/usr/bin/env python3
"""Make `.venv` and install this package into it, saying how far it is: what `make run` and `make test` call first.

    python3 scripts/install.py [default|server|dev|transformers|train]

Only wheels of the versions in constraints.txt are installed; nothing is compiled. A stamp in `.venv` is written after
pip has succeeded and not before, so an interrupted run is simply repeated. Runs under the system's Python with the
standard library only, and its syntax stays readable to old ones, so that they can say that they are too old.
"""

import os
import re
import shutil
import subprocess
import sys

OLDEST = (3, 10)
NEWER_PYTHONS = ("python3.13", "python3.12", "python3.11", "python3.10")
EXTRAS = {
    "default": "",
    "server": "[server]",
    "dev": "[server,postgres,dev]",
    "transformers": "[server,postgres,dev,transformers]",
    "train": "[server,postgres,dev,train]",
}
STAMPS = {
    "default": ("default",),
    "server": ("default", "server"),
    "dev": ("default", "server", "postgres", "dev"),
    "transformers": ("default", "server", "postgres", "dev", "transformers"),
    "train": ("default", "server", "postgres", "dev", "train"),
}
WHEEL = re.compile(
    r"\s*(?:Downloading|Using cached|Processing) (?:\S*/)?(?P<name>\w[\w.]*)-\d\S*\.whl(?: \((?P<size>\d[^)]*)\)|\s)"
)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
VENV_PYTHON = os.path.join(VENV, "bin", "python")


def say(text):
    """Print one line on stderr; stdout belongs to the program that is started afterwards."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def refuse(text, hint):
    """Leave with a reason and what to do about it."""
    say("error: " + text + "\n  hint: " + hint)
    sys.exit(1)


def require_python():
    """Refuse a Python that is too old or comes without what a virtual environment needs."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST:
        other = next((name for name in NEWER_PYTHONS if shutil.which(name)), None)
        refuse(
            f"Python {OLDEST[0]}.{OLDEST[1]} or newer is needed; {sys.executable} is {version}.",
            f"make run PYTHON={other}" if other else "install a newer Python, then: make run PYTHON=python3.12",
        )
    try:
        import ensurepip
        import venv
    except ImportError as error:
        refuse(
            f"{sys.executable} cannot make virtual environments: its module {error.name!r} is missing.",
            "on Debian and Ubuntu: sudo apt install python3-venv",
        )
    del ensurepip, venv
    return version


def make_venv(version):
    """Make `.venv`, or again where one is broken or was made by another Python."""
    if os.path.exists(VENV_PYTHON):
        probe = [VENV_PYTHON, "-c", "import sys, pip; print('.'.join(map(str, sys.version_info[:3])), sys.prefix)"]
        found = subprocess.run(probe, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if found.returncode == 0 and found.stdout.strip() == f"{version} {VENV}":
            return
    say(f"[1/2] Making .venv with Python {version}")
    command = [sys.executable, "-m", "venv", "--clear", VENV]
    made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if made.returncode != 0:
        sys.stderr.write(made.stdout)
        refuse("The virtual environment was not made.", "on Debian and Ubuntu: sudo apt install python3-venv")


def count_pins(extra):
    """About how many packages an extra installs: those that constraints.txt lists under its heading and before."""
    names = set()
    with open(os.path.join(ROOT, "constraints.txt"), encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("# extra: ") and line[len("# extra: ") :].strip() not in STAMPS[extra]:
                break
            if "==" in line:
                names.add(line.split("==")[0])
    return len(names)


def install(extra):
    """Install the package with an extra; one line for each package that is fetched, with its size."""
    say(f"[2/2] Installing the {extra} dependencies (wheels only, nothing is compiled)")
    command = [VENV_PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    command += ["--only-binary=:all:", "--constraint", "constraints.txt", "--editable", "." + EXTRAS[extra]]
    environment = dict(os.environ, PIP_CONSTRAINT="constraints.txt")
    log, fetched, num_expected = [], set(), count_pins(extra)
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        for line in pip.stdout:
            log.append(line)
            wheel = WHEEL.match(line)
            if wheel and wheel["name"] not in fetched:
                fetched.add(wheel["name"])
                say(f"      {len(fetched):3} of about {num_expected}  {wheel['name']}  {wheel['size'] or ''}".rstrip())
            elif line.startswith("Installing collected packages"):
                say("      unpacking {} packages".format(line.count(",") + 1))
    if pip.returncode != 0:
        sys.stderr.write("".join(log[-30:]))
        refuse(
            "pip did not succeed; what it said stands above.", "check the network or pip's index settings, then repeat"
        )


def main(arguments):
    """Install what is asked for; write the stamps when all of it is there."""
    extra = arguments[0] if arguments else "default"
    if extra not in EXTRAS:
        refuse(f"Unknown extra {extra!r}.", "choose one of: " + ", ".join(sorted(EXTRAS)))
    make_venv(require_python())
    install(extra)
    for name in STAMPS[extra]:
        with open(os.path.join(VENV, ".installed-" + name), "w") as stamp:
            stamp.write("")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        say("\nInterrupted; nothing is marked as installed. Repeat the command to go on.")
        sys.exit(130)
