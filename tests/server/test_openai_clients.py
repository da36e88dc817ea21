"""Other people's clients, unmodified, against a real server with the bundled model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict

from allinone import AllInOne
from allinone.server.key_file import KeyFile
from allinone.server.keys import KeyRing

from .live import Live, live, until

openai = pytest.importorskip("openai", reason="needs the extra dev")
HAPPY = "今天的实验终于成功了,太棒了!"
HELLO: list[Any] = [{"role": "user", "content": "你好"}]
SEEDED: dict[str, Any] = {"seed": 3, "max_tokens": 12, "temperature": 0.7}


class Verdict(BaseModel):
    """What a structured answer looks like."""

    model_config = ConfigDict(extra="forbid")

    mood: Literal["good", "bad"]
    score: Literal[1, 2, 3]


@pytest.fixture(scope="module")
def ai() -> Iterator[AllInOne]:
    with AllInOne.load() as ai:
        yield ai


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[KeyFile, str]:
    """A key file, and a key that opens everything."""
    file = KeyFile(tmp_path_factory.mktemp("keys") / "keys.json")
    _, key = file.add("everything")
    return file, key


@pytest.fixture(scope="module")
def served(ai: AllInOne, keys: tuple[KeyFile, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(ai, tmp_path_factory.mktemp("server"), keys=KeyRing(file=keys[0])) as served:
        yield served


def base_url(served: Live) -> str:
    """What OpenAI's clients call so."""
    return f"{served.url}/v1"


@pytest.fixture
def client(served: Live, keys: tuple[KeyFile, str]) -> Iterator[Any]:
    with openai.OpenAI(base_url=base_url(served), api_key=keys[1], max_retries=0, timeout=120) as client:
        yield client


# openai


def test_openai_chat_streamed_equals_whole(client: Any) -> None:
    """Text, log-probabilities, the way it ended and what it cost."""
    fields = {"model": "allinone", "messages": HELLO, **SEEDED, "logprobs": True, "top_logprobs": 2}
    client.chat.completions.create(**fields)
    whole = client.chat.completions.create(**fields)
    chunks = list(client.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True}))
    choice = whole.choices[0]
    assert choice.message.content
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == choice.message.content
    told = [token for chunk in chunks[1:-1] for token in chunk.choices[0].logprobs.content]
    assert told == choice.logprobs.content
    assert b"".join(bytes(token.bytes) for token in told).decode() == choice.message.content
    assert chunks[-2].choices[0].finish_reason == choice.finish_reason
    assert chunks[-1].usage == whole.usage
    assert whole.usage.prompt_tokens_details.cached_tokens > 0, "the template's own words"


def test_openai_stream_helper_and_several_choices(client: Any) -> None:
    """The client's own bookkeeping of a stream, which refuses chunks that do not fit together."""
    fields = {"model": "allinone", "messages": HELLO, "n": 2, **SEEDED, "max_tokens": 300}
    with client.chat.completions.stream(**fields) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    plain = client.chat.completions.create(**fields)
    assert [choice.message.content for choice in final.choices] == [choice.message.content for choice in plain.choices]


def test_openai_structured_output_parses(client: Any) -> None:
    """`parse` sends the strict schema of a pydantic class and reads the answer with it."""
    answer = client.chat.completions.parse(model="allinone", messages=HELLO, response_format=Verdict, max_tokens=60)
    assert isinstance(answer.choices[0].message.parsed, Verdict)


def test_openai_conversation_takes_back_what_it_was_given(client: Any) -> None:
    """The answer goes into the next request as the client's own object."""
    first = client.chat.completions.create(model="allinone", messages=HELLO, **SEEDED)
    turns = [*HELLO, first.choices[0].message, {"role": "user", "content": [{"type": "text", "text": "谢谢"}]}]
    second = client.chat.completions.create(model="allinone", messages=turns, **SEEDED)
    assert second.usage.prompt_tokens > first.usage.prompt_tokens + first.usage.completion_tokens


def test_openai_label_task_is_the_runtimes_answer(client: Any, ai: AllInOne) -> None:
    """`allinone/TASK`: the label, and how sure it is."""
    expected = ai.run("sentiment", HAPPY)
    assert expected.probs is not None
    answer = client.chat.completions.create(
        model="allinone/sentiment", messages=[{"role": "user", "content": HAPPY}], logprobs=True, top_logprobs=5
    )
    assert answer.choices[0].message.content == expected.label == "正面"
    (token,) = answer.choices[0].logprobs.content
    told = {other.token: np.exp(other.logprob) for other in token.top_logprobs}
    assert told == pytest.approx(dict(expected.probs))


