#!/usr/bin/env python3
"""Install a peer, or the converters that some peers' models need, into an environment of its own.

    python benchmarks/setup_peers.py [PEER …] [--again]

Without names it says who is there. Environments lie in benchmarks/.venvs/, which git ignores; versions are limited in
peers.toml; only wheels are taken. A peer that lives in the project's own .venv is installed by the command it names.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.settings import Environment, Settings, project_folder, read_settings

NEEDS_CONVERTERS = ("ctranslate2", "openvino")


def install(environment: Environment, *, again: bool = False) -> None:
    """Make an environment and fill it. One that is complete is left alone.

    Raises:
        subprocess.CalledProcessError: pip failed; what there is of the environment is removed.
    """
    folder = environment.folder
    stamp = folder / "installed"
    if again or not stamp.is_file():
        shutil.rmtree(folder, ignore_errors=True)
    if stamp.is_file():
        return
    venv.create(folder, with_pip=True)
    if environment.reuses_project:  # above all torch: a gigabyte that is there already
        packages = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
        project = str(project_folder())
        theirs = sysconfig.get_path("purelib", vars={"base": project, "platbase": project})
        (Path(packages) / "project.pth").write_text(f"{theirs}\n", encoding="utf-8")
    pip = [str(environment.python), "-m", "pip", "--disable-pip-version-check"]
    try:
        subprocess.run([*pip, "install", "--only-binary", ":all:", *environment.requirements], check=True)
        if environment.without:
            subprocess.run([*pip, "uninstall", "--yes", *environment.without], check=True)
    except subprocess.CalledProcessError:
        shutil.rmtree(folder)
        raise
    stamp.write_text("\n".join(environment.requirements) + "\n", encoding="utf-8")


def show(settings: Settings) -> None:
    """Who is there, and how to get who is not."""
    for name, peer in settings.peers.items():
        is_there = peer.environment.python.exists()
        print(f"{name:16} {peer.title:24} {'environment is there' if is_there else 'to install'}: {peer.install}")


def main() -> int:
    """Install what is named, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    settings = read_settings()
    parser.add_argument("peers", nargs="*", metavar="PEER", help=", ".join(settings.environments))
    parser.add_argument("--again", action="store_true", help="even where it is installed")
    args = parser.parse_args()
    unknown = sorted(set(args.peers) - set(settings.environments))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(settings.environments)}")
    if not args.peers:
        show(settings)
        return 0
    names = list(args.peers)
    if set(names) & set(NEEDS_CONVERTERS) and "convert" not in names:
        names.append("convert")
    for name in names:
        environment = settings.environments[name]
        if not environment.requirements:
            print(f"{name} lives in the project's own environment: {settings.peers[name].install}")
            continue
        print(f"installing {name} …", flush=True)
        try:
            install(environment, again=args.again)
        except subprocess.CalledProcessError as error:
            print(f"error: pip could not install {name} (code {error.returncode})", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
