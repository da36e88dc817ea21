"""A task is one file. Write it, use it, change it while the program runs."""

from pathlib import Path
from tempfile import TemporaryDirectory

from allinone import AllInOne

TASK = """---
description: 工单分类 · which desk a ticket goes to
input: {schema: {text: string}}
output: {schema: {label(enum): [退款, 物流, 其他]}}
allinone.kind: label
allinone.labels: {退款: {name: refund}, 物流: {name: delivery}, 其他: {name: other}}
---
{{role "system"}}
你是客服。判断工单的类别，只输出一个标签：{{#each labels}}{{label}} {{/each}}
{{role "user"}}
{{text}}
"""

with TemporaryDirectory() as folder:
    file = Path(folder) / "desk.prompt"
    file.write_text(TASK, encoding="utf-8")
    with AllInOne.load(tasks=folder) as ai:
        first = ai.run("desk", "包裹三天没有动静了")
        print(first.label, first.version)

        with_complaints = TASK.replace("其他]", "其他, 投诉]").replace("other}}", "other}, 投诉: {name: complaint}}")
        file.write_text(with_complaints, encoding="utf-8")
        second = ai.run("desk", "包裹三天没有动静了")
        print(second.label, second.version, "with", len(second.probs or {}), "labels")
