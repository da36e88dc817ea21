"""OpenAI's JavaScript client, unmodified, against a real server with the bundled model.

`npm ci --prefix tests/server/js` installs it; without it the test is skipped, but not in continuous integration.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from allinone import AllInOne
from allinone.server.key_file import KeyFile
from allinone.server.keys import KeyRing

from .live import live

JS = Path(__file__).parent / "js"


def find_node() -> str:
    """Where node is, if the client is installed too."""
    node = shutil.which("node")
    missing = "node" if node is None else "the client" if not (JS / "node_modules" / "openai").is_dir() else None
    if missing is None and node is not None:
        return node
    assert os.environ.get("CI") != "true", f"{missing} is missing: the continuous integration must have it"
    pytest.skip(f"{missing} is not installed: npm ci --prefix tests/server/js")


def test_javascript_client_gets_what_it_asks_for(tmp_path: Path) -> None:
    """Whole, streamed, structured, labels, embeddings, models, errors; and a stream that is left."""
    node = find_node()
    keys = KeyFile(tmp_path / "keys.json")
    _, key = keys.add("javascript")
    with AllInOne.load() as ai, live(ai, tmp_path, keys=KeyRing(file=keys)) as served:
        done = subprocess.run(
            [node, str(JS / "client.mjs")],
            env={**os.environ, "BASE_URL": f"{served.url}/v1", "API_KEY": key},
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        expected = ai.run("sentiment", "今天的实验终于成功了,太棒了!")
        hidden_size = ai.model.backend.info.hidden_size
    found = json.loads(done.stdout)
    assert found["whole"] and found["whole"] == found["streamed"] == found["helped"] == found["told"]
    assert found["usage"]["completion_tokens"] == found["streamedUsage"]["completion_tokens"] > 0
    assert expected.p_max is not None
    assert (found["label"], found["labelLogprob"]) == (expected.label, pytest.approx(math.log(expected.p_max)))
    assert found["mood"] in ("good", "bad") and found["numTexts"] == 2
    assert found["sizes"] == [hidden_size, hidden_size] and found["isSame"]
    assert "allinone/sentiment" in found["models"] and found["model"] == "allinone/sentiment"
    assert [(error["name"], error["status"]) for error in found["errors"]] == [
        ("NotFoundError", 404),
        ("BadRequestError", 400),
    ]
    assert found["errors"][1]["param"] == "tools" and "calls no tools" in found["errors"][1]["says"]
