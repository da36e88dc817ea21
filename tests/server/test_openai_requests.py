"""What OpenAI's clients may ask: what changes no answer is taken, everything else is kept or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from allinone.engine.requests import SamplingParams
from allinone.server.openai_requests import ChatRequest, CompletionRequest, EmbeddingRequest

HELLO = [{"role": "user", "content": "hello"}]


def chat(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "allinone", "messages": HELLO, **fields})


def completion(**fields: Any) -> CompletionRequest:
    return CompletionRequest.model_validate({"model": "allinone", "prompt": "Once", **fields})


def embedding(**fields: Any) -> EmbeddingRequest:
    return EmbeddingRequest.model_validate({"model": "allinone", "input": "a", **fields})


def fault(make: Any, **fields: Any) -> tuple[str, str]:
    """The place and the message of the first thing that is wrong."""
    with pytest.raises(ValidationError) as caught:
        make(**fields)
    first = caught.value.errors()[0]
    return ".".join(map(str, first["loc"])), first["msg"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user", "u-1"), ("store", True), ("metadata", {"run": "7"}), ("service_tier", "auto"),
        ("parallel_tool_calls", False), ("prompt_cache_key", "k"), ("safety_identifier", "s"),
        ("prediction", {"type": "content", "content": "x"}), ("modalities", ["text"]), ("reasoning_effort", "none"),
        ("verbosity", "medium"), ("tool_choice", "none"), ("tools", []), ("function_call", "none"), ("functions", []),
        ("stream_options", {"include_usage": True, "include_obfuscation": False}), ("logit_bias", {}), ("n", 1),
    ],
)  # fmt: skip
def test_chat_takes_what_changes_no_answer(name: str, value: Any) -> None:
    """Programs that set these to what they are anyway must not fail."""
    assert chat(**{name: value}).sampling() == chat().sampling()
    assert chat(**{name: None}).sampling() == chat().sampling()


@pytest.mark.parametrize(
    ("fields", "place", "says"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "calls no tools"),
        ({"tool_choice": "required"}, "tool_choice", "calls no tools"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice", "calls no tools"),
        ({"functions": [{"name": "f"}]}, "functions", "calls no tools"),
        ({"function_call": {"name": "f"}}, "function_call", "calls no tools"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio", "not supported"),
        ({"modalities": ["text", "audio"]}, "modalities", "text only"),
        ({"web_search_options": {"search_context_size": "low"}}, "web_search_options", "not supported"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "does not reason"),
        ({"verbosity": "low"}, "verbosity", "only 'medium'"),
        ({"top_logprobs": 3}, "top_logprobs", "logprobs must be true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens", "max_tokens says otherwise"),
        ({"temperature": 2.5}, "temperature", "less than or equal to 2"),
        ({"temperature": "0.5"}, "temperature", "valid number"),
        ({"temperature": float("nan")}, "temperature", "less than"),
        ({"logit_bias": {"hello": 1}}, "logit_bias", "token ids"),
        ({"logit_bias": {"5": 101}}, "logit_bias", "between -100 and 100"),
        ({"response_format": {"type": "grammar"}}, "response_format", "'json_schema'"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format", "required"),
        ({"max_token": 5}, "max_token", "not permitted"),
        ({"messages": []}, "messages", "at least 1"),
        ({"n": 0}, "n", "greater than or equal to 1"),
    ],
)  # fmt: skip
def test_chat_refuses_what_it_cannot_keep(fields: dict[str, Any], place: str, says: str) -> None:
    """By name: an answer that silently lacks what was asked for is worse than none."""
    where, message = fault(chat, **fields)
    assert where.split(".")[0] == place and says in message


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "part of type 'image_url'"),
        ({"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "input_audio"}]}, "'input_audio'"),
        ({"role": "user", "content": [{"type": "file"}]}, "'file'"),
        ({"role": "user", "content": ["x"]}, "part of type 'None'"),
        ({"role": "user", "content": None}, "a text is needed"),
        ({"role": "user", "content": 5}, "a text is needed"),
        ({"role": "user", "content": []}, "at least 1"),
        ({"role": "tool", "tool_call_id": "1", "content": "x"}, "'assistant'"),
        ({"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}, "calls no tools"),
        ({"role": "assistant", "content": "x", "refusal": "no"}, "not supported"),
        ({"role": "user", "content": "a\x00b"}, "U+0000"),
        ({"role": "user", "content": "x", "trusted": True}, "not permitted"),
    ],
)
def test_message_refuses_what_the_model_cannot_read(message: dict[str, Any], says: str) -> None:
    """Each with one message that says what it is."""
    where, found = fault(chat, messages=[*HELLO, message])
    assert where.startswith("messages.1") and len(where) < 40 and says in found


def test_message_of_an_assistant_may_come_back_as_it_was_given() -> None:
    """Clients put the answer into the next request with all its empty fields."""
    given = {
        "role": "assistant", "content": "hi", "refusal": None, "annotations": [], "audio": None, "function_call": None,
        "tool_calls": None, "name": "bot",
    }  # fmt: skip
    assert [message.text for message in chat(messages=[*HELLO, given]).messages] == ["hello", "hi"]


def test_message_parts_are_one_text_and_developers_are_the_system() -> None:
    """As other servers of the API read them."""
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    (message,) = chat(messages=[{"role": "developer", "content": parts}]).messages
    assert (message.model_role, message.text) == ("system", "one\ntwo")


def test_sampling_has_the_fields_that_were_given_and_no_others() -> None:
    """What a client leaves out is decided elsewhere: by the chat task, or by a task's own file."""
    assert chat().sampling() == {}
    given = {
        "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
    }  # fmt: skip
    request = chat(**given, stop="END", logit_bias={"5": -3}, max_completion_tokens=7, logprobs=True, top_logprobs=2)
    assert request.sampling() == {
        **given, "stop": ("END",), "logit_bias": {5: -3}, "max_tokens": 7, "num_logprobs": 2,
    }  # fmt: skip
    SamplingParams(**request.sampling())
    assert chat(stop=["a", "b"]).sampling() == {"stop": ("a", "b")}
    assert chat(logprobs=True).num_logprobs == 0 and chat(logprobs=False).num_logprobs is None


