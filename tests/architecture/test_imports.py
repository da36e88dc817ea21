"""What is loaded when, and which room may know which."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from .places import ROOT, python_files

_HEAVY = {
    "fastapi", "gguf", "huggingface_hub", "jinja2", "llama_cpp", "llguidance", "numpy", "onnx", "onnxruntime",
    "prompt_toolkit", "pydantic", "rich", "sqlalchemy", "tokenizers", "torch", "transformers", "typer", "yaml",
}  # fmt: skip


def _loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_loads_nothing_heavy() -> None:
    """A program that only may need a model must not pay seconds and a gigabyte for the import."""
    assert not _loaded_by("import allinone") & _HEAVY


def test_help_of_the_program_loads_no_engine() -> None:
    """`allinone --help` answers at once: the parser needs Typer, not what runs models."""
    assert not _loaded_by("import allinone.cli.main") & (_HEAVY - {"typer", "rich", "pydantic", "yaml"})


def test_loading_the_facade_needs_no_torch() -> None:
    """PyTorch belongs to an extra; the default install works without it."""
    assert not _loaded_by("import allinone; allinone.AllInOne") & {"torch", "transformers", "llama_cpp", "fastapi"}


def test_layers_are_kept() -> None:
    """Imports only go down (the contracts are in pyproject.toml)."""
    code = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    done = subprocess.run([sys.executable, "-c", code, "--no-logo"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_module_says_what_it_owns(path: Path) -> None:
    """A reader opens a file and learns first what it is for."""
    source = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source)) or not source.strip(), f"{path} has no module docstring"
