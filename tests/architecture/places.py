"""Where the checkout's own files are, for tests that read them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "allinone"
_FOLDERS = (".ci", "benchmarks", "deploy", "docs", "examples", "scripts", "src", "tests", "training")
_NOT_OURS = {"__pycache__", ".venvs", "node_modules"}
_NOT_TEXT = {".gguf", ".onnx", ".bin", ".npz", ".png", ".xz", ".pyc", ".safetensors"}


def python_files(folder: Path = SRC) -> list[Path]:
    """Every module below `folder`, in a fixed order."""
    return sorted(folder.rglob("*.py"))


def text_files() -> Iterator[Path]:
    """Every text file that belongs to the project, whether or not git knows it yet."""
    yield from (path for path in sorted(ROOT.iterdir()) if path.is_file() and not path.name.startswith(".coverage"))
    for folder in _FOLDERS:
        for parent, folders, files in os.walk(ROOT / folder):
            folders[:] = sorted(name for name in folders if name not in _NOT_OURS)
            yield from (Path(parent, name) for name in sorted(files) if Path(name).suffix not in _NOT_TEXT)
