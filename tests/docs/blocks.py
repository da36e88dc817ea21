"""Code blocks of the documentation, found and named so that tests can run them.

A block whose info string says why (```` ```bash no-run: needs the network ````) is not run; everything else is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<language>\w*)[ \t]*(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=fence)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_NO_RUN = re.compile(r"no-run: \S.*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block: where it is, its language, what follows the language, and its text."""

    path: Path
    line: int
    language: str
    info: str
    body: str

    @property
    def place(self) -> str:
        """As an editor opens it: "docs/reply.md:12"."""
        return f"{self.path.relative_to(ROOT).as_posix()}:{self.line}"

    @property
    def is_run(self) -> bool:
        """Whether a test runs the block; one that is not must say why."""
        return not _NO_RUN.fullmatch(self.info)


def documents() -> list[Path]:
    """Every page that people read; README.zh-CN.md repeats README.md's blocks (a test compares them)."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "deploy" / "README.md"]
    pages += sorted((ROOT / "docs").rglob("*.md"))
    return [page for page in pages if page.exists()]


def blocks(path: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = path.read_text(encoding="utf-8")
    return [
        Block(
            path=path,
            line=text.count("\n", 0, match.start()) + 1,
            language=match["language"],
            info=match["info"].strip(),
            body=match["body"],
        )
        for match in _FENCE.finditer(text)
    ]


def commands(block: Block) -> str:
    """The shell script of a block: in a console session, the lines after `$` (output stands between them)."""
    if block.language != "console":
        return block.body
    return "\n".join(line[2:] for line in block.body.splitlines() if line.startswith("$ "))
