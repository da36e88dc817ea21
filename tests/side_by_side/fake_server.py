"""An HTTP server without a model, and the peer that starts it; run with `--serve` it is the server.

A text says how it is answered: "late" has its first text after an event without one, "silent" has none, "broken" is
refused, "wrong" is an error within the stream.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.peers.served import ServedPeer
from benchmarks.peers.serving import Request, serve

LATE_S = 0.05


class FakeServerPeer(ServedPeer):
    """Adapter of the server below; "crash" ends the adapter, and not the server, at a label."""

    def command(self, model: str, threads: int) -> list[str]:
        """The server, or one that cannot start."""
        return [sys.executable, __file__, "--serve" if model != "broken" else "--break"]

    def label_call(self, request: Request) -> tuple[str, Mapping[str, Any]]:
        """A label; or the end."""
        if "crash" in sys.argv:
            os.kill(os.getpid(), signal.SIGSEGV)
        return "/label", {"text": request["text"]}

    def chat_body(self, system: str, task: str, text: str) -> Mapping[str, Any]:
        """The text is all that counts."""
        return {"text": text}

    def load(self, model: str, threads: int, second_model: str | None) -> None:
        """Say the server's process id too."""
        super().load(model, threads, second_model)
        sys.stderr.write(f"server {self._server.pid}\n")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """A JSON answer, or events."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body.get("text", "")
        if text == "broken":
            self._answer(503, b'{"error": "busy"}')
        elif not body.get("stream"):
            said = {"choices": [{"message": {"content": text[:1]}}]}
            self._answer(200, json.dumps(said).encode())
        else:
            self._stream(text, body["max_tokens"])

    def _stream(self, text: str, num_tokens: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        if text == "late":
            time.sleep(LATE_S)
        if text == "wrong":
            self._event({"error": {"message": "no memory"}})
        for _ in range(0 if text == "silent" else num_tokens):
            self._event({"choices": [{"delta": {"content": "好"}}]})
        self._chunk(b": a comment\n\ndata: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, value: Any) -> None:
        self._chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def run_server() -> None:
    """Until it is killed: it has to be, whatever becomes of the adapter."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stderr.write(f"Ready: http://127.0.0.1:{server.server_address[1]}\n")
    sys.stderr.flush()
    time.sleep(3_600)


if __name__ == "__main__":
    if "--serve" in sys.argv:
        run_server()
    elif "--break" not in sys.argv:
        serve(FakeServerPeer())
