"""The works: what each peer is asked, and the figure that is made of its answers.

A work gives one message to a peer and turns the answer into named figures (`metrics`). `rows.py` compares them; this
file knows neither peers nor targets.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.prompts import NUM_TURNS, SERVED_CHAT, TURN_TOKENS, Prompts

NUM_IN_FLIGHT, NUM_TASKS, NUM_STREAMS = 32, 8, 16
NUM_ANSWERS_COMPARED = 32
NUM_SERVED_LABELS = 64
FEW_CLIENTS, MANY_CLIENTS, SERVED_TOKENS = 8, 32, 24
Message = dict[str, Any]
Metrics = dict[str, Any]
Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A figure: what it is called in a report, its unit, and which way is better."""

    title: str
    unit: Literal["s", "per_s", "bytes", "share"]
    better: Better


METRICS: Mapping[str, Metric] = {
    "load_s": Metric(title="from the start of the process to a loaded model", unit="s", better="lower"),
    "one_label_s": Metric(title="one label, cached prefix", unit="s", better="lower"),
    "labels_per_s": Metric(
        title=f"labels a second, {NUM_IN_FLIGHT} in flight, one task", unit="per_s", better="higher"
    ),
    "labels_8_per_s": Metric(title=f"labels a second over {NUM_TASKS} tasks", unit="per_s", better="higher"),
    "decode_1_per_s": Metric(title="decoded tokens a second, one stream", unit="per_s", better="higher"),
    "decode_16_per_s": Metric(title=f"decoded tokens a second, {NUM_STREAMS} streams", unit="per_s", better="higher"),
    "fused_reply_s": Metric(title="mood → reply in one pass, first reply token", unit="s", better="lower"),
    "apart_reply_s": Metric(title="label and then reply, first reply token", unit="s", better="lower"),
    "chat_50_s": Metric(title=f"first token of chat turn {NUM_TURNS}", unit="s", better="lower"),
    "peak_bytes": Metric(title="peak memory after labels and one stream", unit="bytes", better="lower"),
    "served_labels_per_s": Metric(
        title=f"labels a second over {NUM_TASKS} tasks, {NUM_IN_FLIGHT} connections", unit="per_s", better="higher"
    ),
    "served_first_8_s": Metric(title=f"first token of a chat, {FEW_CLIENTS} clients", unit="s", better="lower"),
    "served_first_32_s": Metric(title=f"first token of a chat, {MANY_CLIENTS} clients", unit="s", better="lower"),
    "served_peak_bytes": Metric(title="peak memory of the server after all of it", unit="bytes", better="lower"),
    "installed_bytes": Metric(title="installed dependencies", unit="bytes", better="lower"),
    "model_bytes": Metric(title="model on disk", unit="bytes", better="lower"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One thing to do.

    Attributes:
        ask: (prompts, round, repeats) -> the message.
        read: answer -> metrics.
        only_ours: asked of the product alone.
        is_slow: repeated as often as the peer's `num_slow` says.
        is_once: asked in the first round alone: the answer is always the same.
        is_served: asked of servers, over HTTP; the others are not.
    """

    name: str
    ask: Callable[[Prompts, int, int], Message]
    read: Callable[[Message], Metrics]
    only_ours: bool = False
    is_slow: bool = False
    is_once: bool = False
    is_served: bool = False


def _ask_one_label(prompts: Prompts, round_number: int, repeats: int) -> Message:
    requests = prompts.label_requests(repeats + 1, seed=1_000 + round_number)
    return {"op": "label", "requests": requests, "token_ids": prompts.label_token_ids}


def _ask_labels(num_tasks: int) -> Callable[[Prompts, int, int], Message]:
    def ask(prompts: Prompts, round_number: int, repeats: int) -> Message:
        count = (repeats + 1) * NUM_IN_FLIGHT
        requests = prompts.label_requests(count, seed=2_000 + 100 * num_tasks + round_number, num_tasks=num_tasks)
        batches = [requests[start : start + NUM_IN_FLIGHT] for start in range(0, count, NUM_IN_FLIGHT)]
        return {"op": "labels", "batches": batches, "token_ids": prompts.label_token_ids}

    return ask


def _ask_decode(num_streams: int, num_tokens: int) -> Callable[[Prompts, int, int], Message]:
    def ask(prompts: Prompts, round_number: int, repeats: int) -> Message:
        requests = prompts.label_requests(num_streams, seed=4_000 + 100 * num_streams + round_number)
        return {"op": "decode", "requests": requests, "num_tokens": num_tokens}

    return ask


def _ask_reply(prompts: Prompts, round_number: int, repeats: int) -> Message:
    texts = [one["text"] for one in prompts.label_requests(repeats + 1, seed=7_000 + round_number)]
    pairs = [(prompts.mood_request(text), prompts.chat_request(text)) for text in texts]
    return {"op": "reply", "pairs": pairs, "token_ids": prompts.label_token_ids}


def _ask_chat(prompts: Prompts, round_number: int, repeats: int) -> Message:
    history = prompts.ids((NUM_TURNS - 1) * TURN_TOKENS, seed=8_000 + round_number)
    turns = [prompts.ids(TURN_TOKENS // 2, seed=9_000 + 100 * round_number + turn) for turn in range(repeats + 1)]
    turns = [[300 + number, *turn] for number, turn in enumerate(turns)]  # no two begin alike
    return {"op": "chat", "history": history, "turns": turns}


def _ask_overhead(prompts: Prompts, round_number: int, repeats: int) -> Message:
    return {"op": "overhead", "requests": prompts.label_requests(repeats + 1, seed=11_000 + round_number)}


def _ask_agreement(prompts: Prompts, round_number: int, repeats: int) -> Message:
    return {"op": "next_tokens", "requests": prompts.label_requests(NUM_ANSWERS_COMPARED, seed=12_000)}


def _ask_served_labels(prompts: Prompts, round_number: int, repeats: int) -> Message:
    count = (repeats + 1) * NUM_SERVED_LABELS
    requests = prompts.label_requests(count, seed=13_000 + round_number, num_tasks=NUM_TASKS)
    batches = [requests[start : start + NUM_SERVED_LABELS] for start in range(0, count, NUM_SERVED_LABELS)]
    return {"op": "labels", "batches": batches, "token_ids": prompts.label_token_ids}


def _ask_served_chat(num_clients: int) -> Callable[[Prompts, int, int], Message]:
    def ask(prompts: Prompts, round_number: int, repeats: int) -> Message:
        seed = 14_000 + 100 * num_clients + round_number
        texts = [one["text"] for one in prompts.label_requests(num_clients * (repeats + 1), seed=seed)]
        return {
            "op": "served_chat",
            "system": prompts.served_system,
            "task": SERVED_CHAT,
            "clients": [texts[number::num_clients] for number in range(num_clients)],
            "num_tokens": SERVED_TOKENS,
            "token_ids": prompts.spoken_token_ids,
        }

    return ask


def _ask_served_texts(prompts: Prompts, round_number: int, repeats: int) -> Message:
    texts = [one["text"] for one in prompts.label_requests(NUM_ANSWERS_COMPARED, seed=15_000)]
    return {
        "op": "served_texts",
        "system": prompts.served_system,
        "task": SERVED_CHAT,
        "texts": texts,
        "token_ids": prompts.spoken_token_ids,
    }


def _median(key: str, name: str) -> Callable[[Message], Metrics]:
    return lambda answer: {name: statistics.median(answer[key])}


def _rate(name: str, count: int = NUM_IN_FLIGHT) -> Callable[[Message], Metrics]:
    return lambda answer: {name: count / statistics.median(answer["seconds"])}


def _read_reply(answer: Message) -> Metrics:
    names = {"fused_seconds": "fused_reply_s", "apart_seconds": "apart_reply_s"}
    return {name: statistics.median(answer[key]) for key, name in names.items() if key in answer}


WORKS: Sequence[Work] = (
    Work(name="one_label", ask=_ask_one_label, read=_median("seconds", "one_label_s")),
    Work(name="labels", ask=_ask_labels(1), read=_rate("labels_per_s"), is_slow=True),
    Work(name="limit", ask=lambda *_: {"op": "limit", "repeats": 10}, read=dict, only_ours=True),
    Work(
        name="decode_1", ask=_ask_decode(1, 64), read=lambda answer: {"decode_1_per_s": answer["tokens_per_s"]},
    ),
    Work(name="memory", ask=lambda *_: {"op": "memory"}, read=dict),
    Work(name="labels_8", ask=_ask_labels(NUM_TASKS), read=_rate("labels_8_per_s"), is_slow=True),
    Work(
        name="decode_16", ask=_ask_decode(NUM_STREAMS, 48),
        read=lambda answer: {"decode_16_per_s": answer["tokens_per_s"]},
    ),
    Work(name="reply", ask=_ask_reply, read=_read_reply, is_slow=True),
    Work(name="chat_50", ask=_ask_chat, read=_median("seconds", "chat_50_s"), is_slow=True),
    Work(name="overhead", ask=_ask_overhead, read=dict, only_ours=True),
    Work(name="agreement", ask=_ask_agreement, read=dict, is_once=True),
    Work(
        name="served_labels", ask=_ask_served_labels, read=_rate("served_labels_per_s", NUM_SERVED_LABELS),
        is_slow=True, is_served=True,
    ),
    Work(
        name="served_chat_8", ask=_ask_served_chat(FEW_CLIENTS), read=_median("seconds", "served_first_8_s"),
        is_slow=True, is_served=True,
    ),
    Work(
        name="served_chat_32", ask=_ask_served_chat(MANY_CLIENTS), read=_median("seconds", "served_first_32_s"),
        is_slow=True, is_served=True,
    ),
    Work(
        name="served_memory", ask=lambda *_: {"op": "memory"},
        read=lambda answer: {"served_peak_bytes": answer["peak_bytes"]}, is_served=True,
    ),
    Work(name="served_agreement", ask=_ask_served_texts, read=dict, is_served=True, is_once=True),
)  # fmt: skip
"""In this order: memory is read before long prompts and many streams make it another question."""
