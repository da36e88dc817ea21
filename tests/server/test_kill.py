"""The server ended in the middle of things: by kill -9, which may lose nothing acknowledged, and by SIGTERM, gently."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from .processes import ServerProcess, read_events, running_server

pytestmark = pytest.mark.e2e

NUM_KILLS = int(os.environ.get("ALLINONE_KILLS", "5"))
NUM_TALKERS = 4
PATIENCE_S = 120.0
TEXTS = ("今天的实验终于成功了", "我有点累", "讲个笑话吧", "明天会下雨吗", "I feel a bit lonely", "谢谢你")


@dataclass(frozen=True, slots=True)
class SaidTurn:
    """A turn as its `done` event had it."""

    number: int
    text: str
    reply: str


@dataclass(slots=True)
class Talker:
    """Somebody who talks until the server is gone, in one conversation over all its lives.

    Attributes:
        acknowledged: turns whose `done` event arrived.
    """

    chance: random.Random
    conversation: str | None = None
    acknowledged: list[SaidTurn] = field(default_factory=list[SaidTurn])

    def talk(self, server: ServerProcess, on_done: Callable[[], None]) -> None:
        """Say one thing after the other."""
        with server.client() as client:
            try:
                while True:
                    self.say(client, self.chance.choice(TEXTS))
                    on_done()
            except httpx.TransportError:  # it was killed
                return

    def say(self, client: httpx.Client, text: str) -> None:
        """One turn."""
        body = {"text": text, "conversation": self.conversation}
        with client.stream("POST", "/v1/reply", json=body) as response:
            assert response.status_code == 200, response.read()
            for event in read_events(response):
                assert event.name != "error", event.data
                self.conversation = event.data.get("conversation", self.conversation)
                if event.name == "done":
                    self.acknowledged.append(SaidTurn(event.data["turn"], text, event.data["text"]))

    def check(self, client: httpx.Client) -> None:
        """Everything acknowledged is there, in order; of what was under way, at most the last turn of each life."""
        if self.conversation is None:
            return
        found = client.get(f"/v1/conversations/{self.conversation}")
        assert found.status_code == 200, found.text
        turns = [SaidTurn(turn["number"], turn["text"], turn["reply"]) for turn in found.json()["turns"]]
        missing = [turn for turn in self.acknowledged if turn not in turns]
        assert not missing, f"{missing} of {self.conversation} are lost"
        assert [turn.number for turn in turns] == list(range(1, len(turns) + 1))
        assert len(turns) - len(self.acknowledged) in (0, 1), "one turn at most was under way"
        assert found.json()["num_turns"] == len(turns)
        self.acknowledged = turns  # what was written but not acknowledged is part of the conversation from now on


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_no_acknowledged_turn_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    """Kill -9 at random moments while four conversations are held, again and again; each goes on where it was.

    ALLINONE_KILLS sets how often; 50 is what a release is checked with.
    """
    chance = random.Random(50)
    talkers = [Talker(random.Random(number)) for number in range(NUM_TALKERS)]
    for _ in range(NUM_KILLS):
        with running_server(tmp_path) as server, server.client() as client:
            for talker in talkers:
                talker.check(client)
            num_before = sum(len(talker.acknowledged) for talker in talkers)
            kill_after(server, talkers, chance)
            assert sum(len(talker.acknowledged) for talker in talkers) > num_before
    with running_server(tmp_path) as server, server.client() as client:
        for talker in talkers:
            talker.check(client)
            talker.say(client, "最后一句")
            talker.check(client)
            assert talker.acknowledged[-1].text == "最后一句"
        assert server.stop() == 0
    num_turns = sum(len(talker.acknowledged) for talker in talkers)
    print(f"  {NUM_KILLS} kills, {num_turns} turns, none lost")


def kill_after(server: ServerProcess, talkers: list[Talker], chance: random.Random) -> None:
    """Let them talk, and kill the server some time after the first turn was acknowledged."""
    has_begun = threading.Event()
    with ThreadPoolExecutor(len(talkers)) as pool:
        talks = [pool.submit(talker.talk, server, has_begun.set) for talker in talkers]
        assert has_begun.wait(PATIENCE_S), server.log.read_text()
        time.sleep(chance.uniform(0, 1.5))
        server.kill()
        for talk in talks:
            talk.result(PATIENCE_S)


@dataclass(slots=True)
class Load:
    """Streams that are being read.

    Attributes:
        has_token: for each, whether something of its text has arrived.
    """

    has_token: list[threading.Event]
    streams: list[Future[str]]

    def endings(self) -> list[str]:
        """How each ended: the finish_reason of its `done` event or of its last chunk; "cut" without one."""
        return [stream.result(PATIENCE_S) for stream in self.streams]


@contextmanager
def load(server: ServerProcess, *, num_replies: int, num_completions: int) -> Iterator[Load]:
    """Replies, and long completions, all under way and past their first token."""
    has_token = [threading.Event() for _ in range(num_replies + num_completions)]
    with ThreadPoolExecutor(len(has_token)) as pool:
        streams = [
            pool.submit(read_reply if number < num_replies else read_completion, server, begun)
            for number, begun in enumerate(has_token)
        ]
        for begun in has_token:
            assert begun.wait(PATIENCE_S), server.log.read_text()
        yield Load(has_token, streams)


def read_reply(server: ServerProcess, begun: threading.Event) -> str:
    """A reply to its end."""
    try:
        with server.client() as client, client.stream("POST", "/v1/reply", json={"text": "讲一个故事"}) as response:
            for event in read_events(response):
                if event.name == "done":
                    return str(event.data["finish_reason"])
                if event.name == "token":
                    begun.set()
    except httpx.RemoteProtocolError:
        pass
    return "cut"


def read_completion(server: ServerProcess, begun: threading.Event) -> str:
    """A completion that does not end by itself before it has 150 tokens: a list of so many numbers."""
    schema = {"type": "array", "items": {"type": "integer"}, "minItems": 100}
    body: dict[str, Any] = {
        "model": "allinone",
        "messages": [{"role": "user", "content": "1 2 3"}],
        "max_tokens": 150,
        "stream": True,
        "response_format": {"type": "json_schema", "json_schema": {"name": "numbers", "schema": schema}},
    }
    last = "cut"
    try:
        with server.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as response:
            for line in response.iter_lines():
                begun.set()
                found = re.search(r'"finish_reason":"(\w+)"', line)
                last = found[1] if found else last
                if line == "data: [DONE]":
                    return last
    except httpx.RemoteProtocolError:
        pass
    return "cut"


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_running_streams_end_whole_when_the_server_is_told_to_stop(tmp_path: Path, sig: signal.Signals) -> None:
    """Every stream gets its end; who comes now is told when to come back, or finds nobody; then it is over."""
    with running_server(tmp_path) as server:
        with load(server, num_replies=4, num_completions=4) as running:
            server.process.send_signal(sig)
            num_running = sum(not stream.done() for stream in running.streams)
            refused = knock(server)
            endings = running.endings()
        assert num_running > 0, "nothing was running any more; the test says nothing"
        assert set(endings[:4]) <= {"stop", "length"} and endings[4:] == ["length"] * 4
        assert refused, "the server was gone before anybody could ask"
        for response in refused:
            assert response.status_code == 503 and int(response.headers["Retry-After"]) >= 1
            assert response.json()["code"] == "shutting_down"
        assert server.process.wait(PATIENCE_S) == (0 if sig == signal.SIGTERM else 130)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((server.host, server.port))
    with running_server(tmp_path) as server, server.client() as client:
        found = client.get("/v1/conversations").json()["conversations"]
        assert [conversation["num_turns"] for conversation in found] == [1] * 4, "every reply was kept"


def knock(server: ServerProcess) -> list[httpx.Response]:
    """Ask for new work, on new connections, until the refusal of each kind has come or the server is gone."""
    asked: tuple[tuple[str, str, dict[str, Any] | None], ...] = (
        ("POST", "/v1/tasks/sentiment", {"text": "x"}),
        ("POST", "/v1/reply", {"text": "x"}),
        ("GET", "/v1/conversations", None),
        ("GET", "/readyz", None),
    )
    heard = list[httpx.Response]()
    while True:  # the signal takes a moment to arrive
        try:
            with server.client() as client:
                if client.get("/readyz").status_code == 503:
                    break
        except httpx.TransportError:
            return heard
    for method, path, body in asked:
        try:
            with server.client() as client:
                heard.append(client.request(method, path, json=body))
        except httpx.TransportError:  # refused: what was running has ended
            break
    return heard


def test_what_does_not_end_within_the_drain_time_is_cut(tmp_path: Path) -> None:
    """A server that is told to stop does stop; the store is whole afterwards."""
    with running_server(tmp_path, "--limit", "drain_timeout_s=0.1") as server:
        with load(server, num_replies=2, num_completions=6) as running:
            assert server.stop() == 0
            endings = running.endings()
        assert set(endings) <= {"cut", "stop", "length", "cancelled"} and endings[2:].count("cut") > 0
    with running_server(tmp_path) as server, server.client() as client:
        found = client.get("/v1/conversations").json()["conversations"]
        assert all(conversation["num_turns"] in (0, 1) for conversation in found) and len(found) == 2


def test_killed_while_nothing_runs_it_starts_again(tmp_path: Path) -> None:
    """No lock, no half-written file is in the way, even of two servers on one store."""
    for _ in range(2):
        with running_server(tmp_path) as one, running_server(tmp_path) as two:
            for server in (one, two):
                with server.client() as client:
                    assert client.post("/v1/conversations", json={}).status_code == 201
            one.kill()
            with two.client() as client:
                assert client.post("/v1/conversations", json={}).status_code == 201
            two.kill()
    with running_server(tmp_path) as server, server.client() as client:
        assert len(client.get("/v1/conversations").json()["conversations"]) == 6
