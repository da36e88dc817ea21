"""For supervisors, for Prometheus, for the page: alive, ready, counted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from allinone import AllInOne
from allinone.engine.stats import EngineStats
from allinone.server.health import Status, read_rss_bytes
from allinone.server.key_file import KeyFile
from allinone.server.keys import KeyRing
from allinone.server.metrics import ENGINE_COUNTERS, Metrics
from allinone.server.settings import ServerSettings
from allinone.types import Result, Timings, Usage

from .live import Live, live

TEXT = "这句话不该出现在指标里"


@pytest.fixture(scope="module")
def ai() -> Iterator[AllInOne]:
    """The fake backend: counts are counts."""
    with AllInOne.load(backend="fake") as ai:
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


def _samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Name and labels → value, as Prometheus itself reads them."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_alive_and_ready(client: httpx.Client) -> None:
    """Without a key, and quickly."""
    assert client.get("/healthz").json()["status"] == "ok"
    assert client.get("/readyz").json()["status"] == "ready"


def test_a_server_whose_engine_stopped_is_not_ready(tmp_path: Path) -> None:
    """It lives, so that its supervisor can read why; but nobody should send it anything."""
    ai = AllInOne.load(backend="fake")
    with live(ai, tmp_path) as server, server.client() as client:
        ai.close()
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        assert client.post("/v1/tasks/sentiment", json={"text": "好"}).status_code == 503


def test_status_has_what_the_page_shows(client: httpx.Client) -> None:
    """As its own schema says; numbers are those of the engine."""
    client.post("/v1/tasks/sentiment", json={"text": "好"})
    client.post("/v1/tasks/rewrite", json={"text": "好"})
    body = client.get("/v1/status").json()
    status = Status.model_validate(body)
    assert status.model.name == "fake" and status.features.needs_key is False and status.num_workers == 1
    assert status.memory.kv_tokens > 0 and status.memory.max_kv_tokens >= status.memory.kv_tokens
    assert set(status.engine) == {field.name for field in fields(EngineStats)}
    assert status.latency.label_p50_s and status.latency.ttft_p95_s
    assert (status.memory.rss_bytes or 0) == 0 or (status.memory.rss_bytes or 0) > 10_000_000
    assert read_rss_bytes() is None or read_rss_bytes() == pytest.approx(status.memory.rss_bytes, rel=0.5)


def test_metrics_count_requests_by_route_and_status(client: httpx.Client) -> None:
    """Every label is one of few: no path, no text, no key."""
    before = _samples(client.get("/metrics").text)
    client.post("/v1/tasks/sentiment", json={"text": TEXT})
    client.post("/v1/tasks/nothing", json={"text": TEXT})
    client.get(f"/{TEXT}?q={TEXT}")
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    after = _samples(response.text)

    def grown(**labels: str) -> float:
        key = ("allinone_requests_total", frozenset(labels.items()))
        return after.get(key, 0) - before.get(key, 0)

    assert grown(method="POST", route="/v1/tasks/{name}", status="200") == 1
    assert grown(method="POST", route="/v1/tasks/{name}", status="404") == 1
    assert grown(method="GET", route="(unmatched)", status="404") == 1
    assert after["allinone_requests_in_flight", frozenset()] == 1  # this one
    assert after["allinone_tokens_total", frozenset({("kind", "prompt")})] > 0
    seconds = ("allinone_request_seconds_count", frozenset({("route", "/v1/tasks/{name}")}))
    assert after[seconds] - before.get(seconds, 0) == 2
    assert not re.search(r"[^\x00-\x7f]", response.text) and "local" not in response.text


def test_metrics_have_all_that_the_engine_counts(ai: AllInOne, client: httpx.Client) -> None:
    """A new count of the engine is shown, as what it is, without anybody thinking of it."""
    client.post("/v1/tasks/sentiment", json={"text": TEXT})
    text = client.get("/metrics").text
    values = {name: value for (name, labels), value in _samples(text).items() if not labels}
    stats = asdict(ai.stats())
    assert set(stats) >= ENGINE_COUNTERS
    for name, value in stats.items():
        plain = name.removeprefix("num_")
        plain = f"{plain.removesuffix('_s')}_seconds" if plain.endswith("_s") and "_per_" not in plain else plain
        shown = f"allinone_engine_{plain}" + ("_total" if name in ENGINE_COUNTERS else "")
        assert values[shown] == pytest.approx(value), name
    results = ai.results.stats()
    assert values["allinone_result_cache_hits_total"] == results.hits
    assert values["allinone_result_cache_misses_total"] == results.misses


def test_metrics_are_for_administrators_where_there_are_keys(ai: AllInOne, tmp_path: Path) -> None:
    """How busy others are is not everybody's business; the state of the server as a whole is."""
    file = KeyFile(tmp_path / "keys.json")
    (_, plain), (_, admin) = file.add("phone"), file.add("monitoring", is_admin=True)
    with live(ai, tmp_path, keys=KeyRing(file=file)) as server, server.client() as client:
        statuses = [
            [client.get(path, headers=headers).status_code for path in ("/metrics", "/v1/status")]
            for headers in ({}, {"X-API-Key": plain}, {"X-API-Key": admin})
        ]
        assert statuses == [[401, 401], [403, 200], [200, 200]]
        assert client.get("/v1/status", headers={"X-API-Key": plain}).json()["features"]["needs_key"]


def test_several_processes_answer_for_each_other(ai: AllInOne, tmp_path: Path) -> None:
    """Whichever of them is asked: Prometheus cannot choose, and counts that jump about are of no use."""
    settings = ServerSettings(num_workers=3, metrics_dir=str(tmp_path))
    workers = [Metrics(ai, replace(settings, worker=number)) for number in (1, 2, 3)]
    for number, metrics in enumerate(workers, 1):
        for _ in range(number):
            metrics.count_request(method="GET", route="/healthz", status=200, seconds=0.1)
        metrics.count_request(method="BREW", route="/healthz", status=405, seconds=0.1)
        metrics.leave()
    texts = [metrics.render().decode() for metrics in workers]
    for text in texts:
        found = _samples(text)
        for number in (1, 2, 3):
            labels = {"method": "GET", "route": "/healthz", "status": "200", "worker": str(number)}
            assert found["allinone_requests_total", frozenset(labels.items())] == number
            assert found["allinone_requests_in_flight", frozenset({("worker", str(number))})] == 0
            labels |= {"method": "OTHER", "status": "405"}
            assert found["allinone_requests_total", frozenset(labels.items())] == 1
        assert text.count("# TYPE allinone_requests_total counter") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.prom", "2.prom", "3.prom"]


def test_answers_from_the_cache_are_not_timed(ai: AllInOne) -> None:
    """They would make the model look faster than it is."""
    metrics = Metrics(ai, ServerSettings())
    result = Result(task="t", version="v", model="m", kind="label", usage=Usage(num_prompt_tokens=3))
    metrics.count_result(replace(result, cached=True, timings=Timings(total_s=0.0)))
    assert metrics.latency() == {"label_p50_s": None, "label_p95_s": None, "ttft_p50_s": None, "ttft_p95_s": None}
    metrics.count_result(replace(result, timings=Timings(total_s=0.25)))
    metrics.count_result(replace(result, kind="text", timings=Timings(ttft_s=0.5, total_s=9.0)))
    assert metrics.latency() == {"label_p50_s": 0.25, "label_p95_s": 0.25, "ttft_p50_s": 0.5, "ttft_p95_s": 0.5}
