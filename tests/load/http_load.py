"""A load over HTTP: so many clients at once, the server's memory meanwhile, and what is left over afterwards.

Connects the clients with a server and with the answers that they must get. Above: `http_driver.py`,
`test_http_load.py`. Below: `http_chats.py`, `http_jobs.py`, `http_server.py`.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from allinone import AllInOne

from .driver import MAX_GROWTH_BYTES, answer_alone
from .driver import Answer as Alone
from .http_chats import ChatClient, Script, hold_alone, sample_scripts
from .http_client import Client, ConnectionCut, Watch
from .http_jobs import JobClient
from .http_outcome import Said, Tally
from .http_server import Server
from .traffic import Wish, sample_wishes

LEFTOVER_TIMEOUT_S = 90.0
Step = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What every question is answered with nobody else there."""

    scripts: dict[Script, list[Said]]
    wishes: dict[Wish, Alone]

    @classmethod
    def collect(
        cls, ai: AllInOne, *, num_scripts: int, num_wishes: int, seed: int, max_characters: int = 9_000
    ) -> Known:
        """Ask one after the other, through the Python API."""
        rng = random.Random(seed)
        scripts = sample_scripts(rng, num_scripts, max_characters=min(600, max_characters))
        wishes = sample_wishes(rng, num_wishes, max_characters=max_characters)
        return cls(
            scripts={script: hold_alone(ai, script) for script in scripts},
            wishes={wish: answer_alone(ai, wish) for wish in wishes},
        )


@dataclass(slots=True)
class Load:
    """A load that has run: what became of the requests, the server's memory meanwhile, and what it left over.

    Attributes:
        memory: (seconds, bytes), about once a second.
        early_tokens: by key, of the first quarter: keys are checked one after the other, and whose was first is ahead.
    """

    tally: Tally = field(default_factory=Tally)
    memory: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    early_tokens: Counter[str] = field(default_factory=Counter[str])
    seconds: float = 0.0
    open_before: dict[str, int] = field(default_factory=dict[str, int])
    open_after: dict[str, int] = field(default_factory=dict[str, int])
    leftovers: dict[str, int] = field(default_factory=dict[str, int])

    def memory_at(self, share: float) -> int:
        """Bytes that the server held when this share of the time had passed; the mean of a twentieth around it."""
        near = [held for when, held in self.memory if abs(when - share * self.seconds) <= self.seconds / 20]
        nearest = min(self.memory, key=lambda sample: abs(sample[0] - share * self.seconds))[1]
        return round(statistics.mean(near or [nearest]))

    def memory_between(self, start: float, end: float) -> int:
        """Mean of the bytes that the server held between these shares of the time."""
        return round(statistics.mean(held for when, held in self.memory if start <= when / self.seconds <= end))

    @property
    def is_flat(self) -> bool:
        """Whether the last quarter held no more than the third, to speak of.

        Means of quarters, because conversations come and go in waves of about a minute and their keys and values with
        them; not the first half, because with hundreds of clients a conversation lasts for minutes, and until the first
        ones have ended there are more of them at every moment.
        """
        return self.memory_between(0.75, 1.0) - self.memory_between(0.5, 0.75) <= MAX_GROWTH_BYTES

    @property
    def unfairness(self) -> float | None:
        """How much more work the key with the most was given than the one with the least, the first quarter left out;
        None where one was given none.
        """
        tokens = self.tally.tokens_by_key
        counts = [tokens[key] - self.early_tokens[key] for key in tokens]
        return round(max(counts) / min(counts) - 1, 4) if counts and min(counts) > 0 else None


