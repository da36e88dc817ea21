"""What every peer's process does: answer one JSON line with one JSON line, and say what it costs to be there.

    → {"op": "load", "model": "…", "threads": 2}            ← {"ok": {"load_s": 0.8, "versions": {…}}}
    → {"op": "label", "requests": [{…}, …]}                 ← {"ok": {"seconds": [0.03, …]}}
    → {"op": "chat", …}                                     ← {"error": "what went wrong"}

Standard library only: it runs in environments that have nothing of ours. Times are taken here, around the peer's own
call, so pipes and JSON do not count. What peers print on stdout goes to stderr. A prompt is `prefix + ids` of token
ids; `text` and `task` of a request are for the product alone, which tokenizes them itself, within the measured time.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

Request = dict[str, Any]
"""`prefix` and `ids` (token ids), `text`, `task`."""


class Peer:
    """What a peer can be asked. Requests are different texts, so no whole prompt is ever answered from a cache.

    The first request of each measurement is not counted: it fills caches. A work that a peer cannot do stays as it is
    here and is reported as such.
    """

    distributions: tuple[str, ...] = ()
    """Whose versions are reported."""

    def load(self, model: str, threads: int, second_model: str | None) -> None:
        """Import the library and load the model."""
        raise NotImplementedError

    def label(self, request: Request, token_ids: Sequence[int]) -> None:
        """Answer one label request; `token_ids` say the labels."""
        raise NotImplementedError

    def labels(self, requests: Sequence[Request], token_ids: Sequence[int]) -> None:
        """Answer many label requests that are there at the same time, in the way that suits the peer best."""
        raise NotImplementedError

    def next_tokens(self, requests: Sequence[Request]) -> list[int]:
        """The most likely next token after each prompt."""
        raise NotImplementedError

    def decode(self, requests: Sequence[Request], num_tokens: int) -> list[list[float]]:
        """Generate for all requests at the same time, whatever the tokens are; when each token of each came."""
        raise NotImplementedError

    def first_token(self, prompt: Sequence[int]) -> None:
        """Wait for the first token of a reply to a chat whose beginning may be cached."""
        raise NotImplementedError

    def forget_chat(self) -> None:
        """Let the memory of the last chat go, where the peer needs to be told."""

    def own_bytes(self) -> int:
        """Size on disk of what no list of installed files holds."""
        return 0

    # What is made of it.

    def time_label(self, *, requests: Sequence[Request], token_ids: Sequence[int]) -> dict[str, Any]:
        """Seconds of each request alone, but for the first."""
        return {"seconds": measure([lambda one=one: self.label(one, token_ids) for one in requests])}

    def time_labels(self, *, batches: Sequence[Sequence[Request]], token_ids: Sequence[int]) -> dict[str, Any]:
        """Seconds of each batch, but for the first."""
        return {"seconds": measure([lambda batch=batch: self.labels(batch, token_ids) for batch in batches])}

    def time_decode(self, *, requests: Sequence[Request], num_tokens: int) -> dict[str, Any]:
        """Tokens per second while all streams run: from the last one's first token to the first one's end."""
        times = self.decode(requests, num_tokens)
        lengths = sorted({len(stream) for stream in times})
        if len(times) != len(requests) or lengths[0] < 2:
            raise RuntimeError(f"{len(times)} streams of {lengths} tokens instead of {len(requests)} of {num_tokens}")
        start, end = max(stream[0] for stream in times), min(stream[-1] for stream in times)
        if end <= start:
            raise RuntimeError("the streams did not run at the same time")
        num_generated = sum(start < moment <= end for stream in times for moment in stream)
        return {"tokens_per_s": num_generated / (end - start), "lengths": lengths}

    def time_chat(self, *, history: Sequence[int], turns: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Seconds to the first token of a turn after a long chat, for each of several turns but the first."""
        try:
            return {"seconds": measure([lambda turn=turn: self.first_token([*history, *turn]) for turn in turns])}
        finally:
            self.forget_chat()

    def time_reply(self, *, pairs: Sequence[Sequence[Request]], token_ids: Sequence[int]) -> dict[str, Any]:
        """Seconds of a label and then the first token of a reply to the same text."""

        def label_then_reply(mood: Request, chat: Request) -> None:
            self.label(mood, token_ids)
            self.first_token([*chat["prefix"], *chat["ids"]])

        try:
            return {"apart_seconds": measure([lambda pair=pair: label_then_reply(*pair) for pair in pairs])}
        finally:
            self.forget_chat()

    def find_next_tokens(self, *, requests: Sequence[Request]) -> dict[str, Any]:
        """Next tokens, for comparison with other peers."""
        return {"next_tokens": self.next_tokens(requests)}

    def read_memory(self) -> dict[str, Any]:
        """Largest resident size of this process so far, and the size now."""
        return {"peak_bytes": peak_bytes(), "resident_bytes": resident_bytes()}


OPERATIONS = ("label", "labels", "decode", "chat", "reply")


def measure(calls: Iterable[Callable[[], object]]) -> list[float]:
    """Wall-clock seconds of each call but the first."""
    spent = []
    for call in calls:
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return spent[1:]


def serve(peer: Peer) -> None:
    """Answer requests on stdin until it ends. What else is written to stdout becomes stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = {"ok": answer_to(peer, json.loads(line))}
        except Exception as error:  # the peer's failure is a result, not the end
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {str(error)[:500] or 'no message'}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def answer_to(peer: Peer, message: dict[str, Any]) -> dict[str, Any]:
    """Do what one message asks."""
    operation = message.pop("op")
    if operation == "load":
        start = time.perf_counter()
        peer.load(message["model"], message["threads"], message.get("second_model"))
        load_s = time.perf_counter() - start
        versions = {name: metadata.version(name) for name in peer.distributions}
        cost = installed(message["distributions"])
        cost["installed_bytes"] += peer.own_bytes()
        return {"load_s": load_s, "versions": versions, **cost}
    if operation == "memory":
        return peer.read_memory()
    method = getattr(peer, f"time_{operation}", None) or getattr(peer, f"find_{operation}", None)
    if method is None:
        raise NotImplementedError(f"no {operation!r} here")
    return method(**message)


def installed(names: Iterable[str]) -> dict[str, Any]:
    """Size on disk of distributions and all that they depend on, and how many those are."""
    found: dict[str, int] = {}
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # for another platform, or not needed here
            continue
        found[name] = sum(_size(file.locate()) for file in distribution.files or ())
        for requirement in distribution.requires or ():
            if "extra ==" not in requirement:
                waiting.append(re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0])
    return {"installed_bytes": sum(found.values()), "num_distributions": len(found)}


def _size(path: Any) -> int:
    return path.stat().st_size if path.is_file() and path.suffix != ".pyc" else 0


def peak_bytes(process_id: int | None = None) -> int:
    """Largest resident size so far, of this or another process. (`ru_maxrss` of Linux begins at the parent's size.)"""
    status = _status_file(process_id)
    if status.is_file():
        return _kilobytes(status.read_text(), "VmHWM") * 1024
    if process_id is not None:
        raise NotImplementedError("this system does not say what another process holds")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes


def resident_bytes(process_id: int | None = None) -> int:
    """Resident size now, of this or another process; 0 where the system does not say."""
    status = _status_file(process_id)
    return _kilobytes(status.read_text(), "VmRSS") * 1024 if status.is_file() else 0


def _status_file(process_id: int | None) -> Path:
    return Path("/proc") / ("self" if process_id is None else str(process_id)) / "status"


def _kilobytes(status: str, key: str) -> int:
    return int(next(line for line in status.splitlines() if line.startswith(key)).split()[1])
