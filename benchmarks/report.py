#!/usr/bin/env python3
"""Write README.md and its pictures from the results of `run.py`.

    python benchmarks/report.py benchmarks/results/NAME.json [LATER.json ...] [--folder DIR]

What a later run measured of works that the first one lacks is added, and named. The same results give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.charts import Bar, draw
from benchmarks.rows import ARTICLES, OURS, Compared, collect, compare
from benchmarks.settings import HERE, PeerSettings, read_settings
from benchmarks.works import METRICS

PICTURES: Mapping[str, tuple[str, Sequence[str]]] = {
    "waiting.svg": ("Waiting, shorter is better", ("one_label_s", "apart_reply_s", "chat_50_s", "load_s")),
    "throughput.svg": (
        "Throughput, longer is better",
        ("labels_per_s", "labels_8_per_s", "decode_1_per_s", "decode_16_per_s"),
    ),
    "cost.svg": ("Cost, shorter is better", ("peak_bytes", "installed_bytes", "model_bytes")),
}
MIN_AGREEMENT = 0.5
"""By chance one next token in a hundred thousand is the same; 8 bits leave far more than half of them, 4 bits a tenth
(of random weights, which have no margin to lose)."""
MIN_AGREEMENT_4_BIT = 0.03


def join_runs(first: Mapping[str, Any], later: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The first run, and of the later ones (by file) what it lacks; `later` says what came from where."""
    known = {(figure["peer"], figure["work"]) for figure in first["figures"]}
    figures, added = list(first["figures"]), dict[str, str]()
    for file, run in later.items():
        fresh = [figure for figure in run["figures"] if (figure["peer"], figure["work"]) not in known]
        figures += fresh
        works = sorted({f"{figure['work']} of {first['peers'][figure['peer']]['title']}" for figure in fresh})
        added[file] = ", ".join(works)
    return {**first, "figures": figures, "later": added}


def show_later(result: Mapping[str, Any]) -> str:
    """What was not measured in the run itself, as lines of the list at the top."""
    return "".join(
        f"\n- Measured later, by itself: {works} (results/{file})." for file, works in result["later"].items()
    )


def show_rows(compared: Sequence[Compared]) -> str:
    """The table of targets, in Markdown."""
    lines = ["| work | must | aim | measured (smallest to largest) | |", "| --- | --- | --- | --- | --- |"]
    for one in compared:
        row = one.row
        sign = "" if row.kind == "times" else "≥ " if row.is_floor else "≤ "
        must = "–" if row.must is None else f"{sign}{_show_ratio(one, row.must)}"
        found = "–"
        if one.ratios:
            found = f"**{_show_ratio(one, one.median)}** ({_show_ratio(one, min(one.ratios))} to "
            found += f"{_show_ratio(one, max(one.ratios))})"
        verdict = f"{one.verdict} ({one.note})" if one.note else one.verdict
        lines.append(f"| {row.title} | {must} | {sign}{_show_ratio(one, row.aim)} | {found} | {verdict} |")
    return "\n".join(lines)


def _show_ratio(one: Compared, value: float) -> str:
    if one.row.of is not None and one.row.title.startswith(("our code", "part of the machine")):
        return f"{value * 100:.1f} %".replace(".0 %", " %")
    text = f"{value:.3g}" if value < 10 else f"{value:.0f}"
    return f"{text} ×"


def show_value(metric: str, value: float) -> str:
    """A figure with its unit, in three digits."""
    unit = METRICS[metric].unit
    if unit == "bytes":
        return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
    return f"{value:.3g} /s" if value < 100 else f"{value:.0f} /s"


