"""Generated documents say what the program says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "generate_docs.py"


def test_generated_documents_are_up_to_date() -> None:
    """docs/cli.md is the output of --help, docs/errors.md the tree of errors; `make docs` writes both."""
    done = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