def test_seed_makes_choices_repeatable_but_not_equal() -> None:
    """Any seed of OpenAI's range, the negative ones too."""
    request = chat(seed=-5, n=3)
    seeds = [request.sampling(choice)["seed"] for choice in range(3)]
    assert len(set(seeds)) == 3 and min(seeds) >= 0
    assert seeds == [chat(seed=-5, n=3).sampling(choice)["seed"] for choice in range(3)]


def test_response_format_becomes_a_constraint() -> None:
    """A schema with any of its keywords, an object, or nothing."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    spec = {"name": "answer", "schema": schema, "strict": True}
    strict = chat(response_format={"type": "json_schema", "json_schema": spec}).constraint
    assert strict is not None and (strict.kind, strict.value) == ("json_schema", schema)
    an_object = chat(response_format={"type": "json_object"}).constraint
    assert an_object is not None and an_object.value == {"type": "object"}
    assert chat(response_format={"type": "text"}).constraint is chat().constraint is None


def test_completion_takes_texts_and_token_ids() -> None:
    """One or several, in order."""
    assert completion(prompt="a").prompts == ["a"]
    assert completion(prompt=["a", "b"]).prompts == ["a", "b"]
    assert completion(prompt=[5, 6]).prompts == [[5, 6]]
    assert completion(prompt=[[5], [6, 7]]).prompts == [[5], [6, 7]]
    assert completion(best_of=1, echo=False, suffix=None).sampling() == {}
    assert completion(logprobs=3).sampling() == {"num_logprobs": 3}


@pytest.mark.parametrize(
    ("fields", "place", "says"),
    [
        ({"echo": True}, "echo", "not given back"),
        ({"suffix": "end"}, "suffix", "not supported"),
        ({"best_of": 3}, "best_of", "use n"),
        ({"prompt": []}, "prompt", "a text or a list"),
        ({"prompt": ["a", 5]}, "prompt", "valid string"),
        ({"prompt": None}, "prompt", "a text or a list"),
        ({"prompt": [[]]}, "prompt", "at least 1"),
        ({"prompt": [-1]}, "prompt", "greater than or equal to 0"),
    ],
)
def test_completion_refuses_what_it_cannot_keep(fields: dict[str, Any], place: str, says: str) -> None:
    """As for chat."""
    with pytest.raises(ValidationError) as caught:
        completion(**fields)
    assert any(error["loc"][0] == place and says in error["msg"] for error in caught.value.errors())


@pytest.mark.parametrize("given", [[1, 2], [[1, 2], [3]]])
def test_embedding_refuses_token_ids_of_another_tokenizer(given: Any) -> None:
    """LangChain sends ids of OpenAI's own vocabulary unless told otherwise: they would embed nonsense."""
    where, message = fault(embedding, input=given)
    assert where == "input" and "another model's tokenizer" in message


def test_embedding_takes_one_text_or_several() -> None:
    """In order."""
    assert embedding(input="a").texts == ["a"]
    assert embedding(input=["a", "b"], encoding_format="base64").texts == ["a", "b"]
    assert fault(embedding, input=5)[0] == "input"
    assert fault(embedding, input=[])[0].startswith("input")
