"""`NAME.tests.yaml`: what a task should answer to which input, in promptfoo's key names.

Owns reading cases and judging answers by them. Runs nothing: `allinone tasks check` and the server's prompt editor
bring what came out. Every type of `ASSERTIONS` may have `not-` before it; `label`, `max-length` and `language` are
ours, the others promptfoo's.
Source: https://promptfoo.dev/docs/configuration/expected-outputs/deterministic/
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from allinone.errors import AllInOneError, did_you_mean
from allinone.prompts.files import decode_text, read_bytes
from allinone.prompts.prompt_file import PromptFile
from allinone.prompts.yaml_source import Entry, parse_yaml
from allinone.types import Result

CASES_SUFFIX = ".tests.yaml"
_NOT = "not-"
_HAN = re.compile(r"[\u3400-\u9fff]")
_LATIN_WORD = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """One demand on an answer, as the file has it."""

    type: str
    value: Any = None
    line: int = 0

    def find_failure(self, result: Result) -> str | None:
        """Why the answer does not meet the demand; None if it does."""
        is_negated = self.type.startswith(_NOT)
        holds = ASSERTIONS[self.type.removeprefix(_NOT)][0](result, self.value)
        if holds != is_negated:
            return None
        wanted = "" if self.value is None else f" {self.value!r}"
        return f"{self.type}{wanted}: got {answer_text(result)!r:.200}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One input and what its answer must meet.

    Attributes:
        vars: the task's variables; `text` among them.
        metadata: whatever the author wants to filter by.
        line: where the case begins in its file.
    """

    vars: Mapping[str, Any]
    assertions: tuple[Assertion, ...]
    description: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseOutcome:
    """How one case went.

    Attributes:
        failures: one line for each demand that the answer does not meet; why there is no answer, where there is none.
        answer: as text; None where there is none.
    """

    case: Case
    failures: tuple[str, ...]
    answer: str | None

    @property
    def is_passed(self) -> bool:
        """The answer met every demand."""
        return not self.failures

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "line": self.case.line,
            "description": self.case.description,
            "vars": dict(self.case.vars),
            "passed": self.is_passed,
            "failures": list(self.failures),
            "answer": self.answer,
        }


def judge_case(case: Case, outcome: Result | AllInOneError) -> CaseOutcome:
    """A case and what came out of it; a run that failed is a failed case."""
    if isinstance(outcome, AllInOneError):
        return CaseOutcome(case=case, failures=(outcome.message,), answer=None)
    return CaseOutcome(case=case, failures=tuple(check_case(case, outcome)), answer=answer_text(outcome))


def answer_text(result: Result) -> str:
    """The answer as text: the label of a label task, the text of others."""
    return result.label or "" if result.kind == "label" else result.text or ""


def check_case(case: Case, result: Result) -> list[str]:
    """What is wrong with an answer, one line for each demand that it does not meet; empty if it is right."""
    return [failure for assertion in case.assertions if (failure := assertion.find_failure(result)) is not None]


def find_cases(prompt: PromptFile) -> Path | None:
    """The cases file of a prompt: its variant's own (`sentiment.en.tests.yaml`), else that of its name."""
    return find_cases_of(prompt.path.parent, prompt.full_name)


def find_cases_of(folder: Path, full_name: str) -> Path | None:
    """As `find_cases`, for a prompt file in `folder` that need not be right."""
    for name in (full_name, full_name.split(".")[0]):
        path = folder / (name + CASES_SUFFIX)
        if path.is_file():
            return path
    return None


def load_cases(path: Path, prompt: PromptFile) -> tuple[Case, ...]:
    """Read a cases file.

    Args:
        path: the file.
        prompt: the task it belongs to; the variables of each case are checked against its inputs.

    Raises:
        PromptNotFound: no such file. PromptError: anything wrong with it, with line and key.
    """
    return parse_cases(read_bytes(path), prompt, path=path)


def parse_cases(source: bytes | str, prompt: PromptFile, *, path: Path) -> tuple[Case, ...]:
    """Check the content of a cases file.

    Args:
        source: the file's bytes, or its text.
        prompt: as for `load_cases`.
        path: shown in errors.

    Raises:
        PromptError: anything wrong with it, with line and key.
    """
    data = source.encode() if isinstance(source, str) else source
    document = parse_yaml(decode_text(data, path=path), path=str(path))
    fields = document.fields(("defaultTest", "tests"))
    if "tests" not in fields or not fields["tests"].items():
        raise document.error("There are no cases.", hint="write `tests:` and under it `- vars: {text: …}`")
    every = fields["defaultTest"].fields(("assert",)) if "defaultTest" in fields else {}
    common = tuple(_parse_assertion(item) for item in every["assert"].items()) if "assert" in every else ()
    return tuple(_parse_case(entry, prompt, common) for entry in fields["tests"].items())


