"""The names other people's programs depend on."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import allinone

_NEED_AN_EXTRA = {"allinone.backends.transformers"}


def test_exports_are_sorted_and_exist() -> None:
    """An unsorted list hides duplicates; a name that does not resolve breaks `from … import *`."""
    names = ["allinone", *(module.name for module in pkgutil.walk_packages(allinone.__path__, "allinone."))]
    for name in names:
        if name in _NEED_AN_EXTRA:
            continue
        module = importlib.import_module(name)
        exports = getattr(module, "__all__", [])
        assert list(exports) == sorted(set(exports)), name
        assert all(hasattr(module, export) for export in exports), name


def test_public_names_are_those_of_the_contract() -> None:
    """Removing or adding one is a decision, not an accident."""
    assert allinone.__all__ == ["AllInOne", "AllInOneError", "Result", "__version__"]


def test_unknown_name_is_an_attribute_error() -> None:
    """The lazy `__getattr__` must not swallow typing errors."""
    with pytest.raises(AttributeError, match="AllInTwo"):
        getattr(allinone, "AllInTwo")  # noqa: B009 - the plain form would be an error of the type checker
