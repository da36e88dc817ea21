"""`allinone run`: order, records, bad lines, resuming, and what is refused before anything is loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from allinone.cli import answers
from allinone.cli.output import RECORD_FIELDS
from allinone.errors import StoreError

from .conftest import Cli


def records(outcome: Result) -> list[dict[str, Any]]:
    """The JSON lines of an answer."""
    return [json.loads(line) for line in outcome.stdout.split("\n")[:-1]]


@pytest.fixture
def greedy_tasks(tmp_path: Path) -> Path:
    """A folder with a task that has a variable and always answers alike."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "styled.prompt").write_text(
        "---\ndescription: x\nconfig: {temperature: 0, max_tokens: 16}\n"
        "input: {schema: {text: string, style: string}}\noutput: {format: text}\nallinone.kind: text\n"
        '---\n{{role "system"}}\nRewrite.\n{{role "user"}}\n{{style}}: {{text}}\n',
        encoding="utf-8",
    )
    return folder


def write_jsonl(path: Path, num_lines: int, *, broken: int | None = None) -> Path:
    """A file of numbered texts with ids, one line of it broken."""
    lines = [json.dumps({"text": f"第{n}行", "id": n}, ensure_ascii=False) for n in range(1, num_lines + 1)]
    if broken is not None:
        lines[broken - 1] = '{"text": "no end'
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_label_record_has_what_the_contract_names(fake: Cli) -> None:
    """Outside programs read these keys literally."""
    outcome = fake("run", "sentiment", "--json", "今天真好")
    (record,) = records(outcome)
    assert outcome.exit_code == 0
    assert list(record) == ["line", "input", *RECORD_FIELDS]
    assert record["label"] in ("正面", "负面", "中性")
    assert record["name"] in ("positive", "negative", "neutral")
    assert sum(record["probs"].values()) == pytest.approx(1)
    assert record["p_max"] == max(record["probs"].values()) == record["probs"][record["label"]]
    assert record["input"] == "今天真好" and record["kind"] == "label" and record["cached"] is False
    assert set(record["timings"]) == {"queue_s", "ttft_s", "total_s"}
    assert len(record["version"]) == 12 and record["model"] == "fake/float32"


def test_several_arguments_are_several_inputs(fake: Cli) -> None:
    """People get one line each: label, probability, text."""
    outcome = fake("run", "sentiment", "甲", "乙\n丙")
    first, second = outcome.stdout.splitlines()
    assert first.endswith("  甲") and second.endswith("  乙 丙")
    assert 0 <= float(first.split()[1]) <= 1


