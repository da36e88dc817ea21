"""Each piece of work does what its figure says; how long it takes is nobody's business here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from allinone.backends.fake import ByteTokenizer, FakeBackend
from allinone.bench.cold_start import cold_start_command
from allinone.bench.endless import EndlessTokenizer
from allinone.bench.footprint import read_memory
from allinone.bench.runner import (
    HISTORY_TURNS,
    LABEL_TASK,
    LABEL_TOKENS,
    MAX_MEASURED_TURNS,
    TASKS,
    Runner,
    Target,
)
from allinone.engine.stats import EngineStats
from allinone.loading import load_model
from allinone.prompts.library import PromptLibrary


@pytest.fixture
def runner() -> Iterator[Runner]:
    """The benchmark on the fake backend."""
    with Runner.open(Target(backend="fake")) as runner:
        yield runner


def settled(runner: Runner) -> EngineStats:
    """The counters once the last step is in them: an answer is given a moment before."""
    for _ in range(500):
        if not (stats := runner.ai.stats()).num_running:
            return stats
        time.sleep(0.01)
    raise AssertionError(f"{stats.num_running} requests go on for five seconds")


def test_label_costs_the_tokens_that_are_promised(runner: Runner) -> None:
    """A prefix that is cached, and at most 28 tokens; the texts differ and are equally long."""
    runner.time_label()
    usage = runner.ai.run(LABEL_TASK, runner.texts[0]).usage
    num_prefix, num_new = runner.count_label_tokens()
    assert usage.num_cached_tokens == num_prefix
    assert usage.num_prompt_tokens == num_prefix + num_new
    assert num_new <= LABEL_TOKENS
    assert len(set(runner.texts)) == len(runner.texts) >= 20
    assert len({len(text) for text in runner.texts}) == 1


def test_nothing_is_answered_from_the_result_cache(runner: Runner) -> None:
    """The same text again is computed again."""
    results = [runner.ai.run(LABEL_TASK, runner.texts[0]) for _ in range(2)]
    assert not any(result.cached for result in results)


def test_eight_tasks_have_prefixes_of_their_own_and_equal_length() -> None:
    """Otherwise the figure would compare other things than the mixing of tasks."""
    prompts = PromptLibrary.load([TASKS])
    names = [name for name in prompts.names() if name.startswith("bench-")]
    assert len(names) == 8
    lengths = [len(prompts.get(name).path.read_text(encoding="utf-8")) for name in names]
    assert max(lengths) < 1.15 * min(lengths)
    assert len({prompts.get(name).version for name in names}) == 8
    assert {len(prompts.get(name).labels) for name in names} == {2}


def test_all_texts_are_answered_by_all_tasks(runner: Runner) -> None:
    """Eight prefixes are filled, and as many requests run as were asked for."""
    before = runner.ai.stats()
    assert runner.time_labels_over_tasks(32) > 0
    after = settled(runner)
    requests = after.prefix_hits + after.prefix_misses - before.prefix_hits - before.prefix_misses
    assert requests == 32
    assert after.prefix_misses - before.prefix_misses == 8


@pytest.fixture
def talkative() -> Iterator[Runner]:
    """On a model that would end each reply at once, and says "a" for ever where it may not."""
    tokenizer = ByteTokenizer()
    script = {(byte,): (ord("a"),) for byte in range(256)} | {(ord("\n"),): (tokenizer.control_tokens["<|im_end|>"],)}
    loaded = load_model(backend="fake")
    with Runner(replace(loaded, backend=FakeBackend(vocab_size=tokenizer.vocab_size, script=script))) as runner:
        yield runner


@pytest.mark.parametrize("num_streams", [1, 4, 16])
def test_streams_run_together_and_to_their_end(talkative: Runner, num_streams: int) -> None:
    """No stop token ends one early, which would thin the batch out and time something else."""
    before = talkative.ai.stats().num_decoded_tokens
    assert talkative.time_decode(num_streams, 40) > 0
    stats = settled(talkative)
    assert stats.num_decoded_tokens - before == num_streams * 39
    assert stats.max_chunks_in_step >= num_streams


def test_replies_leave_nothing_behind(runner: Runner) -> None:
    """What is cancelled after the first token must not run into the next measurement."""
    for work in (runner.time_reply, runner.time_label_then_reply):
        assert work() > 0
        assert settled(runner).num_running == 0


def test_late_turn_is_the_fiftieth_and_the_conversation_is_renewed(runner: Runner) -> None:
    """49 turns of history first; after a few measured turns a new conversation, not an ever longer one."""
    histories: list[int] = []
    for number in range(MAX_MEASURED_TURNS + 1):
        assert runner.time_late_turn() > 0
        conversation = runner._conversation  # pyright: ignore[reportPrivateUsage]
        assert conversation is not None
        assert len(conversation.turns) == HISTORY_TURNS + 1 + number % MAX_MEASURED_TURNS
        histories.append(conversation.num_tokens)
    assert histories[0] < histories[MAX_MEASURED_TURNS - 1]
    assert histories[MAX_MEASURED_TURNS] < histories[MAX_MEASURED_TURNS - 1]


def test_digest_follows_texts_and_prompts(runner: Runner) -> None:
    """Two runs of one version agree; other texts do not."""
    digest = runner.digest()
    assert runner.digest() == digest
    runner.texts = runner.texts[1:]
    assert runner.digest() != digest


def test_endless_tokenizer_differs_in_its_stop_ids_only() -> None:
    """The model's own end of turn is forbidden then, as any control token is."""
    tokenizer = ByteTokenizer()
    endless = EndlessTokenizer(tokenizer)
    assert endless.stop_ids and not endless.stop_ids & tokenizer.stop_ids
    assert endless.stop_ids <= tokenizer.control_ids == endless.control_ids
    text = "a<|im_end|>é"
    for control in (True, False):
        assert endless.tokenize(text, control=control) == tokenizer.tokenize(text, control=control)
    assert endless.vocab_size == tokenizer.vocab_size and endless.control_tokens == tokenizer.control_tokens


def test_model_without_other_control_tokens_keeps_its_end() -> None:
    """The engine refuses a tokenizer without stop ids."""

    class OnlyEnds(ByteTokenizer):
        @property
        def stop_ids(self) -> frozenset[int]:
            return self.control_ids

    assert EndlessTokenizer(OnlyEnds()).stop_ids == OnlyEnds().stop_ids


def test_cold_start_runs_the_command_that_users_run() -> None:
    """With the model, the backend and the threads that everything else is measured with."""
    command = cold_start_command(Target(model="m", backend="onnx", threads=2), "text")
    line = " ".join(command[1:])
    assert line.startswith(f"-m allinone run {LABEL_TASK} text --json --tasks")
    assert "--backend onnx" in line and "--model m" in line and "--threads 2" in line
    assert not {"--model", "--backend", "--threads"} & set(cold_start_command(Target(), "text"))


def test_memory_peaks_above_what_is_left() -> None:
    """In bytes; and what is taken shows."""
    before = read_memory()
    ballast = bytearray(b"x" * 64_000_000)
    after = read_memory()
    assert before["memory_after_bytes"] > 5_000_000
    assert after["memory_after_bytes"] >= before["memory_after_bytes"] + 30_000_000
    assert after["memory_peak_bytes"] >= after["memory_after_bytes"]
    assert len(ballast) == 64_000_000
