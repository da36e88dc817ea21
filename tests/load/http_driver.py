"""Serves mixed clients and checks every answer: `python -m tests.load.http_driver --clients 500 --seconds 600`.

`allinone serve` runs as a process with keys; so many clients stream replies from it at once, and a tenth as many more
run tasks. What must hold: a finished answer equals, bit for bit, the answer computed alone; no event of another reply,
nothing of another key; every request ends in its own way; memory stays flat; keys with equally many clients get equal
shares; afterwards nothing is left over. Then its speed is measured against the Python API. Prints one JSON object; exit
code 1 when something did not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from allinone import AllInOne

from .driver import seeded_tasks
from .http_client import Client, Watch
from .http_load import Known, Load, run_load
from .http_server import Server, serving
from .http_speed import measure_beside_chats, measure_overhead, measure_rates, percentiles

PHASES = ("load", "beside", "overhead", "rates")
MAX_UNFAIRNESS, MAX_P95_SHARE, MAX_OVERHEAD_MS, MIN_RATE_SHARE = 0.2, 3.0, 5.0, 0.85


def main() -> None:
    """Run the phases and report."""
    args = read_arguments()
    with seeded_tasks() as tasks:
        report, load = run_phases(args, tasks)
    report["held"] = judge(report, load)
    print(json.dumps(report, ensure_ascii=False, indent=1))
    sys.exit(0 if all(report["held"].values()) else 1)


def read_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=500, help="who stream replies at once (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=600, help="of the load (default: %(default)s)")
    parser.add_argument("--keys", type=int, default=4, help="the clients are shared out over them")
    parser.add_argument("--scripts", type=int, default=150, help="distinct conversations")
    parser.add_argument("--wishes", type=int, default=150, help="distinct texts for tasks")
    parser.add_argument("--labels", type=int, default=400, help="of each way of measuring speed")
    parser.add_argument("--phases", default=",".join(PHASES), help="default: all, %(default)s")
    parser.add_argument("--model", default=None)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--kv-memory", type=int, default=None, help="of the server, in MB")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    args.phases = args.phases.split(",")
    if unknown := set(args.phases) - set(PHASES):
        parser.error(f"unknown phase: {', '.join(sorted(unknown))}; known: {', '.join(PHASES)}")
    return args


def run_phases(args: argparse.Namespace, tasks: Path) -> tuple[dict[str, Any], Load | None]:
    """Answers alone, then the load, then the speed, all with one server."""
    report: dict[str, Any] = {"cpu": os.cpu_count(), "model": args.model or "bundled"}
    load, known = None, None
    options = [*("--tasks", str(tasks)), "--no-cache"]
    options += ["--model", args.model] if args.model else []
    options += ["--threads", str(args.threads)] if args.threads else []
    options += ["--kv-memory", str(args.kv_memory)] if args.kv_memory else []
    if "load" in args.phases:
        with _open(args, tasks) as ai:
            known = Known.collect(ai, num_scripts=args.scripts, num_wishes=args.wishes, seed=args.seed)
        say(f"{len(known.scripts)} conversations and {len(known.wishes)} answers alone")
    with serving(*options, num_keys=args.keys) as server:
        if known is not None:
            load = asyncio.run(run_load(server, known, num_clients=args.clients, seconds=args.seconds, seed=args.seed))
            report["load"] = describe_load(load, num_clients=args.clients)
            say(f"load: {report['load']['requests']} requests")
            if failures := server.failures():
                say(f"the server's own failures:\n{failures}")
        if speeds := [phase for phase in args.phases if phase != "load"]:
            with _open(args, tasks) as ai:
                report |= asyncio.run(measure_speeds(server, ai, speeds, num_labels=args.labels))
    return report, load


def _open(args: argparse.Namespace, tasks: Path) -> AllInOne:
    return AllInOne.load(args.model, tasks=tasks, cache=False, threads=args.threads)


async def measure_speeds(server: Server, ai: AllInOne, phases: Sequence[str], *, num_labels: int) -> dict[str, Any]:
    """The phases about speed, one after the other."""
    watch = Watch()

    def connect() -> Client:
        return Client(server.address, server.keys[0], watch)

    report: dict[str, Any] = {}
    if "beside" in phases:
        report["beside"] = await measure_beside_chats(connect, num_labels=num_labels)
        say("labels beside chats")
    if "overhead" in phases:
        report["overhead"] = await measure_overhead(connect, ai, num_labels=num_labels)
        say("overhead")
    if "rates" in phases:
        report["rates"] = await measure_rates(connect, ai, num_labels=num_labels)
        say("rates")
    return report


def describe_load(load: Load, *, num_clients: int) -> dict[str, Any]:
    """The part of the report that is about right and wrong."""
    tally = load.tally
    return {
        "clients": num_clients,
        "seconds": round(load.seconds, 1),
        "requests": tally.endings.total(),
        "endings": dict(sorted(tally.endings.items())),
        "refused_and_tried_again": tally.num_refused,
        "recomputed": tally.num_recomputed,
        "recomputed_and_equal": tally.num_recomputed_equal,
        "num_wrong": len(tally.wrong),
        "wrong": tally.wrong[:20],
        "num_lost": len(tally.lost),
        "lost": tally.lost[:20],
        "left_over": load.leftovers,
        "texts_with_blanks_around": tally.num_padded,
        "memory_bytes_by_quarters": [load.memory_between(n / 4, (n + 1) / 4) for n in range(4)],
        "memory_bytes_by_tenths": [load.memory_at(tenth / 10) for tenth in range(1, 11)],
        "open_before": load.open_before,
        "open_after": load.open_after,
        "answers_by_key": dict(sorted(tally.answers_by_key.items())),
        "tokens_by_key": dict(sorted(tally.tokens_by_key.items())),
        "unfairness": load.unfairness,
        "first_event": percentiles(tally.first_event_s),
    }


def judge(report: dict[str, Any], load: Load | None) -> dict[str, bool]:
    """What had to hold and does."""
    held: dict[str, bool] = {}
    if load is not None:
        unfair = load.unfairness
        held |= {
            "no wrong answer": not load.tally.wrong,
            "nothing lost": not load.tally.lost,
            "nothing left over": not load.leftovers,
            "memory flat": load.is_flat,
            "fair between keys": unfair is not None and unfair <= MAX_UNFAIRNESS,
        }
    if "beside" in report:
        held["p95 of labels beside chats"] = report["beside"]["p95_share"] <= MAX_P95_SHARE
    if "overhead" in report:
        held["overhead of HTTP"] = report["overhead"]["overhead_ms"] <= MAX_OVERHEAD_MS
    if "rates" in report:
        held["labels a second over HTTP, in batches"] = report["rates"]["batches_share"] >= MIN_RATE_SHARE
        held["labels a second over HTTP, one a request"] = report["rates"]["singles_share"] >= MIN_RATE_SHARE
    return held


def say(text: str) -> None:
    """Progress, on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
