"""`/v1/tasks`: what is listed, what is answered, what is refused, and that a bad input never stops the others."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest

from allinone import AllInOne
from allinone.loading import load_model
from allinone.prompts.library import BUILTIN_DIRECTORY, PromptLibrary
from allinone.server.answers import Answer, Answers, Tasks, TaskShape
from allinone.server.key_file import KeyFile
from allinone.server.keys import KeyRing
from allinone.server.tasks_api import MAX_ITEMS

from .live import Live, live, until

TEXTS = ["今天的实验终于成功了,太棒了!", "服务很差", "明天开会", "I love it", "The parcel never came."]


@pytest.fixture(scope="module")
def ai() -> Iterator[AllInOne]:
    """The bundled model."""
    with AllInOne.load() as ai:
        yield ai


@pytest.fixture(scope="module")
def server(ai: AllInOne, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server without keys."""
    with live(ai, tmp_path_factory.mktemp("store")) as server:
        yield server


@pytest.fixture
def client(server: Live) -> Iterator[httpx.Client]:
    """A client of it."""
    with server.client() as client:
        yield client


def _post(client: httpx.Client, task: str, /, **body: Any) -> httpx.Response:
    return client.post(f"/v1/tasks/{task}", json=body)


def test_tasks_are_listed_as_they_are(ai: AllInOne, client: httpx.Client) -> None:
    """Every one, with what a form for it needs."""
    listed = client.get("/v1/tasks").json()
    Tasks.model_validate(listed)
    assert [task["name"] for task in listed["tasks"]] == list(ai.tasks.names())
    tasks = {task["name"]: task for task in listed["tasks"]}
    assert [label["name"] for label in tasks["sentiment"]["labels"]] == ["positive", "negative", "neutral"]
    assert tasks["intent"]["open_labels"] and not tasks["sentiment"]["variables"]
    (style,) = [variable for variable in tasks["rewrite"]["variables"] if variable["name"] == "style"]
    assert style["default"] == "正式" and not style["is_required"] and style["type"] == "string"
    assert tasks["sentiment"]["max_input_tokens"] == 512


def test_one_task_is_shown(client: httpx.Client) -> None:
    """As in the list; one that is not there is named, with its neighbour."""
    shown = client.get("/v1/tasks/sentiment").json()
    TaskShape.model_validate(shown)
    assert shown in client.get("/v1/tasks").json()["tasks"]
    missing = client.get("/v1/tasks/sentimnt")
    assert missing.status_code == 404 and "Did you mean 'sentiment'" in missing.json()["detail"]
    assert _post(client, "sentimnt", text="好").json()["code"] == "unknown_task"


@pytest.mark.parametrize("task", ["sentiment", "emotion.en", "title", "keywords", "chat"])
def test_one_answer_is_the_runtimes_own(ai: AllInOne, server: Live, client: httpx.Client, task: str) -> None:
    """Every kind of task; HTTP adds the id and changes nothing."""
    expected = asdict(ai.run(task, TEXTS[0]))
    response = _post(client, task, text=TEXTS[0])
    answer = Answer.model_validate(response.json()).model_dump()
    assert answer["id"].startswith("ans_")
    for member in ("task", "version", "model", "kind", "label", "name", "emoji", "probs", "p_max"):
        assert answer[member] == expected[member], member
    if ai.tasks.get(task).config.temperature == 0 or expected["kind"] == "label":
        assert (answer["text"], answer["data"]) == (expected["text"], expected["data"])
    record = server.context.store.answers.get("local", answer["id"])
    assert (record.task, record.version, record.kind) == (answer["task"], answer["version"], answer["kind"])


def test_labels_can_be_chosen_among(client: httpx.Client) -> None:
    """By label or name; probabilities sum to one over them."""
    answer = _post(client, "sentiment", text="还行吧", labels=["positive", "负面"]).json()
    assert set(answer["probs"]) == {"正面", "负面"} and sum(answer["probs"].values()) == pytest.approx(1)
    refused = _post(client, "sentiment", text="还行吧", labels=["posit"])
    assert refused.status_code == 422 and refused.json()["code"] == "verbalizer"
    assert _post(client, "title", text="还行吧", labels=["x"]).status_code == 422
    opened = _post(client, "intent", text="帮我订机票", labels=["订票", "投诉"]).json()
    assert set(opened["probs"]) == {"订票", "投诉"}


