"""Clients of `/v1/reply`: they hold conversations, lose their connection, come back, stop replies, check every event.

A `Script` is what is said in one conversation; with seeded prompts its answers are the same whenever it is asked, so
each is compared with the answers that it gets alone. Above: `http_driver.py`. Below: `http_client.py`,
`http_outcome.py`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from allinone import AllInOne
from allinone.errors import AllInOneError

from .http_client import Answer, Client, ConnectionCut
from .http_outcome import Kept, Reading, Said, Tally
from .traffic import sample_text

MAX_AWAY_S = 0.3
"""How long a client is gone before it comes back; the server waits longer."""
MAX_RETRY_S = 5.0
ChatFate = Literal["read", "resume", "stop", "leave"]
FATES: tuple[ChatFate, ...] = ("read", "resume", "stop", "leave")
WEIGHTS = (50, 32, 10, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One conversation: its language, and what is said in it."""

    language: Literal["zh", "en"]
    texts: tuple[str, ...]
    is_stored: bool


def sample_scripts(rng: random.Random, count: int, *, max_characters: int = 600) -> list[Script]:
    """Conversations of one to four turns, short texts far more often; some are not stored and have one turn."""
    scripts: list[Script] = []
    for _ in range(count):
        is_stored = rng.random() < 0.75
        texts = tuple(
            sample_text(rng, int(4 * (max_characters / 4) ** (rng.random() ** 2)))
            for _ in range(rng.choice((1, 1, 2, 2, 3, 4)) if is_stored else 1)
        )
        scripts.append(Script(language=rng.choice(("zh", "en")), texts=texts, is_stored=is_stored))
    return list(dict.fromkeys(scripts))


def hold_alone(ai: AllInOne, script: Script) -> list[Said]:
    """The answers to a script with nobody else there; the last one may be an error."""
    said: list[Said] = []
    conversation = ai.conversation(language=script.language)
    try:
        for text in script.texts:
            reply = ai.reply(text, conversation)
            result = reply.result()
            probs = dict(reply.mood.probs or {})
            said.append(
                Said(
                    probs=probs,
                    text=result.text or "",
                    finish_reason=result.finish_reason,
                    num_cached_tokens=result.usage.num_cached_tokens,
                )
            )
    except AllInOneError as error:
        said.append(Said(error=error.code))
    finally:
        conversation.close()
    return said


