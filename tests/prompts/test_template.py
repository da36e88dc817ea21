"""The body language: its grammar, its errors, and the rules for names and turns."""

from __future__ import annotations

import pytest

from allinone.errors import MissingVariable, PromptError
from allinone.prompts.template import Each, HistoryTag, If, RoleTag, Text, Variable, parse_template

from .texts import parse, with_body

BODY_LINE = 6  # of the first body line in `with_body`


def test_parse_template_gives_nodes_with_lines():
    """Lines are of the file, not of the body, so that an editor can jump there."""
    body = (
        '{{role "user"}}\nHi {{text}}\n{{#if mood}}\nyes {{else}}no{{/if}}{{#each words}}{{this}}{{/each}}{{history}}'
    )
    assert parse_template(body, path="p", first_line=10) == (
        RoleTag("user", 10),
        Text("\nHi ", 10),
        Variable("text", 11),
        Text("\n", 11),
        If("mood", (Text("yes ", 13),), (Text("no", 13),), 12),
        Each("words", (Variable("this", 13),), 13),
        HistoryTag(13),
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("a\n{{#if x}}\nb\n{{/if}}\nc", "a\nb\nc"),
        ("a\n  {{#if x}}  \nb\n\t{{/if}}\nc", "a\nb\nc"),
        ("{{#if x}}\nb\n{{/if}}", "b\n"),
        ("a\n{{! note }}\nb", "a\nb"),
        ("a {{! note }} b", "a  b"),
        ("a\n{{!-- over {{two}}\nlines --}}\nb", "a\nb"),
        ("a {{#if x}}b{{/if}}\nc", "a b\nc"),
        ("a\n{{#if x}}{{/if}}\nb", "a\n\nb"),
        ("{{#if x}}\na\n{{else}}\nb\n{{/if}}\n", "a\n"),
        ('{"a": {"b": 1}}', '{"a": {"b": 1}}'),
    ],
)
def test_parse_template_lines_with_only_a_block_tag_vanish(body: str, expected: str):
    """As in Handlebars: what remains is the text that the author sees without the tags."""

    def flatten(nodes: tuple[object, ...]) -> str:
        return "".join(node.text if isinstance(node, Text) else flatten(node.then) for node in nodes)  # type: ignore[attr-defined]

    assert flatten(parse_template(body, path="p")) == expected


@pytest.mark.parametrize(
    ("body", "line", "message", "hint"),
    [
        ("a\n{{text", 1, "never closed", "}}"),
        ("a\n{{text\nb {{text}}", 1, "never closed", "}}"),
        ("a\n\n{{#if text}}b", 2, "{{#if text}} is never closed", "{{/if}}"),
        ("{{#each labels}}\n{{/if}}", 1, "does not close {{#each labels}} of line 6", "{{/each}}"),
        ("x {{/if}}", 0, "closes nothing", None),
        ("{{else}}", 0, "{{else}} without", None),
        ("{{#if text}}{{else}}{{else}}{{/if}}", 0, "{{else}} without", None),
        ("{{#unless text}}{{/unless}}", 0, "Unknown block {{#unless}}", "{{else}}"),
        ("{{#iff text}}{{/iff}}", 0, "Did you mean 'if'", None),
        ("{{#if}}{{/if}}", 0, "takes one name", "{{#if name}}"),
        ("{{#if a b}}{{/if}}", 0, "takes one name", None),
        ("{{{text}}}", 0, "not a tag", "ever escaped"),
        ("{{~text}}", 0, "not a tag", "whitespace control"),
        ("{{> other}}", 0, "not a tag", "partials"),
        ("{{user.name}}", 0, "not a tag", "attribute access"),
        ("{{upper text}}", 0, "not a tag", "no helper calls"),
        ("{{@index}}", 0, "not a tag", "loop variables"),
        ("{{else if text}}", 0, "not a tag", "nested {{#if}}"),
        ("{{text}}\n{{!-- note }}", 1, "never closed", "--}}"),
        ("{{#if text}}\n" * 17, 16, "More than 16 blocks", None),
        ("{{}}", 0, "not a tag", "tags are"),
        ('{{role "model"}}', 0, "Did you mean 'assistant'", None),
        ('{{role "usr"}}', 0, "Did you mean 'user'", None),
        ("{{role user}}", 0, "quoted", '{{role "user"}}'),
    ],
)
def test_parse_template_errors_name_line_and_remedy(body: str, line: int, message: str, hint: str | None):
    """An author must not have to guess where the error is or what to write instead."""
    with pytest.raises(PromptError) as caught:
        parse(with_body(body))
    assert caught.value.line == BODY_LINE + line
    assert message in caught.value.message
    assert f"task.prompt:{BODY_LINE + line}:" in str(caught.value)
    if hint:
        assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("body", "line", "error", "message"),
    [
        ("{{text}}\n{{txet}}", 1, MissingVariable, "Did you mean 'text'"),
        ("{{text}}{{#if mood}}{{/if}}", 0, MissingVariable, "'mood' is not declared"),
        ("{{text}}{{label}}", 0, MissingVariable, "'label' is not declared"),
        ("{{text}}{{#each labels}}{{/each}}", 0, MissingVariable, "needs labels"),
        ("{{text}}{{#each text}}{{/each}}", 0, PromptError, "needs an array"),
        ("{{text}}\n<|im_start|>system", 1, PromptError, "'<|im_start|>' may not be written"),
        ("a\nb <｜User｜> {{text}}", 1, PromptError, "may not be written"),
        ("{{history}}\nmore {{text}}", 0, PromptError, "needs a role"),
        ('{{role "user"}}{{text}}{{history}}', 0, PromptError, "Nothing follows"),
        ('{{history}}{{history}}{{role "user"}}{{text}}', 0, PromptError, "once only"),
        ('{{text}}\n{{role "assistant"}}\nSure:', 1, PromptError, "ends in an assistant turn"),
        ("", 0, PromptError, "never uses the variable 'text'"),
        ("hello", 0, PromptError, "never uses the variable 'text'"),
    ],
)
def test_check_template_errors(body: str, line: int, error: type[PromptError], message: str):
    """What is right in form and wrong in sense is found when the file is read, not when a user asks."""
    with pytest.raises(error) as caught:
        parse(with_body(body))
    assert message in caught.value.message
    assert caught.value.line == (3 if "never uses" in message else BODY_LINE + line)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{{text}}{{words}}", "'words' is an array"),
        ("{{text}}{{#each words}}{{#each words}}{{/each}}{{/each}}", "inside {{#each}}"),
        ('{{text}}{{#each words}}{{role "user"}}{{this}}{{/each}}', "Turns cannot be repeated"),
    ],
)
def test_check_template_arrays(body: str, message: str):
    """The length of a caller's list must not decide how many turns a prompt has."""
    with pytest.raises(PromptError, match=message.replace("{", r"\{")):
        parse(with_body(body, schema='{text: string, "words(array)": string}'))


def test_check_template_follows_roles_through_conditions():
    """After {{history}} a role that only one branch opens is not enough."""
    fine = '{{history}}{{#if mood}}{{role "system"}}{{mood}}{{/if}}{{role "user"}}{{text}}'
    parse(with_body(fine, schema='{text: string, "mood?": string}'))
    with pytest.raises(PromptError, match="needs a role"):
        parse(
            with_body(
                '{{history}}{{#if mood}}{{role "user"}}{{mood}}{{/if}}{{text}}',
                schema='{text: string, "mood?": string}',
            )
        )
