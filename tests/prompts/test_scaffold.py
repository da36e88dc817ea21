"""New tasks: what `allinone tasks new` writes works at once and never overwrites."""

from __future__ import annotations

from pathlib import Path

import pytest

from allinone.errors import ConfigError, PromptError
from allinone.prompts.cases import find_cases, load_cases
from allinone.prompts.library import PromptLibrary
from allinone.prompts.prompt_file import LabelSpec
from allinone.prompts.scaffold import new_cases, new_prompt, write_prompt
from allinone.types import Kind

LABELS = (LabelSpec(label="是", name="yes", emoji="😀", description='a "b": {c}'), LabelSpec(label="no", name="no"))


@pytest.mark.parametrize("kind", ["label", "text", "json", "chat"])
def test_new_prompt_and_cases_work(tmp_path: Path, kind: Kind):
    """The files load, render, and their first case fits the task."""
    labels = LABELS if kind == "label" else ()
    text = new_prompt("my-task", kind, 'does: "things" # well', labels=labels)
    write_prompt(tmp_path / "new", "my-task", text, new_cases(kind, labels=labels))
    prompt = PromptLibrary.load([tmp_path / "new"]).get("my-task")
    assert (prompt.kind, prompt.description, prompt.labels) == (kind, 'does: "things" # well', labels)
    assert prompt.render({"text": "x"})[-1].role == "user"
    cases = find_cases(prompt)
    assert cases is not None
    assert len(load_cases(cases, prompt)) == 1


def test_new_prompt_takes_instructions_and_fields():
    """Own words for the system turn, and the properties of a JSON answer in order."""
    text = new_prompt("x", "json", "d", instructions="Think first.", fields=("reasoning", "answer"))
    assert "Think first." in text
    assert '{"reasoning": string, "answer": string}' in text


def test_new_prompt_refuses_what_would_not_load():
    """Better an error now than a broken file in the library."""
    with pytest.raises(PromptError, match="not the name"):
        new_prompt("a b", "text", "d")
    with pytest.raises(PromptError, match="labels"):
        new_prompt("a", "label", "d")
    with pytest.raises(PromptError, match="never closed"):
        new_prompt("a", "text", "d", instructions="{{oops")
    with pytest.raises(PromptError, match="description must be text"):
        new_prompt("a", "text", " ")


def test_write_prompt_never_overwrites(tmp_path: Path):
    """Neither file is touched if one of them is there."""
    text = new_prompt("a", "text", "d")
    (tmp_path / "a.tests.yaml").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="exists already"):
        write_prompt(tmp_path, "a", text, new_cases("text"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.tests.yaml"]
    assert (tmp_path / "a.tests.yaml").read_text(encoding="utf-8") == "mine"


def test_write_prompt_reports_an_unwritable_folder(tmp_path: Path):
    """A file where the folder should be: one error, nothing written."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="Cannot write"):
        write_prompt(tmp_path / "file", "a", new_prompt("a", "text", "d"), new_cases("text"))