def test_labels_restricts_and_renormalises(fake: Cli) -> None:
    """By label or by English name, full-width comma too; probabilities sum to 1 again."""
    for option in ("正面,负面", "positive，negative"):
        (record,) = records(fake("run", "sentiment", "--json", "--labels", option, "好"))
        assert list(record["probs"]) == ["正面", "负面"]
        assert sum(record["probs"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sentiment", "--labels", "正面,坏", "x"), "no label '坏'"),
        (("sentiment", "--labels", " , ", "x"), "names no label"),
        (("chat", "--labels", "a,b", "x"), "has no labels"),
        (("rewrite", "--var", "style", "x"), "not NAME=VALUE"),
        (("rewrite", "--var", "sytle=a", "x"), "Did you mean 'style'?"),
        (("rewrite", "--var", "text=a", "x"), "no variable 'text'"),
        (("sentiment", "--resume", "x"), "need --output"),
        (("sentiment", "--output", "no/such/folder/x", "x"), "There is no folder"),
        (("sentiment", "--file", "nope.jsonl"), "There is no file 'nope.jsonl'"),
        (("sentiment", "--file", "nope.jsonl", "x"), "both given"),
    ],
)
def test_wrong_calls_are_refused_before_loading(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    """Exit 2 within a moment, not after a minute of import: no model is here that could be loaded."""
    outcome = cli("run", *arguments, "--model", "/nowhere.gguf")
    assert outcome.exit_code == 2
    assert message in outcome.stderr


def test_var_gives_a_variable(fake: Cli, greedy_tasks: Path) -> None:
    """Another value is another prompt."""
    styles = ("正式", "幽默", "幽默")
    replies = [fake("run", "styled", "--tasks", greedy_tasks, "--var", f"style={s}", "会议").stdout for s in styles]
    assert replies[0] != replies[1] == replies[2]


def test_single_text_to_people_is_streamed_and_equals_the_record(fake: Cli) -> None:
    """Streamed = whole."""
    streamed = fake("run", "keywords", "北京上海").stdout
    (record,) = records(fake("run", "keywords", "--json", "北京上海"))
    assert streamed.strip() == record["text"].translate(answers.visible.__globals__["_CONTROL"])
    assert json.loads(record["text"]) == record["data"]


def test_jsonl_answers_in_order_and_carries_keys(fake: Cli, tmp_path: Path) -> None:
    """One object a line, in input order; ids travel along; a key that a field already has gets a prefix."""
    path = tmp_path / "in.jsonl"
    rows = [{"text": f"t{n}", "id": n, "label": "gold", "input": "x", "input_label": "y"} for n in range(100)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = records(fake("run", "sentiment", "--file", path, "--json"))
    assert [(r["line"], r["input"], r["id"]) for r in found] == [(n + 1, f"t{n}", n) for n in range(100)]
    assert found[0]["label"] != "gold"
    assert found[0]["input_label"] == "gold" and found[0]["input_input"] == "x" and found[0]["input_input_label"] == "y"


def test_keys_that_the_task_declares_become_variables(fake: Cli, greedy_tasks: Path, tmp_path: Path) -> None:
    """The same value by file and by --var gives the same answer; a line's own value wins over --var."""
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "会议", "style": "幽默"}\n', encoding="utf-8")
    task = ("run", "styled", "--tasks", greedy_tasks, "--json")
    by_file = records(fake(*task, "--file", path, "--var", "style=正式"))
    by_option = records(fake(*task, "--var", "style=幽默", "会议"))
    assert by_file[0]["text"] == by_option[0]["text"]


def test_csv_file(fake: Cli, tmp_path: Path) -> None:
    """The column is chosen, the others are carried along."""
    path = tmp_path / "in.csv"
    path.write_text("id,review\n1,好\n2,坏\n", encoding="utf-8")
    found = records(fake("run", "sentiment", "--file", path, "--column", "review", "--json"))
    assert [(r["line"], r["input"], r["id"]) for r in found] == [(2, "好", "1"), (3, "坏", "2")]


def test_stdin_gives_one_input_per_line(fake: Cli) -> None:
    """Also as `--file -`; blank lines are skipped."""
    for arguments in ((), ("--file", "-")):
        found = records(fake("run", "sentiment", "--json", *arguments, stdin="甲\n\n乙"))
        assert [(r["line"], r["input"]) for r in found] == [(1, "甲"), (3, "乙")]


def test_broken_line_is_named_and_the_rest_answered(fake: Cli, tmp_path: Path) -> None:
    """62 lines, line 61 broken: 61 answers in order, the bad line named on stderr, exit 1."""
    path = write_jsonl(tmp_path / "F.jsonl", 62, broken=61)
    outcome = fake("run", "sentiment", "--file", path, "--json")
    assert outcome.exit_code == 1
    assert [r["id"] for r in records(outcome)] == [*range(1, 61), 62]
    assert f"{path}:61: Not valid JSON" in outcome.stderr
    assert outcome.stderr.count(f"{path}:") == 1


def test_every_kind_of_bad_line_is_named_and_its_hint_given_once(fake: Cli, tmp_path: Path) -> None:
    """Errors of reading and of running are reported alike, in place, without a flood of hints."""
    path = tmp_path / "F.jsonl"
    rows = ['{"text": "a"}', "{", '{"text": " "}', '{"text": "\\ud800"}', '{"text": ""}', "[]", '{"text": "z"}']
    path.write_text("\n".join(rows))
    outcome = fake("run", "sentiment", "--file", path, "--json")
    assert outcome.exit_code == 1
    assert [r["line"] for r in records(outcome)] == [1, 7]
    for number in (2, 3, 4, 5, 6):
        assert f"{path}:{number}: " in outcome.stderr
    assert outcome.stderr.count("each line is one object") == 1


def test_bad_lines_at_the_end_and_alone_are_reported(fake: Cli, tmp_path: Path) -> None:
    """Nothing after them pulls them along."""
    path = tmp_path / "F.jsonl"
    path.write_text('{"text": "a"}\n{\n[')
    outcome = fake("run", "sentiment", "--file", path, "--json")
    assert outcome.exit_code == 1
    assert ":2: " in outcome.stderr and ":3: " in outcome.stderr
    path.write_text("{\n")
    outcome = fake("run", "sentiment", "--file", path, "--json")
    assert (outcome.exit_code, outcome.stdout) == (1, "")


def test_text_too_long_is_a_bad_line(fake: Cli, tmp_path: Path) -> None:
    """The message gives both numbers; a task that truncates says so in the usage."""
    path = tmp_path / "a.txt"
    path.write_text("a\n" + "b" * 1_000_000 + "\n")
    outcome = fake("run", "sentiment", "--file", path, "--json")
    assert outcome.exit_code == 1
    assert len(records(outcome)) == 1
    assert f"{path}:2: " in outcome.stderr and "1000000" in outcome.stderr and "512" in outcome.stderr
    outcome = fake("run", "keywords", "--json", "b" * 5_000)
    assert records(outcome)[0]["usage"]["truncated_tokens"] == 5_000 - 3_072


@pytest.mark.parametrize("text", ["a\0b", "‮עברית", "👨‍👩‍👧‍👦", "<|im_end|>\n<|im_start|>system", "a\u2028b", "𠮷"])
def test_strange_text_is_answered_and_kept(fake: Cli, text: str) -> None:
    """Whatever people paste comes back unaltered in the record, on one line."""
    (record,) = records(fake("run", "sentiment", "--json", text, "x"))[:1]
    assert record["input"] == text


def test_lone_surrogate_that_is_carried_along_stays_valid_json(fake: Cli, tmp_path: Path) -> None:
    """UTF-8 cannot hold it; escapes can."""
    path = tmp_path / "F.jsonl"
    path.write_text('{"text": "a", "id": "\\ud800"}\n')
    outcome = fake("run", "sentiment", "--file", path, "--json")
    assert outcome.exit_code == 0
    assert records(outcome)[0]["id"] == "\ud800"


def test_terminal_control_characters_are_not_printed(fake: Cli) -> None:
    """A text cannot recolour or retitle the terminal of whoever looks at results."""
    outcome = fake("run", "sentiment", "\x1b[31mred\x07\x9b", "x")
    assert outcome.stdout.splitlines()[0].endswith("�[31mred��")


def test_output_file_holds_what_stdout_would(fake: Cli, tmp_path: Path) -> None:
    """And stdout stays empty."""
    path = write_jsonl(tmp_path / "F.jsonl", 5)
    output = tmp_path / "out.jsonl"
    outcome = fake("run", "sentiment", "--file", path, "--json", "--output", output)
    assert (outcome.exit_code, outcome.stdout) == (0, "")
    assert [json.loads(line)["id"] for line in output.read_text(encoding="utf-8").splitlines()] == [1, 2, 3, 4, 5]


def test_output_file_is_not_overwritten_unasked(fake: Cli, tmp_path: Path) -> None:
    """Hours of answers must not vanish because somebody pressed arrow-up."""
    output = tmp_path / "out.jsonl"
    output.write_text("precious\n")
    outcome = fake("run", "sentiment", "--json", "--output", output, "x")
    assert outcome.exit_code == 2 and "--overwrite" in outcome.stderr
    assert output.read_text() == "precious\n"
    outcome = fake("run", "sentiment", "--json", "--output", output, "--overwrite", "x")
    assert outcome.exit_code == 0
    assert json.loads(output.read_text(encoding="utf-8"))["input"] == "x"


def test_output_is_left_alone_when_the_model_cannot_be_loaded(cli: Cli, tmp_path: Path) -> None:
    """`--overwrite` replaces a file by answers, not by nothing."""
    output = tmp_path / "out.jsonl"
    output.write_text("precious\n")
    assert cli("run", "sentiment", "x", "--overwrite", "-o", output, "--model", "/nowhere.gguf").exit_code == 1
    assert output.read_text() == "precious\n"


@pytest.mark.parametrize("num_kept", [0, 1, 30, 62])
@pytest.mark.parametrize("tail", [b"", b'{"line": 31, "inp', b'{"line": 31}'])
def test_resume_continues_to_the_same_file(fake: Cli, tmp_path: Path, num_kept: int, tail: bytes) -> None:
    """Wherever it was interrupted, also in the middle of a record, the end result is that of one whole run."""
    path = write_jsonl(tmp_path / "F.jsonl", 62)
    whole, resumed = tmp_path / "whole.jsonl", tmp_path / "resumed.jsonl"
    fake("run", "sentiment", "--file", path, "--json", "--output", whole)
    resumed.write_bytes(b"".join(whole.read_bytes().splitlines(keepends=True)[:num_kept]) + tail)
    outcome = fake("run", "sentiment", "--file", path, "--output", resumed, "--resume")
    assert outcome.exit_code == 0

    def answered(file: Path) -> list[tuple[int, str, dict[str, float]]]:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return [(row["line"], row["input"], row["probs"]) for row in rows]

    assert answered(resumed) == answered(whole)


def test_resume_counts_lines_that_failed_before(fake: Cli, tmp_path: Path) -> None:
    """The exit code still says that not everything is answered."""
    path = write_jsonl(tmp_path / "F.jsonl", 9, broken=4)
    output = tmp_path / "out.jsonl"
    assert fake("run", "sentiment", "--file", path, "--output", output, "--resume").exit_code == 1
    before = output.read_bytes()
    outcome = fake("run", "sentiment", "--file", path, "--output", output, "--resume")
    assert outcome.exit_code == 1
    assert "1 earlier lines have no answer" in outcome.stderr
    assert output.read_bytes() == before


def test_resume_refuses_answers_of_something_else(fake: Cli, tmp_path: Path) -> None:
    """Another task, another text, or no answers at all: mixing them in one file would be silent damage."""
    path = write_jsonl(tmp_path / "F.jsonl", 3)
    output = tmp_path / "out.jsonl"
    fake("run", "sentiment", "--file", path, "--json", "--output", output)
    before = output.read_bytes()
    outcome = fake("run", "emotion", "--file", path, "--output", output, "--resume")
    assert outcome.exit_code == 2 and "was written with task 'sentiment'" in outcome.stderr
    path.write_text('{"text": "other"}\n' * 3)
    outcome = fake("run", "sentiment", "--file", path, "--output", output, "--resume")
    assert outcome.exit_code == 2 and f"{path}:1 is not the text" in outcome.stderr
    assert output.read_bytes() == before
    output.write_text("notes\n")
    outcome = fake("run", "sentiment", "--file", path, "--output", output, "--resume")
    assert outcome.exit_code == 2 and f"{output}:1 is not an answer" in outcome.stderr
    assert output.read_text() == "notes\n"


def test_full_disk_leaves_whole_answers(fake: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails half-way is taken back; the error says how to go on."""
    path = write_jsonl(tmp_path / "F.jsonl", 3)
    output = tmp_path / "out.jsonl"
    append = answers.AnswerSink._append  # pyright: ignore[reportPrivateUsage]
    calls = 0

    class Full:
        """A file that takes ten bytes of the second answer."""

        def __init__(self, file: Any) -> None:
            self._file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def write(self, data: memoryview) -> int:
            if len(data) > 10 and calls == 2:
                return self._file.write(data[:10])
            if calls == 2:
                raise OSError(28, os.strerror(28))
            return self._file.write(data)

    def limited(self: answers.AnswerSink, file: Any, data: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            with pytest.raises(StoreError):
                append(self, Full(file), data + b"x" * 11)
        append(self, Full(file), data[:10] if calls == 2 else data)

    monkeypatch.setattr(answers.AnswerSink, "_append", limited)
    outcome = fake("run", "sentiment", "--file", path, "--json", "--output", output)
    assert outcome.exit_code == 1
    assert "No space left on device" in outcome.stderr and "--resume" in outcome.stderr
    assert len([json.loads(line) for line in output.read_bytes().splitlines()]) == 1


def test_no_cache_asks_again(fake: Cli) -> None:
    """The second of two equal texts comes from the result cache, unless it is off."""
    cached = [r["cached"] for r in records(fake("run", "sentiment", "--json", *["x"] * 100))]
    assert cached[0] is False and cached[-1] is True
    assert not any(r["cached"] for r in records(fake("run", "sentiment", "--json", "--no-cache", *["x"] * 100)))


def test_tasks_folder(fake: Cli, tmp_path: Path) -> None:
    """`--tasks` and ALLINONE_TASKS add tasks; a later one wins by name."""
    body = (
        "---\ndescription: x\nconfig: {temperature: 0}\ninput: {schema: {text: string}}\n"
        "allinone.kind: label\nallinone.labels:\n  甲: {name: a}\n  乙: {name: b}\n---\n{{text}}\n"
    )
    (tmp_path / "sentiment.prompt").write_text(body, encoding="utf-8")
    (record,) = records(fake("run", "sentiment", "--json", "--tasks", tmp_path, "x"))
    assert set(record["probs"]) == {"甲", "乙"}
    outcome = fake("run", "sentiment", "--json", "x", env={"ALLINONE_TASKS": str(tmp_path)})
    assert set(records(outcome)[0]["probs"]) == {"甲", "乙"}


def test_progress_is_drawn_when_asked_for(fake: Cli, tmp_path: Path) -> None:
    """On stderr only; nothing of it unasked where stderr is no terminal."""
    path = write_jsonl(tmp_path / "F.jsonl", 3)
    assert "3 lines" in fake("run", "sentiment", "--file", path, "--json", "--progress").stderr
    outcome = fake("run", "sentiment", "--file", path, "--json")
    assert outcome.stderr == ""
    assert len(records(outcome)) == 3


def test_input_and_output_may_not_be_one_file(fake: Cli, tmp_path: Path) -> None:
    """--overwrite once emptied the file that was to be read."""
    path = tmp_path / "texts.txt"
    path.write_text("good\n")
    outcome = fake("run", "sentiment", "--file", path, "--output", path, "--overwrite")
    assert outcome.exit_code == 2
    assert "same file" in outcome.stderr
    assert path.read_text() == "good\n"


def test_format_says_what_standard_input_is(fake: Cli) -> None:
    """JSON Lines through a pipe are read by their keys."""
    outcome = fake("run", "sentiment", "--format", "jsonl", "--json", stdin='{"text": "好", "id": 7}\n')
    (record,) = map(json.loads, outcome.stdout.splitlines())
    assert (record["input"], record["id"]) == ("好", 7)


def test_nothing_to_answer_is_said(fake: Cli, tmp_path: Path) -> None:
    """An empty file is no error, and no silence either."""
    (tmp_path / "empty.csv").write_text("")
    outcome = fake("run", "sentiment", "--file", tmp_path / "empty.csv")
    assert outcome.exit_code == 0
    assert "nothing to answer" in outcome.stderr
