"""`allinone serve`: everything that is refused is refused before a model is loaded, with what to do about it."""

from __future__ import annotations

import importlib.util
import logging
import socket
from pathlib import Path

import pytest

from allinone.cli import serve, server_process
from allinone.cli.server_process import ServeOptions
from allinone.cli.session import open_runtime
from allinone.config import Settings
from allinone.runtime import MIN_CACHED_TOKENS
from allinone.server.key_file import KeyFile

from .conftest import Cli

KEY = "a-key-of-the-operator"


@pytest.fixture(autouse=True)
def _nothing_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal that does not come must not leave a server behind; nor the log a handler on a stream that is gone."""
    for name in ("allinone.server", "uvicorn.error"):
        for attribute in ("handlers", "level", "propagate"):
            logger = logging.getLogger(name)
            monkeypatch.setattr(logger, attribute, getattr(logger, attribute))

    def fail(options: ServeOptions, *args: object, **more: object) -> int:
        raise AssertionError(f"it would have been served on {options.host}")

    monkeypatch.setattr(server_process, "_run", fail)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ServeOptions]:
    """The options of servers that would have been started."""
    found: list[ServeOptions] = []

    def note(options: ServeOptions, *args: object, **more: object) -> int:
        found.append(options)
        return 0

    monkeypatch.setattr(server_process, "_run", note)
    return found


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_an_open_door_is_refused(fake: Cli, host: str) -> None:
    """Without a key everybody on the network could use the model and read what others said."""
    outcome = fake("serve", "--host", host)
    assert outcome.exit_code == 2
    assert f"{host} can be reached from other machines, and there are no keys" in outcome.stderr
    assert "allinone keys new" in outcome.stderr


def test_a_file_in_which_no_key_works_is_no_lock(fake: Cli, tmp_path: Path) -> None:
    """All revoked: then nobody could use it, and that is surely not what was meant."""
    file = KeyFile(tmp_path / "keys.json")
    file.add("phone")
    file.revoke("phone")
    outcome = fake("serve", "--host", "0.0.0.0", "--key-file", file.path)
    assert outcome.exit_code == 2 and "no key in the key file works" in outcome.stderr


def test_a_key_opens_the_door(fake: Cli, tmp_path: Path, started: list[ServeOptions]) -> None:
    """From the option, the environment or a file."""
    file = KeyFile(tmp_path / "keys.json")
    file.add("phone")
    for arguments, env in (
        (["--api-key", KEY], {}),
        ([], {"ALLINONE_API_KEY": KEY}),
        (["--key-file", file.path], {}),
    ):
        outcome = fake("serve", "--host", "0.0.0.0", "--port", "0", *arguments, env=env)
        assert outcome.exit_code == 0, outcome.stderr
    assert [options.settings.allowed_hosts for options in started] == [None] * 3
    assert all(KEY not in repr(options) for options in started)


def test_keys_in_the_usual_place_count(fake: Cli, started: list[ServeOptions]) -> None:
    """Who has made a key means it: from then on one is needed, on this machine too."""
    assert fake("serve", "--port", "0").exit_code == 0
    assert started[-1].key_file is None
    assert fake("serve", "--host", "127.0.0.1", "--port", "0", env={"ALLINONE_API_KEY": ""}).exit_code == 0
    KeyFile(Settings.from_env().home / "keys.json").add("phone")
    assert fake("serve", "--port", "0").exit_code == 0
    assert started[-1].key_file == Settings.from_env().home / "keys.json"


def test_only_names_of_this_machine_are_answered_to(fake: Cli, started: list[ServeOptions]) -> None:
    """Unless a proxy in front has another name."""
    assert fake("serve", "--port", "0").exit_code == 0
    assert started[-1].settings.allowed_hosts == {"localhost", "127.0.0.1", "::1"}
    assert fake("serve", "--port", "0", "--allow-host", "Chat.Example.org").exit_code == 0
    allowed = started[-1].settings.allowed_hosts
    assert allowed == {"localhost", "127.0.0.1", "::1", "chat.example.org"}


def test_memory_of_conversations_is_bounded_by_the_option(fake: Cli, started: list[ServeOptions]) -> None:
    """What is loaded with it has a budget of so many bytes, and room for the longest task however small that is."""
    assert fake("serve", "--port", "0", "--kv-memory", "32").exit_code == 0
    with open_runtime(started[-1].runtime) as ai:
        assert ai.max_kv_tokens == max(MIN_CACHED_TOKENS, 32 * 2**20 // ai.model.backend.info.kv_bytes_per_token)
        room = ai.max_kv_tokens
    assert fake("serve", "--port", "0").exit_code == 0
    with open_runtime(started[-1].runtime) as ai:
        assert ai.max_kv_tokens > room
    assert fake("serve", "--kv-memory", "0").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--limit", "max_body=1"], "Unknown limit 'max_body'. Did you mean"),
        (["--limit", "max_body_bytes=much"], "max_body_bytes = 'much' is not possible"),
        (["--edit-prompts"], "--edit-prompts needs a folder"),
        (["--api-key", "short"], "at least 16 ASCII characters"),
        (["--api-key", "with blanks in the middle"], "without blanks"),
        (["--key-file", "nowhere.json"], "There is no key file"),
        (["--host", "no such host"], "has no address here"),
        (["--lang", "fr"], "Unknown language 'fr'"),
        (["--workers", "0"], "--workers"),
        (["--port", "70000"], "--port"),
    ],
)
def test_wrong_usage_is_said(fake: Cli, arguments: list[str], says: str) -> None:
    """Exit code 2, and the reason."""
    outcome = fake("serve", *arguments)
    assert outcome.exit_code == 2
    assert says in outcome.stderr.replace("\n", " ").replace("│", "").replace("  ", " ")


def test_a_port_that_is_taken_is_said(fake: Cli) -> None:
    """Before the model is loaded; also where several processes would share it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for workers in ("1", "2"):
            outcome = fake("serve", "--port", port, "--workers", workers)
            assert outcome.exit_code == 2 and f"Port {port} of 127.0.0.1 is taken" in outcome.stderr


def test_a_store_that_cannot_be_used_is_said(fake: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the exit code of the store's own error."""
    monkeypatch.undo()
    outcome = fake("serve", "--port", "0", "--store", "mysql://root@localhost/x")
    assert outcome.exit_code == 2 and "mysql" in outcome.stderr


@pytest.mark.parametrize("command", [["serve"], ["keys", "list"], ["keys", "new", "phone"]])
def test_missing_packages_are_named(cli: Cli, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    """The server is an extra: whoever has only the program hears how to get it."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "fastapi" else real(name, *rest)
    )
    outcome = cli(*command)
    assert outcome.exit_code == 2
    assert "needs fastapi" in outcome.stderr and "qwen-allinone[server]" in outcome.stderr


def test_the_cores_are_shared() -> None:
    """Each process with all cores would be slower than one of them."""
    settings = Settings.from_env({})
    assert serve._share_threads(None, settings, 1) is None
    assert serve._share_threads(3, settings, 4) == 3
    assert (serve._share_threads(None, settings, 64) or 0) == 1
    assert serve._share_threads(None, Settings.from_env({"ALLINONE_THREADS": "2"}), 4) is None
