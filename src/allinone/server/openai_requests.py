"""The bodies of OpenAI's requests, as far as this server can keep what they promise.

A request that passes here can be run; one that does not is told which field is at fault. Knows no model and no task.
Above: `openai_api.py`. Below: `openai_fields.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator

from allinone.engine.requests import Constraint
from allinone.server.fields import Name, Text
from allinone.server.openai_fields import (
    MAX_CHOICES,
    TEXT_OR_LIST,
    Ignored,
    OpenAIBody,
    Refused,
    Sampled,
    TokenIds,
    only,
)

MAX_MESSAGES = 4_096
MAX_TOOLS = 128
MAX_TOP_LOGPROBS = 20
MAX_EMBEDDING_INPUTS = 2_048
_NO_TOOLS = "this model calls no tools"


class TextPart(OpenAIBody):
    """A piece of a message's content."""

    type: Literal["text"]
    text: Text


class ChatMessage(OpenAIBody):
    """One message. `name` is taken and not shown to the model; what an assistant's message has beside its text must be
    empty.
    """

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        Annotated[Text, Tag("text")]
        | Annotated[list[TextPart], Field(min_length=1, max_length=1_000, fail_fast=True), Tag("list")],
        TEXT_OR_LIST,
    ]
    name: Name | None = None
    refusal: Refused = None
    annotations: Annotated[None, only("annotations are not supported here; leave them out")] = None
    audio: Refused = None
    tool_calls: Annotated[None, only(_NO_TOOLS)] = None
    function_call: Annotated[None, only(_NO_TOOLS)] = None

    @field_validator("content", mode="before")
    @classmethod
    def _check_parts(cls, content: Any) -> Any:
        """A message that names the part, instead of one for each type that it is not."""
        if content is None or not isinstance(content, str | list):
            raise ValueError("a text is needed, or a list of parts of type 'text'")
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind != "text":
                raise ValueError(f"a part of type {str(kind)[:40]!r} cannot be read: this model reads text")
        return content

    @property
    def model_role(self) -> str:
        """The role as models know it."""
        return "system" if self.role == "developer" else self.role

    @property
    def text(self) -> str:
        """The content in one piece; parts stand on lines of their own."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class TextFormat(OpenAIBody):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(OpenAIBody):
    """A JSON object."""

    type: Literal["json_object"]


class JsonSchema(OpenAIBody):
    """A JSON Schema; it always holds, whatever `strict` says."""

    name: Name
    description: Text | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(OpenAIBody):
    """JSON that matches a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat: TypeAlias = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class ChatRequest(Sampled):
    """`POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(
        min_length=1, max_length=MAX_MESSAGES, fail_fast=True, examples=[[{"role": "user", "content": "你好"}]]
    )
    max_completion_tokens: int | None = Field(default=None, ge=1, lt=2**31)
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    tool_choice: Annotated[Literal["none", "auto"] | None, only(_NO_TOOLS, "none", "auto")] = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = Field(
        default=None, description="Only with `tool_choice` none."
    )
    functions: Annotated[None, only(_NO_TOOLS)] = None
    function_call: Annotated[Literal["none", "auto"] | None, only(_NO_TOOLS, "none", "auto")] = None
    modalities: Annotated[list[Literal["text"]] | None, only("this model writes text only", ["text"])] = None
    audio: Refused = None
    web_search_options: Refused = None
    reasoning_effort: Annotated[
        Literal["none"] | None, only("this model does not reason before it answers; 'none' can be had", "none")
    ] = None
    verbosity: Annotated[Literal["medium"] | None, only("only 'medium' can be had", "medium")] = None
    metadata: Ignored = None
    moderation: Ignored = None
    parallel_tool_calls: Ignored = None
    prediction: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None
    safety_identifier: Ignored = None
    service_tier: Ignored = None
    store: Ignored = Field(default=None, description="Accepted; nothing is stored.")

    @field_validator("max_completion_tokens")
    @classmethod
    def _check_limit(cls, limit: int | None, found: ValidationInfo) -> int | None:
        if limit is not None and found.data.get("max_tokens") not in (None, limit):
            raise ValueError("max_tokens says otherwise; give one of them")
        return limit

    @field_validator("top_logprobs")
    @classmethod
    def _check_top_logprobs(cls, top_logprobs: int | None, found: ValidationInfo) -> int | None:
        if top_logprobs is not None and not found.data.get("logprobs"):
            raise ValueError("logprobs must be true with it")
        return top_logprobs

    @field_validator("tools")
    @classmethod
    def _check_tools(cls, tools: list[dict[str, Any]] | None, found: ValidationInfo) -> list[dict[str, Any]] | None:
        if tools and found.data.get("tool_choice") != "none":
            raise ValueError(f"{_NO_TOOLS}; leave them out, or set tool_choice to 'none'")
        return tools

    @property
    def constraint(self) -> Constraint | None:
        """What the answer is held to."""
        if isinstance(self.response_format, JsonSchemaFormat):
            return Constraint(kind="json_schema", value=self.response_format.json_schema.schema_)
        if isinstance(self.response_format, JsonObjectFormat):
            return Constraint(kind="json_schema", value={"type": "object"})
        return None

    @property
    def num_logprobs(self) -> int | None:
        """As `SamplingParams` has it."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def sampling(self, choice: int = 0) -> dict[str, Any]:
        """See `Sampled.sampling`."""
        found = super().sampling(choice)
        if self.max_completion_tokens is not None:
            found["max_tokens"] = self.max_completion_tokens
        if self.logprobs:
            found["num_logprobs"] = self.num_logprobs
        return found