def _parse_case(entry: Entry, prompt: PromptFile, common: tuple[Assertion, ...]) -> Case:
    fields = entry.fields(("description", "vars", "assert", "metadata"))
    own = tuple(_parse_assertion(item) for item in fields["assert"].items()) if "assert" in fields else ()
    if "vars" not in fields or not own:
        raise entry.error("A case needs 'vars' and at least one 'assert' of its own.")
    variables = {name: _variable(name, value, prompt) for name, value in fields["vars"].fields().items()}
    for name, declared in prompt.inputs.items():
        if name not in variables and not declared.is_optional and name not in prompt.defaults:
            raise fields["vars"].error(f"Task {prompt.full_name!r} needs the variable {name!r}.")
    metadata = fields["metadata"].fields() if "metadata" in fields else {}
    return Case(
        vars=variables,
        assertions=(*own, *common),
        description=fields["description"].text() if "description" in fields else "",
        metadata={key: value.plain() for key, value in metadata.items()},
        line=entry.line,
    )


def _variable(name: str, value: Entry, prompt: PromptFile) -> object:
    if name not in prompt.inputs:
        known = did_you_mean(name, prompt.inputs, noun="Declared")
        raise value.error(f"Task {prompt.full_name!r} has no variable {name!r}. {known}")
    declared = prompt.inputs[name]
    plain = value.raw if declared.type == "string" and value.is_scalar else value.plain()
    if (problem := declared.find_problem(plain)) is not None:
        raise value.error(problem)
    return plain


def _parse_assertion(entry: Entry) -> Assertion:
    fields = entry.fields(("type", "value"))
    if "type" not in fields:
        raise entry.error("An assertion needs a 'type'.", hint=f"one of {', '.join(ASSERTIONS)}")
    type_ = fields["type"].text()
    base = type_.removeprefix(_NOT)
    if base not in ASSERTIONS:
        raise fields["type"].error(f"Unknown assertion type {type_!r}. {did_you_mean(base, ASSERTIONS)}")
    value, read_value = fields.get("value"), ASSERTIONS[base][1]
    if value is None and read_value is None:
        return Assertion(type=type_, line=entry.line)
    if value is None or read_value is None:
        raise entry.error(f"The assertion {type_!r} {'needs a' if value is None else 'takes no'} 'value'.")
    return Assertion(type=type_, value=read_value(value), line=entry.line)


def _regex(entry: Entry) -> str:
    pattern = entry.text()
    try:
        re.compile(pattern)
    except re.error as error:
        raise entry.error(f"{pattern!r} is not a regular expression: {error}.") from error
    return pattern


def _texts(entry: Entry) -> tuple[str, ...]:
    texts = entry.texts()
    if not texts:
        raise entry.error(f"{entry.key} is an empty list.")
    return texts


def _any_value(entry: Entry) -> object:
    return entry.raw if entry.is_scalar else entry.plain()


def _equals(result: Result, value: Any) -> bool:
    return answer_text(result) == value if isinstance(value, str) else result.data == value


def _is_json(result: Result, value: Any) -> bool:
    try:
        json.loads(answer_text(result))
    except ValueError:
        return False
    return True


def _language(result: Result, value: Any) -> bool:
    """Which script prevails: Chinese characters against Latin words, each about a word's worth."""
    num_han, num_latin = len(_HAN.findall(answer_text(result))), len(_LATIN_WORD.findall(answer_text(result)))
    return num_han > num_latin if value == "zh" else num_latin > num_han


def _num_contained(result: Result, texts: Any) -> int:
    return sum(text in answer_text(result) for text in texts)


def _num_contained_any_case(result: Result, texts: Any) -> int:
    answer = answer_text(result).casefold()
    return sum(text.casefold() in answer for text in texts)


_Holds: TypeAlias = Callable[[Result, Any], bool]
_ReadValue: TypeAlias = Callable[[Entry], Any]
ASSERTIONS: Mapping[str, tuple[_Holds, _ReadValue | None]] = {
    "equals": (_equals, _any_value),
    "contains": (lambda result, value: _num_contained(result, [value]) == 1, Entry.text),
    "icontains": (lambda result, value: _num_contained_any_case(result, [value]) == 1, Entry.text),
    "contains-any": (lambda result, value: _num_contained(result, value) > 0, _texts),
    "contains-all": (lambda result, value: _num_contained(result, value) == len(value), _texts),
    "icontains-any": (lambda result, value: _num_contained_any_case(result, value) > 0, _texts),
    "icontains-all": (lambda result, value: _num_contained_any_case(result, value) == len(value), _texts),
    "starts-with": (lambda result, value: answer_text(result).startswith(value), Entry.text),
    "regex": (lambda result, value: re.search(value, answer_text(result)) is not None, _regex),
    "is-json": (_is_json, None),
    "label": (lambda result, value: value in (result.label, result.name), Entry.text),
    "max-length": (lambda result, value: len(answer_text(result)) <= value, lambda entry: entry.integer(minimum=0)),
    "language": (_language, lambda entry: entry.choice(("zh", "en"))),
}
"""Type of an assertion -> whether an answer meets it, and how its value is read; None where it takes none."""
