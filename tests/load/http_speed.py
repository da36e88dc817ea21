"""How fast labels come over HTTP: beside chats and without them, against the Python API one at a time and in bulk.

All of it on one task, with texts that were never asked before; what is compared is measured in turn. Above:
`http_driver.py`. Below: `http_client.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from itertools import islice
from typing import Any

from allinone import AllInOne

from .http_client import Answer, Client
from .traffic import PIECES

TASK = "sentiment"
NUM_CHATS, NUM_CONNECTIONS, BATCH_SIZE = 8, 32, 64
NUM_BATCHES_AT_ONCE = 2
"""So that a batch is there when the one before it ends: with one at a time the model waits between them."""
NUM_ROUNDS = 5
NUM_BESIDE_ROUNDS = 5
NUM_IN_BLOCK = 20

Connect = Callable[[], Client]


def fresh_texts(prefix: str) -> Iterator[str]:
    """Endless distinct texts of about ten to twenty tokens."""
    pieces = [*PIECES["zh"], *PIECES["en"]]
    for number in itertools.count():
        yield f"{pieces[number % len(pieces)]}，{prefix} {number}。"


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p95, in milliseconds."""
    ordered = sorted(seconds)
    places = {"p50_ms": 0.5, "p95_ms": 0.95}
    return {name: round(1_000 * ordered[int(share * (len(ordered) - 1))], 3) for name, share in places.items()}


class Chatter:
    """Chats without a pause until it is told to stop."""

    def __init__(self, client: Client, name: str) -> None:
        self._client, self._texts = client, fresh_texts(f"and {name}")
        self.num_tokens = 0
        self.must_stop = False

    async def run(self) -> None:
        """Reply after reply; each is read to its end."""
        while not self.must_stop:
            async with aclosing(self._client.events("POST", "/v1/reply", {"text": next(self._texts)})) as events:
                async for event in events:
                    if isinstance(event, Answer):
                        raise AssertionError(f"a chat was refused: {event.code}")
                    self.num_tokens += event.name == "token"
        self._client.cut()


async def measure_beside_chats(connect: Connect, *, num_labels: int) -> dict[str, Any]:
    """Labels one at a time, with nobody else there and while 8 chats stream, in rounds that take turns."""
    client, texts = connect(), fresh_texts("beside")
    rounds = [await _measure_beside(connect, client, texts, num_labels) for _ in range(NUM_BESIDE_ROUNDS)]
    client.cut()
    shares = sorted(loaded["p95_ms"] / unloaded["p95_ms"] for unloaded, loaded, _ in rounds)
    return {
        "unloaded": [unloaded for unloaded, _, _ in rounds],
        f"beside_{NUM_CHATS}_chats": [loaded for _, loaded, _ in rounds],
        "chat_events_per_s": round(statistics.median(rate for _, _, rate in rounds), 1),
        "p95_share": round(statistics.median(shares), 3),
        "p95_shares": [round(share, 3) for share in shares],
    }


