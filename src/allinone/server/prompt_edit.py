"""A task file being edited: read as it lies on disk, checked, saved.

Knows which of several files of one name is edited, and what an error of a file looks like to who edits it. Runs
nothing: `prompt_trial.py` does. Above: `prompts_api.py`. Below: `prompts/saving.py` (files), the runtime (the library,
and whether the model can run a prompt at all).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from allinone.errors import AllInOneError, NotAllowed, PromptError, UnknownTask
from allinone.prompts.cases import CASES_SUFFIX, Case, find_cases_of, load_cases
from allinone.prompts.files import SUFFIX, decode_text, read_bytes
from allinone.prompts.prompt_file import PromptFile
from allinone.prompts.saving import (
    SourceFile,
    find_source,
    is_plain_name,
    parse_draft,
    parse_draft_cases,
    save_task,
)
from allinone.runtime import AllInOne
from allinone.server.answers import task_of


class PromptEditor:
    """Task files of one server. Methods block; they may run on any thread."""

    def __init__(self, ai: AllInOne) -> None:
        self._ai = ai
        self._library = ai.tasks

    def list(self) -> dict[str, Any]:
        """All tasks, and all files that cannot be used, as `PromptList` describes them."""
        self._library.refresh()
        wrong = {problem.name: problem for problem in self._library.problems()}
        entries = [
            {
                "name": prompt.full_name,
                "kind": prompt.kind,
                "description": prompt.description,
                "version": prompt.version,
                "layer": prompt.layer,
                "is_editable": self._is_editable(prompt.full_name),
                "error": describe_problem(wrong[prompt.full_name].error) if prompt.full_name in wrong else None,
            }
            for prompt in self._library.prompts()
        ]
        served = set(self._library.names())
        entries += [
            {
                "name": name,
                "kind": None,
                "description": "",
                "version": None,
                "layer": str(problem.path.parent),
                "is_editable": self._is_editable(name),
                "error": describe_problem(problem.error),
            }
            for name, problem in wrong.items()
            if name not in served
        ]
        folder = self._library.last_folder
        return {"prompts": entries, "folder": None if folder is None else str(folder)}

    def read(self, name: str) -> dict[str, Any]:
        """One task's files, as `PromptSource` describes them: those of the folder that is edited, else those served.

        Raises:
            UnknownTask: there is none. PromptError: its file is no text.
        """
        self._library.refresh()
        source = self._find_source(name)
        served = self._find_served(name)
        if source is not None and source.text is None:
            assert source.error is not None
            raise source.error
        if source is None:
            prompt = self._library.get(name)
            text, version, path, layer = prompt.text, prompt.version, prompt.path, prompt.layer
        else:
            text, version, path, layer = source.text, source.version, source.path, str(source.path.parent)
        return {
            "name": name,
            "text": text,
            "version": version,
            "served_version": None if served is None else served.version,
            "layer": layer,
            "path": str(path),
            "is_editable": self._is_editable(name),
            "cases_text": _read_cases(path.parent, name),
            "errors": [describe_problem(source.error)] if source is not None and source.error is not None else [],
        }

    def check(self, name: str, text: str, cases_text: str | None) -> dict[str, Any]:
        """Whether a draft could be served, and its cases be run, as `CheckedPrompt` or `WrongPrompt` describes it."""
        try:
            draft = parse_draft(name, text)
            num_prefix_tokens = self._ai.check_prompt(draft)
            parse_draft_cases(draft, cases_text or "")
        except AllInOneError as error:
            return {"ok": False, "errors": [describe_problem(error)]}
        shown = {**task_of(draft), "layer": str(self._library.last_folder or "")}
        return {"ok": True, **shown, "num_prefix_tokens": num_prefix_tokens}

    def parse(self, name: str, text: str) -> PromptFile:
        """A draft that this model can run.

        Raises:
            PromptError, UsageError: it cannot.
        """
        draft = parse_draft(name, text)
        self._ai.check_prompt(draft)
        return draft

    def load_cases(self, draft: PromptFile, cases_text: str | None) -> tuple[Case, ...]:
        """The cases of a draft: those given, else those of the task's file.

        Raises:
            PromptError: they are wrong.
        """
        if cases_text is not None:
            return parse_draft_cases(draft, cases_text)
        source, served = self._find_source(draft.full_name), self._find_served(draft.full_name)
        path = source.path if source is not None else served.path if served is not None else None
        cases_path = None if path is None else find_cases_of(path.parent, draft.full_name)
        return () if cases_path is None else load_cases(cases_path, draft)

    def save(self, name: str, text: str, *, expected_version: str | None, cases_text: str | None) -> dict[str, Any]:
        """Write a task's files and serve them; as `read`.

        Raises:
            NotAllowed: the server has no folder of tasks, or the file is a link.
            PromptError: prompt or cases are wrong. VersionConflict: it was changed meanwhile.
            StoreError: it cannot be written.
        """
        folder = self._library.last_folder
        if folder is None:
            raise NotAllowed(
                "This server has no folder to save tasks in; the built-in ones stay as they are.",
                hint="start it with `--tasks DIR`",
            )
        self.parse(name, text)
        self._library.refresh()
        served = self._find_served(name)
        if cases_text is None and served is not None and find_cases_of(folder, name) is None:
            cases_text = _read_cases(served.path.parent, name)  # a task that moves into the folder brings its cases
        save_task(
            folder,
            name,
            text,
            expected_version=expected_version,
            other_version=None if served is None else served.version,
            cases_text=cases_text,
        )
        return self.read(name)

    def find_served(self, name: str) -> PromptFile | UnknownTask:
        """The task that is served under a name, or the error that says that there is none."""
        self._library.refresh()
        try:
            return self._library.get(name)
        except UnknownTask as error:
            return error

    def _find_served(self, name: str) -> PromptFile | None:
        return self._library.get(name) if name in self._library.names() else None

    def _find_source(self, name: str) -> SourceFile | None:
        """The file of the folder that is edited, if there is one that may be."""
        folder = self._library.last_folder
        if folder is None or not is_plain_name(name):
            return None
        try:
            return find_source(folder, name)
        except NotAllowed:  # a link: it is served, and edited elsewhere
            return None

    def _is_editable(self, name: str) -> bool:
        folder = self._library.last_folder
        if folder is None or not is_plain_name(name):
            return False
        return not any((folder / (name + suffix)).is_symlink() for suffix in (SUFFIX, CASES_SUFFIX))


def _read_cases(folder: Path, name: str) -> str | None:
    path = find_cases_of(folder, name)
    return None if path is None else decode_text(read_bytes(path), path=path)


def describe_problem(error: AllInOneError) -> dict[str, Any]:
    """An error of a file as `Problem` describes it: what is wrong apart from where."""
    path, line, key = (error.path, error.line, error.key) if isinstance(error, PromptError) else (None, None, None)
    place = "" if path is None else f"{path}:{line}: " if line is not None else f"{path}: "
    return {
        "file": "cases" if path is not None and path.endswith(CASES_SUFFIX) else "prompt",
        "line": line,
        "key": key,
        "message": error.message.removeprefix(place),
        "hint": error.hint,
    }
