"""What tests of the recipe share: the recipe on the path, and the data folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _recipe_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """`import training` works from a checkout; nothing of it is installed."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def data() -> Path:
    """The data folder (ALLINONE_TRAINING_DATA, else beside the checkout); skips without it, but CI must have it."""
    folder = Path(os.environ.get("ALLINONE_TRAINING_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "train").is_dir() or not (folder / "public").is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{folder} is missing; CI has to have the data folder")
        pytest.skip(f"{folder} is not on this machine (the data are not part of the project)")
    return folder
