"""`allinone serve` as an operator starts it: it says where it is, answers, and ends as it should, alone or several."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from .conftest import PROGRAM, Run

LONG = "给我讲一个很长的故事，越长越好"
_READY = re.compile(r"Ready: (http://\S+)")


class Server:
    """A server process and what it says on stderr."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.url = ""
        self._is_settled = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if match := _READY.search(line):
                self.url = match[1]
                self._is_settled.set()
        self._is_settled.set()

    def wait_until_ready(self) -> None:
        """Until it has said where it is."""
        assert self._is_settled.wait(180) and self.url, self.said

    def end(self, sig: int) -> int:
        """Send a signal and wait; the exit code."""
        self.process.send_signal(sig)
        code = self.process.wait(120)
        self._reader.join(60)
        return code

    @property
    def said(self) -> str:
        """Everything on stderr so far."""
        return "".join(self.lines)

    def client(self, **headers: str) -> httpx.Client:
        """A client of its own."""
        return httpx.Client(base_url=self.url, headers=headers, timeout=120)


Start = Callable[..., "Iterator[Server]"]


@contextmanager
def _served(environment: dict[str, str], *arguments: str) -> Iterator[Server]:
    command = [PROGRAM, "serve", "--port", "0", *arguments]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    server = Server(process)
    try:
        server.wait_until_ready()
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(120)
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read() == ""
        process.stdout.close()
        server._reader.join(60)
        process.stderr.close()


@pytest.fixture
def own(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The environment of a server with a data folder of its own, and the models of all."""
    return {**environment, "ALLINONE_HOME": str(tmp_path / "data")}


def _wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def test_it_answers_and_ends_at_sigterm(own: dict[str, str]) -> None:
    """With exit code 0: a service that was stopped has not failed. Its log has a line for each request."""
    with _served(own) as server, server.client() as client:
        answer = client.post("/v1/tasks/sentiment", json={"text": "今天的实验终于成功了,太棒了!"}).json()
        assert answer["name"] == "positive"
        assert client.get("/").status_code == 200
        assert server.end(signal.SIGTERM) == 0
        assert "No key is needed" in server.said and " POST /v1/tasks/{name} 200 " in server.said
        assert "Traceback" not in server.said
    with pytest.raises(httpx.ConnectError), server.client() as client:
        client.get("/healthz")


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_running_reply_ends_before_the_server_does(own: dict[str, str], sig: int) -> None:
    """Every token of it arrives, and it is in the conversation afterwards."""
    store = f"sqlite:///{own['ALLINONE_HOME']}/server.db"
    with _served(own, "--store", store) as server, server.client() as client:
        with client.stream("POST", "/v1/reply", json={"text": LONG}) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("id: ans_")
            server.process.send_signal(sig)
            rest = list(lines)
        events = [line for line in rest if line.startswith("event: ")]
        assert events[0] == "event: label" and events[-1] == "event: done"
        assert server.process.wait(120) == (130 if sig == signal.SIGINT else 0)
        conversation = json.loads(next(line for line in rest if line.startswith("data: "))[6:])["conversation"]
    with _served(own, "--store", store) as again, again.client() as client:
        turns = client.get(f"/v1/conversations/{conversation}").json()["turns"]
        assert [turn["text"] for turn in turns] == [LONG]


def test_a_second_ctrl_c_ends_at_once(own: dict[str, str], tmp_path: Path) -> None:
    """Whatever runs: here a reply that nothing else would end for a long time."""
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    with _served(own, "--limit", "drain_timeout_s=3600", "--tasks", str(tasks)) as server, server.client() as client:
        body = {"inputs": [{"text": f"{LONG}{number}"} for number in range(512)]}
        asking = threading.Thread(target=_ask_in_vain, args=(client, body), daemon=True)
        asking.start()
        with server.client() as other:
            _wait(lambda: other.get("/v1/status").json()["queue"]["num_running"] > 0)
        server.process.send_signal(signal.SIGINT)
        _wait(lambda: "Ctrl-C again stops at once" in server.said)
        assert server.process.poll() is None
        assert server.end(signal.SIGINT) == 130
        asking.join(60)
        assert not asking.is_alive()


def _ask_in_vain(client: httpx.Client, body: object) -> None:
    with pytest.raises(httpx.TransportError):
        client.post("/v1/tasks/chat", json=body)


def test_keys_open_a_public_server(own: dict[str, str], run: Run) -> None:
    """Made with one command, used by the next, revoked while it runs."""
    made = run("keys", "new", "phone", env=own)
    key = made.stdout.strip()
    with _served(own, "--host", "0.0.0.0", "--no-access-log") as server:
        port = server.url.rsplit(":", 1)[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            body = {"text": "服务很差"}
            assert client.post("/v1/tasks/sentiment", json=body).status_code == 401
            headers = {"Authorization": f"Bearer {key}"}
            assert client.post("/v1/tasks/sentiment", json=body, headers=headers).json()["name"] == "negative"
            assert run("keys", "revoke", "phone", env=own).returncode == 0
            _wait(lambda: client.post("/v1/tasks/sentiment", json=body, headers=headers).status_code == 401)
        assert server.end(signal.SIGTERM) == 0
        assert key not in server.said and " POST " not in server.said


def test_several_processes_share_a_port(own: dict[str, str]) -> None:
    """Both answer, a killed one is replaced, their counts are shown together, and none is left at the end."""
    with _served(own, "--workers", "2", "--threads", "1") as server:
        seen: dict[int, int] = {}

        def ask() -> int:
            with server.client() as client:  # a connection of its own: the system spreads connections
                worker = client.get("/healthz").json()["worker"]
                seen[worker] = seen.get(worker, 0) + 1
                assert client.post("/v1/tasks/sentiment", json={"text": "好"}).status_code == 200
                return worker

        _wait(lambda: ask() > 0 and set(seen) == {1, 2})
        children = _children(server.process.pid)
        assert len(children) == 2
        os.kill(children[0], signal.SIGKILL)
        _wait(lambda: "starting it again" in server.said)
        _wait(lambda: len(_children(server.process.pid)) == 2)
        seen.clear()
        _wait(lambda: ask() > 0 and set(seen) == {1, 2})
        with server.client() as client:
            _wait(lambda: {'worker="1"', 'worker="2"'} <= set(re.findall(r'worker="\d"', client.get("/metrics").text)))
        children = _children(server.process.pid)
        assert server.end(signal.SIGTERM) == 0
        assert not any(_is_running(pid) for pid in children)


def test_processes_do_not_outlive_their_supervisor(own: dict[str, str]) -> None:
    """Killed without a word, it leaves nobody on the port."""
    with _served(own, "--workers", "2", "--threads", "1") as server:
        children = _children(server.process.pid)
        server.process.kill()
        server.process.wait(60)
        _wait(lambda: not any(_is_running(pid) for pid in children))


def test_processes_that_cannot_start_end_the_server(own: dict[str, str], run: Run) -> None:
    """With the reason, once; trying again for ever would hide it."""
    done = run("serve", "--port", "0", "--workers", "3", "--model", "nowhere.gguf", env=own)
    assert done.returncode == 1
    assert done.stderr.count("nowhere.gguf") == 1 and "Process 1 of 3 ended before it was ready" in done.stderr


def _children(pid: int) -> list[int]:
    """Server processes of a supervisor; its resource tracker is none."""
    return [child.pid for child in psutil.Process(pid).children() if "spawn_main" in " ".join(child.cmdline())]


def _is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
