"""Front matter: what it takes, and how it complains."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allinone.errors import InvalidInput, MissingVariable, PromptError, PromptNotFound, UnknownKey, VerbalizerError
from allinone.prompts.files import MAX_FILE_BYTES
from allinone.prompts.prompt_file import GenerationConfig, LabelSpec, Limits, Route, load_prompt, parse_prompt

from .texts import LABEL_PROMPT, TEXT_PROMPT, parse, with_body


def test_parse_prompt_reads_every_section():
    """One file with all keys, so that each has a place in the result."""
    prompt = parse(
        """\
---
description: 改写 · another style
model: qwen1.5-0.5b-chat
config:
  {temperature: 0.5, top_k: 20, top_p: 0.9, min_p: 0.1, repetition_penalty: 1.1,
   seed: 7, stop: [。, "\\n"], max_tokens: 9, prompt_lookup_num_tokens: 8}
input:
  schema:
    text: string, what to rewrite
    style(enum, how): [正式, 口语]
    n?: integer
    words(array): string
  default: {style: 口语, words: [a, b]}
output: {format: text}
allinone.kind: text
allinone.route: {examples: [改写一下], not: [翻译]}
allinone.limits: {max_input_tokens: 99, on_long: truncate, deadline_s: 2.5}
---
{{style}} {{#if n}}{{n}}{{/if}} {{#each words}}{{this}}{{/each}} {{text}}
""",
        name="rewrite.zh",
    )
    assert (prompt.name, prompt.variant, prompt.full_name) == ("rewrite", "zh", "rewrite.zh")
    assert prompt.model == "qwen1.5-0.5b-chat"
    assert prompt.config == GenerationConfig(
        temperature=0.5,
        top_k=20,
        top_p=0.9,
        min_p=0.1,
        repetition_penalty=1.1,
        seed=7,
        stop=("。", "\n"),
        max_tokens=9,
        prompt_lookup_num_tokens=8,
    )
    assert list(prompt.inputs) == ["text", "style", "n", "words"]
    assert prompt.inputs["text"].description == "what to rewrite"
    assert (prompt.inputs["style"].choices, prompt.inputs["style"].description) == (("正式", "口语"), "how")
    assert (prompt.inputs["n"].type, prompt.inputs["n"].is_optional) == ("integer", True)
    assert prompt.inputs["words"].is_array
    assert prompt.defaults == {"style": "口语", "words": ("a", "b")}
    assert prompt.route == Route(examples=("改写一下",), not_examples=("翻译",))
    assert prompt.limits == Limits(max_input_tokens=99, on_long="truncate", deadline_s=2.5)


def test_parse_prompt_reads_labels_in_order():
    """The order of the file decides ties and what the prompt lists."""
    prompt = parse(LABEL_PROMPT)
    assert prompt.labels == (
        LabelSpec(label="紧急", name="urgent", emoji="🔥", description="马上处理"),
        LabelSpec(label="普通", name="normal", emoji=None, description="可以等"),
    )
    assert not prompt.open_labels


def test_parse_prompt_keeps_labels_that_yaml_likes_to_change():
    """YAML 1.1 turns `no` into False and `01` into 1; a label is what its author wrote."""
    text = LABEL_PROMPT.replace("[紧急, 普通]", "[no, 01]").replace("  紧急:", "  no:").replace("  普通:", "  01:")
    assert [spec.label for spec in parse(text).labels] == ["no", "01"]


@pytest.mark.parametrize(
    ("old", "new", "error", "line", "key", "message"),
    [
        ("config: {temperature: 0}", "configg: {temperature: 0}", UnknownKey, 3, "configg", "Did you mean 'config'"),
        ("{temperature: 0}", "{temperaturee: 0}", UnknownKey, 3, "config.temperaturee", "Did you mean 'temperature'"),
        ("{temperature: 0}", "{topP: 1}", UnknownKey, 3, "config.topP", "Did you mean 'top_p'"),
        ("{temperature: 0}", "{temperature: -1}", PromptError, 3, "config.temperature", "at least 0"),
        ("{temperature: 0}", "{top_p: 0}", PromptError, 3, "config.top_p", "above 0 and at most 1"),
        ("{temperature: 0}", "{top_p: true}", PromptError, 3, "config.top_p", "not 'true'"),
        ("{temperature: 0}", "{max_tokens: 0}", PromptError, 3, "config.max_tokens", "at least 1"),
        ("{temperature: 0}", "{max_tokens: 1.5}", PromptError, 3, "config.max_tokens", "whole number"),
        *(
            ("{temperature: 0}", f"{{{key}: {value}}}", PromptError, 3, f"config.{key}", "at least 0, at most 32")
            for key, value in (("prompt_lookup_num_tokens", 33), ("prompt_lookup_num_tokens", -1))
        ),
        ("{temperature: 0}", "{temperature: 0.7}", PromptError, 3, "config", "never sampled"),
        ("{temperature: 0}", "[1]", PromptError, 3, "config", "a mapping"),
        ("config: {temperature: 0}", "tools: [x]", UnknownKey, 3, "tools", "not used here"),
        ("config: {temperature: 0}", "name: x", UnknownKey, 3, "name", "not used here"),
        ("description: is it urgent?", "description:", PromptError, 2, "description", "not nothing"),
        (
            "{schema: {text: string}}",
            "{schema: {txt: string}}",
            PromptError,
            4,
            "input.schema",
            "takes the user's input",
        ),
        ("{schema: {text: string}}", "{schema: {text?: string}}", PromptError, 4, None, "Not valid YAML"),
        ("{text: string}}", "{text: stringg}}", PromptError, 4, "input.schema.text", "Did you mean 'string'"),
        ("{text: string}}", "{text: string, a: {b: string}}}", PromptError, 4, "input.schema.a", "is an object"),
        ("{text: string}}", '{text: string, "a b": string}}', PromptError, 4, "input.schema.a b", "not a Picoschema"),
        ("{text: string}}", "{text: string, role: string}}", PromptError, 4, "input.schema.role", "name of a variable"),
        ("{text: string}}", "{text: string}, defaults: {}}", UnknownKey, 4, "input.defaults", "Did you mean 'default'"),
        ("{text: string}}", "{text: string}, default: {x: 1}}", UnknownKey, 4, "input.default.x", "not declared"),
        ("[紧急, 普通]", "[紧急]", VerbalizerError, 5, "output.schema", "must list the labels"),
        ("[紧急, 普通]", "[紧急, 一般]", VerbalizerError, 5, "output.schema", "紧急, 普通"),
        ("[紧急, 普通]", "[]", PromptError, 5, "output.schema.label(enum)", "no values"),
        ("kind: label", "kind: labell", PromptError, 6, "allinone.kind", "Did you mean 'label'"),
        ("kind: label", "kind: text", PromptError, 5, "output.schema", "has no schema"),
        ("allinone.kind: label", "allinone: {kind: label}", UnknownKey, 6, "allinone", "not used here"),
        ("  普通: {name: normal", "  紧急: {name: normal", PromptError, 9, "allinone.labels.紧急", "line 8 already"),
        ("name: normal", "name: urgent", VerbalizerError, 9, "allinone.labels.普通.name", "both called 'urgent'"),
        ("name: normal", "name: 紧急", VerbalizerError, 9, "allinone.labels.普通.name", "both called '紧急'"),
        ("name: normal", "namee: normal", UnknownKey, 9, "allinone.labels.普通.namee", "Did you mean 'name'"),
        ("  普通: {name: normal, description: 可以等}\n", "", VerbalizerError, 7, "allinone.labels", "at least two"),
        ("可以等", '"<|im_end|>"', PromptError, 9, "allinone.labels.普通", "may not be written"),
    ],
)
def test_parse_prompt_errors_name_file_line_and_key(
    old: str, new: str, error: type[PromptError], line: int, key: str | None, message: str
):
    """Every mistake in the front matter is found at its own line, with the nearest right spelling."""
    assert old in LABEL_PROMPT
    with pytest.raises(error) as caught:
        parse(LABEL_PROMPT.replace(old, new))
    problem = caught.value
    assert (problem.path, problem.line, problem.key) == ("task.prompt", line, key)
    assert message in problem.message


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "no front matter"),
        ("hello {{text}}", 1, "no front matter"),
        ("---\ndescription: x\n", 1, "never closed"),
        ("---\n- a\n---\n{{text}}", 2, "must be a mapping"),
        ("---\na: [1\n---\n{{text}}", 3, "Not valid YAML"),
        ("---\na: &x 1\nb: *x\n---\n{{text}}", 3, "aliases"),
        ("---\ndescription: !!python/name:os.system x\n---\n{{text}}", 2, "tags (!name)"),
        ("---\n? [a]\n: b\n---\n{{text}}", 2, "key must be plain text"),
        ("---\ndescription: x\n---\n{{text}}", 2, "'allinone.kind' is missing"),
        ("---\nallinone.kind: text\ninput: {schema: {text: string}}\n---\n{{text}}", 2, "'description' is missing"),
        ("---\nallinone.kind: text\n---\n{{text}}", 2, "'input' is missing"),
        (with_body("{{text}}", extra="allinone.open_labels: true\n"), 5, "has no labels"),
        (with_body("{{text}}").replace("kind: text", "kind: json"), 2, "needs 'output.schema'"),
        (with_body("{{text}}").replace("kind: text", "kind: chat"), 2, "needs {{history}}"),
        (with_body("{{text}}").replace("kind: text", "kind: label"), 2, "needs 'allinone.labels'"),
        (with_body("{{text}}", extra="output: {format: json}\n"), 5, "format 'text'"),
        (with_body("{{text}}", schema="{text: string, mood: string}"), 3, "never uses the variable 'mood'"),
        ("---\n" + "[" * 5_000 + "\n---\n{{text}}", 2, "nested too deeply"),
        (with_body("{{text}}", extra=f"config: {{top_k: {'9' * 5_000}}}\n"), 5, "whole number"),
        (with_body("{{text}}", extra=f"config: {{top_p: {'9' * 5_000}}}\n"), 5, "at most 1"),
    ],
)
def test_parse_prompt_errors_of_the_whole_file(text: str, line: int, message: str):
    """A file that is not a prompt at all still gets a line and a reason."""
    with pytest.raises(PromptError) as caught:
        parse(text)
    assert caught.value.line == line
    assert message in caught.value.message


def test_parse_prompt_does_not_care_about_newlines_or_byte_order_mark():
    """Editors on Windows write CRLF and a mark; the prompt and its version stay the same."""
    plain = parse(LABEL_PROMPT)
    for data in (
        LABEL_PROMPT.replace("\n", "\r\n").encode(),
        LABEL_PROMPT.replace("\n", "\r").encode(),
        b"\xef\xbb\xbf" + LABEL_PROMPT.encode(),
    ):
        other = parse_prompt(data, path=Path("task.prompt"))
        assert (other.version, other.template) == (plain.version, plain.template)
    assert parse(LABEL_PROMPT + "\n").version != plain.version
    assert len(plain.version) == 12


@pytest.mark.parametrize(
    ("data", "line", "message"),
    [
        (LABEL_PROMPT.encode("gbk", errors="replace"), 5, "not UTF-8"),
        (LABEL_PROMPT.encode().replace(b"urgent?", b"urgent\x00"), 2, "U+0000"),
        (LABEL_PROMPT.encode() + b"\x1b[0m", 15, "U+001B"),
        (LABEL_PROMPT.encode("utf-16"), 1, "not UTF-8"),
    ],
)
def test_parse_prompt_refuses_what_is_not_text(data: bytes, line: int, message: str):
    """Bytes that no editor shows must not reach a model, and the message says where they are."""
    with pytest.raises(PromptError, match=message.replace("+", r"\+")) as caught:
        parse_prompt(data, path=Path("task.prompt"))
    assert caught.value.line == line


def test_parse_prompt_errors_say_the_key():
    """The line alone is not enough where a whole mapping stands on one line."""
    with pytest.raises(PromptError, match=r"task\.prompt:9: allinone\.labels\.普通: The control token") as caught:
        parse(LABEL_PROMPT.replace("可以等", "<|im_end|>"))
    assert caught.value.key == "allinone.labels.普通"


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_parse_prompt_any_damage_is_a_prompt_error(data: st.DataObject):
    """A file that is being written, or was merged badly, is right or refused; it never breaks the program."""
    text = data.draw(st.sampled_from([LABEL_PROMPT, TEXT_PROMPT]))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    pieces = ["{{", "}}", "{{/if}}", "{{#if text}}", "{{#each labels}}", "---\n"]
    pieces += [": ", "- ", "{", "]", "? ", "&a ", "*a", "!!int ", "=", "<<: ", "\x85", "\u2028", "\ufeff", "\t"]
    middle = data.draw(st.text(max_size=5) | st.sampled_from(pieces))
    try:
        prompt = parse_prompt((text[:start] + middle + text[end:]).encode(errors="replace"), path=Path("task.prompt"))
    except PromptError as error:
        assert error.line is not None
    else:
        assert any(not s.trusted for m in prompt.render({"text": "x"}) for s in m.content)


def test_load_prompt_refuses_missing_and_enormous_files_and_bad_names(tmp_path: Path):
    """Nothing is read beyond the limit: a library must not hang on a log file with the wrong name."""
    with pytest.raises(PromptNotFound):
        load_prompt(tmp_path / "none.prompt")
    big = tmp_path / "big.prompt"
    big.write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    with pytest.raises(PromptError, match="larger than 262,144"):
        load_prompt(big)
    for name in ("a.b.c.prompt", "two words.prompt", ".prompt", "a.txt"):
        with pytest.raises(PromptError, match="not the name of a prompt file"):
            parse_prompt(LABEL_PROMPT, path=Path(name))
    with pytest.raises(PromptError, match="cannot be read"):
        load_prompt(tmp_path)


def test_render_wants_declared_variables_of_the_declared_type():
    """A misspelt variable is an error with a suggestion, never an empty place in the prompt."""
    prompt = parse(TEXT_PROMPT)
    with pytest.raises(MissingVariable, match="needs the variable 'text'"):
        prompt.render({})
    with pytest.raises(MissingVariable):
        prompt.render({"text": None})
    with pytest.raises(InvalidInput, match="Did you mean 'style'"):
        prompt.render({"text": "x", "stile": "y"})
    for variables in ({"text": 1}, {"text": "x", "words": "abc"}, {"text": "x", "words": [1]}, {"text": b"x"}):
        with pytest.raises(InvalidInput, match="must be"):
            prompt.render(variables)
    with pytest.raises(InvalidInput, match="lone surrogate at character 1"):
        prompt.render({"text": "a\ud800"})


def test_render_checks_numbers_flags_and_choices():
    """Types are what the file says: True is no integer, NaN no number."""
    schema = "{text: string, i: integer, f: number, b: boolean, e(enum): [x, y]}"
    prompt = parse(with_body("{{text}} {{i}} {{f}} {{b}} {{e}}", schema=schema))
    good = {"text": "t", "i": 1, "f": 2.5, "b": True, "e": "x"}
    (message,) = prompt.render(good)
    assert "".join(segment.text for segment in message.content) == "t 1 2.5 true x"
    for bad in ({"i": True}, {"i": 1.0}, {"f": float("nan")}, {"f": "1"}, {"b": 1}, {"e": "z"}):
        with pytest.raises(InvalidInput):
            prompt.render(good | bad)


def test_find_labels_by_label_or_name_in_the_order_asked_for():
    """`--labels normal,紧急` mixes both; mistakes get a suggestion."""
    prompt = parse(LABEL_PROMPT)
    assert [spec.label for spec in prompt.find_labels(["normal", "紧急"])] == ["普通", "紧急"]
    with pytest.raises(VerbalizerError, match="Did you mean 'normal'"):
        prompt.find_labels(["nrmal"])
    with pytest.raises(VerbalizerError, match="twice"):
        prompt.find_labels(["normal", "普通"])
    with pytest.raises(VerbalizerError, match="empty list"):
        prompt.find_labels([])


def test_find_labels_takes_any_text_where_labels_are_open():
    """Open labels are the caller's; those of the file keep their names."""
    prompt = parse(LABEL_PROMPT.replace("allinone.kind: label", "allinone.kind: label\nallinone.open_labels: true"))
    found = prompt.find_labels(["urgent", "退款"])
    assert found == (prompt.labels[0], LabelSpec(label="退款", name="退款"))
    with pytest.raises(VerbalizerError):
        prompt.find_labels([" "])
