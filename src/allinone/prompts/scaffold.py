"""New task files: the text of a working `.prompt` file and its first cases, for `allinone tasks new`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from allinone.errors import ConfigError, UsageError
from allinone.prompts.cases import CASES_SUFFIX
from allinone.prompts.files import SUFFIX
from allinone.prompts.front_matter import LabelSpec
from allinone.prompts.prompt_file import KINDS, parse_prompt
from allinone.types import Kind

_INSTRUCTIONS: dict[Kind, str] = {
    "label": "判断文本属于哪一类，只输出一个标签。Answer with one label only: {{#each labels}}{{label}} {{/each}}",
    "text": "按要求处理下面的文字，只输出结果。Answer in the language of the text.",
    "json": "阅读下面的文字，输出 JSON。Answer with JSON only.",
    "chat": "你是一个友好的助手。Reply in the user's language.",
}


def new_prompt(
    name: str,
    kind: Kind,
    description: str,
    *,
    labels: Sequence[LabelSpec] = (),
    instructions: str | None = None,
    fields: Sequence[str] = ("answer",),
) -> str:
    """The text of a prompt file that works as it is.

    Args:
        name: of the task, with its variant where it has one.
        kind: what it answers.
        description: one line for people.
        labels: for label tasks, two or more.
        instructions: the system turn, may use the template language; a short default where None.
        fields: for json tasks, the string properties of the answer.

    Raises:
        PromptError: name, labels or instructions do not make a valid file.
    """
    if kind not in KINDS:
        raise UsageError(f"Unknown kind {kind!r}. Known: {', '.join(KINDS)}")
    lines = ["---", f"description: {_quote(description)}"]
    lines.append("config: {temperature: 0}" if kind != "chat" else "config: {temperature: 0.7, top_p: 0.9}")
    lines.append("input: {schema: {text: string}}")
    if kind == "json":
        properties = ", ".join(f"{_quote(field)}: string" for field in fields)
        lines.append(f"output: {{format: json, schema: {{{properties}}}}}")
    lines.append(f"allinone.kind: {kind}")
    if labels:
        lines.append("allinone.labels:")
        lines += [_label_line(spec) for spec in labels]
    lines.append("allinone.limits: {max_input_tokens: 1024}")
    lines += ["---", '{{role "system"}}', instructions or _INSTRUCTIONS[kind]]
    lines += ["{{history}}"] if kind == "chat" else []
    lines += ['{{role "user"}}', "{{text}}", ""]
    text = "\n".join(lines)
    parse_prompt(text, path=Path(name + SUFFIX))
    return text


def new_cases(kind: Kind, *, labels: Sequence[LabelSpec] = ()) -> str:
    """The text of a cases file with a first case, to be replaced by real ones."""
    if kind == "label":
        demand = f"{{type: label, value: {_quote(labels[0].label)}}}"
    elif kind == "json":
        demand = "{type: is-json}"
    else:
        demand = "{type: regex, value: '\\S'}"
    text = labels[0].description or labels[0].label if kind == "label" else "今天的实验终于成功了！"
    return "\n".join(
        [
            "# Each case: an input and what its answer must meet. Run them with `allinone tasks check`.",
            "tests:",
            "  - description: a first case; write your own",
            f"    vars: {{text: {_quote(text)}}}",
            "    assert:",
            f"      - {demand}",
            "",
        ]
    )


def new_paths(directory: Path, name: str) -> tuple[Path, Path]:
    """Where the prompt and the cases of a new task go.

    Raises:
        ConfigError: one of the files exists already.
    """
    paths = directory / (name + SUFFIX), directory / (name + CASES_SUFFIX)
    for path in paths:
        if path.exists():
            raise ConfigError(f"{str(path)!r} exists already.", hint="choose another name, or edit the file")
    return paths


def write_prompt(directory: Path, name: str, prompt: str, cases: str) -> tuple[Path, Path]:
    """Write both files, creating the directory; (prompt path, cases path).

    Raises:
        ConfigError: one of the files exists already, or the directory cannot be written.
    """
    paths = new_paths(directory, name)
    parse_prompt(prompt, path=paths[0])
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in zip(paths, (prompt, cases), strict=True):
            with path.open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
    except OSError as error:
        raise ConfigError(f"Cannot write to {str(directory)!r}: {error.strerror or error}.") from error
    return paths


def _label_line(spec: LabelSpec) -> str:
    parts = [f"name: {_quote(spec.name)}"]
    parts += [f"emoji: {_quote(spec.emoji)}"] if spec.emoji else []
    parts += [f"description: {_quote(spec.description)}"] if spec.description else []
    return f"  {_quote(spec.label)}: {{{', '.join(parts)}}}"


def _quote(text: str) -> str:
    """A YAML double-quoted scalar (JSON's quoting is a subset)."""
    return json.dumps(text, ensure_ascii=False)
