"""Importing, looking at and using a model, on the bundled one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import BUNDLED, Run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests of this file put the compiled model."""
    return tmp_path_factory.mktemp("models") / "compiled"


def test_import_reports_agreement(run: Run, folder: Path) -> None:
    """Measured, against a bar that is stated, and held."""
    done = run("models", "import", BUNDLED[-1], "-o", folder, "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert report["path"] == str(folder)
    assert report["quantization"] == "int8" and report["shape"]["architecture"] == "qwen2"
    assert report["agreement"]["decided_agreement"] == 1.0
    assert report["agreement"]["mean_logprob_error"] <= report["agreement"]["max_allowed_error"]


def test_imported_folder_is_a_model(run: Run, folder: Path) -> None:
    """The same answers as from the file it was made of, and facts about it."""
    texts = ("今天真好", "难吃", "三点开会")

    def probs(*model: str | Path) -> list[dict[str, float]]:
        done = run("run", "sentiment", "--json", *texts, *model)
        assert done.returncode == 0, done.stderr
        return [json.loads(line)["probs"] for line in done.stdout.splitlines()]

    assert probs("--model", folder) == probs()
    shown = json.loads(run("models", "info", folder, "--json").stdout)
    assert shown["kind"] == "compiled" and shown["compiled"]["agreement"]["num_texts"] > 0


def test_import_does_not_replace_a_folder(run: Run, folder: Path) -> None:
    """What is there stays."""
    before = sorted((path.name, path.stat().st_size) for path in folder.iterdir())
    done = run("models", "import", "bundled", "-o", folder)
    assert done.returncode == 2 and "is there already" in done.stderr
    assert sorted((path.name, path.stat().st_size) for path in folder.iterdir()) == before


def test_info_of_the_bundled_model(run: Run) -> None:
    """Sizes, quantisation, agreement, and its card where there is one."""
    done = run("models", "info", "bundled")
    assert done.returncode == 0, done.stderr
    for needle in ("bundled-", "qwen2", "q8_0", "agreement with FP32"):
        assert needle in done.stdout
    card = BUNDLED[-1].parent / "CARD.md"
    assert not card.is_file() or card.read_text(encoding="utf-8").splitlines()[0] in done.stdout


def test_list_says_what_is_ready(run: Run) -> None:
    """The bundled model was used before: it starts at once."""
    models = {model["name"]: model for model in json.loads(run("models", "list", "--json").stdout)}
    assert models["bundled"]["state"] == "ready" and models["bundled"]["licence"]
    assert models["Qwen/Qwen3-0.6B"]["state"] == "-"
