"""Clients of `/v1/tasks`: one text, many texts, a deadline, and clients that go away before there is an answer.

Every finished answer is compared with the one that its text gets alone. Above: `http_driver.py`. Below:
`http_client.py`, `http_outcome.py`, `traffic.py`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any, Literal

from .driver import Answer as Alone
from .http_client import Answer, Client, ConnectionCut
from .http_outcome import Tally
from .traffic import Wish

JobFate = Literal["one", "many", "late", "gone"]
FATES: tuple[JobFate, ...] = ("one", "many", "late", "gone")
WEIGHTS = (62, 14, 12, 12)
MAX_ITEMS = 8
MAX_RETRY_S = 5.0


class JobClient:
    """A program that runs tasks, one request after the other.

    Args:
        client: its connection.
        key: names the owner in counts.
        alone: the answer that each wish gets with nobody else there.
    """

    def __init__(self, client: Client, *, key: str, alone: Mapping[Wish, Alone], tally: Tally, seed: int) -> None:
        self._client, self._key, self._alone, self._tally = client, key, alone, tally
        self._rng = random.Random(seed)
        self._wishes = list(alone)
        self._same = {wish.task: [other for other in alone if other.task == wish.task] for wish in alone}

    async def do_one(self) -> None:
        """One request to its end."""
        wish = self._rng.choice(self._wishes)
        fate = self._rng.choices(FATES, weights=WEIGHTS)[0]
        wishes, body = [wish], dict[str, Any](text=wish.text)
        if fate == "many":
            wishes = self._rng.choices(self._same[wish.task], k=self._rng.randrange(1, MAX_ITEMS + 1))
            body = {"inputs": [{"text": one.text} for one in wishes]}
        elif fate == "late":
            body["deadline_s"] = self._rng.choice((0.001, 0.05, 0.5, 5.0))
        abandon_after_s = self._rng.uniform(0.001, 0.2) if fate == "gone" else None
        kind = f"task, {fate}"
        while True:
            try:
                answer = await self._client.ask("POST", f"/v1/tasks/{wish.task}", body, abandon_after_s=abandon_after_s)
            except ConnectionCut as error:
                if abandon_after_s is None:
                    self._tally.lose(kind, str(error))
                else:
                    self._tally.end(kind, "left")
                return
            if answer.retry_after_s is None:
                break
            self._tally.num_refused += 1
            await asyncio.sleep(min(answer.retry_after_s, MAX_RETRY_S) * self._rng.uniform(0.5, 1))
        if fate == "many":
            self._check_many(kind, wishes, answer)
        else:
            self._check_one(kind, wish, answer)

    def _check_many(self, kind: str, wishes: list[Wish], answer: Answer) -> None:
        if answer.status != 200:
            self._tally.lose(kind, f"{answer.status} {answer.code}")
            return
        found = answer.json()
        self._tally.expect("the number of answers", len(found["results"]), len(wishes))
        failed = 0
        for wish, one in zip(wishes, found["results"], strict=False):
            failed += "error" in one
            if "error" not in one:
                self._tally.expect(f"{wish} among many", answer_in(one), self._alone[wish])
            elif ("error", one["error"]["code"]) != self._alone[wish]:
                self._tally.lose(kind, f"{one['error']['code']} in the place of an answer to {wish}")
                return
        self._tally.expect("the number of errors", found["num_errors"], failed)
        usages = [one["usage"] for one in found["results"] if "error" not in one]
        counts = {name: sum(usage[name] for usage in usages) for name in ("num_prompt_tokens", "num_output_tokens")}
        self._tally.finish(kind, "whole", key=self._key, usage=counts)

    def _check_one(self, kind: str, wish: Wish, answer: Answer) -> None:
        alone, is_late = self._alone[wish], kind == "task, late"
        if answer.status != 200:
            is_cut_json = is_late and alone[0] == "text" and answer.code == "output_parse"
            if (is_late and answer.code == "deadline_exceeded") or is_cut_json:
                self._tally.end(kind, "late")
            elif alone == ("error", answer.code):
                self._tally.end(kind, "refused as alone")
            else:
                self._tally.lose(kind, f"{answer.status} {answer.code}; {wish}; alone: {alone!r}")
            return
        found = answer.json()
        if is_late and found["finish_reason"] == "deadline":
            if alone[0] == "text" and not alone[1][0].startswith(found["text"]):
                self._tally.note_wrong(f"{wish}: {found['text']!r} does not begin {alone!r}")
            self._tally.end(kind, "part")
            return
        self._tally.expect(f"{wish}, {kind}", answer_in(found), alone)
        self._tally.finish(kind, "whole", key=self._key, usage=found["usage"])


def answer_in(found: Mapping[str, Any]) -> Alone:
    """What has to be the same whenever the question is; as `driver.answer_of`, of a result in JSON."""
    if found["kind"] == "label":
        return "label", found["probs"]
    return "text", (found["text"], found["finish_reason"])
