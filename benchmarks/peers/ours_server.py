"""`allinone serve` as it is, without a key: tasks over `/v1/tasks`, chats over `/v1/chat/completions`."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers.ours import AllInOnePeer
from benchmarks.peers.served import ServedPeer
from benchmarks.peers.serving import Request, serve


class AllInOneServerPeer(ServedPeer):
    """A label is a task's, and so is the chat: the instructions are a file of the operator's, and cached."""

    distributions = ("qwen-allinone", "onnxruntime", "fastapi", "uvicorn")
    own_bytes = AllInOnePeer.own_bytes

    def command(self, model: str, threads: int) -> list[str]:
        tasks = Path(model).with_name("tasks")
        return [
            *(sys.executable, "-m", "allinone", "serve", "--port", "0", "--model", model, "--tasks", str(tasks)),
            *("--backend", "onnx", "--threads", str(threads), "--no-cache", "--no-access-log"),
        ]

    def environment(self) -> dict[str, str]:
        self._home = tempfile.TemporaryDirectory(prefix="allinone-bench-")  # its store is there; no key file is
        return {**os.environ, "ALLINONE_HOME": self._home.name}

    def label_call(self, request: Request) -> tuple[str, Mapping[str, Any]]:
        return f"/v1/tasks/{request['task']}", {"text": request["text"]}

    def chat_body(self, system: str, task: str, text: str) -> Mapping[str, Any]:
        return {"model": f"allinone/{task}", "messages": [{"role": "user", "content": text}]}


if __name__ == "__main__":
    serve(AllInOneServerPeer())
