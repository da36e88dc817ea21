"""A model hub on localhost: real HTTP, real files, and every way a real hub or a mirror goes wrong."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class HubStandIn:
    """What the stand-in serves and how it misbehaves; tests change it while it runs.

    Attributes:
        repositories: hub id -> folder.
        break_after: file name -> bytes after which the connection is cut, once per entry popped from the list.
        announced_bytes, announced_sha256: lies in the listing.
        status: path prefix -> status code answered instead.
        ignore_range: answers 200 and the whole file to a request for a part.
        requests: (method, path, Range header) of every request.
    """

    repositories: dict[str, Path]
    break_after: dict[str, list[int]] = field(default_factory=dict)
    announced_bytes: dict[str, int] = field(default_factory=dict)
    announced_sha256: dict[str, str] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    ignore_range: bool = False
    answer_html: bool = False
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def ranges_of(self, name: str) -> list[str | None]:
        """Range headers of the requests for one file, in order."""
        return [asked for _, path, asked in self.requests if path.endswith("/" + name)]

    def listing(self, hub_id: str) -> dict[str, Any]:
        """What `/api/models/ID?blobs=true` answers."""
        siblings: list[dict[str, Any]] = []
        for file in sorted(self.repositories[hub_id].rglob("*")):
            if not file.is_file():
                continue
            name = file.relative_to(self.repositories[hub_id]).as_posix()
            size = self.announced_bytes.get(name, file.stat().st_size)
            sibling: dict[str, Any] = {"rfilename": name, "size": size, "blobId": "0" * 40}
            if file.suffix in (".safetensors", ".gguf"):
                digest = self.announced_sha256.get(name, hashlib.sha256(file.read_bytes()).hexdigest())
                sibling["lfs"] = {"sha256": digest, "size": size, "pointerSize": 134}
            siblings.append(sibling)
        return {"id": hub_id, "sha": COMMIT, "siblings": siblings, "cardData": {"license": "mit"}, "tags": []}


@contextmanager
def serve(hub: HubStandIn) -> Iterator[str]:
    """Run the stand-in; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append((self.command, path, self.headers.get("Range")))
            for prefix, status in hub.status.items():
                if path.startswith(prefix):
                    return self._send(status, b"{}", hub.headers)
            if hub.answer_html:
                return self._send(200, b"<html>Please log in to the Wi-Fi</html>", {"Content-Type": "text/html"})
            if path.startswith("/api/models/"):
                hub_id = path.removeprefix("/api/models/")
                if hub_id not in hub.repositories:
                    return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
                return self._send(200, json.dumps(hub.listing(hub_id)).encode(), {"Content-Type": "application/json"})
            hub_id, _, rest = path.removeprefix("/").partition("/resolve/")
            revision, _, name = rest.partition("/")
            file = hub.repositories.get(hub_id, Path("nowhere")) / name
            if revision != COMMIT or not file.is_file():
                return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return self._send_file(file, name)

        do_HEAD = do_GET

        def _send_file(self, file: Path, name: str) -> None:
            data, asked = file.read_bytes(), self.headers.get("Range")
            start = int(asked.removeprefix("bytes=").split("-")[0]) if asked and not hub.ignore_range else 0
            if start >= len(data) and start:
                return self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            cuts = hub.break_after.get(name, [])
            if cuts:
                self.wfile.write(data[start : start + cuts.pop(0)])
                self.wfile.flush()
                self.close_connection = True
                self.connection.close()
            else:
                self.wfile.write(data[start:])
            return None

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that went away, or a connection that was cut on purpose."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
