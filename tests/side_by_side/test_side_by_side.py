"""Prompts, models, settings and the report of the benchmark."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def test_prompts_have_the_counts_that_are_promised(tmp_path: Path) -> None:
    """62 to 72 tokens of instructions and 28 of one's own, whatever the bundled tokenizer is; no text twice."""
    from benchmarks.prompts import PREFIX_TOKENS, make_prompts

    prompts = make_prompts(tmp_path)
    requests = prompts.label_requests(40, seed=1, num_tasks=8)
    assert [len(one["prefix"]) for one in requests] == list(PREFIX_TOKENS) * 5
    assert {len(one["ids"]) for one in requests} == {28}
    assert len({one["text"] for one in requests}) == 40
    assert len({tuple(one["prefix"][:12]) for one in requests}) == 8, "tasks share no beginning that could be cached"
    assert requests == make_prompts(tmp_path).label_requests(40, seed=1, num_tasks=8)
    assert requests != prompts.label_requests(40, seed=2, num_tasks=8)
    assert len(prompts.label_token_ids) == len(set(prompts.label_token_ids)) == 2
    assert len(prompts.ids(2_450, seed=0)) == 2_450
    served = prompts.served_request(requests[0]["text"])
    assert len(served["prefix"]) > 60 and len(served["ids"]) == 28, "a chat differs in its instructions only"
    assert len(set(prompts.spoken_token_ids)) == 8


def test_all_formats_hold_the_same_weights(tmp_path: Path) -> None:
    """Answers can be compared only if everybody loads the same model."""
    from benchmarks.shapes import SHAPES, write_gguf, write_safetensors

    from allinone.models.files import open_model
    from allinone.models.random_weights import RandomWeights

    config = replace(SHAPES["tiny"], hidden_size=64, intermediate_size=96, num_heads=4, num_kv_heads=2, head_dim=16)
    write_safetensors(tmp_path / "folder", RandomWeights(config))
    source = open_model(tmp_path / "folder").weights
    files = {}
    for kind in ("bf16", "q8_0"):
        write_gguf(tmp_path / f"{kind}.gguf", source, kind)
        files[kind] = open_model(tmp_path / f"{kind}.gguf")
        shape = files[kind].weights.config
        assert shape.rms_norm_eps == pytest.approx(config.rms_norm_eps)  # a float32 there
        assert replace(shape, rms_norm_eps=config.rms_norm_eps) == config == source.config
        assert files[kind].tokenizer.tokenize("你好<|im_end|>", control=True) == open_model(
            tmp_path / "folder"
        ).tokenizer.tokenize("你好<|im_end|>", control=True)
    for name in source.tensor_names():
        values = source.load(name)
        assert np.abs(values - RandomWeights(config).load(name)).max() <= np.abs(values).max() / 256
        np.testing.assert_array_equal(files["bf16"].weights.load(name), values)
        assert np.abs(files["q8_0"].weights.load(name) - values).max() <= np.abs(values).max() / 200


def test_settings_name_what_is_there() -> None:
    """A peer without an adapter, or a target against nobody, would first be seen in a run of an hour."""
    from benchmarks.rows import ROWS
    from benchmarks.settings import read_settings
    from benchmarks.works import METRICS, WORKS

    settings = read_settings()
    works = {work.name for work in WORKS}
    for peer in settings.peers.values():
        assert (ROOT / "benchmarks" / "peers" / f"{peer.adapter}.py").is_file()
        assert set(peer.works or ()) <= works
        assert peer.form in {"safetensors", "compiled", *settings.commands} or peer.form.endswith(".gguf")
        is_by_us = peer.install.startswith("make") or peer.name == "ours"
        assert is_by_us or settings.environments[peer.install.split()[-1]].requirements
    assert {name for row in ROWS for name in (*row.against, row.own)} <= set(settings.peers)
    for row in ROWS:
        assert len({settings.peers[name].is_server for name in (*row.against, row.own)}) == 1, "they do the same works"
    assert all(row.metric in METRICS or row.of for row in ROWS)