def show_figures(result: Mapping[str, Any], *, of_servers: bool = False) -> str:
    """Every figure of every peer that is a server, or is none: the median of the rounds."""
    figures = collect(result)
    names = [name for name, peer in result["peers"].items() if figures[name] and _is_server(peer) == of_servers]
    if not names:
        return "Not measured."
    titles = [result["peers"][name]["title"] for name in names]
    lines = [f"| | {' | '.join(titles)} |", "| --- |" + " --- |" * len(names)]
    for metric, about in METRICS.items():
        cells = [
            show_value(metric, statistics.median(rounds.values())) if (rounds := figures[name].get(metric)) else "–"
            for name in names
        ]
        if any(cell != "–" for cell in cells):
            lines.append(f"| {about.title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _is_server(peer: Mapping[str, Any]) -> bool:
    return peer.get("is_server", False)


def find_agreement(result: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Peer -> (next tokens that are those of the reference, next tokens compared); the reference is FP32."""
    answers: dict[str, list[int]] = {}
    for figure in result["figures"]:
        if "next_tokens" in figure:
            answers.setdefault(figure["peer"], figure["next_tokens"])
    reference = next((answers[name] for name in (*ARTICLES, OURS) if name in answers), None)
    if reference is None:
        return {}
    return {
        name: (sum(a == b for a, b in zip(ids, reference, strict=True)), len(reference))
        for name, ids in answers.items()
    }


def show_agreement(result: Mapping[str, Any]) -> str:
    """Who computes the same function, as far as their own quantisation allows."""
    lines = []
    for name, (same, total) in find_agreement(result).items():
        least = MIN_AGREEMENT_4_BIT if "Q4" in result["peers"][name]["quantization"] else MIN_AGREEMENT
        doubt = "" if same >= least * total else " — **this is not the same model; its figures do not count**"
        lines.append(f"- {result['peers'][name]['title']}: {same} of {total}{doubt}")
    return "\n".join(lines) or "Not measured."


def show_served_agreement(result: Mapping[str, Any]) -> str:
    """Whether the servers, asked the same, begin their replies alike."""
    texts = {one["peer"]: one["served_texts"] for one in result["figures"] if "served_texts" in one}
    if len(texts) < 2:
        return "Not compared."
    (name, first), *others = texts.items()
    return "\n".join(
        f"First token of a reply over HTTP, of eight allowed ones: {result['peers'][name]['title']} and"
        f" {result['peers'][other]['title']} say the same after"
        f" {sum(a == b for a, b in zip(first, said, strict=True))} of {len(first)} messages;"
        f" {len({*first, *said})} different ones occur, the commonest in {Counter(first).most_common(1)[0][1]} answers."
        for other, said in others
    )


def show_failures(result: Mapping[str, Any]) -> str:
    """What could not be measured, each reason once."""
    peers = result["peers"]
    lines = [f"- {peer['title']}: {peer['missing']}" for peer in peers.values() if "missing" in peer]
    rounds: dict[tuple[str, str, str], list[int]] = {}
    for failure in result["failures"]:
        rounds.setdefault((failure["peer"], failure["work"], failure["reason"]), []).append(failure["round"] + 1)
    for (name, work, reason), numbers in rounds.items():
        lines.append(f"- {peers[name]['title']}, {work}, round {', '.join(map(str, numbers))}: {reason}")
    return "\n".join(lines) or "Nothing."


def show_peer(peer: PeerSettings, facts: Mapping[str, Any]) -> str:
    """Who a peer is and how to get it."""
    versions = ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items())
    about = f"**{peer.title}** (`{peer.name}`{', ' + versions if versions else ''}): {peer.about}"
    return f"- {about} Weights / activations / keys and values: {peer.quantization}. Installed by `{peer.install}`."


def draw_pictures(result: Mapping[str, Any]) -> dict[str, str]:
    """File name -> SVG."""
    figures = collect(result)
    pictures = {}
    for file, (_, metrics) in PICTURES.items():
        panels = {
            METRICS[metric].title: bars for metric in metrics if (bars := _bars(metric, figures, result["peers"]))
        }
        if panels:
            pictures[file] = draw(panels)
    return pictures


def _bars(metric: str, figures: Mapping[str, Mapping[str, Mapping[int, float]]], peers: Mapping[str, Any]) -> list[Bar]:
    bars = []
    for name, peer in peers.items():
        if not _is_server(peer) and (rounds := figures[name].get(metric)):
            values = list(rounds.values())
            median = statistics.median(values)
            bars.append(
                Bar(
                    label=peer["title"], value=median, low=min(values), high=max(values),
                    text=show_value(metric, median), is_ours=name == OURS,
                )
            )  # fmt: skip
    return bars


def write_readme(result: Mapping[str, Any], source: str) -> str:
    """The whole page.

    Args:
        result: what `join_runs` made of what `run.py` wrote.
        source: name of the file of the first run.
    """
    machine, load, prompts = result["machine"], result["load"], result["prompts"]
    peers = read_settings().peers
    busy = f".\n\n**The machine was busy, so the figures are doubtful:** {load['reason']}." if load["is_busy"] else ""
    pictures = "\n\n".join(f"### {title}\n\n![{title}](pictures/{file})" for file, (title, _) in _drawn(result))
    about = "\n".join(show_peer(peer, result["peers"].get(name, {})) for name, peer in peers.items())
    template = (HERE / "README.template.md").read_text(encoding="utf-8")
    values = {
        "SOURCE": source,
        "SHAPE": result["shape"],
        "CPU": machine["cpu"],
        "FEATURES": ", ".join(machine["features"]),
        "CORES": str(machine["cores"]),
        "THREADS": str(machine["threads"]),
        "SYSTEM": f"{machine['system']}, Python {machine['python']}; commit {machine['commit'] or 'unknown'}",
        "ROUNDS": str(result["rounds"]),
        "MINUTES": f"{result['took_s'] / 60:.0f}",
        "LATER": show_later(result),
        "LOAD": f"{load['before']} before, {load['after']} after{busy or '; ' + load['reason'] + '.'}",
        "ROWS": show_rows(compare(result)),
        "FIGURES": show_figures(result),
        "SERVERS": show_figures(result, of_servers=True),
        "PICTURES": pictures,
        "AGREEMENT": show_agreement(result),
        "SERVED_AGREEMENT": show_served_agreement(result),
        "FAILURES": show_failures(result),
        "LABEL": prompts["label"],
        "LABELS_8": prompts["labels_8"],
        "CHAT": prompts["chat"],
        "SERVED_CHAT": prompts["served"],
        "PEERS": about,
    }
    for key, value in values.items():
        template = template.replace(f"{{{{{key}}}}}", value)
    return template


def _drawn(result: Mapping[str, Any]) -> list[tuple[str, tuple[str, Sequence[str]]]]:
    drawn = draw_pictures(result)
    return [(file, entry) for file, entry in PICTURES.items() if file in drawn]


def main() -> int:
    """Write the page and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="the run, and later ones that fill its gaps")
    parser.add_argument("--folder", type=Path, default=HERE, help="where README.md and pictures/ go")
    args = parser.parse_args()
    first, *others = args.results
    later = {file.name: json.loads(file.read_text(encoding="utf-8")) for file in others}
    result = join_runs(json.loads(first.read_text(encoding="utf-8")), later)
    pictures = args.folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for name, picture in draw_pictures(result).items():
        (pictures / name).write_text(picture, encoding="utf-8")
    (args.folder / "README.md").write_text(write_readme(result, first.name), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
