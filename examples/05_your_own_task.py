"""A task is one file. Write it, use it, change it while the program runs."""

from pathlib import Path
from tempfile import TemporaryDirectory

from allinone import AllInOne

TASK = """---
description: 评价分类 · what kind of review it is
input: {schema: {text: string}}
output: {schema: {label(enum): [好评, 差评]}}
allinone.kind: label
allinone.labels: {好评: {name: good}, 差评: {name: bad}}
---
{{role "system"}}
判断这条评价是哪一类，只输出一个标签：{{#each labels}}{{label}} {{/each}}
{{role "user"}}
{{text}}
"""

with TemporaryDirectory() as folder:
    file = Path(folder) / "review.prompt"
    file.write_text(TASK, encoding="utf-8")
    with AllInOne.load(tasks=folder) as ai:
        first = ai.run("review", "等了一个小时,太失望了")
        print(first.version, first.label, dict(first.probs or {}))

        file.write_text(
            TASK.replace("差评]", "差评, 中评]").replace("bad}}", "bad}, 中评: {name: mixed}}"), encoding="utf-8"
        )
        second = ai.run("review", "等了一个小时,太失望了")
        print(second.version, second.label, dict(second.probs or {}))
