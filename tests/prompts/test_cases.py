"""Cases files: strict reading, and what each assertion demands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from allinone.errors import PromptError, UnknownKey
from allinone.prompts.cases import Assertion, Case, check_case, find_cases, load_cases
from allinone.prompts.library import PromptLibrary
from allinone.types import Result

from .texts import TEXT_PROMPT, parse

LIBRARY = PromptLibrary.load()


def result(**fields: Any) -> Result:
    """A result with these fields."""
    return Result(**{"task": "t", "version": "v", "model": "m", "kind": "text"} | fields)


@pytest.mark.parametrize(
    ("type_", "value", "good", "bad"),
    [
        ("equals", "你好", "你好", "你好。"),
        ("contains", "cat", "a cat", "a Cat"),
        ("icontains", "CAT", "a cat", "a dog"),
        ("contains-any", ("a", "b"), "xb", "xc"),
        ("contains-all", ("a", "b"), "ab", "a"),
        ("icontains-any", ("A", "B"), "xb", "xc"),
        ("icontains-all", ("A", "B"), "ba", "a"),
        ("starts-with", "a", "ab", "ba"),
        ("regex", r"^\d+$", "12", "1x"),
        ("is-json", None, '{"a": 1}', "{a}"),
        ("max-length", 2, "你好", "你好吗"),
        ("language", "zh", "我用 Python 写程序", "I love 北京 very much"),
        ("language", "en", "Hello there", "12345"),
    ],
)
def test_check_case_assertions_and_their_negation(type_: str, value: Any, good: str, bad: str):
    """Each type accepts the one and rejects the other; `not-` turns it round."""
    plain = Case(vars={"text": "x"}, assertions=(Assertion(type=type_, value=value),))
    negated = Case(vars={"text": "x"}, assertions=(Assertion(type=f"not-{type_}", value=value),))
    assert check_case(plain, result(text=good)) == []
    (failure,) = check_case(plain, result(text=bad))
    assert type_ in failure
    assert repr(bad) in failure
    assert len(check_case(negated, result(text=good))) == 1
    assert check_case(negated, result(text=bad)) == []


def test_check_case_label_matches_label_or_name():
    """So one cases file serves a task and its variants in other languages."""
    answer = result(kind="label", label="正面", name="positive", text=None)
    for value in ("正面", "positive"):
        assert check_case(Case(vars={}, assertions=(Assertion(type="label", value=value),)), answer) == []
    assert check_case(Case(vars={}, assertions=(Assertion(type="label", value="负面"),)), answer)
    assert check_case(Case(vars={}, assertions=(Assertion(type="equals", value="正面"),)), answer) == []


def test_check_case_equals_compares_data_of_json_tasks():
    """A mapping in the file is compared with the parsed answer, not with its spelling."""
    case = Case(vars={}, assertions=(Assertion(type="equals", value={"a": [1]}),))
    assert check_case(case, result(kind="json", text='{"a":[1]}', data={"a": [1]})) == []
    assert check_case(case, result(kind="json", text='{"a":[2]}', data={"a": [2]}))


def test_load_cases_reads_all_keys(tmp_path: Path):
    """The names are promptfoo's, `defaultTest` included."""
    path = tmp_path / "t.tests.yaml"
    path.write_text(
        "defaultTest: {assert: [{type: max-length, value: 9}]}\n"
        "tests:\n"
        "  - description: one\n"
        "    vars: {text: yes, style: 01, words: [a]}\n"
        "    metadata: {hard: true}\n"
        "    assert:\n"
        "      - {type: equals, value: no}\n"
        "      - {type: is-json}\n",
        encoding="utf-8",
    )
    (case,) = load_cases(path, parse(TEXT_PROMPT))
    assert case.vars == {"text": "yes", "style": "01", "words": ["a"]}
    assert [(a.type, a.value) for a in case.assertions] == [("equals", "no"), ("is-json", None), ("max-length", 9)]
    assert (case.description, case.metadata, case.line) == ("one", {"hard": True}, 3)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "no cases"),
        ("tests: []", 1, "no cases"),
        ("tests:\n- vars: {text: a}", 2, "at least one 'assert'"),
        ("tests:\n- assert: [{type: is-json}]", 2, "needs 'vars'"),
        ("tests:\n- vars: {txt: a}\n  assert: [{type: is-json}]", 2, "Did you mean 'text'"),
        ("tests:\n- vars: {style: a}\n  assert: [{type: is-json}]", 2, "needs the variable 'text'"),
        ("tests:\n- vars: {text: [a]}\n  assert: [{type: is-json}]", 2, "must be of type string"),
        ("tests:\n- vars: {text: a}\n  asrt: []", 3, "Did you mean 'assert'"),
        ("tests:\n- vars: {text: a}\n  assert: [{type: equal, value: a}]", 3, "Did you mean 'equals'"),
        ("tests:\n- vars: {text: a}\n  assert: [{type: javascript, value: a}]", 3, "Unknown assertion type"),
        ("tests:\n- vars: {text: a}\n  assert: [{type: equals}]", 3, "needs a 'value'"),
        ("tests:\n- vars: {text: a}\n  assert: [{type: is-json, value: a}]", 3, "takes no 'value'"),
        ("tests:\n- vars: {text: a}\n  assert: [{value: a}]", 3, "needs a 'type'"),
        ("tests:\n- vars: {text: a}\n  assert: [{type: regex, value: '('}]", 3, "not a regular expression"),
        ("tests:\n- vars: {text: a}\n  assert: [{type: language, value: fr}]", 3, "Choices: en, zh"),
        ("tests:\n- vars: {text: a}\n  assert: [{type: contains-any, value: []}]", 3, "empty list"),
    ],
)
def test_load_cases_errors(tmp_path: Path, text: str, line: int, message: str):
    """A misspelt assertion must never pass by being ignored."""
    path = tmp_path / "t.tests.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises((PromptError, UnknownKey)) as caught:
        load_cases(path, parse(TEXT_PROMPT))
    assert message in caught.value.message
    assert caught.value.line == line


@pytest.mark.parametrize("name", LIBRARY.names())
def test_built_in_tasks_have_cases_in_both_languages(name: str):
    """At least eight real cases a task, Chinese and English among them; typo is about Chinese alone."""
    prompt = LIBRARY.get(name)
    path = find_cases(prompt)
    assert path is not None
    cases = load_cases(path, prompt)
    assert len(cases) >= 8
    texts = [case.vars["text"] for case in cases]
    assert len(set(texts)) == len(texts)
    chinese = [text for text in texts if any("\u4e00" <= c <= "\u9fff" for c in text)]
    assert len(chinese) >= 3
    assert prompt.name == "typo" or len(texts) - len(chinese) >= 3


@pytest.mark.parametrize("name", [name for name in LIBRARY.names() if LIBRARY.get(name).kind == "label"])
def test_built_in_label_cases_demand_labels_that_exist(name: str):
    """A case that no answer can pass says nothing; together they cover every label."""
    prompt = LIBRARY.get(name)
    path = find_cases(prompt)
    assert path is not None
    wanted = [assertion.value for case in load_cases(path, prompt) for assertion in case.assertions]
    assert {prompt.find_labels([value])[0] for value in wanted} == set(prompt.labels)
