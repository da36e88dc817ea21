"""llama.cpp's server, from xllamacpp, on its own HTTP listener: prefix caching, as many slots as there are clients.

Run with `--serve MODEL THREADS` it is the server; otherwise the adapter, which starts that.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.peers.served import NUM_CONNECTIONS, ServedPeer
from benchmarks.peers.serving import Request, serve
from benchmarks.peers.xllamacpp import server_params


class LlamaServerPeer(ServedPeer):
    """Labels are completions of one token, given as token ids; chats have their instructions as a system message."""

    distributions = ("xllamacpp",)

    def command(self, model: str, threads: int) -> list[str]:
        return [sys.executable, "-m", "benchmarks.peers.llama_server", "--serve", model, str(threads)]

    def label_call(self, request: Request) -> tuple[str, Mapping[str, Any]]:
        return "/completion", {"prompt": [*request["prefix"], *request["ids"]], "n_predict": 1, "temperature": 0}

    def chat_body(self, system: str, task: str, text: str) -> Mapping[str, Any]:
        return {"messages": [{"role": "system", "content": system}, {"role": "user", "content": text}]}


def run_server(model: str, threads: int) -> None:
    """Listen until stdin ends."""
    import xllamacpp

    server = xllamacpp.Server(server_params(model, threads, num_slots=NUM_CONNECTIONS))
    sys.stderr.write(f"Ready: {server.listening_address}\n")
    sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        run_server(sys.argv[2], int(sys.argv[3]))
    else:
        serve(LlamaServerPeer())
