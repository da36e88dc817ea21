"""`allinone keys`: what is printed where, and what never is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from allinone.server.key_file import KEY_PATTERN, KeyFile

from .conftest import Cli


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the keys are."""
    return tmp_path / "keys.json"


def test_a_new_key_alone_is_on_stdout(cli: Cli, file: Path) -> None:
    """So that a script can keep it; the words around it are for people."""
    outcome = cli("keys", "new", "phone", "--key-file", file)
    assert outcome.exit_code == 0
    key = outcome.stdout.strip()
    assert KEY_PATTERN.fullmatch(key) and key not in outcome.stderr and "shown this once" in outcome.stderr
    listed = cli("keys", "list", "--key-file", file)
    assert key.split("_")[1] in listed.stdout and key.split("_", 2)[2] not in listed.stdout


def test_what_a_key_may_do_is_kept(cli: Cli, file: Path) -> None:
    """Every option has its place in the file."""
    options = [
        "--allow",
        "sentiment, intent",
        "--per-minute",
        "60",
        "--streams",
        "2",
        "--tokens-per-day",
        "1000",
        "--admin",
    ]
    assert cli("keys", "new", "shop", "--key-file", file, *options, "--owner", "old").exit_code == 0
    (record,) = KeyFile(file).load()
    assert record.allowed_tasks == ("sentiment", "intent") and record.is_admin and record.owner == "old"
    assert (record.max_requests_per_minute, record.max_streams, record.max_tokens_per_day) == (60, 2, 1000)


def test_the_list_for_programs_has_no_hash(cli: Cli, file: Path) -> None:
    """A hash is no secret to be proud of, but nobody needs it either."""
    cli("keys", "new", "phone", "--key-file", file)
    outcome = cli("keys", "list", "--json", "--key-file", file)
    (record,) = json.loads(outcome.stdout)
    assert record["name"] == "phone" and record["revoked_at"] is None
    assert "hash" not in record and "argon2" not in outcome.stdout


def test_a_revoked_key_is_shown_as_such(cli: Cli, file: Path) -> None:
    """A second time there is nothing to revoke."""
    cli("keys", "new", "phone", "--key-file", file)
    assert "works no more" in cli("keys", "revoke", "phone", "--key-file", file).stderr
    again = cli("keys", "revoke", "phone", "--key-file", file)
    assert again.exit_code == 2 and "No working key" in again.stderr
    assert json.loads(cli("keys", "list", "--json", "--key-file", file).stdout)[0]["revoked_at"]


def test_no_keys_yet(cli: Cli, file: Path) -> None:
    """An empty table would say less."""
    assert "allinone keys new" in cli("keys", "list", "--key-file", file).stderr


def test_keys_are_kept_in_the_data_folder(cli: Cli, tmp_path: Path) -> None:
    """Where `serve` looks."""
    assert cli("keys", "new", "phone", env={"ALLINONE_HOME": str(tmp_path)}).exit_code == 0
    assert len(KeyFile(tmp_path / "keys.json").load()) == 1
