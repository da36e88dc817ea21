"""What reuse must never change, on the real model and its default backend, bit for bit."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from allinone import AllInOne
from allinone.types import Result

from .conftest import read_public

CHAT = """---
description: chat with a fixed seed, so that two processes can be compared
config: {temperature: 0.7, seed: 7, max_tokens: 16}
input: {schema: {text: string}}
output: {format: text}
allinone.kind: text
---
{{role "system"}}
你是一个温暖的聊天伙伴。
{{role "user"}}
{{text}}
"""
CASES = [
    ("sentiment", "今天的实验终于成功了,太棒了!"),
    ("sentiment", "The room was dirty and nobody answered the phone, so we left after ten minutes."),
    ("sentiment.en", "fine"),
    ("emotion", "他怎么能这样对我！"),
    ("intent", "我的快递到哪里了"),
    ("typo", "我门明天去公圆玩"),
    ("translate", "Good morning"),
    ("title", "昨天下午，市图书馆新馆正式向市民开放，首日接待读者三千多人。"),
    ("keywords", "机器学习让计算机从数据中学习规律"),
    ("seeded", "你好"),
]


def comparable(result: Result) -> tuple[object, ...]:
    probs = None if result.probs is None else tuple(value.hex() for value in result.probs.values())
    return result.label, probs, result.text, result.finish_reason


def ask(ai: AllInOne, case: tuple[str, str]) -> tuple[object, ...]:
    return comparable(ai.run(*case))


FRESH = """
import json, sys
from allinone import AllInOne
task, text, tasks = sys.argv[1:]
with AllInOne.load(tasks=tasks, cache=False) as ai:
    r = ai.run(task, text)
probs = None if r.probs is None else [value.hex() for value in r.probs.values()]
print(json.dumps([r.label, probs, r.text, r.finish_reason]))
"""


@pytest.mark.slow
def test_1000_task_switches_answer_like_fresh_processes(tmp_path: Path) -> None:
    """Whatever ran before, in whatever order: an answer is that of a process that has answered nothing else."""
    (tmp_path / "seeded.prompt").write_text(CHAT, encoding="utf-8")
    expected: dict[tuple[str, str], tuple[object, ...]] = {}
    for task, text in CASES:
        done = subprocess.run(
            [sys.executable, "-c", FRESH, task, text, str(tmp_path)], capture_output=True, text=True, check=True
        )
        label, probs, said, reason = json.loads(done.stdout)
        expected[task, text] = (label, None if probs is None else tuple(probs), said, reason)
    choices = random.Random(0)
    with AllInOne.load(tasks=tmp_path, cache=False) as ai:
        for _ in range(1000):
            case = choices.choice(CASES)
            assert ask(ai, case) == expected[case], case


@pytest.mark.slow
def test_map_is_bit_equal_to_single_runs(ai: AllInOne) -> None:
    """Batched = single, for texts of many lengths."""
    texts = [record["text"] for record in read_public("sent_zh_waimai_public_2k")[:160]]
    batched = [comparable(result) for result in ai.map("sentiment", texts)]
    assert batched == [ask(ai, ("sentiment", text)) for text in texts]


def test_label_of_two_ids_costs_no_second_step(ai: AllInOne) -> None:
    """One longer label among short ones rides along with the input: one step each, and batched = single bit for bit."""
    words = ["天气", "餐厅", "音乐", "电影", "新闻", "闹钟", "订票", "支付", "导航"]
    num_ids = {word: len(ai.model.tokenizer.tokenize(word, control=False)) for word in words}
    labels = [word for word in words if num_ids[word] == 1][:2] + [word for word in words if num_ids[word] == 2][:1]
    assert len(labels) == 3
    texts = ["明天会下雨吗", "附近有什么好吃的", "七点叫我起床", "今天的实验终于成功了，晚上一起去吃饭吧"]
    ai.run("intent", "prefix", labels=labels)
    before = ai.stats().num_steps
    alone = [comparable(ai.run("intent", text, labels=labels)) for text in texts]
    assert ai.stats().num_steps == before + len(texts)
    assert [comparable(result) for result in ai.map("intent", texts, labels=labels)] == alone


def test_mixed_tasks_in_flight_are_bit_equal_to_single_runs(ai: AllInOne) -> None:
    """Different prefixes and kinds in one step."""
    from concurrent.futures import ThreadPoolExecutor

    cases = [case for case in CASES if case[0] != "seeded"] * 4
    alone = [ask(ai, case) for case in cases]
    with ThreadPoolExecutor(len(cases)) as pool:
        assert list(pool.map(lambda case: ask(ai, case), cases)) == alone


def test_fused_reply_equals_sequential(ai: AllInOne, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scoring the mood in the batch that prefills the chat changes neither, on the real model."""
    import dataclasses

    from allinone.engine.engine import Engine

    chat = ai.tasks.get("chat")
    greedy = dataclasses.replace(chat, config=dataclasses.replace(chat.config, temperature=0.0, max_tokens=40))
    get = ai.tasks.get
    monkeypatch.setattr(ai.tasks, "get", lambda name: greedy if name == "chat" else get(name))

    def talk() -> list[tuple[object, ...]]:
        conversation = ai.conversation()
        answers: list[tuple[object, ...]] = []
        for text in ("今天的实验终于成功了", "不过我有点累", "I miss my friends"):
            reply = ai.reply(text, conversation)
            answers += [comparable(reply.mood), comparable(reply.result())]
        conversation.close()
        return answers

    fused = talk()
    submit = Engine.submit

    def one_at_a_time(engine: Engine, *requests: object) -> tuple[object, ...]:
        tickets = []
        for request in requests:
            (ticket,) = submit(engine, request)  # type: ignore[call-overload]
            if len(requests) > 1:
                ticket.result()
            tickets.append(ticket)
        return tuple(tickets)

    monkeypatch.setattr(Engine, "submit", one_at_a_time)
    assert talk() == fused
