"""What belongs to one key: to every other it is not there, byte for byte, and nothing is learned of it in passing."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from .processes import ServerProcess, make_key, read_events, running_server

pytestmark = pytest.mark.e2e

REQUEST_ID = {"X-Request-ID": "the-same"}
"""A client may choose the id: then two responses differ by nothing but their date."""
NOWHERE_TALK, NOWHERE_ANSWER, NOWHERE_FEEDBACK = f"conv_{'0' * 22}", f"ans_{'0' * 22}", f"fb_{'0' * 22}"
NUM_TIMED = 40
PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A server, and who asks it; `ann_again` has another key of the same owner."""

    server: ServerProcess
    ann: httpx.Client
    bob: httpx.Client
    ann_again: httpx.Client


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One server for all tests of this file."""
    home = tmp_path_factory.mktemp("isolation")
    keys = {name: make_key(home, name) for name in ("ann", "bob")}
    owner = keys["ann"].split("_")[1]
    keys["ann_again"] = make_key(home, "ann-again", "--owner", owner)
    with running_server(home) as server, ExitStack() as stack:
        clients = {name: stack.enter_context(server.client(key=key)) for name, key in keys.items()}
        yield Place(server=server, **clients)


@dataclass(frozen=True, slots=True, kw_only=True)
class Belongings:
    """What Ann has."""

    conversation: str
    reply: str
    answer: str
    feedback: str


@pytest.fixture(scope="module")
def anns(place: Place) -> Belongings:
    """A conversation with a turn, its reply, an answer, and feedback on it."""
    with place.ann.stream("POST", "/v1/reply", json={"text": "我的秘密是蓝色的"}) as response:
        done = list(read_events(response))[-1]
    assert done.name == "done"
    answer = place.ann.post("/v1/tasks/sentiment", json={"text": "我的秘密"}).json()["id"]
    feedback = place.ann.post("/v1/feedback", json={"answer_id": answer, "rating": "up"}).json()["id"]
    return Belongings(conversation=done.data["conversation"], reply=done.data["id"], answer=answer, feedback=feedback)


def looks(response: httpx.Response) -> tuple[int, dict[str, str], bytes]:
    """Everything of a response but its date."""
    headers = {name: value for name, value in response.headers.items() if name != "date"}
    return response.status_code, headers, response.content


TALK_REQUESTS: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/v1/conversations/{id}", None),
    ("PATCH", "/v1/conversations/{id}", {"title": "x"}),
    ("DELETE", "/v1/conversations/{id}", None),
    ("DELETE", "/v1/conversations/{id}/turns/last", None),
    ("GET", "/v1/conversations?before={id}", None),
    ("POST", "/v1/reply", {"text": "x", "conversation": "{id}"}),
)


@pytest.mark.parametrize(("method", "path", "body"), TALK_REQUESTS, ids=[f"{m} {p}" for m, p, _ in TALK_REQUESTS])
def test_anothers_conversation_is_not_there(
    place: Place, anns: Belongings, method: str, path: str, body: dict[str, str] | None
) -> None:
    """Whatever is asked of it: the answer is that for an id that nobody has, and nothing has happened to it."""
    before = place.ann.get(f"/v1/conversations/{anns.conversation}").json()
    others, nobodys = (
        place.bob.request(
            method,
            path.format(id=id),
            json=None if body is None else {name: value.format(id=id) for name, value in body.items()},
            headers=REQUEST_ID,
        )
        for id in (anns.conversation, NOWHERE_TALK)
    )
    assert others.status_code == 404
    assert looks(others) == looks(nobodys)
    assert place.ann.get(f"/v1/conversations/{anns.conversation}").json() == before


@pytest.mark.parametrize(
    ("method", "last_event_id"),
    [
        ("GET", None), ("GET", "{id}:0"), ("GET", "{id}:999999"), ("POST", "{id}:0"), ("POST", "{id}:999999"),
        ("DELETE", None),
    ],
)  # fmt: skip
def test_anothers_reply_is_not_there(place: Place, anns: Belongings, method: str, last_event_id: str | None) -> None:
    """It is neither read again nor stopped."""
    others, nobodys = (ask_reply(place.bob, method, id, last_event_id) for id in (anns.reply, NOWHERE_ANSWER))
    assert others.status_code == 404
    assert looks(others) == looks(nobodys)


def ask_reply(client: httpx.Client, method: str, id: str, last_event_id: str | None) -> httpx.Response:
    """One of the three requests about a reply."""
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id.format(id=id)}
    path = "/v1/reply" if method == "POST" else f"/v1/reply/{id}"
    body = {"text": "x"} if method == "POST" else None
    return client.request(method, path, json=body, headers={**REQUEST_ID, **headers})


@pytest.mark.parametrize("rating", ["up", "down"])
def test_anothers_answer_takes_no_feedback(place: Place, anns: Belongings, rating: str) -> None:
    """Of a task or of a reply; what its owner said stays."""
    for own in (anns.answer, anns.reply):
        others, nobodys = (
            place.bob.post("/v1/feedback", json={"answer_id": id, "rating": rating}, headers=REQUEST_ID)
            for id in (own, NOWHERE_ANSWER)
        )
        assert others.status_code == 404
        assert looks(others) == looks(nobodys)
    others, nobodys = (
        place.bob.get(f"/v1/feedback?before={id}", headers=REQUEST_ID) for id in (anns.feedback, NOWHERE_FEEDBACK)
    )
    assert looks(others) == looks(nobodys)
    assert [given["rating"] for given in place.ann.get("/v1/feedback").json()["feedback"]] == ["up"]


def test_lists_and_exports_hold_ones_own(place: Place, anns: Belongings) -> None:
    """Another key of the same owner sees all of it; a stranger's is empty of it."""
    for path in ("/v1/conversations", "/v1/conversations/export", "/v1/feedback"):
        assert place.ann_again.get(path).json() == place.ann.get(path).json()
        seen = place.bob.get(path).text
        for id in (anns.conversation, anns.reply, anns.answer, anns.feedback, "秘密"):
            assert id not in seen
    assert anns.conversation in place.ann_again.get("/v1/conversations/export").text