async def _measure_beside(
    connect: Connect, client: Client, texts: Iterator[str], num_labels: int
) -> tuple[dict[str, float], dict[str, float], float]:
    """Percentiles alone and beside chats, and the chats' events a second."""
    alone = [await _label(client, next(texts)) for _ in range(num_labels // 2)]
    chatters = [Chatter(connect(), f"chat {number}") for number in range(NUM_CHATS)]
    chats = [asyncio.create_task(chatter.run()) for chatter in chatters]
    while not all(chatter.num_tokens for chatter in chatters):
        await asyncio.sleep(0.02)
    num_before, began = sum(chatter.num_tokens for chatter in chatters), time.perf_counter()
    beside = [await _label(client, next(texts)) for _ in range(num_labels)]
    rate = (sum(chatter.num_tokens for chatter in chatters) - num_before) / (time.perf_counter() - began)
    for chatter in chatters:
        chatter.must_stop = True
    await asyncio.gather(*chats)
    alone += [await _label(client, next(texts)) for _ in range(num_labels - num_labels // 2)]
    return percentiles(alone), percentiles(beside), rate


async def measure_overhead(connect: Connect, ai: AllInOne, *, num_labels: int) -> dict[str, Any]:
    """The same texts one at a time, over HTTP and through the Python API, in blocks that take turns."""
    client, texts = connect(), fresh_texts("overhead")
    over_http: list[float] = []
    direct: list[float] = []
    for number in range(-1, -(-num_labels // NUM_IN_BLOCK)):  # the first block fills caches
        block = list(islice(texts, NUM_IN_BLOCK))
        parts = [_label_block(client, block), _run_block(ai, block)]
        for place in (0, 1) if number % 2 else (1, 0):
            spent = await parts[place]
            if number >= 0:
                (over_http, direct)[place].extend(spent)
    client.cut()
    http_s, direct_s = statistics.median(over_http), statistics.median(direct)
    return {
        "http_ms": round(1_000 * http_s, 3),
        "python_ms": round(1_000 * direct_s, 3),
        "overhead_ms": round(1_000 * (http_s - direct_s), 3),
    }


async def measure_rates(connect: Connect, ai: AllInOne, *, num_labels: int) -> dict[str, Any]:
    """Labels a second: `ai.map`, batches of 64 over HTTP, and single requests on 32 connections, in turn."""
    texts = fresh_texts("rates")
    clients = [connect() for _ in range(NUM_CONNECTIONS)]
    ways: dict[str, Callable[[list[str]], Awaitable[None]]] = {
        "map": lambda block: _map_all(ai, block),
        "batches": lambda block: _post_batches(clients, block),
        "singles": lambda block: _post_singles(clients, block),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-1, NUM_ROUNDS):  # the first round fills caches
        block = list(islice(texts, num_labels))
        for name in ways if number % 2 else reversed(ways):
            began = time.perf_counter()
            await ways[name](block)
            if number >= 0:
                rates[name].append(len(block) / (time.perf_counter() - began))
    for client in clients:
        client.cut()
    found = {f"{name}_per_s": round(statistics.median(found), 1) for name, found in rates.items()}
    shares = {
        f"{name}_share": round(statistics.median(a / b for a, b in zip(rates[name], rates["map"], strict=True)), 3)
        for name in ("batches", "singles")
    }
    return {**found, **shares}


async def _label(client: Client, text: str) -> float:
    """Seconds of one label."""
    began = time.perf_counter()
    answer = await client.ask("POST", f"/v1/tasks/{TASK}", {"text": text})
    spent = time.perf_counter() - began
    _require_ok(answer)
    return spent


async def _label_block(client: Client, texts: list[str]) -> list[float]:
    return [await _label(client, text) for text in texts]


async def _run_block(ai: AllInOne, texts: list[str]) -> list[float]:
    spent: list[float] = []
    for text in texts:
        began = time.perf_counter()
        ai.run(TASK, text)
        spent.append(time.perf_counter() - began)
    return spent


async def _map_all(ai: AllInOne, texts: list[str]) -> None:
    for _ in ai.map(TASK, texts):
        pass


async def _post_batches(clients: list[Client], texts: list[str]) -> None:
    batches = [texts[start : start + BATCH_SIZE] for start in range(0, len(texts), BATCH_SIZE)]
    bodies = iter([{"inputs": [{"text": text} for text in batch]} for batch in batches])
    await asyncio.gather(*(_post_all(client, bodies) for client in clients[:NUM_BATCHES_AT_ONCE]))


async def _post_singles(clients: list[Client], texts: list[str]) -> None:
    bodies = iter([{"text": text} for text in texts])
    await asyncio.gather(*(_post_all(client, bodies) for client in clients))


async def _post_all(client: Client, bodies: Iterator[dict[str, Any]]) -> None:
    """Take a body and post it, until none is left."""
    for body in bodies:
        answer = await client.ask("POST", f"/v1/tasks/{TASK}", body)
        _require_ok(answer)
        assert not answer.json().get("num_errors")


def _require_ok(answer: Answer) -> None:
    if answer.status != 200:
        raise AssertionError(f"a label was refused: {answer.status} {answer.code}")