def test_openai_completions(client: Any) -> None:
    """Several prompts, whole and streamed."""
    fields = {"model": "allinone", "prompt": ["从前", "有一天"], **SEEDED, "logprobs": 2}
    whole = client.completions.create(**fields)
    streamed = {0: "", 1: ""}
    for chunk in client.completions.create(**fields, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == {choice.index: choice.text for choice in whole.choices}
    assert "".join(whole.choices[0].logprobs.tokens) == whole.choices[0].text


def test_openai_embeddings(client: Any, ai: AllInOne) -> None:
    """The client asks for base64 unless told otherwise; one text alone has the vector it has beside others."""
    inputs = ["今天很开心", "天气不错", "The parcel is late."]
    packed = client.embeddings.create(model="allinone", input=inputs)
    plain = client.embeddings.create(model="allinone", input=inputs[1], encoding_format="float")
    assert packed.data[1].embedding == plain.data[0].embedding
    hidden = ai.start_embed(inputs[1]).result().vector
    np.testing.assert_allclose(packed.data[1].embedding, hidden / np.linalg.norm(hidden), rtol=1e-5, atol=1e-7)
    assert packed.usage.prompt_tokens == sum(embedding.usage.num_prompt_tokens for embedding in ai.embed(inputs))


def test_openai_models(client: Any) -> None:
    """Listed, and looked up by an id with a slash."""
    names = [model.id for model in client.models.list()]
    assert "allinone" in names and "allinone/sentiment" in names
    assert client.models.retrieve("allinone/sentiment").id == "allinone/sentiment"


def test_openai_errors_are_the_clients_own_classes(client: Any, served: Live) -> None:
    """With what the server said in them."""
    create = client.chat.completions.create
    with pytest.raises(openai.NotFoundError, match="Did you mean 'allinone/sentiment'"):
        create(model="allinone/sentimen", messages=HELLO)
    tools: Any = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="calls no tools") as caught:
            create(model="allinone", messages=HELLO, tools=tools, stream=stream)
        assert caught.value.param == "tools" and caught.value.request_id
    with pytest.raises(openai.BadRequestError) as caught:
        create(model="allinone", messages=[{"role": "user", "content": "很长" * 40_000}])
    assert caught.value.code == "context_length_exceeded"
    with (
        openai.OpenAI(base_url=base_url(served), api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def test_openai_async_answers_side_by_side(served: Live, keys: tuple[KeyFile, str]) -> None:
    """Many at once, streamed and whole: each gets its own answer."""

    async def ask_all() -> tuple[list[str], list[str]]:
        async with openai.AsyncOpenAI(base_url=base_url(served), api_key=keys[1], max_retries=0) as client:

            async def whole(seed: int) -> str:
                fields = {"model": "allinone", "messages": HELLO, **SEEDED, "seed": seed}
                answer = await client.chat.completions.create(**fields)
                return answer.choices[0].message.content or ""

            async def streamed(seed: int) -> str:
                fields = {"model": "allinone", "messages": HELLO, **SEEDED, "seed": seed}
                chunks = await client.chat.completions.create(**fields, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

            seeds = range(10)
            return (
                await asyncio.gather(*map(whole, seeds)),
                await asyncio.gather(*map(streamed, seeds)),
            )

    whole, streamed = asyncio.run(ask_all())
    assert whole == streamed and len(set(whole)) > 3


def test_openai_stream_that_is_closed_cancels_the_request(client: Any, served: Live) -> None:
    """What a user stops reading is not written any further."""
    before = served.context.ai.stats().num_cancelled
    ids = {str(token_id): -100.0 for token_id in served.context.ai.model.tokenizer.stop_ids}
    stream = client.chat.completions.create(
        model="allinone", messages=HELLO, stream=True, max_tokens=3_000, logit_bias=ids
    )
    next(iter(stream))
    stream.close()
    until(lambda: served.context.ai.stats().num_cancelled > before and served.context.ai.stats().num_running == 0)


# LangChain: with connections of our own, for its own are closed when the process ends


@pytest.fixture
def langchain(served: Live, keys: tuple[KeyFile, str]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The library, and where it finds the server."""
    module = pytest.importorskip("langchain_openai", reason="needs the extra dev")
    with httpx.Client(timeout=120) as connection:
        yield module, {"base_url": base_url(served), "api_key": keys[1], "max_retries": 0, "http_client": connection}


def test_langchain_chat(langchain: tuple[Any, dict[str, Any]]) -> None:
    """Invoke, stream and batch."""
    module, where = langchain
    turns = [("system", "你是朋友。"), ("human", "你好")]
    chat = module.ChatOpenAI(model="allinone", temperature=0.7, seed=3, max_completion_tokens=12, **where)
    answer = chat.invoke(turns)
    assert answer.content and answer.usage_metadata["input_tokens"] > 0
    assert answer.response_metadata["model_name"] == "allinone"
    assert "".join(chunk.content for chunk in chat.stream(turns)) == answer.content
    assert len(chat.batch(["你好", "早上好", "谢谢"])) == 3


def test_langchain_async_chat(langchain: tuple[Any, dict[str, Any]]) -> None:
    """The same from an event loop."""
    module, where = langchain

    async def ask() -> tuple[str, str]:
        async with httpx.AsyncClient(timeout=120) as connection:
            chat = module.ChatOpenAI(
                model="allinone", seed=3, max_completion_tokens=12, **where, http_async_client=connection
            )
            answer = await chat.ainvoke("你好")
            return answer.content, "".join([chunk.content async for chunk in chat.astream("你好")])

    whole, streamed = asyncio.run(ask())
    assert whole and whole == streamed


def test_langchain_structured_output_and_tasks(langchain: tuple[Any, dict[str, Any]]) -> None:
    """A pydantic class as the answer; a task as the model, and how sure it is."""
    module, where = langchain
    structured = module.ChatOpenAI(model="allinone", **where).with_structured_output(Verdict)
    assert isinstance(structured.invoke("今天怎么样？"), Verdict)
    label = module.ChatOpenAI(model="allinone/sentiment", logprobs=True, **where).invoke(HAPPY)
    assert label.content == "正面"
    assert label.response_metadata["logprobs"]["content"][0]["token"] == "正面"


def test_langchain_embeddings(langchain: tuple[Any, dict[str, Any]]) -> None:
    """It sends ids of OpenAI's tokenizer unless told to send texts; texts are what this server takes."""
    module, where = langchain
    embeddings = module.OpenAIEmbeddings(model="allinone", check_embedding_ctx_length=False, **where)
    vectors = embeddings.embed_documents(["今天很开心", "天气不错"])
    assert len(vectors) == 2 and embeddings.embed_query("今天很开心") == pytest.approx(vectors[0])


# LiteLLM

_READ_ONLY = pytest.mark.filterwarnings("ignore:Items? .* on TypedDict class .* `ReadOnly`:UserWarning:pydantic")
"""What pydantic says about the library's own types while it is imported."""


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The library, told to fetch nothing from elsewhere, with connections that are closed."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    module = pytest.importorskip("litellm", reason="needs the extra dev")
    with httpx.Client(timeout=120) as connection:
        monkeypatch.setattr(module, "client_session", connection)
        yield module


@_READ_ONLY
def test_litellm(litellm: Any, served: Live, keys: tuple[KeyFile, str]) -> None:
    """Completion, stream, embedding, text completion, and its own classes of errors."""
    where: dict[str, Any] = {"api_base": base_url(served), "api_key": keys[1], "num_retries": 0, "timeout": 120}
    answer = litellm.completion(model="openai/allinone", messages=HELLO, **SEEDED, **where)
    text = answer.choices[0].message.content
    assert text and answer.usage.completion_tokens > 0
    chunks = litellm.completion(model="openai/allinone", messages=HELLO, stream=True, **SEEDED, **where)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    label = litellm.completion(
        model="openai/allinone/sentiment", messages=[{"role": "user", "content": HAPPY}], logprobs=True, **where
    )
    assert label.choices[0].message.content == "正面"
    schema = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": Verdict.model_json_schema()}}
    held = litellm.completion(model="openai/allinone", messages=HELLO, response_format=schema, max_tokens=60, **where)
    assert Verdict.model_validate(json.loads(held.choices[0].message.content))
    vectors = litellm.embedding(model="openai/allinone", input=["今天很开心"], **where)
    assert len(vectors.data[0]["embedding"]) == served.context.ai.model.backend.info.hidden_size
    with pytest.raises(litellm.exceptions.NotFoundError, match="Unknown model"):
        litellm.completion(model="openai/allinone/none", messages=HELLO, **where)
    with pytest.raises(litellm.exceptions.AuthenticationError):
        litellm.completion(model="openai/allinone", messages=HELLO, **(where | {"api_key": "wrong"}))


@_READ_ONLY
def test_litellm_async(litellm: Any, monkeypatch: pytest.MonkeyPatch, served: Live, keys: tuple[KeyFile, str]) -> None:
    """The same from an event loop."""
    where: dict[str, Any] = {"api_base": base_url(served), "api_key": keys[1], "num_retries": 0, "timeout": 120}

    async def ask() -> tuple[str, str]:
        async with httpx.AsyncClient(timeout=120) as connection:
            monkeypatch.setattr(litellm, "aclient_session", connection)
            answer = await litellm.acompletion(model="openai/allinone", messages=HELLO, **SEEDED, **where)
            chunks = await litellm.acompletion(model="openai/allinone", messages=HELLO, stream=True, **SEEDED, **where)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
            return answer.choices[0].message.content, text

    whole, streamed = asyncio.run(ask())
    assert whole == streamed