def test_a_running_reply_is_neither_read_nor_stopped_by_another_key(place: Place) -> None:
    """While it runs, too: the owner gets all of it, and whoever else asks for it gets what a wrong id gets."""
    found = dict[str, str]()
    is_begun = threading.Event()

    def read() -> None:
        with place.ann.stream("POST", "/v1/reply", json={"text": "讲一个故事", "store": False}) as response:
            for event in read_events(response):
                found[event.name] = event.id
                if event.name == "done":
                    found["end"] = event.data["finish_reason"]
                is_begun.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert is_begun.wait(PATIENCE_S)
    id = found["label"].partition(":")[0]
    for method in ("GET", "DELETE", "POST"):
        last_event_id = "{id}:0"
        others, nobodys = (ask_reply(place.bob, method, one, last_event_id) for one in (id, NOWHERE_ANSWER))
        assert looks(others) == looks(nobodys) and others.status_code == 404
    reader.join(PATIENCE_S)
    assert found["end"] in ("stop", "length")
    again = place.ann_again.get(f"/v1/reply/{id}", headers={"Last-Event-ID": f"{id}:0"})
    assert again.status_code == 200 and f"id: {found['done']}" in again.text


@dataclass(frozen=True, slots=True)
class Work:
    """What the engine had done at some moment."""

    num_ended: int
    num_steps: int
    num_tokens: int
    hits: int

    @classmethod
    def of(cls, client: httpx.Client) -> Work:
        """As the server's status says."""
        status = client.get("/v1/status").json()
        engine = status["engine"]
        return cls(
            engine["num_ended"],
            engine["num_steps"],
            engine["num_prefilled_tokens"] + engine["num_decoded_tokens"],
            status["results_cache"]["hits"],
        )

    @classmethod
    def at_rest(cls, client: httpx.Client) -> Work:
        """When nothing changes any more: the engine counts a step just after it has given the answers."""
        work, before = cls.of(client), None
        while work != before:
            time.sleep(0.2)
            work, before = cls.of(client), work
        return work

    @classmethod
    def after(cls, client: httpx.Client, num_ended: int) -> Work:
        """As soon as so many requests have ended."""
        deadline = time.monotonic() + PATIENCE_S
        while (work := cls.of(client)).num_ended < num_ended:
            assert time.monotonic() < deadline, f"the engine was never asked: {work}"
            time.sleep(0.005)
        return work


