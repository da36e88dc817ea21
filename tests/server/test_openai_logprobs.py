"""Log-probabilities beside their text: the tokens told are the text, whatever was held back or thrown away."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from allinone.backends.fake import ByteTokenizer, FakeBackend
from allinone.engine.engine import Engine
from allinone.engine.requests import GenerateRequest, SamplingParams, TokenEvent
from allinone.server.openai_logprobs import (
    LEAST_LOGPROB,
    LogprobReader,
    TokenLogprob,
    chat_shape,
    completion_shape,
    label_logprob,
)
from allinone.types import Result


def said(text: str, *, stop: tuple[str, ...] = (), max_tokens: int = 100) -> list[TokenEvent]:
    """The events of a model that says `text` and ends its turn."""
    ids = (*text.encode("utf-8"), 258)
    backend = FakeBackend(script={(1,): ids})
    with Engine(backend, ByteTokenizer()) as engine:
        sampling = SamplingParams(stop=stop, max_tokens=max_tokens, num_logprobs=2)
        return list(engine.stream(GenerateRequest(input_ids=(1,), sampling=sampling)))


def read(events: Sequence[TokenEvent]) -> list[tuple[TokenLogprob, ...]]:
    reader = LogprobReader(ByteTokenizer())
    return [reader.push(event) for event in events]


@pytest.mark.parametrize("text", ["hello", "今天 😀 é", "a"])
def test_tokens_told_are_the_bytes_of_the_text_at_every_moment(text: str) -> None:
    """A token of a character that is not complete waits for it; the stop token is no part of the text."""
    events = said(text)
    shown, told = "", b""
    for event, tokens in zip(events, read(events), strict=True):
        shown += event.text
        told += b"".join(token.spelling for token in tokens)
        assert told == shown.encode("utf-8")
    assert shown == text


@pytest.mark.parametrize("stop", ["wor", "world", "o wo", "lo"])
def test_tokens_of_a_stop_string_are_not_told(stop: str) -> None:
    """They are no part of the answer; nor is what was held back told before it is shown."""
    events = said("hello world, hello", stop=(stop,))
    shown, told = "", b""
    for event, tokens in zip(events, read(events), strict=True):
        shown += event.text
        told += b"".join(token.spelling for token in tokens)
        assert told == shown.encode("utf-8")
    assert shown == "hello world"[: "hello world".index(stop)]


def test_tokens_are_told_when_a_stop_string_did_not_come() -> None:
    """What looked like its beginning was text."""
    events = said("hello wo", stop=("world",))
    tokens = [token for found in read(events) for token in found]
    assert b"".join(token.spelling for token in tokens).decode() == "hello wo"


def test_tokens_of_half_a_character_are_told_when_the_limit_cuts_it() -> None:
    """They were paid for."""
    events = said("é" * 3, max_tokens=5)
    tokens = [token for found in read(events) for token in found]
    assert "".join(event.text for event in events) == "éé" and len(tokens) == 5


def test_offsets_are_places_in_the_text() -> None:
    """Characters, not bytes; the bytes of one character begin at the same place."""
    tokens = [token for found in read(said("aé😀b")) for token in found]
    assert [token.start for token in tokens] == [0, 1, 1, 2, 2, 2, 2, 3]


def test_shapes_are_openais() -> None:
    """Bytes and text of each token, likeliest others; infinity is not JSON, and no two tokens look alike."""
    token = TokenLogprob(
        spelling=b"\xe4",
        logprob=-0.5,
        start=3,
        likeliest=(TokenLogprob(spelling=b"a", logprob=-0.25), TokenLogprob(spelling=b"\xe5", logprob=-math.inf)),
    )
    assert chat_shape([token]) == {
        "content": [
            {
                "token": "\ufffd", "logprob": -0.5, "bytes": [0xE4],
                "top_logprobs": [
                    {"token": "a", "logprob": -0.25, "bytes": [97]},
                    {"token": "\ufffd", "logprob": LEAST_LOGPROB, "bytes": [0xE5]},
                ],
            }
        ],
        "refusal": None,
    }  # fmt: skip
    assert completion_shape([token]) == {
        "tokens": ["bytes:\\xe4"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"a": -0.25, "bytes:\\xe5": LEAST_LOGPROB, "bytes:\\xe4": -0.5}],
        "text_offset": [3],
    }


def test_control_tokens_among_the_likeliest_have_their_names() -> None:
    """A client sees how near the end was."""
    reader = LogprobReader(ByteTokenizer())
    (token,) = reader.push(TokenEvent(text="a", token_id=97, logprob=-1.0, top_logprobs=((258, -0.5), (97, -1.0))))
    assert [other.spelling for other in token.likeliest] == [b"<|im_end|>", b"a"]


def test_label_is_one_token_with_its_probability() -> None:
    """The others in order of probability; zero is no number in a logarithm."""
    result = Result(
        task="t", version="v", model="m", kind="label", label="好", probs={"坏": 0.25, "好": 0.75, "?": 0.0}, p_max=0.75
    )
    token = label_logprob(result, 3)
    assert token.spelling.decode() == "好" and token.logprob == pytest.approx(math.log(0.75))
    assert [other.spelling.decode() for other in token.likeliest] == ["好", "坏", "?"]
    assert chat_shape([token])["content"][0]["top_logprobs"][2]["logprob"] == LEAST_LOGPROB
    assert label_logprob(result, 1).likeliest[0].spelling.decode() == "好"
