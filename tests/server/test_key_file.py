"""Keys at rest: hashed, private, whole at every moment."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from allinone.errors import ConfigError, NotFound, StoreError
from allinone.server.key_file import KEY_PATTERN, KeyFile


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    """A file that is not there yet, in a folder that is not there yet."""
    return KeyFile(tmp_path / "home" / "keys.json")


def test_a_key_is_shown_once_and_only_its_hash_is_kept(file: KeyFile) -> None:
    """Whoever reads the file cannot use the server."""
    record, key = file.add("phone")
    match = KEY_PATTERN.fullmatch(key)
    assert match and match["id"] == record.id and record.owner == record.id
    text = file.path.read_text(encoding="utf-8")
    assert match["secret"] not in text and "$argon2id$" in text
    assert "argon2" not in repr(record)
    assert file.load() == (record,)


def test_the_file_is_the_owners_alone(file: KeyFile) -> None:
    """Whatever the umask says."""
    before = os.umask(0)
    try:
        file.add("phone")
        file.add("shop")
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert len(file.load()) == 2
    assert sorted(path.name for path in file.path.parent.iterdir()) == ["keys.json", "keys.json.lock"]


def test_a_revoked_key_stays_in_the_list(file: KeyFile) -> None:
    """By id or by name; what it could do can still be read."""
    first, _ = file.add("phone", allowed_tasks=("sentiment",), max_tokens_per_day=9)
    file.add("shop")
    assert file.revoke("phone").id == first.id
    revoked, other = file.load()
    assert revoked.revoked_at is not None and revoked.max_tokens_per_day == 9
    assert other.revoked_at is None
    with pytest.raises(NotFound, match="No working key"):
        file.revoke(first.id)


def test_a_name_that_two_keys_have_is_not_guessed(file: KeyFile) -> None:
    """Revoking the wrong one of two would be worse than asking again."""
    first, _ = file.add("phone")
    file.add("phone")
    with pytest.raises(NotFound, match="2 working keys"):
        file.revoke("phone")
    assert file.revoke(first.id).revoked_at is not None
    assert file.revoke("phone").id != first.id


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is wrong at the file"),
        ('{"keys": [{"id": "x"}]}', r"is wrong at keys\.0"),
        ('{"keys": [], "more": 1}', "is wrong at more"),
    ],
)
def test_a_file_that_is_no_key_file_is_refused(file: KeyFile, content: str, says: str) -> None:
    """Naming the place; a mistyped limit must not be no limit."""
    file.path.parent.mkdir()
    file.path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=says):
        file.load()
    with pytest.raises(ConfigError):
        file.add("phone")
    assert file.path.read_text(encoding="utf-8") == content


def test_a_misspelt_limit_is_refused(file: KeyFile) -> None:
    """`max_stream: 1` would otherwise leave streams unlimited."""
    file.add("phone", max_streams=1)
    content = json.loads(file.path.read_text(encoding="utf-8"))
    content["keys"][0]["max_stream"] = content["keys"][0].pop("max_streams")
    file.path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ConfigError, match="max_stream"):
        file.load()


def test_a_folder_in_its_place_is_said(file: KeyFile) -> None:
    """The system's own reason reaches the operator."""
    file.path.mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot be read"):
        file.load()


def test_processes_do_not_lose_each_others_keys(file: KeyFile) -> None:
    """Read, change and replace is one step for everybody else."""
    code = (
        "import sys; from pathlib import Path; from allinone.server.key_file import KeyFile; "
        "[KeyFile(Path(sys.argv[1])).add(f'{sys.argv[2]}-{n}') for n in range(5)]"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(file.path), name]) for name in "abc"]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert sorted(record.name for record in file.load()) == sorted(f"{name}-{n}" for name in "abc" for n in range(5))
