"""Files and functions stay small enough to be read in one go; exceptions are listed here with their reason."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from .places import SRC, python_files

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}


def _name(path: Path) -> str:
    return path.relative_to(SRC).as_posix()


def _functions(path: Path) -> dict[str, int]:
    """Lines of each function's code; its docstring is not counted."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            doc = node.body[0] if ast.get_docstring(node, clean=False) is not None else None
            num_doc = (doc.end_lineno or 0) - doc.lineno + 1 if doc else 0
            found[f"{_name(path)}:{node.name}"] = (node.end_lineno or 0) - node.lineno + 1 - num_doc
    return found


@pytest.mark.parametrize("path", python_files(), ids=_name)
def test_file_is_within_its_budget(path: Path) -> None:
    """A file beyond the budget usually holds more than one thing."""
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert num_lines <= MAX_FILE_LINES or _name(path) in LONG_FILES, f"{num_lines} lines"


@pytest.mark.parametrize("path", python_files(), ids=_name)
def test_functions_are_within_their_budget(path: Path) -> None:
    """A function beyond the budget usually has parts that deserve a name."""
    long = {name: lines for name, lines in _functions(path).items() if lines > MAX_FUNCTION_LINES}
    assert not set(long) - set(LONG_FUNCTIONS), long


def test_exceptions_are_still_needed() -> None:
    """A listed exception that became short again is taken off the list."""
    sizes = {_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in python_files()}
    functions = {name: lines for path in python_files() for name, lines in _functions(path).items()}
    assert all(sizes.get(name, 0) > MAX_FILE_LINES and reason for name, reason in LONG_FILES.items())
    assert all(functions.get(name, 0) > MAX_FUNCTION_LINES and reason for name, reason in LONG_FUNCTIONS.items())
