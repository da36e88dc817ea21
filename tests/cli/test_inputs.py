"""Reading inputs: formats, places, and lines that cannot be used."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from allinone.cli import inputs
from allinone.cli.inputs import BadLine, Entry, Line, from_arguments, open_source, read_entries
from allinone.errors import ConfigError, UsageError
from allinone.prompts.schema import InputField

STYLE = {"text": InputField(name="text"), "style": InputField(name="style"), "n": InputField(name="n", type="integer")}


def read(path: Path, content: bytes | str, *, column: str = "text") -> list[Entry]:
    """The entries of a file with this content."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with closing(open_source(str(path), column=column, inputs=STYLE)) as source:
        return list(read_entries(source))


def lines(entries: list[Entry]) -> list[tuple[int, str]]:
    """Number and text of the usable entries; all of them must be usable."""
    found = [(entry.number, entry.text) for entry in entries if isinstance(entry, Line)]
    assert len(found) == len(entries)
    return found


def bad(entries: list[Entry]) -> list[tuple[int, str]]:
    """Number and message of the unusable entries."""
    return [(entry.number, entry.error.message) for entry in entries if isinstance(entry, BadLine)]


def test_arguments_are_numbered() -> None:
    """Several TEXT arguments are several inputs."""
    assert lines(list(from_arguments(["a", "b"]))) == [(1, "a"), (2, "b")]


@pytest.mark.parametrize("content", ["一\n\n二\n", "一\r\n\r\n二\r\n", "\ufeff一\n  \n二"])
def test_text_file_gives_one_input_per_line(tmp_path: Path, content: str) -> None:
    """Blank lines are skipped but counted; Windows line ends, a byte order mark and a missing last newline are fine."""
    assert lines(read(tmp_path / "a.txt", content)) == [(1, "一"), (3, "二")]


def test_text_keeps_everything_but_the_line_end(tmp_path: Path) -> None:
    """User text is never altered: spaces, NUL, separators that Python's splitlines would split at."""
    text = "  a\0b\u2028c\x0bd\x85e  "
    assert lines(read(tmp_path / "a.txt", text + "\n")) == [(1, text)]


def test_invalid_utf8_line_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    """One wrongly encoded line must not cost the others."""
    entries = read(tmp_path / "a.txt", "好\n".encode() + "好".encode("gbk") + b"\nok\n")
    assert bad(entries) == [(2, "Not valid UTF-8: byte 0xba at position 0.")]
    assert lines([entry for entry in entries if isinstance(entry, Line)]) == [(1, "好"), (3, "ok")]


def test_jsonl_splits_variables_from_what_is_carried_along(tmp_path: Path) -> None:
    """Declared keys become variables with their JSON type, the others travel to the answer."""
    (entry,) = read(tmp_path / "a.jsonl", '{"id": 7, "text": "好", "style": "正式", "n": 2, "tags": ["x"]}\n')
    assert isinstance(entry, Line)
    assert entry.variables == {"text": "好", "style": "正式", "n": 2}
    assert entry.extra == {"id": 7, "tags": ["x"]}
    assert entry.place.endswith("a.jsonl:1")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": broken', "Not valid JSON"),
        ('["text"]', "Not a JSON object but list."),
        ('{"txt": "x", "id": 1}', "There is no key 'text'; keys: 'txt', 'id'."),
        ('{"text": 5}', "The value of 'text' is not a string but int."),
        ('{"text": "x", "score": NaN}', "Not valid JSON: NaN is not JSON."),
        ("[" * 100_000, "JSON"),
        ('{"text": ' + "1" * 5_000 + "}", "Not valid JSON"),
    ],
)
def test_bad_jsonl_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    """Every way to break a line ends in a message about that line."""
    entries = read(tmp_path / "a.jsonl", f'{{"text": "a"}}\n{line}\n{{"text": "b"}}\n')
    assert [type(entry) for entry in entries] == [Line, BadLine, Line]
    assert message in bad(entries)[0][1]


def test_csv_reads_quoted_fields_and_types(tmp_path: Path) -> None:
    """A quoted field may hold commas and line breaks; cells of declared variables get their type, empty ones none."""
    content = '\ufeffid,text,n\n1,"a, ""b""\nc",3\n\n2,d,\n'
    first, second = read(tmp_path / "a.csv", content)
    assert isinstance(first, Line) and isinstance(second, Line)
    assert (first.number, first.variables, first.extra) == (2, {"text": 'a, "b"\nc', "n": 3}, {"id": "1"})
    assert (second.number, second.variables) == (5, {"text": "d", "n": None})