@contextmanager
def counted(client: httpx.Client) -> Iterator[list[Work]]:
    """What the engine did before and after a block that asks it something; the list is filled at the end."""
    found = [Work.at_rest(client)]
    yield found
    found.append(Work.after(client, found[0].num_ended + 1))


ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "label": ("/v1/tasks/sentiment", {"text": "TEXT"}),
    "labels": ("/v1/tasks/sentiment", {"inputs": [{"text": "TEXT"}, {"text": "TEXT!"}]}),
    "text": ("/v1/tasks/title", {"text": "TEXT"}),
    "json": ("/v1/tasks/keywords", {"text": "TEXT"}),
    "chat": (
        "/v1/chat/completions",
        {
            "model": "allinone", "max_tokens": 4, "temperature": 0,
            "messages": [{"role": "system", "content": "你是一个诗人。"}, {"role": "user", "content": "TEXT"}],
        },
    ),
    "task as a model": (
        "/v1/chat/completions",
        {"model": "allinone/sentiment", "messages": [{"role": "user", "content": "TEXT"}]},
    ),
    "completion": ("/v1/completions", {"model": "allinone", "prompt": "TEXT", "max_tokens": 4, "temperature": 0}),
    "embedding": ("/v1/embeddings", {"model": "allinone", "input": "TEXT"}),
}  # fmt: skip


def fill(body: Any, text: str) -> Any:
    """A body with the text in its places."""
    if isinstance(body, str):
        return body.replace("TEXT", text)
    if isinstance(body, dict):
        return {name: fill(value, text) for name, value in body.items()}
    return [fill(value, text) for value in body] if isinstance(body, list) else body


def flags(document: Any) -> list[Any]:
    """Every `cached` and every count of cached tokens in a document, in order."""
    if isinstance(document, dict):
        own = [value for name, value in document.items() if "cached" in name]
        return own + [flag for value in document.values() for flag in flags(value)]
    return [flag for value in document for flag in flags(value)] if isinstance(document, list) else []


@pytest.mark.parametrize("what", ASKED)
def test_what_another_key_asked_is_computed_again(place: Place, what: str) -> None:
    """The engine works as much for Bob whether or not Ann asked the same before, and no number says that she did."""
    path, body = ASKED[what]
    number = list(ASKED).index(what)  # no two of these tests ask for the same
    place.bob.post(path, json=fill(body, f"{number}:先来热身")).raise_for_status()  # a task's prefix is everybody's
    shared, fresh = f"{number}:明天我要去北京出差", f"{number}:后天我要去上海出差"
    place.ann.post(path, json=fill(body, shared)).raise_for_status()
    with counted(place.bob) as work:
        asked = place.bob.post(path, json=fill(body, shared))
    unasked = place.bob.post(path, json=fill(body, fresh))
    assert asked.status_code == unasked.status_code == 200
    assert flags(asked.json()) == flags(unasked.json()) and True not in flags(asked.json())
    assert work[1].hits == work[0].hits
    assert work[1].num_steps > work[0].num_steps and work[1].num_tokens > work[0].num_tokens