def _result() -> dict[str, Any]:
    """Two rounds of three peers that measured, one that crashed and one that is not installed."""
    seconds = {"ours": (0.02, 0.03), "transformers": (1.0, 0.9), "ctranslate2": (0.05, 0.06)}
    figures: list[dict[str, Any]] = [
        {"round": number, "peer": name, "work": "one_label", "one_label_s": values[number]}
        for name, values in seconds.items()
        for number in (0, 1)
    ]
    served = {"ours_server": (80.0, 90.0), "llama_server": (8.0, 10.0)}
    figures += [
        {"round": number, "peer": name, "work": "served_labels", "served_labels_per_s": values[number]}
        for name, values in served.items()
        for number in (0, 1)
    ]
    memory = {"ours_server": 9 * 10**8, "llama_server": 12 * 10**8}
    figures += [
        {"round": 0, "peer": name, "work": "served_memory", "served_peak_bytes": value}
        for name, value in memory.items()
    ]
    overhead = {"whole_s": 0.0206, "extend_s": 0.0203, "engine_s": 0.02}
    figures += [{"round": 0, "peer": "ours", "work": "overhead", **overhead}]
    figures += [
        {"round": 0, "peer": name, "work": "agreement", "next_tokens": ids}
        for name, ids in {"transformers": [1, 2, 3, 4], "ours": [1, 2, 3, 9], "ctranslate2": [1, 0, 0, 0]}.items()
    ]
    failure = {"round": 1, "peer": "llamacpp", "work": "one_label", "reason": "crashed: SIGSEGV"}
    titles = {"ours": "allinone", "llamacpp": "llama.cpp", "openvino": "OpenVINO"}
    titles |= {"transformers": "HF", "ctranslate2": "CT2"}
    return {
        "format": 1, "shape": "tiny", "rounds": 2, "took_s": 60, "works": ["one_label"], "figures": figures,
        "failures": [failure], "load": {"before": 0.1, "after": 1.9, "is_busy": True, "reason": "others used 40 %"},
        "machine": {
            "cpu": "A CPU", "features": ["avx512_vnni"], "kernel": "k", "cores": 2, "threads": 2, "system": "Linux x",
            "python": "3.11.0", "allinone": "0.1.0", "commit": "abc1234",
        },
        "prompts": {
            "label": "68 + 28", "labels_8": "62 to 72 + 28", "chat": "40 + 50", "served": "93 + 28",
            "ops_per_label": 1_000,
        },
        "peers": {
            name: {"title": title, "quantization": "int8", "versions": {"lib": "1.2"}, "installed_bytes": 10**8}
            for name, title in titles.items()
        }
        | {"openvino": {"title": "OpenVINO", "quantization": "int8", "missing": "not installed: setup"}}
        | {name: {"title": name.upper(), "quantization": "int8", "is_server": True} for name in served},
    }  # fmt: skip


def test_ratios_are_taken_round_by_round() -> None:
    """The median of ratios, not the ratio of medians: what slowed one round slowed both sides of it."""
    from benchmarks.rows import compare

    rows = {one.row.title: one for one in compare(_result())}
    against_transformers = rows["one label, against transformers"]
    assert against_transformers.ratios == pytest.approx((50, 30))
    assert against_transformers.median == pytest.approx(40) and against_transformers.verdict == "must met"
    against_best = rows["one label, against the best engine"]
    assert against_best.ratios == pytest.approx((2.5, 2.0))
    assert against_best.note.startswith("best: ctranslate2; without llamacpp, xllamacpp, openvino")
    overhead = rows["our code around the engine's own call, one label: added time"]
    assert overhead.ratios == pytest.approx((0.03,)) and overhead.verdict == "aim reached"
    assert rows["decode, one stream, against transformers"].verdict == "not measured"
    assert rows["installed dependencies, part of transformers'"].verdict == "MUST MISSED"


def test_servers_are_compared_with_servers() -> None:
    """The product's server against llama.cpp's, not against what either does in process."""
    from benchmarks.rows import compare

    rows = {one.row.title: one for one in compare(_result())}
    labels = rows["`allinone serve`: labels/s over 8 tasks, against llama.cpp's server"]
    assert labels.ratios == pytest.approx((10, 9)) and labels.verdict == "aim reached"
    memory = rows["`allinone serve`: peak memory, part of llama.cpp's server's"]
    assert memory.ratios == pytest.approx((0.75,)) and memory.verdict == "aim reached"
    chat = rows["`allinone serve`: first token of a chat, 8 clients, part of llama.cpp's server's"]
    assert chat.verdict == "not measured" and chat.note == "without llama_server"


def test_missed_target_is_called_missed() -> None:
    """Below the must there is no other word for it."""
    from benchmarks.rows import compare

    result = _result()
    for figure in result["figures"]:
        if figure["peer"] == "ours" and "one_label_s" in figure:
            figure["one_label_s"] = 0.5
    assert compare(result)[0].verdict == "MUST MISSED"


