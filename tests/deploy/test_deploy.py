"""Files for operators: what they name is there, and none of them opens more than it has to. Nothing is started here."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from allinone.cli.main import app
from allinone.server.settings import LIMITS, ServerSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
UNIT = (DEPLOY / "allinone.service").read_text(encoding="utf-8")
README = (DEPLOY / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """compose.yaml."""
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def unit() -> configparser.ConfigParser:
    """The unit; keys that stand twice are of no interest here."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign] # systemd's keys have capitals
    parser.read_string(UNIT)
    return parser


def _options(*path: str) -> set[str]:
    command: Any = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    return {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}


def test_every_option_that_is_named_exists() -> None:
    """A renamed option would otherwise be found out by an operator at night."""
    known = _options("serve") | _options("keys", "new")
    pages = [
        README,
        UNIT,
        DOCKERFILE,
        *((ROOT / "docs" / name).read_text("utf-8") for name in ("server.md", "security.md")),
    ]
    ours = r"allinone (?:serve|keys new)[^\n`]*|CMD \[[^\]]*\]"
    named = {option for page in pages for line in re.findall(ours, page) for option in re.findall(r"--[a-z-]+", line)}
    assert {"--host", "--port", "--allow-host", "--workers"} <= named <= known


def test_variables_that_are_named_are_read() -> None:
    """By the program, or by compose.yaml itself."""
    documented = set(re.findall(r"ALLINONE_[A-Z_]+", (ROOT / "docs" / "config.md").read_text(encoding="utf-8")))
    for path in DEPLOY.iterdir():
        assert set(re.findall(r"ALLINONE_[A-Z_]+", path.read_text(encoding="utf-8"))) <= documented, path.name


def test_the_container_has_no_rights(compose: dict[str, Any]) -> None:
    """Not root, nothing writable but its volumes, no capability, no port for others, no start without a key."""
    assert re.search(r"^USER 10001$", DOCKERFILE, re.MULTILINE) and DOCKERFILE.count("\nFROM ") == 2
    assert "HEALTHCHECK" in DOCKERFILE and "constraints.txt" in DOCKERFILE
    service = compose["services"]["allinone"]
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["environment"]["ALLINONE_API_KEY"].startswith("${ALLINONE_API_KEY:?")
    assert compose["services"]["postgres"]["profiles"] == ["postgres"]
    assert "ports" not in compose["services"]["postgres"]


def test_what_is_built_is_sent_to_the_builder() -> None:
    """The context is everything that is copied, and not the rest of a checkout."""
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()
    }
    assert ignored[0] == "*" and copied == allowed and all((ROOT / name).exists() for name in copied)


def test_everything_waits_for_running_replies(compose: dict[str, Any], unit: configparser.ConfigParser) -> None:
    """A supervisor that kills before the server has drained would cut the replies that drain is there for."""
    drain_s = ServerSettings().drain_timeout_s
    assert int(compose["services"]["allinone"]["stop_grace_period"].removesuffix("s")) > drain_s + 5
    assert int(unit["Service"]["TimeoutStopSec"]) > drain_s + 5
    assert "keepalive 32" in README and ServerSettings().keep_alive_s > 60
    assert float(re.findall(r"proxy_read_timeout (\d+)s", README)[0]) > 2 * ServerSettings().ping_interval_s
    assert re.findall(r"client_max_body_size (\d+)m", README) == [str(ServerSettings().max_body_bytes // 2**20)]


def test_the_unit_is_locked_down(unit: configparser.ConfigParser) -> None:
    """It may write to its own data and cache, and gain nothing."""
    service = unit["Service"]
    assert service["User"] == "allinone" and service["ProtectSystem"] == "strict" and service["ProtectHome"] == "yes"
    assert service["NoNewPrivileges"] == "yes" and service["CapabilityBoundingSet"] == ""
    assert "--host 127.0.0.1" in service["ExecStart"] and "API_KEY=" not in service["ExecStart"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """A misspelt directive is ignored at run time, with a line in a log that nobody reads."""
    program = tmp_path / "allinone"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copy = tmp_path / "allinone.service"
    copy.write_text(UNIT.replace("/usr/local/lib/allinone/bin/allinone", str(program)), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if "allinone.service" in line]
    assert done.returncode == 0 and not complaints, done.stderr


def test_limits_are_documented_with_their_defaults() -> None:
    """docs/server.md is where `--limit` sends people."""
    page = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", page, re.MULTILINE))
    assert {name: float(value) for name, value in rows.items()} == {
        name: float(value) for name, value in LIMITS.items()
    }
