"""The error tree and the tables that must know every class of it."""

from __future__ import annotations

import pytest

from allinone import errors
from allinone.cli.main import EXIT_CODES

from .places import ROOT


def _tree(root: type[errors.AllInOneError] = errors.AllInOneError) -> list[type[errors.AllInOneError]]:
    return [root, *(found for child in root.__subclasses__() for found in _tree(child))]


def test_tree_is_complete() -> None:
    """Every exception of the module hangs on the one root, so that one `except` catches all that we raise."""
    defined = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, BaseException)}
    assert defined == set(_tree())


def test_codes_are_unique() -> None:
    """Programs tell errors apart by their code."""
    codes = [error.code for error in _tree()]
    assert len(codes) == len(set(codes))


def test_exit_codes_cover_the_tree() -> None:
    """A new class without an exit code would end the program with a traceback."""
    assert set(EXIT_CODES) == set(_tree())


@pytest.mark.parametrize("error", _tree(), ids=lambda error: error.__name__)
def test_error_is_documented(error: type[errors.AllInOneError]) -> None:
    """Whoever meets an error finds it in docs/errors.md (written by `make docs`)."""
    assert error.__doc__
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert f"`{error.__name__}`" in page and error.code in page
