"""An import plan lies beside a model in every form that models have, and changes nothing but the work of an import."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from make_files import write_folder, write_gguf
from typer.testing import CliRunner

from allinone.cli.main import app
from allinone.loading import import_model
from allinone.models.locate import locate_model


@pytest.mark.parametrize(("model", "plan"), [("tiny.gguf", "tiny.plan.json"), ("Tiny", "Tiny/model.plan.json")])
def test_plan_is_written_beside_the_model_and_found_there(model: str, plan: str, tmp_path: Path) -> None:
    """A GGUF file and a folder; the name of the compiled folder in the cache stays the same."""
    write_gguf(tmp_path / "tiny.gguf")
    write_folder(tmp_path / "Tiny")
    location = locate_model(tmp_path / model)
    made = import_model(location, tmp_path / "measured", write_plan=True, max_label_logprob_error=1.0)
    assert (tmp_path / plan).is_file()
    assert locate_model(tmp_path / model).cache_key == location.cache_key
    planned = import_model(location, tmp_path / "planned", max_label_logprob_error=1.0)
    assert made.agreement is not None and planned.agreement is not None
    assert (made.agreement.measured, planned.agreement.measured) == ("here", "plan")


def test_import_says_who_measured_and_measures_when_told_to(tmp_path: Path) -> None:
    """For people in a line, for programs as a value."""
    write_gguf(tmp_path / "tiny.gguf")
    run = CliRunner()
    bar = ("--max-error", "1")

    def imported(name: str, *options: str) -> str:
        command = ["models", "import", str(tmp_path / "tiny.gguf"), "-o", str(tmp_path / name), *bar, *options]
        outcome = run.invoke(app, command)
        assert outcome.exit_code == 0, outcome.output
        return outcome.stdout

    assert "by the makers" not in imported("first", "--write-plan")
    assert "measured             by the makers of the file" in imported("second")
    assert json.loads(imported("third", "--measure", "--json"))["agreement"]["measured"] == "here"
    shutil.rmtree(tmp_path / "third")
    assert json.loads(imported("third", "--json"))["agreement"]["measured"] == "plan"
