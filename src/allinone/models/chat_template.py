"""Messages → the segments of a prompt, in the turn format that the model itself brings along.

The template is Jinja, read from the model. It never sees a user's text: sentinels with a random part stand in for the
values while it is rendered, and the result is cut at them. Knows no token ids. Above: `tasks/encoder.py`.

Source: docs/decisions/0004-tokenizer-and-template.md
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from allinone.errors import ModelError, TokenizerMismatch
from allinone.models.tokenizer_files import NamedTemplate, SavedTemplate, read_file, read_tokenizer_config
from allinone.types import Message, Role, Segment

Structure: TypeAlias = tuple[tuple[Role, tuple[str | None, ...]], ...]
"""Messages without their values: per message the role and, per segment, the trusted text or None for a value."""

Pieces: TypeAlias = tuple[str | int, ...]
"""A rendered structure: trusted text, and the numbers of the values between it."""

MAX_KEPT_MESSAGES = 64
"""Longer prompts are rendered anew each time: what clients send must not fill the memory."""

_FILE, _SOURCE_FILE = "chat_template.json", "chat_template.jinja"
_PLAIN_NAMES: Mapping[str, Mapping[Role, str]] = {
    "zh": {"user": "用户：", "assistant": "助手："},
    "en": {
        "user": "User: ",
        "assistant": "Assistant:\n",
    },  # a label or reply then starts without a space, as in Chinese
}


class ChatTemplate:
    """A model's chat template, or the plain-text one of a base model.

    Args:
        source: Jinja text; None renders plain text.
        name: of the model, for messages.
        bos_token, eos_token: handed to the template.

    Raises:
        ModelError: the Jinja text cannot be parsed.
    """

    def __init__(self, source: str | None, *, name: str, bos_token: str = "", eos_token: str = "") -> None:
        self.source = source
        self.name = name
        self.bos_token = bos_token
        self.eos_token = eos_token
        self._template = None if source is None else _compile(source, name)
        self._pieces = lru_cache(maxsize=512)(self._render_structure)

    @classmethod
    def plain(cls, name: str = "plain") -> ChatTemplate:
        """For base models: system text, a blank line, then the turns by name, `User: …` or `用户：…`."""
        return cls(None, name=name)

    @property
    def is_plain(self) -> bool:
        """The model has no turn tokens; `stop_strings` end its answers."""
        return self.source is None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Strings that end an answer, where control tokens do not."""
        if not self.is_plain:
            return ()
        return tuple(f"\n{text.strip()}" for names in _PLAIN_NAMES.values() for text in names.values())

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> tuple[Segment, ...]:
        """The prompt as segments: trusted text merged where adjacent, values as the very objects that came in.

        Raises:
            ModelError: the template refuses these messages, or loses, repeats or reorders a text.
        """
        structure: Structure = tuple(
            (message.role, tuple(segment.text if segment.trusted else None for segment in message.content))
            for message in messages
        )
        values = [segment for message in messages for segment in message.content if not segment.trusted]
        render = self._pieces if len(structure) <= MAX_KEPT_MESSAGES else self._render_structure
        return tuple(
            values[piece] if isinstance(piece, int) else Segment(text=piece, trusted=True)
            for piece in render(structure, add_generation_prompt)
        )

    def save(self, folder: Path) -> None:
        """Write `chat_template.json`, and `chat_template.jinja` where the model has one."""
        document = {
            "kind": "plain" if self.is_plain else "jinja",
            "name": self.name,
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
        }
        (folder / _FILE).write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        if self.source is not None:
            (folder / _SOURCE_FILE).write_bytes(self.source.encode("utf-8"))

    @classmethod
    def load(cls, folder: Path) -> ChatTemplate:
        """What `save` wrote.

        Raises:
            ModelError: files are missing or damaged.
        """
        try:
            saved = read_file(SavedTemplate, folder / _FILE)
            source = None if saved.kind == "plain" else _read_source(folder)
        except (OSError, TokenizerMismatch) as error:
            raise ModelError(
                f"The chat template in {folder} cannot be read: {error!r}", hint="import the model again"
            ) from error
        return cls(source, name=saved.name, bos_token=saved.bos_token, eos_token=saved.eos_token)

    def _render_structure(self, structure: Structure, add_generation_prompt: bool) -> Pieces:
        sentinel = _Sentinels(secrets.token_hex(8))
        messages = [
            {"role": role, "content": "".join(sentinel.next() if text is None else text for text in content)}
            for role, content in structure
        ]
        if self._template is None:
            text = _render_plain(messages, add_generation_prompt, is_chinese=_has_chinese(structure))
        else:
            text = self._render_jinja(messages, add_generation_prompt)
        pieces = sentinel.split(text)
        numbers = [piece for piece in pieces if isinstance(piece, int)]
        if numbers != list(range(sentinel.count)):
            raise ModelError(
                f"The chat template of {self.name} does not keep every text once and in order: it got "
                f"{sentinel.count} texts and gave back {numbers}",
                hint="the roles of these messages do not suit this model",
            )
        return pieces

    def _render_jinja(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        from jinja2 import TemplateError

        assert self._template is not None
        try:
            return self._template.render(
                messages=messages,
                add_generation_prompt=add_generation_prompt,
                enable_thinking=False,
                tools=None,
                bos_token=self.bos_token,
                eos_token=self.eos_token,
            )
        except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise ModelError(f"The chat template of {self.name} refuses these messages: {error}") from error


class _Sentinels:
    """Numbered stand-ins for values. The random part makes a value, or trusted text, that equals one impossible."""

    def __init__(self, nonce: str) -> None:
        self._nonce = nonce
        self.count = 0

    def next(self) -> str:
        self.count += 1
        return f"VALUE{self._nonce}N{self.count - 1}E"

    def split(self, text: str) -> Pieces:
        """Text and value numbers in turn; empty text left out."""
        parts = re.split(f"VALUE{self._nonce}N(\\d+)E", text)
        pieces: list[str | int] = []
        for place, part in enumerate(parts):
            if place % 2:
                pieces.append(int(part))
            elif part:
                pieces.append(part)
        return tuple(pieces)


def read_folder_template(folder: Path, *, name: str) -> ChatTemplate:
    """The template of a Hugging Face model folder; plain text where it has none.

    Raises:
        ModelError: a template is there and cannot be used.
    """
    config = read_tokenizer_config(folder)
    has_file = (folder / _SOURCE_FILE).is_file()
    source = _read_source(folder) if has_file else _default_template(config.chat_template, name)
    return ChatTemplate(source, name=name, bos_token=config.text_of("bos_token"), eos_token=config.text_of("eos_token"))


def read_gguf_template(metadata: Mapping[str, Any], *, name: str) -> ChatTemplate:
    """The template inside a GGUF; plain text where it has none.

    Raises:
        ModelError: a template is there and cannot be used.
    """
    tokens: Any = metadata.get("tokenizer.ggml.tokens")

    def token(kind: str) -> str:
        token_id: Any = metadata.get(f"tokenizer.ggml.{kind}_token_id")
        is_listed = isinstance(tokens, list) and isinstance(token_id, int) and 0 <= token_id < len(tokens)
        return str(tokens[token_id]) if is_listed else ""

    source = metadata.get("tokenizer.chat_template")
    if not isinstance(source, str | None):
        raise ModelError(f"{name}: the chat template is {source!r:.40}, a text is needed", hint="download it again")
    return ChatTemplate(source, name=name, bos_token=token("bos"), eos_token=token("eos"))


def _default_template(value: str | list[NamedTemplate] | None, name: str) -> str | None:
    """`chat_template` is a text, or a list of named ones of which "default" is meant."""
    if not isinstance(value, list):
        return value
    named = {entry.name: entry.template for entry in value}
    if "default" not in named:
        raise ModelError(f"{name} has no default chat template. It has: {', '.join(sorted(named))}")
    return named["default"]


def _read_source(folder: Path) -> str:
    file = folder / _SOURCE_FILE
    try:
        return file.read_bytes().decode("utf-8")  # newlines as they are
    except UnicodeDecodeError as error:
        raise TokenizerMismatch(f"{file} is damaged: it is not UTF-8", hint="download it again") from error


def _compile(source: str, name: str) -> Any:
    """The template in a sandbox, with the functions Hugging Face's templates may call."""
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _to_json
    functions = {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    try:
        return environment.from_string(source, globals=functions)
    except TemplateError as error:
        raise ModelError(f"The chat template of {name} cannot be parsed: {error}") from error


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_exception(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    from datetime import datetime

    return datetime.now().strftime(pattern)


def _render_plain(messages: list[dict[str, str]], add_generation_prompt: bool, *, is_chinese: bool) -> str:
    """System text as it is, a blank line, then the turns by name."""
    names = _PLAIN_NAMES["zh" if is_chinese else "en"]
    parts: list[str] = []
    for place, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role == "system":
            parts.append(content + ("\n\n" if place == 0 else "\n"))
        else:
            parts.append(f"{names['user' if role == 'user' else 'assistant']}{content}\n")
    if add_generation_prompt:
        parts.append(names["assistant"])
    return "".join(parts)


def _has_chinese(structure: Structure) -> bool:
    """Decided by the operator's text alone: a user's text never changes the shape of the prompt."""
    return any(re.search("[\u4e00-\u9fff]", text) for _, content in structure for text in content if text is not None)