class Refusal(Exception):
    """The server answered with a problem instead of a stream."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.code)
        self.answer = answer


class ChatClient:
    """A person who chats, script after script.

    Args:
        client: reads the streams.
        helper: for what is asked while a stream is read; the same key.
        key: names the owner in counts.
        alone: the answers that each script gets with nobody else there.
        is_over: asked between turns: whether to leave it at that.
    """

    def __init__(
        self,
        client: Client,
        helper: Client,
        *,
        key: str,
        alone: Mapping[Script, Sequence[Said]],
        tally: Tally,
        seed: int,
        is_over: Callable[[], bool],
    ) -> None:
        self._client, self._helper, self._key, self._is_over = client, helper, key, is_over
        self._alone, self._tally = alone, tally
        self._scripts = list(alone)
        self._rng = random.Random(seed)

    async def hold_one(self) -> None:
        """One conversation, from its first turn to the last one or to where the client goes away."""
        script = self._rng.choice(self._scripts)
        conversation: str | None = None
        fate: ChatFate = "read"
        for number, wanted in enumerate(self._alone[script]):
            if number and self._is_over():
                return
            fate = self._rng.choices(FATES, weights=WEIGHTS)[0]
            if number < len(self._alone[script]) - 1 and fate in ("stop", "leave"):
                fate = "read"
            body: dict[str, Any] = {
                "text": script.texts[number],
                "language": script.language,
                "store": script.is_stored,
            }
            reading = await self._ask(body | ({"conversation": conversation} if conversation else {}), fate, wanted)
            if reading is None:
                return
            if reading.done is None and not begins(reading.text, wanted):
                await self._read_on(reading)  # it left, but has to know why this is another reply
            is_recomputed = self._check(reading, fate, wanted, turn=number + 1 if script.is_stored else None)
            conversation = (reading.label or {}).get("conversation")
            if conversation is not None:
                self._tally.recent.append(Kept(key=self._key, conversation=conversation, reply=reading.id))
            if reading.done is None:
                return
            if is_recomputed:
                break
        else:
            await self._look_back(script, conversation, fate)
        await self._peek()

    async def _ask(self, body: dict[str, Any], fate: ChatFate, wanted: Said) -> Reading | None:
        """Read one reply; None where there is none, which is counted."""
        kind = f"reply, {fate}"
        while True:
            reading = Reading(self._tally)
            try:
                await self._read(reading, body, fate)
                return reading
            except Refusal as refusal:
                answer = refusal.answer
                if answer.retry_after_s is not None and not reading.id:
                    self._tally.num_refused += 1
                    await asyncio.sleep(min(answer.retry_after_s, MAX_RETRY_S) * self._rng.uniform(0.5, 1))
                    continue
                if wanted.error and answer.code == wanted.error:
                    self._tally.end(kind, "refused as alone")
                else:
                    self._tally.lose(kind, f"{answer.status} {answer.code} after {reading.num_events} events")
            except ConnectionCut as error:
                self._tally.lose(kind, f"{error}, after {reading.num_events} events")
            return None

    async def _read(self, reading: Reading, body: dict[str, Any], fate: ChatFate) -> None:
        """Read to the end, or to where the client leaves; come back as often as the fate says."""
        num_cuts = {"resume": self._rng.choice((1, 1, 2)), "leave": 1}.get(fate, 0)
        stop_at = self._rng.randrange(1, 8) if fate == "stop" else 0
        method, path, headers = "POST", "/v1/reply", dict[str, str]()
        content: dict[str, Any] | None = body
        began = time.monotonic()
        while True:
            cut_at = reading.num_events + self._rng.randrange(1, 6) if num_cuts else 0
            async with aclosing(self._client.events(method, path, content, headers=headers)) as events:
                async for event in events:
                    if isinstance(event, Answer):
                        raise Refusal(event)
                    if not reading.id:
                        self._tally.first_event_s.append(time.monotonic() - began)
                    reading.take(event)
                    if cut_at and reading.num_events >= cut_at and not reading.is_over:
                        break
                    if stop_at and reading.num_events >= stop_at and not reading.is_over:
                        stop_at = 0
                        await self._stop(reading.id)
                else:
                    if not reading.is_over:
                        raise ConnectionCut("the stream ended without done")
                    return
            num_cuts -= 1
            if fate == "leave":
                return
            await asyncio.sleep(self._rng.uniform(0, MAX_AWAY_S))
            headers = {"Last-Event-ID": reading.last_event_id}
            if self._rng.random() < 0.5:
                method, path, content = "GET", f"/v1/reply/{reading.id}", None

    async def _stop(self, reply: str) -> None:
        answer = await self._aside("DELETE", f"/v1/reply/{reply}")
        self._tally.expect("the answer to a stop", answer.status, 204)

    def _check(self, reading: Reading, fate: ChatFate, wanted: Said, *, turn: int | None) -> bool:
        """Compare a reply with the one alone, and count its ending; whether what follows may differ, for its
        conversation had to be computed again.
        """
        kind, done = f"reply, {fate}", reading.done
        if wanted.error:
            self._tally.note_wrong(f"{reading.id} was answered; alone it is refused: {wanted.error}")
        self._tally.expect(f"the mood of {reading.id}", (reading.label or {}).get("probs"), wanted.probs)
        if reading.error is not None:
            self._tally.lose(kind, f"an error event: {reading.error.get('code')}")
            return False
        if done is None:
            self._expect_beginning(reading.id, reading.text, wanted)
            self._tally.end(kind, "left")
            return False
        is_part = done["finish_reason"] == "cancelled" and fate in ("stop", "leave")
        got, expected = (done["text"], done["finish_reason"]), (wanted.text, wanted.finish_reason)
        is_recomputed = done["usage"]["num_cached_tokens"] < wanted.num_cached_tokens
        if is_recomputed:
            self._tally.num_recomputed += 1
            self._tally.num_recomputed_equal += got == expected or (is_part and begins(done["text"], wanted))
        elif is_part:
            self._expect_beginning(reading.id, done["text"], wanted)
        else:
            self._tally.expect(f"the reply {reading.id}", got, expected)
            self._tally.expect(f"the turn of {reading.id}", done["turn"], turn)
        self._tally.finish(kind, "part" if is_part else "whole", key=self._key, usage=done["usage"])
        return is_recomputed

    def _expect_beginning(self, reply: str, text: str, wanted: Said) -> None:
        if not begins(text, wanted):
            self._tally.note_wrong(f"{reply}: {text!r} does not begin {wanted.text!r}")

    async def _read_on(self, reading: Reading) -> None:
        """The rest of a reply that was left."""
        headers = {"Last-Event-ID": reading.last_event_id}
        async with aclosing(self._client.events("GET", f"/v1/reply/{reading.id}", headers=headers)) as events:
            async for event in events:
                if isinstance(event, Answer):
                    return
                reading.take(event)

    async def _look_back(self, script: Script, conversation: str | None, fate: ChatFate) -> None:
        """Now and then, read the conversation as it is stored; often, delete it."""
        if conversation is None:
            return
        path = f"/v1/conversations/{conversation}"
        if fate != "stop" and self._rng.random() < 0.3:
            answer = await self._aside("GET", path)
            turns = answer.json()["turns"] if answer.status == 200 else []
            got = [(turn["text"], turn["mood"]["probs"], turn["reply"]) for turn in turns]
            said = zip(script.texts, self._alone[script], strict=True)
            self._tally.expect(f"what {conversation} holds", got, [(text, one.probs, one.text) for text, one in said])
            self._tally.end("conversation", "read again")
        if self._rng.random() < 0.5:
            answer = await self._aside("DELETE", path)
            self._tally.expect("the answer to a deletion", answer.status, 204)
            self._tally.end("conversation", "deleted")

    async def _peek(self) -> None:
        """Now and then, ask for what belongs to another key."""
        others = [kept for kept in self._tally.recent if kept.key != self._key]
        if others and self._rng.random() < 0.1:
            kept = self._rng.choice(others)
            for path in (f"/v1/conversations/{kept.conversation}", f"/v1/reply/{kept.reply}"):
                answer = await self._aside("GET", path)
                self._tally.expect("the answer to another key", (answer.status, answer.code), (404, "not_found"))
            self._tally.end("another key's", "not found")

    async def _aside(self, method: str, path: str) -> Answer:
        """Ask beside the stream, on a connection of its own that is not kept: there are hundreds of clients."""
        try:
            return await self._helper.ask(method, path)
        finally:
            self._helper.cut()


def begins(text: str, wanted: Said) -> bool:
    """Whether a reply that was not read to its end may be the wanted one."""
    return wanted.text.startswith(text.strip())
