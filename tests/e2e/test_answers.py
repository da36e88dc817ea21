"""What a stranger types first, on the bundled model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Run

SENTENCE = "今天的实验终于成功了,太棒了!"


def test_two_lines_are_both_answered(run: Run) -> None:
    """Each line: its mood, then a reply."""
    done = run(stdin=f"{SENTENCE}\n我今天心情不好\n")
    assert done.returncode == 0, done.stderr
    moods = [line for line in done.stdout.splitlines() if "LLM 情感判断: " in line]
    assert moods == ["😄 LLM 情感判断: 正面", "😢 LLM 情感判断: 负面"]
    assert len(done.stdout.splitlines()) >= 4


def test_english_interface(run: Run) -> None:
    """`--lang en` changes the mood line; the sentence may be in any language."""
    done = run("--lang", "en", stdin="What a wonderful day, I love it!\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "😄 Mood: positive"


def test_label_as_json(run: Run) -> None:
    """The fields that programs read."""
    done = run("run", "sentiment", "--json", SENTENCE)
    record = json.loads(done.stdout)
    assert done.returncode == 0
    assert record["label"] == "正面" and record["name"] == "positive"
    assert sum(record["probs"].values()) == pytest.approx(1)
    assert record["p_max"] == record["probs"]["正面"]
    assert record["version"] and record["model"].startswith("bundled-") and record["timings"]["total_s"] > 0


def test_labels_by_english_name(run: Run) -> None:
    """A subset of the labels, renormalised."""
    done = run("run", "sentiment", "--json", "--labels", "positive,negative", SENTENCE)
    record = json.loads(done.stdout)
    assert list(record["probs"]) == ["正面", "负面"] and record["label"] == "正面"
    assert sum(record["probs"].values()) == pytest.approx(1)


def test_62_lines_of_which_one_is_broken(run: Run, tmp_path: Path) -> None:
    """61 answers in order, the bad line named as users count, exit 1."""
    path = tmp_path / "F.jsonl"
    lines = [json.dumps({"text": f"第{n}次来,还是很好吃", "id": n}, ensure_ascii=False) for n in range(1, 63)]
    lines[60] = '{"text": "no end'
    path.write_text("\n".join(lines), encoding="utf-8")
    done = run("run", "sentiment", "--file", path, "--json")
    assert done.returncode == 1
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [*range(1, 61), 62]
    assert f"{path}:61: " in done.stderr


def test_unknown_task_suggests_another(run: Run) -> None:
    """Exit 2."""
    done = run("run", "sentimnt", "x")
    assert done.returncode == 2
    assert "Did you mean 'sentiment'?" in done.stderr


def test_doctor_measures(run: Run) -> None:
    """On the real model, healthy."""
    done = run("doctor", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0, report["findings"]
    assert report["model"]["decode_tokens_per_s"] > 0
    assert report["model"]["name"].startswith("bundled-")


def test_own_task_in_five_minutes(run: Run, tmp_path: Path) -> None:
    """Written by a command, run, and checked, with no Python."""
    options = ("--kind", "label", "--labels", "紧急=urgent,普通=normal", "--description", "工单紧急程度")
    assert run("tasks", "new", "urgency", *options, "--tasks", tmp_path).returncode == 0
    done = run("run", "urgency", "--tasks", tmp_path, "--json", "服务器全部宕机")
    assert json.loads(done.stdout)["label"] in ("紧急", "普通")
    assert run("tasks", "check", "urgency", "--tasks", tmp_path, "--files-only").returncode == 0


def test_text_task_is_one_text(run: Run) -> None:
    """A generated answer ends by itself or at its limit, and is printed as text."""
    done = run("run", "translate", "--json", "你好")
    record = json.loads(done.stdout)
    assert record["kind"] == "text" and record["text"] is not None
    assert record["finish_reason"] in ("stop", "length")