def test_variables_are_the_tasks_own(client: httpx.Client) -> None:
    """What the task declares reaches the prompt; nothing else reaches anything."""
    plain = _post(client, "rewrite", text="会议改到三点", variables={"style": "幽默"})
    assert plain.status_code == 200
    for name in ("styl", "client", "priority", "deadline_s", "labels", "task", "self", "on_long", "is_private"):
        refused = _post(client, "rewrite", text="会议改到三点", variables={name: "x"})
        assert refused.status_code == 422 and "no variable" in refused.json()["detail"], name
    for value in (1, ["a"], True):
        refused = _post(client, "rewrite", text="会议改到三点", variables={"style": value})
        assert refused.status_code == 422 and refused.json()["code"] == "invalid_input"
    assert _post(client, "rewrite", text="会议改到三点", variables={"style": None}).status_code == 200


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "text"),
        ({"text": 1}, "text"),
        ({"text": None}, "text"),
        ({"text": ""}, "text"),
        ({"text": " \n"}, "text"),
        ({"text": "a\x00b"}, "text"),
        ({"text": "a", "unknown": 1}, "unknown"),
        ({"text": "a", "inputs": [{"text": "b"}]}, "text"),
        ({"text": "a" * 100_001}, "text"),
        ({"text": "a", "deadline_s": 0}, "deadline_s"),
        ({"text": "a", "deadline_s": -1}, "deadline_s"),
        ({"text": "a", "deadline_s": 601}, "deadline_s"),
        ({"text": "a", "labels": []}, "labels"),
        ({"text": "a", "labels": "正面"}, "labels"),
        ({"text": "a", "labels": ["x" * 201]}, "labels.0"),
        ({"text": "a", "variables": []}, "variables"),
        ({"text": "a", "variables": {"": "x"}}, "variables..[key]"),
        ({"text": "a", "variables": {f"v{i}": 1 for i in range(33)}}, "variables"),
        ({"text": "a", "variables": {"x": {"y": 1}}}, "variables.x"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [{"text": "a"}] * (MAX_ITEMS + 1)}, "inputs"),
        ({"inputs": "abc"}, "inputs"),
        ({"inputs": ["abc"]}, "inputs.0"),
        ({"inputs": [{"text": "a"}], "variables": {}}, "variables"),
        ([], ""),
        ("text", ""),
        (None, ""),
    ],
)
def test_bodies_that_do_not_fit_are_refused_with_the_place(client: httpx.Client, body: Any, place: str) -> None:
    """And without the value: what was sent is not sent back."""
    response = client.post("/v1/tasks/sentiment", json=body)
    problem = response.json()
    assert response.status_code == 422 and problem["code"] == "invalid_input"
    assert problem["errors"][0]["place"].startswith(place) and problem["errors"][0]["message"]


