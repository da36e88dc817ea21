"""`allinone models list|pull|import|info` on a small model made here, and on a hub that does not exist."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from allinone.cli import output
from allinone.models import hub, hub_plan
from allinone.models.hub_plan import DownloadPlan, HubFile
from allinone.models.locate import locate_model

from .conftest import Cli

BUNDLED = locate_model("bundled").path


def test_list_shows_licence_and_size_before_any_download(cli: Cli) -> None:
    """Qwen1.5 is research-licensed: said where people choose."""
    outcome = cli("models", "list")
    assert outcome.exit_code == 0
    (line,) = [line for line in outcome.stdout.splitlines() if "Qwen1.5-0.5B-Chat " in line]
    assert "RESEARCH" in line and "1,250 MB" in line and "464 M" in line
    models = {model["name"]: model for model in json.loads(cli("models", "list", "--json").stdout)}
    assert models["Qwen/Qwen2.5-0.5B-Instruct"]["licence"] == "Apache-2.0"
    assert models["Qwen/Qwen2.5-0.5B-Instruct"]["state"] == "-"
    assert "bundled" in models


def test_info_of_unknown_and_missing_models(cli: Cli) -> None:
    """A name gets suggestions, a known model the command that fetches it, a path its path."""
    outcome = cli("models", "info", "Qwen/Qwen2.5-0.5B-Instuct")
    assert outcome.exit_code == 2 and "Did you mean" in outcome.stderr
    outcome = cli("models", "info", "Qwen2.5-0.5B-Instruct")
    assert outcome.exit_code == 1 and "allinone models pull Qwen/Qwen2.5-0.5B-Instruct" in outcome.stderr
    outcome = cli("models", "info", "no/such/model.gguf")
    assert outcome.exit_code == 1 and "no/such/model.gguf" in outcome.stderr


def test_info_of_the_bundled_model_ends_with_its_card(cli: Cli) -> None:
    """Facts first, then the card, whole: English and Chinese; into a pipe as it was written."""
    outcome = cli("models", "info", "bundled")
    assert outcome.exit_code == 0
    facts, _, card = outcome.stdout.partition("\n\n")
    for needle in ("million", "q8_0", "qwen2: ", "2,048 tokens", "temperatures", "compiled: not yet"):
        assert needle in facts
    assert card.strip() == (BUNDLED.parent / "CARD.md").read_text(encoding="utf-8").strip()
    assert "## 中文说明" in card


def test_info_as_json_has_facts_and_card(cli: Cli) -> None:
    """For programs: the same facts as values, the card as one text."""
    found = json.loads(cli("models", "info", "bundled", "--json").stdout)
    assert found["model"] == BUNDLED.stem and found["kind"] == "gguf" and found["licence"]
    assert found["size_bytes"] == BUNDLED.stat().st_size
    assert 10_000_000 < found["num_parameters"] < 30_000_000
    assert all(0 < value < 20 for value in found["temperatures"].values())
    assert found["config"]["max_context_tokens"] == 2048
    assert found["compiled"] is None and "中文说明" in found["card"]


def test_info_says_where_there_is_no_card(cli: Cli, tmp_path: Path) -> None:
    """A file from anywhere has none; one that is put beside it is shown."""
    file = tmp_path / "model.gguf"
    shutil.copyfile(BUNDLED, file)
    assert "card: none" in cli("models", "info", file).stdout
    assert json.loads(cli("models", "info", file, "--json").stdout)["card"] is None
    (tmp_path / "CARD.md").write_text("# mine\n\x1b[2J", encoding="utf-8")
    shown = cli("models", "info", file).stdout
    assert "# mine" in shown and "card: none" not in shown and "\x1b" not in shown


def test_import_plans_are_for_int8_only(cli: Cli, tmp_path: Path) -> None:
    """Float weights are neither smoothed nor cut into blocks: there would be nothing to write down."""
    outcome = cli("models", "import", BUNDLED, "-o", tmp_path / "m", "--quantization", "float32", "--write-plan")
    assert outcome.exit_code == 2 and "no import plan for float32" in outcome.stderr
    assert not (tmp_path / "m").exists()


@pytest.fixture
def hub_with_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[DownloadPlan]:
    """Answers every plan and download without a network; the plans that were downloaded."""
    downloaded: list[DownloadPlan] = []

    def plan(name: str, settings: Any = None) -> DownloadPlan:
        licence = "Tongyi Qianwen RESEARCH licence (no commercial use)" if "1.5" in name else "Apache-2.0"
        files = (HubFile(name="model.safetensors", num_bytes=1_250_000_000, sha256=None),)
        endpoint = "https://huggingface.co"
        return DownloadPlan(
            hub_id=name, revision="main", endpoint=endpoint, licence=licence, files=files, destination=tmp_path / "m"
        )

    def download(plan: DownloadPlan, *, on_progress: Any = None) -> Path:
        on_progress("model.safetensors", 1, 2)
        downloaded.append(plan)
        return plan.destination

    monkeypatch.setattr(hub_plan, "plan_download", plan)
    monkeypatch.setattr(hub, "download", download)
    return downloaded


def test_pull_says_licence_and_size_first(cli: Cli, hub_with_a_model: list[DownloadPlan], tmp_path: Path) -> None:
    """On stderr, so that --json stays JSON."""
    outcome = cli("models", "pull", "Qwen/Qwen1.5-0.5B-Chat", "--yes", "--json")
    assert outcome.exit_code == 0
    assert "1.2 GB" in outcome.stderr and "RESEARCH" in outcome.stderr
    assert json.loads(outcome.stdout)["path"] == str(tmp_path / "m")
    assert len(hub_with_a_model) == 1


@pytest.mark.parametrize(("answer", "num_downloads"), [("n\n", 0), ("\n", 0), ("y\n", 1)])
def test_pull_asks_before_a_restricted_licence(
    cli: Cli,
    hub_with_a_model: list[DownloadPlan],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    num_downloads: int,
) -> None:
    """At a terminal only a yes downloads."""
    monkeypatch.setattr(output, "can_ask", lambda: True)
    outcome = cli("models", "pull", "Qwen/Qwen1.5-0.5B-Chat", stdin=answer)
    assert len(hub_with_a_model) == num_downloads
    assert outcome.exit_code == (0 if num_downloads else 1)
    assert "Traceback" not in outcome.output


def test_pull_does_not_ask_for_a_free_licence(
    cli: Cli, hub_with_a_model: list[DownloadPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apache-2.0 needs no consent."""
    monkeypatch.setattr(output, "can_ask", lambda: True)
    assert cli("models", "pull", "Qwen/Qwen3-0.6B").exit_code == 0
    assert len(hub_with_a_model) == 1


def test_pull_without_a_network_is_one_error(cli: Cli) -> None:
    """HF_HUB_OFFLINE says it outright; nothing is written."""
    outcome = cli("models", "pull", "Qwen/Qwen3-0.6B", env={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert outcome.exit_code == 1
    assert outcome.stderr.startswith("error: ") and "hint:" in outcome.stderr
    assert "Traceback" not in outcome.output
