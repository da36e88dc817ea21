"""`allinone bench` as a user runs it. Shapes only: how fast this machine is, no test may ask."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from .conftest import PROGRAM, Run


@pytest.mark.slow
def test_quick_bench_of_the_bundled_model(run: Run) -> None:
    """One object with every figure, from real cold starts to the memory of real processes."""
    done = run("bench", "--quick", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["bench"] == 1 and document["model"].startswith("bundled-") and document["quick"] is True
    assert document["workload"]["label_tokens"] in range(24, 29)
    assert document["workload"]["history_tokens"] > 49 * 10
    assert {
        "cold_start_s", "label_p50_s", "label_p90_s", "labels_per_s_1", "labels_per_s_8", "labels_per_s_32",
        "labels_per_s_8_tasks", "decode_tokens_per_s_1", "decode_tokens_per_s_4", "decode_tokens_per_s_16",
        "reply_ttft_s", "separate_ttft_s", "reply_ratio", "chat_turn_50_ttft_s",
    } <= set(document["figures"])  # fmt: skip
    for name, figure in document["figures"].items():
        assert 0 < figure["low"] <= figure["value"] <= figure["high"], name
        assert figure["samples"], name


def test_ctrl_c_during_a_bench(environment: dict[str, str]) -> None:
    """Ends at once, with the child process that it waits for, and prints no half of a report."""
    command = [PROGRAM, "bench", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "Measuring …\n".encode()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output == b"" and errors == b"Stopped.\n"
