"""Generated documents say what the program says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "generate_docs.py"


def test_generated_documents_are_up_to_date() -> None:
    """cli.md is the output of --help, errors.md the tree of errors, tasks.md the tasks; `make docs` writes them."""
    colours = {"GITHUB_ACTIONS", "FORCE_COLOR", "PY_COLORS"}  # Typer draws for a terminal where these are set
    env = {name: value for name, value in os.environ.items() if name not in colours}
    command = [sys.executable, str(SCRIPT), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
