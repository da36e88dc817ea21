"""The bundled model, loaded once per test process, and real texts where the data folder is at hand."""

from __future__ import annotations

import json
import lzma
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from allinone import AllInOne

PUBLIC = Path(__file__).parents[3] / "shared" / "data" / "public"


@pytest.fixture(scope="session")
def ai(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AllInOne]:
    """The bundled model on the default backend, without a result cache: every answer is computed."""
    with AllInOne.load(cache=False) as ai:
        yield ai


def read_public(name: str) -> list[dict[str, str]]:
    """The records of a labelled public set; skips where the data folder is not there (CI must have it)."""
    path = PUBLIC / f"{name}.jsonl.xz"
    if not path.is_file():
        if os.environ.get("CI"):
            pytest.fail(f"{path.name} is missing; CI has to have the data folder")
        pytest.skip(f"{path.name} is not on this machine (evaluation data are not part of the project)")
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