@pytest.mark.parametrize("text", ['"\\ud800"', '"a\\udfffb"', '"\\u0000"'])
def test_texts_that_are_no_unicode_are_refused(client: httpx.Client, text: str) -> None:
    """In every place where a text may stand; the refusal itself has to be valid UTF-8."""
    for body in (
        f'{{"text": {text}}}',
        f'{{"text": "a", "labels": [{text}]}}',
        f'{{"text": "a", "variables": {{"style": {text}}}}}',
        f'{{"text": "a", "variables": {{{text}: "b"}}}}',
        f'{{"text": "a", {text}: "b"}}',
    ):
        response = client.post("/v1/tasks/rewrite", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == 422, body
        response.content.decode("utf-8")
    many = f'{{"inputs": [{{"text": "好"}}, {{"text": {text}}}]}}'
    body = client.post("/v1/tasks/sentiment", content=many, headers={"Content-Type": "application/json"}).json()
    assert body["num_errors"] == 1 and body["results"][1]["error"]["code"] == "invalid_input"


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_only_json_is_read(client: httpx.Client, content_type: str) -> None:
    """What a form of another site could send without asking is not even parsed."""
    content = json.dumps({"text": "好"})
    response = client.post("/v1/tasks/sentiment", content=content, headers={"Content-Type": content_type})
    assert response.status_code == 422


def test_many_answers_come_in_order_and_a_bad_one_stops_none(ai: AllInOne, server: Live, client: httpx.Client) -> None:
    """Each failure stands where its answer would, with what it would be alone."""
    inputs: list[dict[str, Any]] = [{"text": text} for text in TEXTS * 8]
    bad: dict[int, dict[str, Any]] = {
        3: {"text": ""},
        10: {"text": "字" * 5_000},
        17: {"text": "好", "variables": {"nothing": 1}},
    }
    for place, item in bad.items():
        inputs[place] = item
    body = _post(client, "sentiment", inputs=inputs).json()
    Answers.model_validate(body)
    assert body["num_errors"] == 3 and len(body["results"]) == len(inputs)
    alone = {text: dict(ai.run("sentiment", text).probs or {}) for text in TEXTS}
    for place, (item, result) in enumerate(zip(inputs, body["results"], strict=True)):
        if place in bad:
            single = _post(client, "sentiment", **item)
            assert result["error"]["status"] == single.status_code
        else:
            assert result["probs"] == alone[item["text"]]
    codes = [body["results"][place]["error"]["code"] for place in bad]
    assert codes == ["invalid_input", "context_length_exceeded", "invalid_input"]
    ids = [result["id"] for result in body["results"] if "id" in result]
    assert len(set(ids)) == len(inputs) - 3
    assert all(server.context.store.answers.get("local", id).task == "sentiment" for id in ids)


def test_only_bad_inputs_are_an_answer_too(client: httpx.Client) -> None:
    """200, for the request itself was fine."""
    response = _post(client, "sentiment", inputs=[{"text": ""}, {"text": " "}])
    assert response.status_code == 200 and response.json()["num_errors"] == 2


def test_more_inputs_than_the_queue_holds_are_all_answered(tmp_path: Path) -> None:
    """A full queue moves: the inputs of one request wait for their turn."""
    with (
        AllInOne(load_model(backend="fake"), PromptLibrary.load(), max_queue=4) as ai,
        live(ai, tmp_path) as server,
        server.client() as client,
    ):
        body = _post(client, "sentiment", inputs=[{"text": f"文本 {n}"} for n in range(200)]).json()
        assert body["num_errors"] == 0 and len(body["results"]) == 200


def test_many_clients_get_their_own_answers(ai: AllInOne, server: Live) -> None:
    """Nothing is crossed between connections that wait at the same time."""
    expected = {text: dict(ai.run("sentiment", text).probs or {}) for text in TEXTS}

    def ask(number: int) -> bool:
        with server.client() as client:
            texts = [TEXTS[(number + step) % len(TEXTS)] for step in range(6)]
            return all(_post(client, "sentiment", text=text).json()["probs"] == expected[text] for text in texts)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(32)))


def test_a_deadline_that_passes_is_a_408(client: httpx.Client) -> None:
    """The client's own wish, not a fault of the server."""
    response = _post(client, "chat", text="给我讲一个很长的故事", deadline_s=1e-9)
    assert response.status_code == 408 or response.json()["finish_reason"] == "deadline"
    many = _post(client, "sentiment", inputs=[{"text": f"时间 {n}"} for n in range(3)], deadline_s=1e-9).json()
    assert [result["error"]["code"] for result in many["results"]] == ["deadline_exceeded"] * 3