async def run_load(
    server: Server, known: Known, *, num_clients: int, seconds: float | None = None, count: int = 0, seed: int = 0
) -> Load:
    """Let the clients work, for so long or so many conversations and jobs; then look at what is left.

    `num_clients` chat; a tenth as many more run tasks, at least one for each key.
    """
    load, watch = Load(open_before=server.num_open()), Watch()
    if seconds is not None:
        asyncio.get_running_loop().call_later(seconds / 4, lambda: load.early_tokens.update(load.tally.tokens_by_key))
    left = iter(range(count))
    deadline = None if seconds is None else time.monotonic() + seconds

    def is_over() -> bool:
        return deadline is not None and time.monotonic() > deadline

    def goes_on() -> bool:
        return next(left, None) is not None if deadline is None else not is_over()

    clients: list[Client] = []

    def connect(key: str) -> Client:
        clients.append(Client(server.address, key, watch))
        return clients[-1]

    crowd = Crowd(server.keys, known, load.tally, connect, is_over)
    steps = crowd.steps(num_clients=num_clients, seed=seed)
    watching, sampling = asyncio.create_task(watch.run()), asyncio.create_task(_sample_memory(server, load))
    began = time.monotonic()
    await asyncio.gather(*(_repeat(step, goes_on, load.tally) for step in steps))
    load.seconds = time.monotonic() - began
    for client in clients:
        client.cut()
    sampling.cancel()
    load.memory.append((load.seconds, (await server.status_later())["memory"]["rss_bytes"]))
    await _delete_all(server, watch, load.tally)
    load.leftovers = await _find_leftovers(server, watch)
    load.open_after = server.num_open()
    watching.cancel()
    await asyncio.gather(watching, sampling, return_exceptions=True)
    return load


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who takes part: keys have equally many clients, as far as that goes."""

    keys: Sequence[str] = field(repr=False)
    known: Known
    tally: Tally
    connect: Callable[[str], Client]
    is_over: Callable[[], bool]

    def steps(self, *, num_clients: int, seed: int) -> list[Step]:
        """What each of them does again and again."""
        keys = self.keys
        num_jobs = max(len(keys), num_clients // 10 // len(keys) * len(keys))
        chats = [self._chat(keys[number % len(keys)], 1_000 * seed + number) for number in range(num_clients)]
        jobs = [self._job(keys[number % len(keys)], 1_000 * seed - 1 - number) for number in range(num_jobs)]
        return [*(chat.hold_one for chat in chats), *(job.do_one for job in jobs)]

    def _chat(self, key: str, seed: int) -> ChatClient:
        return ChatClient(
            self.connect(key),
            self.connect(key),
            key=_name(key),
            alone=self.known.scripts,
            tally=self.tally,
            seed=seed,
            is_over=self.is_over,
        )

    def _job(self, key: str, seed: int) -> JobClient:
        return JobClient(self.connect(key), key=_name(key), alone=self.known.wishes, tally=self.tally, seed=seed)


def _name(key: str) -> str:
    """What a key is called in counts: its public part."""
    return key.split("_")[1]


async def _repeat(step: Step, goes_on: Callable[[], bool], tally: Tally) -> None:
    while goes_on():
        try:
            await step()
        except ConnectionCut as error:
            tally.lose("aside", str(error))
        except Exception as error:  # a client that breaks is a finding, and the others go on
            tally.lose("client", f"{type(error).__name__}: {error}")


async def _sample_memory(server: Server, load: Load) -> None:
    began = time.monotonic()
    while True:
        load.memory.append((time.monotonic() - began, (await server.status_later())["memory"]["rss_bytes"]))
        await asyncio.sleep(1)


async def _delete_all(server: Server, watch: Watch, tally: Tally) -> None:
    """Delete what is stored, so that nothing may be left in the server either."""

    async def delete_own(key: str) -> None:
        client = Client(server.address, key, watch)
        while listed := (await client.ask("GET", "/v1/conversations?limit=100")).json()["conversations"]:
            for one in listed:
                answer = await client.ask("DELETE", f"/v1/conversations/{one['id']}")
                tally.expect("the answer to a deletion", answer.status, 204)
        client.cut()

    await asyncio.gather(*map(delete_own, server.keys))


async def _find_leftovers(server: Server, watch: Watch) -> dict[str, int]:
    """What the server still holds once everything has ended; only shared prefixes may be there."""
    deadline = time.monotonic() + LEFTOVER_TIMEOUT_S
    client = Client(server.address, server.keys[0], watch)
    while True:
        # A step more: what was dropped last is freed by then, and counted. A text never asked before, or the result
        # cache would answer and no step be run.
        await client.ask("POST", "/v1/tasks/sentiment", {"text": f"好 {time.time_ns()}"})
        client.cut()
        status = await server.status_later()
        engine = status["engine"]
        found = {
            "running": status["queue"]["num_running"],
            "waiting": status["queue"]["num_waiting"],
            "streams": status["num_streams"],
            "sessions": engine["num_resident_sessions"],
            "sequences": engine["num_sequences"] - engine["num_prefixes"],
            "kv_tokens": status["memory"]["kv_tokens"] - engine["num_prefix_tokens"],
        }
        if not any(found.values()) or time.monotonic() > deadline:
            return {name: number for name, number in found.items() if number}
        await asyncio.sleep(0.5)
