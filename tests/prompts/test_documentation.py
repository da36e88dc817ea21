"""docs/prompts.md: its files and cases are read, its error messages are those of the program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from allinone.errors import PromptError
from allinone.prompts.cases import ASSERTIONS, load_cases
from allinone.prompts.front_matter import KEYS

from .texts import parse

PAGE = (Path(__file__).parents[2] / "docs" / "prompts.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of the page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_files_of_the_page_are_right():
    """One of each kind, copied as they stand."""
    prompts = [parse(block) for block in blocks("prompt")]
    assert [prompt.kind for prompt in prompts] == ["label", "text", "json", "chat"]


def test_cases_of_the_page_are_right(tmp_path: Path):
    """They belong to the label task of the page."""
    (block,) = blocks("yaml")
    path = tmp_path / "urgency.tests.yaml"
    path.write_text(block, encoding="utf-8")
    prompt = parse(blocks("prompt")[0])
    for case in load_cases(path, prompt):
        assert prompt.find_labels([str(case.assertions[0].value)])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("input: {", "config: {temperatue: 0}\ninput: {"),
        ("普通: {name: normal", "普通:\n    {name: urgent"),
        ("{{text}}", "{{txt}}"),
    ],
)
def test_errors_of_the_page_are_those_of_the_program(old: str, new: str):
    """Whoever searches for the message he got finds this page."""
    with pytest.raises(PromptError) as caught:
        parse(blocks("prompt")[0].replace(old, new), name="urgency")
    message = str(caught.value).partition(": ")[2]
    assert message in blocks("text")[0]


def test_page_names_every_key_and_assertion():
    """A key that is not documented does not exist for its users."""
    for name in (*KEYS, *ASSERTIONS):
        assert f"`{name}" in PAGE
