"""Ctrl-C, a reader that leaves, and going on afterwards."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import IO

import pytest

from .conftest import PROGRAM, Run

NUM_LINES = 10_000


@pytest.fixture
def many_lines(tmp_path: Path) -> Path:
    """10,000 lines; few different ones, so that the result cache keeps the test short."""
    path = tmp_path / "many.jsonl"
    rows = (json.dumps({"text": f"味道{n % 7}分", "id": n}, ensure_ascii=False) for n in range(NUM_LINES))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def start(environment: dict[str, str], *arguments: str | Path, stdin: int | None = None) -> subprocess.Popen[bytes]:
    """The program, running."""
    command = [PROGRAM, *map(str, arguments)]
    return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def require(stream: IO[bytes] | None) -> IO[bytes]:
    """A pipe that is there."""
    assert stream is not None
    return stream


def test_ctrl_c_keeps_what_was_printed(environment: dict[str, str], many_lines: Path) -> None:
    """Whole records in input order, exit 130, no traceback. The full pipe holds the program in the middle."""
    process = start(environment, "run", "sentiment", "--file", many_lines, "--json")
    with process:
        lines = [require(process.stdout).readline() for _ in range(100)]
        process.send_signal(signal.SIGINT)
        lines += require(process.stdout).readlines()
        errors = require(process.stderr).read()
        process.wait(timeout=60)
    assert process.returncode == 130
    assert [json.loads(line)["id"] for line in lines] == list(range(len(lines)))
    assert 100 <= len(lines) < NUM_LINES
    assert b"Traceback" not in errors


def test_resume_after_ctrl_c_ends_with_every_answer_once(
    environment: dict[str, str], run: Run, many_lines: Path, tmp_path: Path
) -> None:
    """Interrupted twice, then left to finish: 10,000 answers in order, each once."""
    output = tmp_path / "out.jsonl"
    command = ("run", "sentiment", "--file", many_lines, "--output", output, "--resume")
    for num_wanted in (500, 2_000):
        process = start(environment, *command)
        with process:
            while process.poll() is None and (not output.exists() or _count_lines(output) < num_wanted):
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        assert process.returncode in (0, 130), errors  # 0: it was done before the signal came
        assert b"Traceback" not in errors
    assert run(*command).returncode == 0
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == list(range(NUM_LINES))


def test_reader_that_leaves_is_quiet(environment: dict[str, str], many_lines: Path) -> None:
    """`allinone run … | head -1`: no traceback, no message."""
    process = start(environment, "run", "sentiment", "--file", many_lines, "--json")
    with process:
        require(process.stdout).readline()
        require(process.stdout).close()
        errors = require(process.stderr).read()
        process.wait(timeout=60)
    assert process.returncode == 1
    assert errors == b""


def test_short_output_into_a_closed_pipe_is_quiet(environment: dict[str, str]) -> None:
    """What fits the buffer fails only when the process ends; that is quiet too."""
    process = start(environment, "tasks", "list")
    with process:
        require(process.stdout).close()
        errors = require(process.stderr).read()
        process.wait(timeout=60)
    assert errors == b""


def test_ctrl_c_during_a_piped_chat(environment: dict[str, str]) -> None:
    """Ends the program, as in any pipeline."""
    process = subprocess.Popen(
        [PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    with process:
        require(process.stdin).write("你好\n".encode())
        require(process.stdin).flush()
        assert "LLM 情感判断" in require(process.stdout).readline().decode()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        errors = require(process.stderr).read()
    assert process.returncode == 130
    assert b"Traceback" not in errors


def _count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def test_live_pipe_is_answered_line_by_line_and_ctrl_c_ends_the_wait(environment: dict[str, str]) -> None:
    """Each answer comes before the next line is written; Ctrl-C while waiting for one ends cleanly."""
    process = start(environment, "run", "sentiment", "--json", stdin=subprocess.PIPE)
    with process:
        writer = require(process.stdin)
        for text in ("很好", "很差"):
            writer.write(f"{text}\n".encode())
            writer.flush()
            assert json.loads(require(process.stdout).readline())["input"] == text
        process.send_signal(signal.SIGINT)
        errors = require(process.stderr).read()
        process.wait(timeout=60)
    assert process.returncode == 130
    assert errors == b"Stopped.\n"
