"""What peers have in common that are asked over HTTP: the server is a process of its own, its clients are threads here.

Each client has a connection that is kept. Times are taken at the client, so HTTP and JSON count, for everybody alike.
Standard library only. Above: the adapters. Below: `serving.py`.
"""

from __future__ import annotations

import atexit
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection
from typing import Any

from benchmarks.peers.serving import Peer, Request, peak_bytes, resident_bytes

NUM_CONNECTIONS = 32
"""Labels that are under way at once."""
START_TIMEOUT_S = 300.0
ANSWER_TIMEOUT_S = 600.0
_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)")


class ServedPeer(Peer):
    """A server that says on stderr where it listens, once it takes requests; its stdin ends when this process does."""

    def command(self, model: str, threads: int) -> list[str]:
        """Starts the server on a free port of this machine."""
        raise NotImplementedError

    def environment(self) -> dict[str, str] | None:
        """Of the server; None for ours."""
        return None

    def label_call(self, request: Request) -> tuple[str, Mapping[str, Any]]:
        """Path and body that ask for one label."""
        raise NotImplementedError

    def chat_body(self, system: str, task: str, text: str) -> Mapping[str, Any]:
        """What names the instructions and the text in a chat completion."""
        raise NotImplementedError

    def load(self, model: str, threads: int, second_model: str | None) -> None:
        self._server = subprocess.Popen(
            self.command(model, threads), text=True, encoding="utf-8", errors="replace", env=self.environment(),
            stdin=subprocess.PIPE, stdout=sys.stderr, stderr=subprocess.PIPE,
        )  # fmt: skip
        atexit.register(self.end)
        self._port = 0
        is_known = threading.Event()
        threading.Thread(target=self._read_log, args=(is_known,), daemon=True).start()
        if not is_known.wait(START_TIMEOUT_S) or not self._port:
            raise RuntimeError("the server did not start")
        self._threads = ThreadPoolExecutor(NUM_CONNECTIONS)
        self._own = threading.local()

    def end(self) -> None:
        """Stop the server; gently, if it can."""
        self._server.terminate()
        try:
            self._server.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    def labels(self, requests: Sequence[Request], token_ids: Sequence[int]) -> None:
        list(self._threads.map(self._ask_label, requests))

    def read_memory(self) -> dict[str, Any]:
        """See `Peer.read_memory`; of the server, not of its clients."""
        return {"peak_bytes": peak_bytes(self._server.pid), "resident_bytes": resident_bytes(self._server.pid)}

    def time_served_chat(
        self, *, system: str, task: str, clients: Sequence[Sequence[str]], num_tokens: int, token_ids: Sequence[int]
    ) -> dict[str, Any]:
        """Seconds to the first text of a reply: each client sends its next message when its last reply is complete.

        The first message of each client is not counted. `token_ids` are preferred to all others: under random weights
        most tokens have no text, and a reply could end at once.
        """
        begin = threading.Barrier(len(clients))
        common = {"stream": True, **_greedy(num_tokens, token_ids)}

        def chat(texts: Sequence[str]) -> list[float]:
            connection = self._connect()
            begin.wait()
            return [self._time_first(connection, {**common, **self.chat_body(system, task, text)}) for text in texts]

        with ThreadPoolExecutor(len(clients)) as threads:
            return {"seconds": [spent for times in threads.map(chat, clients) for spent in times[1:]]}

    def find_served_texts(
        self, *, system: str, task: str, texts: Sequence[str], token_ids: Sequence[int]
    ) -> dict[str, Any]:
        """First token of the reply to each text, one after the other, among `token_ids`: to compare servers."""
        connection, found = self._connect(), []
        for text in texts:
            body = {**_greedy(1, token_ids), **self.chat_body(system, task, text)}
            answer = json.loads(_post(connection, "/v1/chat/completions", body).read())
            found.append(answer["choices"][0]["message"]["content"])
        return {"served_texts": found}

    def _ask_label(self, request: Request) -> None:
        if not hasattr(self._own, "connection"):
            self._own.connection = self._connect()
        path, body = self.label_call(request)
        response = _post(self._own.connection, path, body)
        json.loads(response.read())

    def _time_first(self, connection: HTTPConnection, body: Mapping[str, Any]) -> float:
        began, first = time.perf_counter(), 0.0
        response = _post(connection, "/v1/chat/completions", body)
        while line := response.readline():
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[len(b"data: ") :])
            if "error" in event:
                raise RuntimeError(str(event["error"]))
            if not first and any(choice["delta"].get("content") for choice in event["choices"]):
                first = time.perf_counter() - began
        if not first:
            raise RuntimeError("a reply without text")
        return first

    def _connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_TIMEOUT_S)

    def _read_log(self, is_known: threading.Event) -> None:
        """Pass on what the server says; the address is in it. It never says it where it cannot start."""
        assert self._server.stderr is not None
        for line in self._server.stderr:
            sys.stderr.write(line)
            if not self._port and (found := _ADDRESS.search(line)):
                self._port = int(found[1])
                is_known.set()
        is_known.set()


def _greedy(num_tokens: int, token_ids: Sequence[int]) -> dict[str, Any]:
    """The likeliest of these tokens, again and again."""
    bias = {str(token_id): 100 for token_id in token_ids}
    return {"max_tokens": num_tokens, "temperature": 0, "logit_bias": bias}


def _post(connection: HTTPConnection, path: str, body: Mapping[str, Any]) -> Any:
    """The response; a connection that the server has closed meanwhile is opened again."""
    content, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    response = None
    with suppress(ConnectionError):
        connection.request("POST", path, content, headers)
        response = connection.getresponse()
    if response is None:
        connection.close()
        connection.request("POST", path, content, headers)
        response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"{path}: {response.status} {response.read()[:300]!r}")
    return response
