"""The evaluation's own arithmetic and rules: a figure on the card is worth as much as these."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="the recipe needs Python 3.11 (tomllib)")


def test_macro_f1_counts_every_class_the_same() -> None:
    from training.evaluate_metrics import accuracy, macro_f1

    gold, guess = [0, 0, 0, 0, 1, 2], [0, 0, 0, 1, 1, 0]
    assert accuracy(gold, guess) == pytest.approx(4 / 6)
    assert macro_f1(gold, guess, 3) == pytest.approx((2 * 3 / (4 + 4) + 2 * 1 / (1 + 2) + 0) / 3)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    from training.evaluate_metrics import calibration_error

    sure = np.tile([0.9, 0.1], (10, 1))
    assert calibration_error(sure, [0] * 9 + [1]) == pytest.approx(0.0)
    assert calibration_error(sure, [0] * 5 + [1] * 5) == pytest.approx(0.4)
    certain = np.array([[1.0, 0.0], [0.5, 0.5]])  # the outermost bins exist
    assert calibration_error(certain, [0, 0]) == pytest.approx(0.25)


def test_confidence_bins_hold_every_answer_once() -> None:
    from training.evaluate_metrics import confidence_bins

    probs = np.array([[0.9, 0.1], [0.91, 0.09], [0.5, 0.5], [0.0, 1.0]])
    low, high, highest = confidence_bins(probs, [0, 1, 0, 1])
    assert (low.cases, low.confidence, low.accuracy) == (1, 0.5, 1.0)
    assert (high.cases, high.confidence, high.accuracy) == (2, pytest.approx(0.905), 0.5)
    assert (highest.cases, highest.confidence, highest.accuracy) == (1, 1.0, 1.0)


def test_confusion_counts_have_the_right_labels_in_rows() -> None:
    from training.evaluate_metrics import confusion_counts

    assert confusion_counts([0, 0, 1, 2], [0, 1, 1, 0], 3) == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert confusion_counts([], [], 2) == [[0, 0], [0, 0]]


def test_correction_scores_follow_the_definition() -> None:
    """Precision over what was changed, recall over what was wrong; a right sentence left alone counts in neither."""
    from training.evaluate_metrics import correction_scores

    sources = ["我门走", "他门走", "他来了", "天汽好"]
    targets = ["我们走", "他们走", "他来了", "天气好"]
    scores = correction_scores(sources, targets, ["我们走", "她们走", "他来啦", "天汽好"])
    assert (scores["precision"], scores["recall"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert scores["f1"] == pytest.approx(1 / 3)
    assert correction_scores(sources, targets, targets)["f1"] == 1.0
    assert correction_scores(sources, targets, sources)["f1"] == 0.0


def test_flip_share_counts_differing_answers() -> None:
    from training.evaluate_metrics import flip_share

    assert flip_share(["a", "b", "c", "c"], ["a", "b", "c", "a"]) == 0.25


@pytest.mark.parametrize(
    ("text", "is_loop"),
    [
        ("今天天气很好，今天天气很好，今天天气很好。", True),
        ("I see what you mean. I see what you mean. I see what you mean.", True),
        ("哈哈哈哈哈哈", True),
        ("今天天气很好，明天天气也很好。", False),
        ("I see. I see what you mean, and I like what you see.", False),
        ("", False),
    ],
)
def test_has_loop(text: str, is_loop: bool) -> None:
    from training.evaluate_metrics import has_loop

    assert has_loop(text) == is_loop


@pytest.mark.parametrize("wanted", [0.4, 1.0, 2.5])
def test_fit_temperature_finds_the_one_that_the_answers_were_made_with(wanted: float) -> None:
    """Labels are drawn from softmax(logits / wanted), so the likelihood is best there."""
    from training.evaluate_metrics import fit_temperature, mean_nll

    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2.0, size=(20_000, 3))
    gumbel = rng.gumbel(size=logits.shape)
    gold = (logits / wanted + gumbel).argmax(1).tolist()
    found = fit_temperature([(logits, gold)])
    assert found == pytest.approx(wanted, rel=0.05)
    assert mean_nll([(logits, gold)], found) <= mean_nll([(logits, gold)], wanted)
    assert fit_temperature([(logits + 7.0, gold)]) == pytest.approx(found, rel=1e-3), (
        "a constant per row changes nothing"
    )


@pytest.mark.parametrize(
    ("reply", "does_leak"),
    [
        ("正面。", True),
        ("Negative", True),
        ("user: hello", True),
        ("好的。\n助手：你好", True),
        ("<|im_end|>", True),
        ("对方此刻的情绪：负面", True),
        (" ", True),
        ("I am an assistant, and I am happy to help.", False),
        ("这是很正面的消息。", False),
    ],
)
def test_leaks(reply: str, does_leak: bool) -> None:
    from training.evaluate_chat import leaks

    assert leaks(reply) == does_leak


@pytest.mark.parametrize(
    ("mood", "reply", "is_seen"),
    [
        ("negative", "太棒了，恭喜你！", False),
        ("negative", "That's really great news!", False),
        ("negative", "Sounds lovely, enjoy it!", False),
        ("negative", "听起来真让人难过，我陪着你，希望你慢慢开心起来。", True),
        ("negative", "I'm so sorry. I'm happy to listen, and it's good that you told me.", True),
        ("positive", "别难过，会好起来的。", False),
        ("positive", "I'm sorry, that must be hard.", False),
        ("positive", "太好了，真为你高兴！", True),
        ("positive", "Congratulations! Enjoy it.", True),
        ("positive", "", False),
    ],
)
def test_sees_mood(mood: str, reply: str, is_seen: bool) -> None:
    from training.evaluate_chat import sees_mood

    assert sees_mood(reply, mood) == is_seen


@pytest.mark.parametrize(
    ("reply", "language"),
    [("你好，OK", "zh"), ("Hi there, 小明!", "en"), ("用 Python 写的程序", "zh"), ("...", "en")],
)
def test_reply_language(reply: str, language: str) -> None:
    from training.evaluate_chat import reply_language

    assert reply_language(reply) == language


def test_chat_prompts_are_what_the_card_says() -> None:
    """A hundred in each language, no two alike, moods for at least a hundred, every topic in both."""
    from training.evaluate_chat import load_chat_prompts, reply_language
    from training.sources import normalise

    prompts = load_chat_prompts()
    assert Counter(prompt.language for prompt in prompts) == {"zh": 100, "en": 100}
    assert len({normalise(prompt.text) for prompt in prompts}) == 200
    assert sum(prompt.mood is not None for prompt in prompts) >= 100
    assert {prompt.mood for prompt in prompts} == {"positive", "negative", None}
    topics = [{p.topic for p in prompts if p.language == language} for language in ("zh", "en")]
    assert topics[0] == topics[1] and "crisis" in topics[0]
    assert all(reply_language(prompt.text) == prompt.language for prompt in prompts)


def test_everyday_sentences_are_twenty_beside_the_first_examples() -> None:
    lines = (ROOT / "tests" / "bundled" / "everyday.jsonl").read_text(encoding="utf-8").splitlines()
    cases = [json.loads(line) for line in lines]
    assert [case["text"] for case in cases[:2]] == ["今天的实验终于成功了,太棒了!", "我今天心情不好"]
    assert Counter((case["lang"], case["label"]) for case in cases[2:]) == dict.fromkeys(
        [("zh", "positive"), ("zh", "negative"), ("en", "positive"), ("en", "negative")], 5
    )


def test_what_the_tests_ask_is_held_out_of_training() -> None:
    """Whatever the punctuation, width or case; and one text in fifty beside, by hash."""
    from training.evaluate_chat import load_chat_prompts
    from training.heldout import is_calibration_text, is_heldout

    assert all(is_heldout(prompt.text) for prompt in load_chat_prompts())
    assert is_heldout("我今天心情不好！！") and is_heldout("今天的实验终于成功了，太棒了！")
    texts = [f"sentence number {i}" for i in range(20_000)]
    kept = [text for text in texts if is_calibration_text(text)]
    assert 300 < len(kept) < 500 and all(is_heldout(text) for text in kept)
    assert all(is_calibration_text(f" {text.upper()}!") for text in kept)
    assert not is_heldout("") and not is_heldout("！？")


def test_rows_are_judged_by_their_bars() -> None:
    from training.evaluate import Row, all_rows, choose_rows
    from training.evaluate_bench import Figure

    row = Row(key="x", title="x", measure=lambda bench: Figure(value=0), must=0.8, aim=0.9)
    assert [row.verdict(Figure(value=v)) for v in (0.9, 0.85, 0.7, None)] == ["aim", "must", "MISSED", "skipped"]
    cost = Row(key="x", title="x", measure=row.measure, must=0.05, aim=0.02, is_cost=True)
    assert [cost.verdict(Figure(value=v)) for v in (0.0, 0.03, 0.06)] == ["aim", "must", "MISSED"]
    rows = all_rows("bundled")
    assert len({row.key for row in rows}) == len(rows)
    assert {row.key for row in choose_rows(rows, ["chat", "sighan13"])} >= {"chat-loops", "chat-mood", "sighan13"}
    with pytest.raises(SystemExit, match="No row 'nonsense'"):
        choose_rows(rows, ["nonsense"])


def test_evaluation_task_files_are_valid_and_use_the_tasks_temperature(tmp_path: Path) -> None:
    """Other orders hold the same labels; the chat differs from the built-in one in its seed alone."""
    from training.evaluate_bench import CHAT_SEED, write_tasks

    from allinone.models.calibration import Calibration
    from allinone.prompts.library import PromptLibrary

    write_tasks(tmp_path)
    library, builtin = PromptLibrary.load([tmp_path]), PromptLibrary.load()
    orders = [name for name in library.names() if name.startswith("sentiment.order-")]
    labels = [tuple(spec.label for spec in library.get(name).labels) for name in orders]
    own = tuple(spec.label for spec in builtin.get("sentiment").labels)
    assert len({*labels, own}) == math.factorial(3) and all(set(order) == set(own) for order in labels)
    assert Calibration(temperatures={"sentiment": 2.0}).temperature_of(orders[0]) == 2.0
    chat = library.get("chat")
    assert chat.config.seed == CHAT_SEED and chat.template == builtin.get("chat").template
    assert chat.config.temperature == builtin.get("chat").config.temperature > 0


@pytest.mark.slow
def test_evaluate_prints_a_table_or_json(data: Path) -> None:
    """The cheapest rows, through the real command."""
    command = [sys.executable, "-m", "training.evaluate", "--data", str(data), "--quick", "--threads", "1"]
    rows = ["--only", "size", "--only", "ece-sst2"]
    done = subprocess.run([*command, *rows], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "| file size, MB (`size`) |" in done.stdout
    done = subprocess.run(
        [*command, *rows, "--json"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    found = {row["key"]: row for row in json.loads(done.stdout)["rows"]}
    assert found["size"]["holds"] == "aim" and found["ece-sst2"]["cases"] == 200
    assert sum(part["cases"] for part in found["ece-sst2"]["details"]["bins"]) == 200
