"""The JSON files around a Hugging Face tokenizer, as pydantic models: whatever is damaged in them is named here.

Knows what the product reads of each file, and no more: keys of other tools are ignored. Above: `vocabulary.py` and
`chat_template.py`, which say what the values mean.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from allinone.errors import TokenizerMismatch

_T = TypeVar("_T")
_Merges: TypeAlias = Annotated[list[tuple[str, str]] | list[str], Field(union_mode="left_to_right")]


class _File(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class AddedToken(_File):
    """A token that is matched as a whole; `special` ones are not shown in an output."""

    content: str
    special: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


class ListedToken(AddedToken):
    """The same as `tokenizer.json` lists it."""

    id: int


class Bpe(_File):
    """`model` of a `tokenizer.json`; merges are texts in older files and pairs in newer ones."""

    type: str = "BPE"
    vocab: dict[str, int] = {}
    merges: _Merges = []


class TokenizerFile(_File):
    """`tokenizer.json`."""

    model: Bpe
    pre_tokenizer: dict[str, Any] | None = None
    normalizer: dict[str, Any] | None = None
    added_tokens: list[ListedToken] = []


class NamedTemplate(_File):
    """One of several chat templates."""

    name: str
    template: str


class TokenizerConfig(_File):
    """`tokenizer_config.json`; `stop_token_ids` and `vocab_size` are in those that `BpeTokenizer.save` wrote."""

    added_tokens_decoder: dict[int, AddedToken] = {}
    bos_token: str | AddedToken | None = None
    eos_token: str | AddedToken | None = None
    chat_template: str | list[NamedTemplate] | None = None
    stop_token_ids: list[int] | None = None
    vocab_size: int | None = None

    def text_of(self, key: Literal["bos_token", "eos_token"]) -> str:
        """One of the named tokens as text; empty where the file has none."""
        token: str | AddedToken | None = getattr(self, key)
        return token.content if isinstance(token, AddedToken) else token or ""


class SavedTemplate(_File):
    """`chat_template.json` of a compiled folder."""

    kind: Literal["plain", "jinja"]
    name: str
    bos_token: str
    eos_token: str


class GenerationConfig(_File):
    """`generation_config.json`."""

    eos_token_id: int | list[int] | None = None


def read_tokenizer_config(folder: Path) -> TokenizerConfig:
    """The folder's `tokenizer_config.json`; an empty one where there is none.

    Raises:
        TokenizerMismatch: it is damaged.
    """
    file = folder / "tokenizer_config.json"
    return read_file(TokenizerConfig, file) if file.is_file() else TokenizerConfig()


def read_file(kind: type[_T], file: Path) -> _T:
    """One file as one of the models above, or as plain types (`dict[str, int]` for `vocab.json`).

    Raises:
        TokenizerMismatch: it is not JSON, or a value has another type; names file and key.
    """
    try:
        return TypeAdapter(kind).validate_json(file.read_bytes(), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        problem = f"{place}: {first['msg']}" if place else first["msg"]
        raise TokenizerMismatch(f"{file} is damaged: {problem}", hint="download it again") from error