def _prompt_kind(prompt: Any) -> str | None:
    """Which of the four kinds of prompt this is, by its first entry."""
    if isinstance(prompt, str):
        return "text"
    first: Any = prompt[0] if isinstance(prompt, list) and prompt else None
    kinds = {str: "texts", int: "ids", list: "lists of ids"}
    return kinds.get(type(first))


class CompletionRequest(Sampled):
    """`POST /v1/completions`: goes on with a text as it is, without roles."""

    prompt: Annotated[
        Annotated[Text, Tag("text")]
        | Annotated[list[Text], Field(max_length=MAX_CHOICES), Tag("texts")]
        | Annotated[TokenIds, Tag("ids")]
        | Annotated[list[TokenIds], Field(max_length=MAX_CHOICES, fail_fast=True), Tag("lists of ids")],
        Discriminator(_prompt_kind),
        Field(examples=["从前有一座山"]),
    ]
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    echo: Annotated[Literal[False] | None, only("the prompt is not given back; leave it out", False)] = None
    suffix: Refused = None
    best_of: Annotated[Literal[1] | None, only("every answer that is made is given back; use n", 1)] = None

    @field_validator("prompt", mode="before")
    @classmethod
    def _check_prompt(cls, prompt: Any) -> Any:
        if _prompt_kind(prompt) is None:
            raise ValueError("a text or a list of texts is needed, or token ids or a list of lists of them")
        return prompt

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """All of them, in order."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        return [self.prompt] if isinstance(self.prompt[0], int) else self.prompt  # pyright: ignore[reportReturnType]

    def sampling(self, choice: int = 0) -> dict[str, Any]:
        """See `Sampled.sampling`."""
        found = super().sampling(choice)
        return found if self.logprobs is None else {**found, "num_logprobs": self.logprobs}


class EmbeddingRequest(OpenAIBody):
    """`POST /v1/embeddings`."""

    model: Name = Field(examples=["allinone"])
    input: Annotated[
        Annotated[Text, Tag("text")]
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_EMBEDDING_INPUTS, fail_fast=True), Tag("list")],
        TEXT_OR_LIST,
        Field(examples=["今天很开心"]),
    ]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1, description="Only the size that the model has.")
    user: Text | None = Field(default=None, description="Accepted, and neither used nor kept.")

    @field_validator("input", mode="before")
    @classmethod
    def _check_input(cls, given: Any) -> Any:
        if isinstance(given, list) and given and isinstance(given[0], int | list):
            raise ValueError("token ids of another model's tokenizer mean nothing here; send texts")
        if not isinstance(given, str | list):
            raise ValueError("a text or a list of texts is needed")
        return given

    @property
    def texts(self) -> list[str]:
        """All of them, in order."""
        return [self.input] if isinstance(self.input, str) else self.input