def test_csv_bad_rows_are_named(tmp_path: Path) -> None:
    """Wrong number of fields, wrong type, wrong encoding: each names its row, the rest goes on."""
    content = b"text,n\na,1,2\nb,x\n\xff,1\nd,4\n"
    entries = read(tmp_path / "a.csv", content)
    assert [entry.number for entry in entries] == [2, 3, 4, 5]
    messages = [message for _, message in bad(entries)]
    assert messages[0] == "The row has 3 fields, the header 2."
    assert "integer" in messages[1]
    assert "UTF-8" in messages[2]
    assert isinstance(entries[3], Line)


def test_csv_unclosed_quote_is_an_error(tmp_path: Path) -> None:
    """The csv module would quietly take the rest of the file as one field."""
    entries = read(tmp_path / "a.csv", 'text\na\n"b\nc\n')
    assert bad(entries) == [(3, "Not valid CSV: unexpected end of data.")]


def test_csv_without_the_column_is_refused(tmp_path: Path) -> None:
    """No row could be answered, so none is tried; the message lists the columns."""
    with pytest.raises(UsageError, match=r"no column 'text'; its columns: review, stars"):
        read(tmp_path / "a.csv", "review,stars\nx,1\n")


def test_other_column(tmp_path: Path) -> None:
    """`--column` names the text in CSV and JSON Lines; a column called text is then carried along."""
    (entry,) = read(tmp_path / "a.csv", "review,text\nx,y\n", column="review")
    assert isinstance(entry, Line)
    assert (entry.variables, entry.extra) == ({"text": "x"}, {"text": "y"})
    (entry,) = read(tmp_path / "a.jsonl", '{"review": "x"}\n', column="review")
    assert isinstance(entry, Line)
    assert entry.text == "x"


def test_tsv_is_separated_by_tabs(tmp_path: Path) -> None:
    """The data sets people have are often .tsv."""
    (entry,) = read(tmp_path / "a.tsv", "text\tid\na, b\t1\n")
    assert isinstance(entry, Line)
    assert (entry.text, entry.extra) == ("a, b", {"id": "1"})


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
def test_overlong_line_is_refused_and_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A file without line ends must not fill the memory."""
    monkeypatch.setattr(inputs, "MAX_LINE_BYTES", 2**20)
    head, first, last = {
        "a.txt": ("", "a", "b"),
        "a.jsonl": ("", '{"text": "a"}', '{"text": "b"}'),
        "a.csv": ("text\n", "a", "b"),
    }[name]
    entries = read(tmp_path / name, f"{head}{first}\n{'x' * 3_000_000}\n{last}\n")
    assert [message for _, message in bad(entries)] == ["The line is longer than 1 MiB."]
    assert [entry.text for entry in entries if isinstance(entry, Line)] == ["a", "b"]


def test_megabyte_line_is_read_whole(tmp_path: Path) -> None:
    """Long is not wrong here: the task's own limit decides."""
    text = "好" * 400_000
    assert lines(read(tmp_path / "a.jsonl", json.dumps({"text": text}) + "\n")) == [(1, text)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(range(256)) * 40, "is not a text file"),
        ("\ufeff好".encode("utf-16-le"), "is UTF-16, not UTF-8"),
    ],
)
def test_file_that_is_not_text_is_refused_as_a_whole(tmp_path: Path, content: bytes, message: str) -> None:
    """One clear error instead of thousands of bad lines."""
    with pytest.raises(ConfigError, match=message):
        read(tmp_path / "a.txt", content)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    """The path is named."""
    with pytest.raises(ConfigError, match=r"no file .*nope\.txt"):
        open_source(str(tmp_path / "nope.txt"))
    with pytest.raises(ConfigError, match="is a folder"):
        open_source(str(tmp_path))


def test_reading_is_lazy(tmp_path: Path) -> None:
    """A file larger than memory is read as its lines are asked for."""
    path = tmp_path / "a.txt"
    with path.open("w") as file:
        for _ in range(10_000):
            file.write("x" * 999 + "\n")
    with closing(open_source(str(path))) as source:
        next(read_entries(source))
        assert source.num_bytes_read == 1_000


def test_format_comes_before_the_ending(tmp_path: Path) -> None:
    """A name may say nothing, or something else."""
    (tmp_path / "data.log").write_text('{"text": "好"}\n')
    with closing(open_source(str(tmp_path / "data.log"), format="jsonl")) as source:
        assert lines(list(read_entries(source))) == [(1, "好")]


@pytest.mark.parametrize(("name", "format", "message"), [("a.json", None, "one JSON document"), ("a", "xml", "xml")])
def test_unknown_format_is_refused(tmp_path: Path, name: str, format: str | None, message: str) -> None:
    """A JSON document read line by line would be nonsense."""
    (tmp_path / name).write_text("[]")
    with pytest.raises(ConfigError, match=message):
        open_source(str(tmp_path / name), format=format)
