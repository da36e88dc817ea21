"""A private PostgreSQL: a cluster in a folder of its own, no TCP port, gone when the tests are."""

from __future__ import annotations

import importlib.util
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


class Cluster:
    """A running server; each call of `new_database` gives a URL of an empty database."""

    def __init__(self, programs: Path, folder: Path, user: str | None) -> None:
        self._programs = programs
        self._folder = folder
        self._user = user
        self._numbers = itertools.count()

    def run(self, program: str, *options: str) -> None:
        """Run one of PostgreSQL's programs, as a user who is not root: it refuses to be."""
        command = [str(self._programs / program), *options]
        environment = os.environ | {"LC_ALL": "C", "PGHOST": str(self._folder), "PGUSER": "tester"}
        log = self._folder / "log"
        with log.open("ab") as output:
            done = subprocess.run(
                command, cwd=self._folder, user=self._user, env=environment, stdout=output, stderr=output, timeout=120
            )
        assert done.returncode == 0, log.read_text(encoding="utf-8", errors="replace")

    def new_database(self) -> str:
        """URL of a new, empty database."""
        name = f"store{next(self._numbers)}"
        self.run("createdb", "--no-password", name)
        return f"postgresql://tester@/{name}?host={self._folder}"


def why_not() -> str | None:
    """Why there can be no cluster here; None where there can."""
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed"
    return None if _programs() else "PostgreSQL's programs are not installed (Debian: apt install postgresql)"


@contextmanager
def cluster() -> Generator[Cluster]:
    """Start a server, and stop it."""
    programs = _programs()
    assert programs is not None
    user = _unprivileged() if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # short: the path of a socket may have 107 characters
    if user is not None:
        shutil.chown(folder, user)
    server = Cluster(programs, folder, user)
    data = str(folder / "data")
    try:
        server.run("initdb", "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off -c max_connections=100"
        server.run("pg_ctl", "-D", data, "-w", "-o", options, "start")
        try:
            yield server
        finally:
            server.run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    program = shutil.which("initdb")
    return Path(program).resolve().parent if program else None


def _unprivileged() -> str:
    names = [entry.pw_name for entry in pwd.getpwall()]
    return "postgres" if "postgres" in names else "nobody"