def test_report_is_deterministic_and_hides_nothing() -> None:
    """Same results, same bytes; crashed, missing and doubtful peers and a busy machine are on the page."""
    from benchmarks.report import draw_pictures, join_runs, write_readme

    page = write_readme(join_runs(_result(), {}), "x.json")
    assert page == write_readme(join_runs(json.loads(json.dumps(_result())), {}), "x.json")
    assert "{{" not in page
    assert "llama.cpp, one_label, round 2: crashed: SIGSEGV" in page
    assert "OpenVINO: not installed: setup" in page
    assert "others used 40 %" in page and "doubtful" in page
    assert "CT2: 1 of 4 — **this is not the same model" in page and "allinone: 3 of 4\n" in page
    assert "| one label, against transformers | 30 × | 45 × | **40 ×** (30 × to 50 ×) | must met |" in page
    in_process, over_http = page.split("### Over HTTP")[0].split("## Figures")[1], page.split("### Over HTTP")[1]
    assert "OURS_SERVER" not in in_process, "servers have a table of their own"
    assert "| labels a second over 8 tasks, 32 connections | 85 /s | 9 /s |" in over_http
    assert "(93 + 28 tokens" in page
    pictures = draw_pictures(_result())
    assert set(pictures) == {"waiting.svg", "cost.svg"} and pictures == draw_pictures(_result())
    assert "![Waiting, shorter is better](pictures/waiting.svg)" in page and "throughput.svg" not in page


def test_servers_are_compared_with_each_other() -> None:
    """How many replies begin alike; nothing is said where only one was asked."""
    from benchmarks.report import show_served_agreement

    result = _result()
    first, second = list(result["peers"])[:2]
    result["figures"] += [{"peer": first, "round": 0, "work": "served_agreement", "served_texts": ["好", "了", "我"]}]
    assert show_served_agreement(result) == "Not compared."
    result["figures"] += [{"peer": second, "round": 0, "work": "served_agreement", "served_texts": ["好", "在", "我"]}]
    assert (
        "say the same after 2 of 3 messages; 4 different ones occur, the commonest in 1 answers"
        in show_served_agreement(result)
    )


def test_later_runs_fill_gaps_and_replace_nothing() -> None:
    """A work that was measured wrongly is taken out and asked again; its neighbours stay what they were."""
    from benchmarks.report import find_agreement, join_runs, show_later

    first = _result()
    whole = find_agreement(first)
    first["figures"] = [f for f in first["figures"] if not (f["peer"] == "ours" and "next_tokens" in f)]
    assert "ours" not in find_agreement(first)
    again = _result()
    for figure in again["figures"]:
        if figure["peer"] != "ours" and "next_tokens" in figure:
            figure["next_tokens"] = [-1] * len(figure["next_tokens"])

    joined = join_runs(first, {"again.json": again})

    assert find_agreement(joined) == whole
    assert "agreement of allinone (results/again.json)" in show_later(joined)
    assert join_runs(first, {})["figures"] == first["figures"]


def test_bars_are_drawn_to_scale() -> None:
    """Half the value, half the bar; text is escaped."""
    from xml.etree import ElementTree

    from benchmarks.charts import Bar, draw

    bars = [Bar(label=f"<{value}>", value=value, low=value, high=value, text="x") for value in (10.0, 5.0)]
    root = ElementTree.fromstring(draw({"a & b": bars}))
    widths = [float(rect.get("width", "")) for rect in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths[0] == pytest.approx(2 * widths[1])
    assert {"a & b", "<10.0>"} <= {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}


def test_page_in_the_checkout_is_what_its_results_give() -> None:
    """README.md is never edited by hand: change the template, then run `benchmarks/report.py`."""
    from benchmarks.report import draw_pictures, join_runs, write_readme

    folder = ROOT / "benchmarks"
    if not (folder / "README.md").is_file():
        pytest.skip("no results yet")
    page = (folder / "README.md").read_text(encoding="utf-8")
    source = page.split("results/", 1)[1].split(":", 1)[0]
    later = re.findall(r"^- Measured later.*\(results/(.*)\)\.$", page, re.MULTILINE)
    runs = {name: json.loads((folder / "results" / name).read_text(encoding="utf-8")) for name in [source, *later]}
    result = join_runs(runs.pop(source), runs)
    assert page == write_readme(result, source)
    for name, picture in draw_pictures(result).items():
        assert (folder / "pictures" / name).read_text(encoding="utf-8") == picture
