"""What is wrong with the machine or the model: one clear error with a hint, exit 1, nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from .conftest import BUNDLED, NOWHERE, PROGRAM, Run

SENTENCE = "今天的实验终于成功了,太棒了!"


def require_one_error(done: subprocess.CompletedProcess[str], *needles: str) -> None:
    """One error with a hint, exit 1, no traceback, nothing on stdout."""
    assert done.returncode == 1, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert "Unexpected" not in errors[0]
    assert "  hint: " in done.stderr
    for needle in needles:
        assert needle in done.stderr, done.stderr


def files_in(folder: Path) -> list[Path]:
    """Files that somebody left, at any depth."""
    return [path for path in folder.rglob("*") if path.is_file()]


def test_no_network_is_needed(run: Run) -> None:
    """Every proxy leads nowhere and the hub is unreachable: the bundled model answers."""
    done = run(stdin=SENTENCE, env={"ALL_PROXY": NOWHERE, "all_proxy": NOWHERE})
    assert done.returncode == 0, done.stderr
    assert "LLM 情感判断: " in done.stdout


def test_pull_without_a_network(run: Run, tmp_path: Path) -> None:
    """What does need a network says so."""
    done = run("models", "pull", "Qwen/Qwen3-0.6B", env={"ALLINONE_HOME": str(tmp_path)})
    require_one_error(done)
    assert files_in(tmp_path) == []


def test_missing_model_file(run: Run) -> None:
    """The path is named."""
    require_one_error(run("run", "sentiment", "--model", "no/such/model.gguf", "x"), "no/such/model.gguf")


@pytest.mark.parametrize("share", [0.9, 0.3, 0.001, 0.0])
def test_truncated_gguf(run: Run, tmp_path: Path, share: float) -> None:
    """Wherever a download broke off, it is noticed before anything is written."""
    content = BUNDLED[-1].read_bytes()
    path = tmp_path / "broken.gguf"
    path.write_bytes(content[: int(len(content) * share)])
    cache = tmp_path / "cache"
    done = run("run", "sentiment", "--model", path, "x", env={"ALLINONE_CACHE": str(cache)})
    require_one_error(done, "broken.gguf")
    assert files_in(cache) == []


def test_wrong_architecture(run: Run, tmp_path: Path) -> None:
    """Refused by name, with what is supported."""
    path = tmp_path / "llama.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(1)
    writer.add_tensor("token_embd.weight", np.zeros((8, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    cache = tmp_path / "cache"
    done = run("run", "sentiment", "--model", path, "x", env={"ALLINONE_CACHE": str(cache)})
    require_one_error(done, "llama", "qwen2")
    assert files_in(cache) == []


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """A folder to mount on, given back afterwards."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    yield folder
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def mount_tmpfs(folder: Path, options: str) -> None:
    """A small file system in memory, or skip: it takes rights that not everybody has."""
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.decode().strip()}")


def test_home_under_a_file(run: Run, tmp_path: Path) -> None:
    """No folder can be made there, whoever asks; the variable that names another one is in the hint."""
    (tmp_path / "file").write_text("")
    env = {"HOME": str(tmp_path / "file" / "home")}
    require_one_error(run("run", "sentiment", "x", env=env), "ALLINONE_CACHE")


def test_read_only_home(run: Run, mount: Path) -> None:
    """The same on a file system that is mounted read-only."""
    mount_tmpfs(mount, "ro,size=1m")
    require_one_error(run("run", "sentiment", "x", env={"HOME": str(mount)}), "ALLINONE_CACHE")


def test_read_only_home_with_a_prepared_model_works(run: Run, home: Path, mount: Path) -> None:
    """Only the first preparation writes: afterwards a read-only cache is enough."""
    done = subprocess.run(["mount", "--bind", "-o", "ro", str(home), str(mount)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.decode().strip()}")
    done = run(stdin=SENTENCE, env={"HOME": str(mount)})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("size", ["1m", "12m"])
def test_full_disk_while_preparing_the_model(run: Run, mount: Path, size: str) -> None:
    """Everything that was begun is taken away again."""
    mount_tmpfs(mount, f"size={size}")
    done = run("run", "sentiment", "x", env={"ALLINONE_CACHE": str(mount / "cache")})
    require_one_error(done, "ALLINONE_CACHE")
    assert files_in(mount) == []


def test_full_disk_while_writing_answers(run: Run, mount: Path, tmp_path: Path) -> None:
    """What is in the file is whole, and `--resume` goes on once there is room."""
    mount_tmpfs(mount, "size=64k")
    path = tmp_path / "many.txt"
    path.write_text("很好\n" * 1_000, encoding="utf-8")
    output = mount / "out.jsonl"
    command = ("run", "sentiment", "--file", path, "--output", output, "--resume")
    require_one_error(run(*command), "out.jsonl", "--resume")
    content = output.read_bytes()
    assert content.endswith(b"\n")
    num_written = content.count(b"\n")
    assert 0 < num_written < 1_000
    subprocess.run(["mount", "-o", "remount,size=8m", str(mount)], check=True)
    assert run(*command).returncode == 0
    assert output.read_bytes().startswith(content)
    assert output.read_bytes().count(b"\n") == 1_000


def test_file_size_limit_while_writing_answers(environment: dict[str, str], tmp_path: Path) -> None:
    """The same without rights to mount: a limit on the size of files stands for the full disk."""
    path, output = tmp_path / "many.txt", tmp_path / "out.jsonl"
    path.write_text("很好\n" * 1_000, encoding="utf-8")
    limit = f"ulimit -f 64; trap '' XFSZ; exec '{PROGRAM}' run sentiment --file '{path}' --json --output '{output}'"
    done = subprocess.run(
        ["sh", "-c", limit], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    require_one_error(done, "out.jsonl", "--resume")
    assert output.read_bytes().endswith(b"\n")
    assert output.stat().st_size <= 64 * 1024


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
@pytest.mark.parametrize("arguments", [("tasks", "list"), ("run", "sentiment", "x"), ("--help",)])
def test_stdout_on_a_full_disk(environment: dict[str, str], arguments: tuple[str, ...]) -> None:
    """`allinone … > file` when the file cannot grow."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [PROGRAM, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            timeout=120,
            check=False,
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
