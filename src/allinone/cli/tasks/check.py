"""`allinone tasks check`: are the files right, and does the model answer their cases as they demand?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allinone.cli.options import BackendOption, JsonOption, ModelOption, TasksOption, ThreadsOption, complete_task
from allinone.errors import AllInOneError

if TYPE_CHECKING:
    from allinone.prompts.cases import Case
    from allinone.prompts.library import PromptLibrary
    from allinone.prompts.prompt_file import PromptFile
    from allinone.runtime import AllInOne


@dataclass(slots=True, kw_only=True)
class TaskReport:
    """The cases of one task, and how they went.

    Attributes:
        cases: one object per case: line, description, vars, passed, failures, answer.
        error: why the cases file cannot be used.
    """

    task: str
    version: str
    file: str | None = None
    cases: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    error: str | None = None

    @property
    def num_passed(self) -> int:
        """Cases whose answer met every demand."""
        return sum(case["passed"] for case in self.cases)

    @property
    def is_right(self) -> bool:
        """Whether the cases could be read, and all that ran passed."""
        return self.error is None and self.num_passed == len(self.cases)


def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="TASK", help="Tasks to check; all if none is given.", autocompletion=complete_task),
    ] = None,
    files_only: Annotated[bool, typer.Option("--files-only", help="Check the files and load no model.")] = False,
    json: JsonOption = False,
    model: ModelOption = None,
    tasks: TasksOption = None,
    backend: BackendOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Check task files, and run their cases (NAME.tests.yaml) on the model.

    [bold]Examples[/]

    allinone tasks check
    allinone tasks check sentiment emotion --json
    allinone tasks check --tasks my-tasks --files-only

    The exit code is 1 if a file is wrong or a case fails.
    """
    from allinone.cli.output import print_json
    from allinone.cli.session import RuntimeOptions, load_library, open_runtime

    options = RuntimeOptions(model=model, tasks=tasks, backend=backend, threads=threads, use_cache=False)
    library = load_library(options)
    prompts = [library.get(name) for name in names] if names else list(library.prompts())
    problems = [] if names else [str(problem.error) for problem in library.problems()]
    if files_only:
        reports = [read_task(prompt)[0] for prompt in prompts]
    else:
        with open_runtime(options) as ai:
            reports = [check_task(ai, prompt) for prompt in prompts]
    if json:
        print_json({"problems": problems, "tasks": [_as_json(report) for report in reports]})
    else:
        _print(reports, problems, library=library, files_only=files_only)
    if problems or not all(report.is_right for report in reports):
        raise typer.Exit(1)


def read_task(prompt: PromptFile) -> tuple[TaskReport, Sequence[Case]]:
    """A task's cases, or why they cannot be read."""
    from allinone.prompts.cases import find_cases, load_cases

    report = TaskReport(task=prompt.full_name, version=prompt.version)
    path = find_cases(prompt)
    if path is None:
        return report, ()
    report.file = str(path)
    try:
        return report, load_cases(path, prompt)
    except AllInOneError as error:
        report.error = str(error)
        return report, ()


def check_task(ai: AllInOne, prompt: PromptFile) -> TaskReport:
    """Run a task's cases, in batches."""
    from allinone.prompts.cases import judge_case

    report, cases = read_task(prompt)
    outcomes = ai.map(prompt.full_name, [case.vars for case in cases], on_error="return")
    for case, outcome in zip(cases, outcomes, strict=True):
        report.cases.append(judge_case(case, outcome).as_json())
    return report


def _as_json(report: TaskReport) -> dict[str, Any]:
    return {
        "task": report.task,
        "version": report.version,
        "file": report.file,
        "passed": report.num_passed,
        "failed": len(report.cases) - report.num_passed,
        "error": report.error,
        "cases": report.cases,
    }


def _print(reports: Sequence[TaskReport], problems: Sequence[str], *, library: PromptLibrary, files_only: bool) -> None:
    from allinone.cli.output import note, one_line, print_line, print_table, visible

    rows: list[tuple[str, str, str, str]] = []
    for report in reports:
        if report.error:
            rows.append((report.task, "✗", "", "its cases cannot be read"))
        elif files_only or not report.cases:
            rows.append((report.task, "✓" if report.file else "–", "", "" if report.file else "it has no cases"))
        else:
            mark = "✓" if report.num_passed == len(report.cases) else "✗"
            rows.append((report.task, mark, f"{report.num_passed} of {len(report.cases)}", ""))
    print_table(("task", "", "passed", ""), rows)
    for report in reports:
        for case in report.cases:
            if not case["passed"]:
                text = one_line(str(case["vars"].get("text", "")), max_cells=60)
                print_line(f"✗ {report.task} · {report.file}:{case['line']} · {text}")
                for failure in case["failures"]:
                    print_line(f"    {one_line(failure)}")
    num_cases = sum(len(report.cases) for report in reports)
    if num_cases:
        print_line(f"{sum(report.num_passed for report in reports)} of {num_cases} cases passed")
    for error in (*problems, *(report.error for report in reports if report.error)):
        note(visible(error))
