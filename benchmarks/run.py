#!/usr/bin/env python3
"""Measure the product and what people would use instead, side by side on this machine.

    python benchmarks/run.py [--peers ours,transformers,…] [--work one_label,…] [--repeat N] [--json FILE]

Peers are tables of peers.toml; `setup_peers.py` installs them. One that is not there, or that crashes, is reported as
such. The models are made once, in the cache folder. `report.py` turns the JSON into README.md.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from allinone.backends.cpu import detect_cpu
from allinone.bench.machine import BusyWatch, read_load
from allinone.config import Settings as ProductSettings
from benchmarks.measuring import Contestant, Measured, measure_rounds
from benchmarks.prompts import Prompts, describe, make_prompts
from benchmarks.report import show_rows
from benchmarks.rows import compare
from benchmarks.settings import ROOT, PeerSettings, Settings, read_settings
from benchmarks.shapes import SHAPES, num_linear_parameters, prepare, size_bytes
from benchmarks.wire import PeerFailed, PeerProcess, peer_command
from benchmarks.works import WORKS, Work

FORMAT = 1


def read_arguments(settings: Settings) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=",".join(settings.peers), help="default: all, %(default)s")
    parser.add_argument("--work", help=f"default: all, {','.join(work.name for work in WORKS)}")
    parser.add_argument("--shape", choices=SHAPES, default="qwen1.5-0.5b")
    parser.add_argument("--repeat", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of each peer (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where models are kept (default: the product's cache folder)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    parser.add_argument("--log", type=Path, metavar="FILE", help="append what the peers print")
    args = parser.parse_args()
    args.peers = list(dict.fromkeys(args.peers.split(",")))
    args.work = args.work.split(",") if args.work else [work.name for work in WORKS]
    for what, given, known in (
        ("peer", args.peers, list(settings.peers)),
        ("work", args.work, [work.name for work in WORKS]),
    ):
        if unknown := sorted(set(given) - set(known)):
            parser.error(f"unknown {what}: {', '.join(unknown)}; known: {', '.join(known)}")
    if args.repeat < 1 or args.threads < 1:
        parser.error("--repeat and --threads must be at least 1")
    args.folder = args.folder or ProductSettings.from_env().cache / "benchmarks"
    return args


def make_contestant(peer: PeerSettings, args: argparse.Namespace, settings: Settings) -> Contestant:
    """A peer with its model made.

    Raises:
        PeerFailed: its environment is missing, or the model cannot be made.
    """
    if not peer.environment.python.exists():
        raise PeerFailed(f"not installed: {peer.install}")
    forms = [form for form in (peer.form, peer.second_form) if form]
    try:
        models = [str(prepare(form, args.shape, args.folder, settings.commands)) for form in forms]
    except (OSError, subprocess.CalledProcessError, ImportError) as error:
        raise PeerFailed(f"its model could not be made: {type(error).__name__}: {error}") from error
    load = {"op": "load", "model": models[0], "threads": args.threads, "distributions": peer.distributions}
    if len(models) > 1:
        load["second_model"] = models[1]
    command = peer_command(peer.adapter, peer.environment.python)
    return Contestant(
        name=peer.name,
        start=functools.partial(PeerProcess, peer.name, command, threads=args.threads, log=args.log),
        load=load,
        works=peer.works,
        num_slow=peer.num_slow,
        is_ours=peer.adapter == "ours",
        is_server=peer.is_server,
    )


def describe_machine(threads: int) -> dict[str, Any]:
    """What the figures depend on besides the peers."""
    cpu = detect_cpu()
    return {
        "cpu": cpu.name,
        "features": list(cpu.features),
        "kernel": cpu.kernel,
        "cores": cpu.num_physical_cores,
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "allinone": metadata.version("qwen-allinone"),
        "commit": read_commit(),
    }


def read_commit() -> str | None:
    """The checkout's commit, marked where files differ from it; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def describe_peers(
    peers: Sequence[PeerSettings], measured: Measured, contestants: Sequence[Contestant], missing: Mapping[str, str]
) -> dict[str, Any]:
    """What is said about each peer besides its figures."""
    loads = {one.name: one.load for one in contestants}
    described = {}
    for peer in peers:
        entry: dict[str, Any] = {"title": peer.title, "quantization": peer.quantization, "is_server": peer.is_server}
        if peer.name in missing:
            entry["missing"] = missing[peer.name]
        else:
            paths = [Path(loads[peer.name][key]) for key in ("model", "second_model") if key in loads[peer.name]]
            entry["model_bytes"] = sum(map(size_bytes, paths))
            entry |= measured.facts.get(peer.name, {})
        described[peer.name] = entry
    return described


def measure(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Everything, as it is written to the JSON file."""
    peers = [settings.peers[name] for name in args.peers]
    works = [work for work in WORKS if work.name in args.work]
    prompts = make_prompts(args.folder / args.shape / "tasks")
    contestants, missing = [], {}
    for peer in peers:
        try:
            contestants.append(make_contestant(peer, args, settings))
        except PeerFailed as error:
            missing[peer.name] = str(error)
            say(f"{peer.name}: {error}")

    @functools.cache
    def ask(work: Work, round_number: int, repeats: int) -> dict[str, Any]:
        return work.ask(prompts, round_number, repeats)

    load_before = read_load()
    watch = BusyWatch(load=load_before, num_cores=os.cpu_count() or 1)
    started = time.perf_counter()
    measured = measure_rounds(contestants, works, ask, num_rounds=args.repeat, say=say)
    busy = watch.judge()
    return {
        "format": FORMAT,
        "shape": args.shape,
        "machine": describe_machine(args.threads),
        "load": {"before": load_before, "after": read_load(), "is_busy": busy.is_busy, "reason": busy.reason},
        "took_s": round(time.perf_counter() - started),
        "rounds": args.repeat,
        "works": [work.name for work in works],
        "prompts": describe_prompts(prompts, args.shape),
        "peers": describe_peers(peers, measured, contestants, missing),
        "figures": measured.figures,
        "failures": measured.failures,
    }


def describe_prompts(prompts: Prompts, shape: str) -> dict[str, Any]:
    """Token counts, and what one label costs in products."""
    eight = prompts.label_requests(8, seed=0, num_tasks=8)
    chat = prompts.chat_request(eight[0]["text"])
    own = len(eight[0]["ids"])
    return {
        "label": describe(eight[:1]),
        "labels_8": describe(eight),
        "chat": describe([chat]),
        "served": describe([prompts.served_request(eight[0]["text"])]),
        "ops_per_label": 2 * num_linear_parameters(SHAPES[shape]) * own,
    }


def say(text: str) -> None:
    """Progress, on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Measure, write, and show what the targets make of it."""
    settings = read_settings()
    args = read_arguments(settings)
    result = measure(args, settings)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(show_rows(compare(result)))
    for failure in result["failures"]:
        print(f"failed: {failure['peer']}, {failure['work']}, round {failure['round'] + 1}: {failure['reason']}")
    for name, peer in result["peers"].items():
        if "missing" in peer:
            print(f"missing: {name}: {peer['missing']}")
    if result["load"]["is_busy"]:
        print(f"THE MACHINE WAS BUSY: {result['load']['reason']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
