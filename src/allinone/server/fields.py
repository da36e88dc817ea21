"""Types of request fields that several API modules share: texts that every store and model can hold, bounded numbers.

Knows pydantic, nothing else. Above: the API modules.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MAX_TEXT_CHARS = 100_000
"""Of one text; a task's own limit in tokens, and that of the whole body, come on top."""
MAX_DEADLINE_S = 600.0
MAX_NAME_CHARS = 200
MAX_MEMBERS = 100
"""Of one JSON object with named members: every unknown one is an error of its own, and costs time and memory."""


def check_text(text: str) -> str:
    """Refuse what neither a tokenizer nor a database can hold."""
    if "\x00" in text:
        raise ValueError("the text holds the character U+0000, which no text has")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"the text is not valid Unicode: a lone surrogate at character {error.start}") from None
    return text


Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS), AfterValidator(check_text)]
"""What a user wrote."""
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS), AfterValidator(check_text)]
"""A short name: of a task, a label, a title."""
Seconds = Annotated[float, Field(gt=0, le=MAX_DEADLINE_S, allow_inf_nan=False)]
"""A time limit."""


class Body(BaseModel):
    """Base of everything that a client sends: unknown members are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _check_num_members(cls, value: Any) -> Any:
        return _check_num_entries(value, MAX_MEMBERS)


def bounded(max_entries: int) -> BeforeValidator:
    """Refuse a larger object before its entries are looked at: `max_length` collects the mistakes of all of them."""
    return BeforeValidator(lambda value: _check_num_entries(value, max_entries))


def _check_num_entries(value: Any, max_entries: int) -> Any:
    if isinstance(value, dict) and len(value) > max_entries:  # pyright: ignore[reportUnknownArgumentType]
        raise ValueError(f"the object has more than {max_entries} members")
    return value


def problem_schema(description: str) -> dict[str, Any]:
    """OpenAPI's description of an error response."""
    return {"description": description, "content": {"application/problem+json": {"schema": PROBLEM_SCHEMA}}}


PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "hint": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "in": {"type": "string"},
                    "place": {"type": "string"},
                    "message": {"type": "string"},
                    "kind": {"type": "string"},
                },
            },
        },
    },
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of an operation, for its `responses`; those that every operation may give come with them."""
    return {status: problem_schema(_MEANINGS[status]) for status in sorted({*_EVERYWHERE, *statuses})}


_EVERYWHERE = (400, 401, 403, 408, 413, 422, 429, 503)
_MEANINGS = {
    400: "The request cannot be understood.",
    401: "A key is needed.",
    403: "This key, or this page, may not do this.",
    404: "There is no such thing.",
    405: "This path knows other methods.",
    408: "The deadline passed, or the request came too slowly.",
    409: "It was changed in the meantime.",
    413: "The request is too large, or nested too deeply.",
    422: "The request does not fit its schema, or the text cannot be processed.",
    429: "This key has asked too much; Retry-After says when to come back.",
    500: "The server failed.",
    503: "The server is busy or being stopped; Retry-After says when to come back.",
}
