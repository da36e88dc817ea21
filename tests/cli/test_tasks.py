"""`allinone tasks list|show|check|new`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from allinone.prompts.prompt_file import load_prompt

from .conftest import Cli

PROMPT = """---
description: 甲乙
config: {temperature: 0}
input: {schema: {text: string}}
allinone.kind: label
allinone.labels:
  甲: {name: a}
  乙: {name: b}
---
{{role "system"}}
甲?
{{role "user"}}
{{text}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one task and its cases: one that must pass and one that must fail."""
    (tmp_path / "mine.prompt").write_text(PROMPT, encoding="utf-8")
    cases = "tests:\n  - vars: {text: x}\n    assert: [{type: regex, value: '甲|乙'}]\n"
    cases += "  - description: impossible\n    vars: {text: y}\n    assert: [{type: equals, value: 丙}]\n"
    (tmp_path / "mine.tests.yaml").write_text(cases, encoding="utf-8")
    return tmp_path


def test_list_names_the_built_in_tasks(cli: Cli) -> None:
    """All thirteen, with kind and labels, without a model."""
    names = "sentiment emotion chat empathy summarize typo grammar intent keywords polish rewrite translate title"
    outcome = cli("tasks", "list")
    assert outcome.exit_code == 0
    assert all(name in outcome.stdout for name in names.split())
    listed = {task["name"]: task for task in json.loads(cli("tasks", "list", "--json").stdout)}
    assert set(names.split()) <= set(listed)
    assert [spec["name"] for spec in listed["sentiment"]["labels"]] == ["positive", "negative", "neutral"]
    assert listed["intent"]["open_labels"] is True
    assert listed["rewrite"]["variables"] == ["style"]


def test_list_shows_layers_and_names_broken_files(cli: Cli, folder: Path) -> None:
    """A broken file is not simply missing from the list."""
    (folder / "broken.prompt").write_text("no front matter")
    outcome = cli("tasks", "list", "--tasks", folder)
    assert outcome.exit_code == 1
    assert "mine" in outcome.stdout and str(folder) in outcome.stdout
    assert "broken.prompt" in outcome.stderr and "Traceback" not in outcome.stderr


def test_show_marks_what_is_the_users(fake: Cli, folder: Path) -> None:
    """Trusted text is plain, values are marked, also when they look like control tokens; tokens are counted."""
    outcome = fake("tasks", "show", "mine", "--tasks", folder, "--text", "<|im_end|>")
    assert outcome.exit_code == 0
    assert "甲?<|im_end|>\n<|im_start|>user\n⟦<|im_end|>⟧<|im_end|>\n<|im_start|>assistant\n" in outcome.stdout
    assert "tokens are the shared prefix" in outcome.stdout


def test_show_json_has_file_segments_and_counts(fake: Cli, folder: Path) -> None:
    """What programs need to draw it themselves."""
    shown = json.loads(fake("tasks", "show", "mine", "--tasks", folder, "--text", "好", "--json").stdout)
    assert shown["file"] == PROMPT
    assert [s["text"] for s in shown["segments"] if not s["trusted"]] == ["好"]
    assert "".join(s["text"] for s in shown["segments"]).startswith("<|im_start|>system\n甲?")
    assert shown["prefix_tokens"] > 0 and shown["input_tokens"] >= 3


def test_show_fills_required_variables(fake: Cli) -> None:
    """A task with more variables than `text` can be looked at without giving them."""
    assert fake("tasks", "show", "rewrite").exit_code == 0


def test_check_reports_each_case(fake: Cli, folder: Path) -> None:
    """A failing case is named with its place and what was got; exit 1."""
    outcome = fake("tasks", "check", "mine", "--tasks", folder)
    assert outcome.exit_code == 1
    assert "1 of 2" in outcome.stdout
    assert "mine.tests.yaml:4" in outcome.stdout and "equals '丙': got" in outcome.stdout
    report = json.loads(fake("tasks", "check", "mine", "--tasks", folder, "--json").stdout)
    (task,) = report["tasks"]
    assert (task["passed"], task["failed"]) == (1, 1)
    assert [case["passed"] for case in task["cases"]] == [True, False]


def test_check_passes_when_all_cases_do(fake: Cli, folder: Path) -> None:
    """Exit 0, and only then."""
    path = folder / "mine.tests.yaml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("equals, value: 丙", "max-length, value: 1"), encoding="utf-8"
    )
    outcome = fake("tasks", "check", "mine", "--tasks", folder)
    assert outcome.exit_code == 0, outcome.output
    assert "2 of 2" in outcome.stdout


def test_check_of_the_files_needs_no_model(cli: Cli, folder: Path) -> None:
    """For a pre-commit hook: prompt files and cases files, each error with its place."""
    assert cli("tasks", "check", "--files-only", "--tasks", folder).exit_code == 0
    (folder / "mine.tests.yaml").write_text("tests:\n  - vars: {txt: x}\n    assert: [{type: equals, value: a}]\n")
    outcome = cli("tasks", "check", "--files-only", "--tasks", folder)
    assert outcome.exit_code == 1
    assert "mine.tests.yaml:2" in outcome.stderr
    (folder / "mine.prompt").write_text(PROMPT.replace("{{text}}", "{{txt}}"), encoding="utf-8")
    outcome = cli("tasks", "check", "--files-only", "--tasks", folder, "--json")
    assert outcome.exit_code == 1
    assert "mine.prompt:" in json.loads(outcome.stdout)["problems"][0]


def test_built_in_files_are_right(cli: Cli) -> None:
    """Every built-in task and its cases file can be read."""
    outcome = cli("tasks", "check", "--files-only")
    assert outcome.exit_code == 0, outcome.output


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("label", ("--labels", "紧急=urgent,普通")),
        ("text", ()),
        ("json", ("--fields", "name,price")),
        ("chat", ("--instructions", "You are a pirate.")),
    ],
)
def test_new_writes_a_task_that_works(fake: Cli, cli: Cli, tmp_path: Path, kind: str, options: tuple[str, ...]) -> None:
    """Written, loaded, run and checked without touching a file."""
    folder = tmp_path / "new" / "tasks"
    options = ("--kind", kind, "--description", "工单: 紧急程度", *options)
    outcome = cli("tasks", "new", "urgency", *options, "--tasks", folder)
    assert outcome.exit_code == 0, outcome.output
    assert str(folder / "urgency.prompt") in outcome.stdout
    prompt = load_prompt(folder / "urgency.prompt")
    assert (prompt.kind, prompt.description) == (kind, "工单: 紧急程度")
    if kind == "label":
        assert [(spec.label, spec.name) for spec in prompt.labels] == [("紧急", "urgent"), ("普通", "普通")]
    if kind != "json":  # the fake model seldom ends an object within its tokens
        assert fake("run", "urgency", "--json", "--tasks", folder, "x").exit_code == 0
    assert cli("tasks", "check", "urgency", "--files-only", "--tasks", folder).exit_code == 0


def test_new_never_replaces_a_file(cli: Cli, tmp_path: Path) -> None:
    """Somebody's prompt is somebody's work."""
    (tmp_path / "mine.prompt").write_text("precious")
    outcome = cli("tasks", "new", "mine", "--kind", "text", "--description", "x", "--tasks", tmp_path)
    assert outcome.exit_code == 2 and "exists already" in outcome.stderr
    assert (tmp_path / "mine.prompt").read_text() == "precious"
    assert list(tmp_path.iterdir()) == [tmp_path / "mine.prompt"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("x", (), "--kind is missing"),
        ("x", ("--kind", "label", "--description", "d"), "--labels is missing"),
        ("x", ("--kind", "lable", "--description", "d"), "Did you mean 'label'?"),
        ("a/b", ("--kind", "text", "--description", "d"), "a/b"),
        ("x", ("--kind", "label", "--description", "d", "--labels", "a,a"), "a"),
    ],
)
def test_new_refuses_what_would_not_work(
    cli: Cli, tmp_path: Path, name: str, options: tuple[str, ...], message: str
) -> None:
    """Without a terminal nobody can be asked, and nothing half-written stays."""
    outcome = cli("tasks", "new", name, *options, "--tasks", tmp_path)
    assert outcome.exit_code == 2, outcome.output
    assert message in outcome.stderr
    assert list(tmp_path.iterdir()) == []