def test_a_client_that_goes_is_not_computed_for(ai: AllInOne, server: Live) -> None:
    """The engine hears of it, whether it was one answer or hundreds."""
    before = ai.stats().num_cancelled
    text = "给我讲一个很长的故事，越长越好"
    for body in ({"text": text}, {"inputs": [{"text": f"{text}{n}"} for n in range(100)]}):
        is_running = threading.Event()

        def leave(body: dict[str, Any] = body, is_running: threading.Event = is_running) -> None:
            request = json.dumps(body).encode()
            head = f"POST /v1/tasks/chat HTTP/1.1\r\nHost: a\r\nContent-Length: {len(request)}\r\n"
            with server.connect() as connection:
                connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + request)
                until(lambda: ai.stats().num_running > 0)
                is_running.set()

        leave()
        assert is_running.is_set()
        until(lambda: ai.stats().num_running == ai.stats().num_waiting == 0)
    assert ai.stats().num_cancelled > before
    until(lambda: server.context.drain.num_running == 0)


def test_each_key_may_do_what_it_may(ai: AllInOne, tmp_path: Path) -> None:
    """Tasks, rate and tokens of the day; a refusal says which, and when to come back."""
    file = KeyFile(tmp_path / "keys.json")
    _, shop = file.add("shop", allowed_tasks=("sentiment",))
    _, slow = file.add("slow", max_requests_per_minute=2)
    _, poor = file.add("poor", max_tokens_per_day=1)
    with live(ai, tmp_path, keys=KeyRing(file=file)) as server, server.client() as client:

        def ask(key: str, task: str = "sentiment", **body: Any) -> httpx.Response:
            return client.post(f"/v1/tasks/{task}", json=body or {"text": TEXTS[0]}, headers={"X-API-Key": key})

        assert ask(shop).status_code == 200 and ask(shop, "sentiment.en").status_code == 200
        refused = ask(shop, "emotion")
        assert refused.status_code == 403 and refused.json()["code"] == "not_allowed"
        assert ask(shop, "not-there").status_code == 403
        listed = client.get("/v1/tasks", headers={"X-API-Key": shop}).json()["tasks"]
        assert [task["name"] for task in listed] == ["sentiment", "sentiment.en"]
        assert client.get("/v1/tasks/emotion", headers={"X-API-Key": shop}).status_code == 403

        assert [ask(slow).status_code for _ in range(3)] == [200, 200, 429]
        refused = ask(slow)
        assert refused.json()["code"] == "too_many_requests" and 1 <= int(refused.headers["retry-after"]) <= 30

        assert ask(poor).status_code == 200
        refused = ask(poor)
        assert refused.status_code == 429 and "tokens of today" in refused.json()["detail"]


def test_another_keys_answers_are_not_seen_in_the_cache(ai: AllInOne, tmp_path: Path) -> None:
    """Neither by `cached` nor by an answer that comes too soon: what one key asked is computed anew for another."""
    file = KeyFile(tmp_path / "keys.json")
    (_, ann), (_, bob) = file.add("ann"), file.add("bob")
    with live(ai, tmp_path, keys=KeyRing(file=file)) as server, server.client() as client:

        def ask(key: str) -> dict[str, Any]:
            text = {"text": "只有安知道的一句话"}
            return client.post("/v1/tasks/sentiment", json=text, headers={"X-API-Key": key}).json()

        first, again, other = ask(ann), ask(ann), ask(bob)
        assert (first["cached"], again["cached"], other["cached"]) == (False, True, False)
        assert first["probs"] == again["probs"] == other["probs"]


def test_a_task_that_changes_is_served_at_once(tmp_path: Path) -> None:
    """Files are looked at again before each answer, also when the task is new."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    with (
        AllInOne.load(backend="fake", tasks=folder) as ai,
        live(ai, tmp_path) as server,
        server.client() as client,
    ):
        assert _post(client, "mine", text="好").status_code == 404
        text = (BUILTIN_DIRECTORY / "title.prompt").read_text(encoding="utf-8")
        (folder / "mine.prompt").write_text(text, encoding="utf-8")
        first = _post(client, "mine", text="好").json()
        (folder / "mine.prompt").write_text(text.replace("{{text}}", "……{{text}}"), encoding="utf-8")
        assert _post(client, "mine", text="好").json()["version"] != first["version"]