def test_ones_own_results_are_cached(place: Place) -> None:
    """So the tests above can fail: asked again by their owner's other key, they are found."""
    for client, is_cached in ((place.ann, False), (place.bob, False), (place.ann_again, True), (place.bob, True)):
        answer = client.post("/v1/tasks/sentiment", json={"text": "这是谁的结果"}).json()
        assert answer["cached"] is is_cached


def test_prefilled_tokens_do_not_depend_on_what_another_key_asked(place: Place) -> None:
    """Counted exactly, on texts of which every other one was asked by Ann before."""
    texts = [f"第{number}次去那家店了还是很喜欢" for number in range(100, 120)]
    place.bob.post("/v1/tasks/sentiment", json={"text": "热身"}).raise_for_status()
    for text in texts[::2]:
        place.ann.post("/v1/tasks/sentiment", json={"text": text}).raise_for_status()
    before = Work.at_rest(place.bob)
    for text in texts:
        usage = place.bob.post("/v1/tasks/sentiment", json={"text": text}).json()["usage"]
        work = Work.after(place.bob, before.num_ended + 1)
        assert work.num_tokens - before.num_tokens == usage["num_prompt_tokens"] - usage["num_cached_tokens"] > 0
        before = work


def test_time_does_not_tell_whether_another_key_asked_a_text(place: Place) -> None:
    """Medians of texts that Ann asked and of texts that nobody asked, in random order, are the same within noise.

    An answer from a cache would be many times faster; the bound is wide, for machines are noisy.
    """
    chance = random.Random(6)
    texts = [(f"编号{chance.randrange(10**9):09d}的包裹什么时候到", number % 2 == 0) for number in range(2 * NUM_TIMED)]
    for text, is_asked in texts:
        if is_asked:
            place.ann.post("/v1/tasks/sentiment", json={"text": text}).raise_for_status()
    chance.shuffle(texts)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for text, is_asked in texts:
        response = place.bob.post("/v1/tasks/sentiment", json={"text": text})
        seconds[is_asked].append(response.elapsed.total_seconds())
    asked, unasked = statistics.median(seconds[True]), statistics.median(seconds[False])
    own = statistics.median(
        place.bob.post("/v1/tasks/sentiment", json={"text": text}).elapsed.total_seconds() for text, _ in texts
    )
    print(f"  asked by another {asked * 1e3:.2f} ms, by nobody {unasked * 1e3:.2f} ms, by oneself {own * 1e3:.2f} ms")
    assert 0.5 < asked / unasked < 2


@pytest.mark.parametrize("key", [None, "wrong", "aio_000000000000_" + "a" * 43, "aio_{id}_" + "a" * 43])
def test_without_a_working_key_nothing_is_told(place: Place, anns: Belongings, key: str | None) -> None:
    """The same 401 for whatever is there and whatever is not, and for a key whose public part is right."""
    owner = place.ann.headers["Authorization"].split("_")[1]
    with place.server.client(key=None if key is None else key.format(id=owner)) as client:
        found = [
            looks(client.request(method, path, json=body, headers=REQUEST_ID))
            for method, path, body in (
                ("GET", f"/v1/conversations/{anns.conversation}", None),
                ("GET", f"/v1/conversations/{NOWHERE_TALK}", None),
                ("GET", f"/v1/reply/{anns.reply}", None),
                ("GET", "/v1/tasks/no-such-task", None),
                ("GET", "/v1/status", None),
                ("GET", "/metrics", None),
                ("POST", "/v1/tasks/sentiment", {"text": "x"}),
                ("POST", "/v1/tasks/no-such-task", {"text": "x"}),
                ("DELETE", f"/v1/conversations/{anns.conversation}", None),
            )
        ]
    assert {status for status, _, _ in found} == {401}
    assert len({content for _, _, content in found}) == 1
    reading, writing = ([headers for _, headers, _ in part] for part in (found[:6], found[6:]))
    assert reading.count(reading[0]) == 6 and writing.count(writing[0]) == 3
