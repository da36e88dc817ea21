"""Mood → reply over HTTP: order of events, reconnection, stopping, and what the conversation keeps."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from allinone import AllInOne
from allinone.server.context import ServerContext
from allinone.server.key_file import KeyFile
from allinone.server.keys import KeyRing
from allinone.server.serving import bind, make_server
from allinone.server.settings import ServerSettings
from allinone.store.database import Store

from .test_sse import parse

SAD = "我的猫昨天走丢了，我很难过"
LONG_CHAT = "给我讲一个很长的故事，越长越好"


@dataclass(frozen=True)
class Served:
    """A running server."""

    url: str
    context: ServerContext

    def client(self, **headers: str) -> httpx.Client:
        """A client of its own."""
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)


@contextmanager
def served(
    ai: AllInOne, folder: Path, *, settings: ServerSettings | None = None, keys: KeyRing | None = None
) -> Iterator[Served]:
    """A real server on a free port, in a thread."""
    settings = settings or ServerSettings(unread_reply_s=0.5, ping_interval_s=0.2)
    store = Store.open(f"sqlite:///{folder}/store.db")
    context = ServerContext.create(ai, store, settings=settings, keys=keys or KeyRing())
    sockets = bind("127.0.0.1", 0)
    ready = threading.Event()
    server = make_server(context, on_ready=ready.set)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets)))
    thread.start()
    assert ready.wait(30)
    try:
        yield Served(f"http://127.0.0.1:{sockets[0].getsockname()[1]}", context)
    finally:
        server.should_exit = True
        thread.join(30)
        store.close()
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def ai() -> Iterator[AllInOne]:
    with AllInOne.load() as ai:
        yield ai


@pytest.fixture(scope="module")
def server(ai: AllInOne, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(ai, tmp_path_factory.mktemp("store")) as found:
        yield found


@pytest.fixture
def client(server: Served) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def say(client: httpx.Client, text: str, **more: Any) -> list[tuple[str, str, dict[str, Any]]]:
    response = client.post("/v1/reply", json={"text": text, **more})
    assert response.status_code == 200, response.text
    return parse(response.content)


def test_label_comes_first_then_tokens_then_done(client: httpx.Client) -> None:
    events = say(client, SAD)
    names = [name for _, name, _ in events]
    assert names[0] == "label" and names[-1] == "done" and set(names[1:-1]) == {"token"}
    label, done = events[0][2], events[-1][2]
    assert label["name"] == "negative" and sum(label["probs"].values()) == pytest.approx(1)
    assert label["id"] == done["id"] and label["conversation"] == done["conversation"]
    assert "".join(data["text"] for _, name, data in events if name == "token").strip() == done["text"]
    assert [id for id, _, _ in events] == [f"{label['id']}:{n}" for n in range(len(events))]


def test_conversation_goes_on_and_is_stored(client: httpx.Client) -> None:
    id = say(client, SAD)[0][2]["conversation"]
    assert say(client, "谢谢你", conversation=id)[-1][2]["turn"] == 2
    stored = client.get(f"/v1/conversations/{id}").json()
    assert stored["num_turns"] == 2 and stored["title"] == SAD
    assert [turn["text"] for turn in stored["turns"]] == [SAD, "谢谢你"]
    assert stored["turns"][0]["mood"]["name"] == "negative"


def test_history_survives_a_restart_of_the_server(ai: AllInOne, tmp_path: Path) -> None:
    """Ids as they were decoded come back: the next turn is fed after exactly these."""
    with served(ai, tmp_path) as first, first.client() as client:
        id = say(client, SAD)[0][2]["conversation"]
        state = first.context.store.conversations.get("local", id).state
    with served(ai, tmp_path) as second, second.client() as client:
        done = say(client, "它叫小黑", conversation=id)[-1][2]
        after = second.context.store.conversations.get("local", id).state
    assert done["turn"] == 2 and state is not None and after is not None
    before, now = json.loads(state), json.loads(after)
    assert now["ids"][: len(before["ids"])] == before["ids"] and now["prefix_ids"] == before["prefix_ids"]


def test_processes_take_turns_in_one_conversation(ai: AllInOne, tmp_path: Path) -> None:
    """Each sees what the other added or took back, even when the number of turns is the same again."""
    with served(ai, tmp_path) as first, served(ai, tmp_path) as second, first.client() as a, second.client() as b:
        id = say(a, SAD)[0][2]["conversation"]
        assert say(b, "谢谢", conversation=id)[-1][2]["turn"] == 2
        assert say(a, "它叫小黑", conversation=id)[-1][2]["turn"] == 3
        assert b.delete(f"/v1/conversations/{id}/turns/last").status_code == 200
        assert say(b, "它叫小白", conversation=id)[-1][2]["turn"] == 3
        assert say(a, "再见", conversation=id)[-1][2]["turn"] == 4
        memory = json.loads(first.context.store.conversations.get("local", id).state or b"")
        text = ai.encoder.tokenizer.detokenize(memory["ids"])
        assert "小白" in text and "小黑" not in text
        assert [turn["text"] for turn in a.get(f"/v1/conversations/{id}").json()["turns"]] == [
            *(SAD, "谢谢", "它叫小白", "再见")
        ]


def test_reply_is_read_again_from_any_event(client: httpx.Client) -> None:
    events = say(client, SAD)
    id = events[0][2]["id"]
    for start in (0, 1, len(events) // 2, len(events) - 1):
        again = client.post("/v1/reply", json={"text": "ignored"}, headers={"Last-Event-ID": f"{id}:{start}"})
        assert parse(again.content) == events[start + 1 :]
    assert parse(client.get(f"/v1/reply/{id}").content) == events


def test_broken_connection_loses_nothing(server: Served) -> None:
    """The reply goes on; who comes back reads what was missed, and the turn is stored once."""
    with server.client() as client:
        with client.stream("POST", "/v1/reply", json={"text": LONG_CHAT}) as response:
            pieces = response.iter_raw()
            head = next(pieces)
        seen = parse(head)
        label = seen[0][2]
        again = client.get(f"/v1/reply/{label['id']}", headers={"Last-Event-ID": seen[-1][0]})
        rest = parse(again.content)
        assert rest[-1][1] == "done" and rest[-1][2]["finish_reason"] in ("stop", "length")
        text = "".join(data["text"] for _, name, data in seen + rest if name == "token")
        assert text.strip() == rest[-1][2]["text"]
        stored = client.get(f"/v1/conversations/{label['conversation']}").json()
        assert [turn["reply"] for turn in stored["turns"]] == [rest[-1][2]["text"]]


def test_unread_reply_is_stopped_and_kept_as_far_as_it_came(ai: AllInOne, tmp_path: Path) -> None:
    settings = ServerSettings(unread_reply_s=0.05)
    with served(ai, tmp_path, settings=settings) as server, server.client() as client:
        with client.stream("POST", "/v1/reply", json={"text": LONG_CHAT}) as response:
            label = parse(next(response.iter_raw()))[0][2]
        deadline = time.monotonic() + 30
        while not (turns := client.get(f"/v1/conversations/{label['conversation']}").json()["turns"]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert turns[0]["finish_reason"] in ("cancelled", "stop", "length") and len(turns) == 1
        assert server.context.limits.num_streams == 0


def test_stopped_reply_says_so_and_is_kept(client: httpx.Client) -> None:
    with client.stream("POST", "/v1/reply", json={"text": LONG_CHAT}) as response:
        pieces = response.iter_raw()
        stream = next(pieces)
        id = parse(stream)[0][2]["id"]
        assert client.delete(f"/v1/reply/{id}").status_code == 204
        stream += b"".join(pieces)
    done = parse(stream)[-1]
    assert done[1] == "done" and done[2]["finish_reason"] in ("cancelled", "stop", "length")


def test_last_turn_is_taken_back_for_a_retry(client: httpx.Client, server: Served) -> None:
    id = say(client, SAD)[0][2]["conversation"]
    before = server.context.store.conversations.get("local", id).state
    say(client, "谢谢你", conversation=id)
    assert client.delete(f"/v1/conversations/{id}/turns/last").json()["num_turns"] == 1
    assert server.context.store.conversations.get("local", id).state == before
    assert say(client, "谢谢你", conversation=id)[-1][2]["turn"] == 2
    for left in (1, 0):
        assert client.delete(f"/v1/conversations/{id}/turns/last").json()["num_turns"] == left
    assert client.delete(f"/v1/conversations/{id}/turns/last").status_code == 404


def test_replies_of_one_conversation_wait_for_each_other(server: Served) -> None:
    """Eight at once: eight turns, in some order, none lost and none mixed."""
    with server.client() as client:
        id = client.post("/v1/conversations", json={"language": "zh"}).json()["id"]
    texts = [f"第{n}句话" for n in range(8)]
    dones: list[dict[str, Any]] = []

    def work(text: str) -> None:
        with server.client() as own:
            dones.append(say(own, text, conversation=id)[-1][2])

    threads = [threading.Thread(target=work, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with server.client() as client:
        turns = client.get(f"/v1/conversations/{id}").json()["turns"]
    assert sorted(turn["text"] for turn in turns) == sorted(texts)
    assert sorted(done["turn"] for done in dones) == list(range(1, 9))


def test_reply_that_is_not_stored_leaves_nothing(client: httpx.Client) -> None:
    before = client.get("/v1/conversations/export").json()
    events = say(client, SAD, store=False)
    assert events[0][2]["conversation"] is None and events[-1][2]["turn"] is None
    assert client.get("/v1/conversations/export").json() == before


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"text": ""}, 422),
        ({"text": "  \n"}, 422),
        ({"text": "x" * 50_000}, 422),
        ({"text": "x", "conversation": "conv_unknown"}, 404),
        ({"text": "x", "conversation": "../etc"}, 422),
        ({"text": "x", "language": "fr"}, 422),
        ({"text": "x", "unknown": 1}, 422),
        ({"text": "x", "store": False, "conversation": "conv_abc"}, 422),
    ],
)
def test_bad_requests_are_refused_before_the_stream_begins(
    client: httpx.Client, body: dict[str, Any], status: int
) -> None:
    response = client.post("/v1/reply", json=body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json" and response.json()["detail"]


@pytest.mark.parametrize("event_id", ["ans_none:0", "ans_x", "nonsense", "ans_x:-1", "ans_x:9999999999", ":0"])
def test_unknown_event_ids_are_refused(client: httpx.Client, event_id: str) -> None:
    response = client.post("/v1/reply", json={"text": "x"}, headers={"Last-Event-ID": event_id})
    assert response.status_code in (404, 422)


def test_reply_answer_takes_feedback(client: httpx.Client) -> None:
    done = say(client, SAD)[-1][2]
    sent = client.post("/v1/feedback", json={"answer_id": done["id"], "rating": "up"})
    assert sent.status_code == 201
    (found,) = [f for f in client.get("/v1/feedback").json()["feedback"] if f["answer_id"] == done["id"]]
    assert found["task"].startswith("chat") and found["version"]


def test_another_key_sees_nothing(ai: AllInOne, tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    keys = [file.add(name=name)[1] for name in ("a", "b")]
    with served(ai, tmp_path, keys=KeyRing(file=file)) as server:
        mine, other = (server.client(Authorization=f"Bearer {key}") for key in keys)
        with mine, other:
            label = say(mine, SAD)[0][2]
            id, answer = label["conversation"], label["id"]
            unknown = {"text": "x", "conversation": "conv_" + "0" * 22}
            theirs = other.post("/v1/reply", json={"text": "x", "conversation": id})
            nobodys = other.post("/v1/reply", json=unknown)
            for response in (theirs, nobodys):
                assert response.status_code == 404
            assert {**theirs.json(), "request_id": ""} == {**nobodys.json(), "request_id": ""}
            for method, path in (
                ("GET", f"/v1/conversations/{id}"),
                ("DELETE", f"/v1/conversations/{id}"),
                ("DELETE", f"/v1/conversations/{id}/turns/last"),
                ("GET", f"/v1/reply/{answer}"),
                ("DELETE", f"/v1/reply/{answer}"),
            ):
                assert other.request(method, path).status_code == 404
            assert other.get("/v1/conversations").json() == {"conversations": []}
            assert mine.get(f"/v1/conversations/{id}").json()["num_turns"] == 1


def test_conversations_are_listed_renamed_exported_and_deleted(client: httpx.Client) -> None:
    ids = [say(client, f"第{n}个话题")[0][2]["conversation"] for n in range(3)]
    page = client.get("/v1/conversations", params={"limit": 2}).json()["conversations"]
    assert [entry["id"] for entry in page] == ids[:0:-1]
    older = client.get("/v1/conversations", params={"limit": 1, "before": page[-1]["id"]}).json()["conversations"]
    assert [entry["id"] for entry in older] == ids[:1]
    assert client.patch(f"/v1/conversations/{ids[0]}", json={"title": "新名字"}).json()["title"] == "新名字"
    exported = {c["id"]: c for c in client.get("/v1/conversations/export").json()["conversations"]}
    assert exported[ids[0]]["title"] == "新名字" and exported[ids[0]]["turns"][0]["text"] == "第0个话题"
    assert client.delete(f"/v1/conversations/{ids[0]}").status_code == 204
    assert client.get(f"/v1/conversations/{ids[0]}").status_code == 404


def test_context_has_no_leftovers(server: Served, client: httpx.Client) -> None:
    """After all of that no stream is counted and no request runs."""
    deadline = time.monotonic() + 30
    while server.context.limits.num_streams or server.context.ai.stats().num_running:
        assert time.monotonic() < deadline
        client.post("/v1/tasks/sentiment", json={"text": f"{time.monotonic()}"})
    assert replace(server.context.settings) == server.context.settings
