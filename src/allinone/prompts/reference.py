"""The page `docs/tasks.md`, written from the task files, so that it cannot say anything else than they do."""

from __future__ import annotations

from collections.abc import Sequence

from allinone.prompts.cases import find_cases, load_cases
from allinone.prompts.prompt_file import GenerationConfig, PromptFile
from allinone.prompts.schema import InputField

_INTRODUCTION = """\
# Built-in tasks

<!-- Generated from src/allinone/prompts/builtin by allinone.prompts.reference; a test compares the two. -->

Each task is one `.prompt` file ([the format](prompts.md)) with its cases in `NAME.tests.yaml`. `allinone tasks show
NAME` prints the file and the prompt as the model gets it, `allinone tasks check NAME` runs the cases on your model, and
a file of the same name in your own `--tasks` folder replaces the built-in one.

```bash
allinone run sentiment "今天的实验终于成功了,太棒了!"
allinone run translate "我喜欢猫。"
allinone run rewrite --var style=正式 "你啥时候能把那个文件给我？"
```

"""


def tasks_page(prompts: Sequence[PromptFile]) -> str:
    """The Markdown page: a table of all tasks, then a section for each; variants stand with their task.

    Args:
        prompts: sorted by full name.
    """
    rows = [
        f"| [`{prompt.full_name}`](#{prompt.full_name.replace('.', '')}) | {prompt.kind} | {prompt.description} |"
        for prompt in prompts
    ]
    table = "\n".join(["| task | kind | what it does |", "| --- | --- | --- |", *rows])
    return _INTRODUCTION + table + "\n" + "".join("\n" + _section(prompt) for prompt in prompts)


def _section(prompt: PromptFile) -> str:
    lines = [f"## {prompt.full_name}", "", f"{prompt.description}.", "", f"- kind: `{prompt.kind}`"]
    others = [declared for declared in prompt.inputs.values() if declared.name != "text"]
    if others:
        lines.append(f"- variables besides `text`: {', '.join(_variable(declared, prompt) for declared in others)}")
    if prompt.labels:
        labels = ", ".join(f"{spec.emoji or ''} {spec.label} (`{spec.name}`)".strip() for spec in prompt.labels)
        lines.append(f"- labels: {labels}" + ("; or any others, with `--labels`" if prompt.open_labels else ""))
    if prompt.kind == "json":
        lines.append(f"- answer: JSON with `{'`, `'.join((prompt.output_schema or {}).get('properties', {}))}`")
    if prompt.kind != "label":
        lines.append(f"- decoding: {_decoding(prompt.config)}")
    lines.append(f"- limits: {_limits(prompt)}")
    if prompt.route.examples:
        lines.append(f"- asked for like this: {', '.join(f'“{text}”' for text in prompt.route.examples)}")
    lines += _example(prompt)
    return "\n".join(lines) + "\n"


def _variable(declared: InputField, prompt: PromptFile) -> str:
    if declared.name in prompt.defaults:
        return f"`{declared.name}` ({prompt.defaults[declared.name]} where it is left out)"
    return f"`{declared.name}`" + (" (optional)" if declared.is_optional else "")


def _decoding(config: GenerationConfig) -> str:
    how = "greedy" if config.temperature == 0 else f"temperature {config.temperature:g}"
    parts = [how] + ([f"top-p {config.top_p:g}"] if config.top_p < 1 else [])
    parts += [f"repetition penalty {config.repetition_penalty:g}"] if config.repetition_penalty != 1 else []
    return ", ".join([*parts, f"at most {config.max_tokens} tokens"])


def _limits(prompt: PromptFile) -> str:
    limits = prompt.limits
    if limits.max_input_tokens is None:
        return "none but the model's own"
    longer = "cut at the end" if limits.on_long == "truncate" else "refused"
    return f"`text` of at most {limits.max_input_tokens:,} tokens; longer texts are {longer}"


def _example(prompt: PromptFile) -> list[str]:
    """The first case: its input, and what the answer must meet."""
    path = find_cases(prompt)
    if path is None:
        return []
    case = load_cases(path, prompt)[0]
    given = "; ".join(f"{name} = {value}" for name, value in case.vars.items())
    demands = ", ".join(
        assertion.type + ("" if assertion.value is None else f" `{_show(assertion.value)}`")
        for assertion in case.assertions
        if assertion.line >= case.line  # not those of all cases
    )
    return ["", f"> {given}", ">", f"> → {demands}"]


def _show(value: object) -> str:
    return " | ".join(map(str, value)) if isinstance(value, tuple) else str(value)
