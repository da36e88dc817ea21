"""Everything the documentation shows is run: commands as a user types them, Python as a user pastes it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .blocks import ROOT, Block, blocks, commands, documents

_SHELL = {"bash", "console", "sh"}
_ALL = [block for page in documents() for block in blocks(page)]
_LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")


@pytest.fixture
def user_environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A user who has the program on the path, and no network."""
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    return dict(os.environ)


def _pages_with(languages: set[str]) -> list[Any]:
    """Pages with blocks of these languages; a page is one story, so its blocks run in order, in one folder."""
    found = [page for page in documents() if any(b.language in languages and b.is_run for b in blocks(page))]
    return [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in found]


@pytest.mark.e2e
@pytest.mark.parametrize("page", _pages_with(_SHELL))
def test_commands_run(page: Path, tmp_path: Path, user_environment: dict[str, str]) -> None:
    """A command that was copied from a page must work."""
    for block in blocks(page):
        if block.language in _SHELL and block.is_run:
            script = "set -eo pipefail\n" + commands(block)
            done = subprocess.run(
                ["bash", "-c", script],
                cwd=tmp_path,
                env=user_environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
            )
            said = (done.stdout + done.stderr).decode(errors="replace")
            assert done.returncode == 0, f"{block.place} exits {done.returncode}:\n{commands(block)}\n{said}"


@pytest.mark.e2e
@pytest.mark.parametrize("page", _pages_with({"python"}))
@pytest.mark.usefixtures("user_environment")
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python from a page runs as it stands, block after block, names of earlier blocks in reach."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.language == "python" and block.is_run:
            code = "\n" * block.line + block.body
            exec(compile(code, str(page), "exec", dont_inherit=True), names)


@pytest.mark.e2e
@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_example_runs(example: Path, tmp_path: Path, user_environment: dict[str, str]) -> None:
    """Examples are programs: they end well and print something."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        cwd=tmp_path,
        env=user_environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("block", [b for b in _ALL if b.info], ids=lambda block: block.place)
def test_block_that_is_not_run_says_why(block: Block) -> None:
    """`no-run` without a reason would be a hole in the checks."""
    assert not block.is_run, f"{block.place}: unknown info string {block.info!r}"


@pytest.mark.parametrize("page", [*documents(), ROOT / "README.zh-CN.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a page that was renamed is a dead end."""
    dead = [
        match[1] for match in _LINK.finditer(page.read_text(encoding="utf-8")) if not (page.parent / match[1]).exists()
    ]
    assert not dead


def test_blocks_are_found() -> None:
    """If the pattern for code blocks broke, every test of this file would pass without running anything."""
    assert sum(block.language in _SHELL and block.is_run for block in _ALL) >= 8
    assert sum(block.language == "python" and block.is_run for block in _ALL) >= 4


def test_environment_variables_are_documented() -> None:
    """A variable that nobody can read about is a trap; so is a documented one that the program does not read."""
    in_code = {
        name
        for path in (ROOT / "src" / "allinone").rglob("*.py")
        for name in re.findall(r"ALLINONE_[A-Z]+", path.read_text(encoding="utf-8"))
    }
    in_page = set(re.findall(r"ALLINONE_[A-Z]+", (ROOT / "docs" / "config.md").read_text(encoding="utf-8")))
    assert in_code == in_page


def test_decisions_are_indexed() -> None:
    """The index is how people find them."""
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    missing = [path.name for path in sorted(folder.glob("0*.md")) if f"({path.name})" not in index]
    assert not missing
