"""Bodies: refused by size, pace and nesting before anything parses them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from allinone.errors import AllInOneError, RequestTooLarge, RequestTooSlow, ServerBusy, UsageError
from allinone.server.body import BodyReader, nests_deeper
from allinone.server.settings import ServerSettings

CHUNKED = {b"transfer-encoding": b"chunked"}


def _sender(pieces: Sequence[bytes], *, pause_s: float = 0.0, is_ended: bool = True) -> tuple[Receive, list[int]]:
    """What a client sends, and how many pieces of it were taken."""
    taken = [0]

    async def receive() -> Message:
        await asyncio.sleep(pause_s)
        if taken[0] == len(pieces):
            return {"type": "http.disconnect"}
        taken[0] += 1
        return {
            "type": "http.request",
            "body": pieces[taken[0] - 1],
            "more_body": taken[0] < len(pieces) or not is_ended,
        }

    return receive, taken


def _read(reader: BodyReader, receive: Receive, headers: dict[bytes, bytes] = CHUNKED) -> bytes:
    return asyncio.run(reader.read(receive, headers))


def test_a_body_comes_whole() -> None:
    """In however many pieces; its bytes are counted until they are given back."""
    reader = BodyReader(ServerSettings())
    receive, _ = _sender([b"ab", b"", b"cd"])
    assert _read(reader, receive) == b"abcd"
    assert reader.num_buffered_bytes == 4
    reader.release(4)
    assert reader.num_buffered_bytes == 0


def test_a_request_without_a_body_is_not_waited_for() -> None:
    """Nothing says that there is one."""
    receive, taken = _sender([b"ab"], pause_s=3_600)
    assert _read(BodyReader(ServerSettings()), receive, {}) == b"" and taken == [0]


@pytest.mark.parametrize("length", [b"1073741824", b"101", b"9" * 5_000])
def test_a_body_that_says_it_is_too_large_is_not_read(length: bytes) -> None:
    """A gigabyte is refused at its announcement."""
    reader = BodyReader(ServerSettings(max_body_bytes=100))
    receive, taken = _sender([b"x" * 100])
    with pytest.raises(RequestTooLarge, match="100 bytes"):
        _read(reader, receive, {b"content-length": length})
    assert taken == [0] and reader.num_buffered_bytes == 0


def test_a_body_that_grows_too_large_is_read_no_further() -> None:
    """One that announces nothing is counted."""
    reader = BodyReader(ServerSettings(max_body_bytes=100))
    receive, taken = _sender([b"x" * 40] * 1_000)
    with pytest.raises(RequestTooLarge):
        _read(reader, receive)
    assert taken == [3] and reader.num_buffered_bytes == 0


def test_bodies_of_all_requests_are_bounded_together() -> None:
    """A thousand clients with a megabyte each would be a gigabyte."""
    reader = BodyReader(ServerSettings(max_body_bytes=100, max_buffered_bytes=150))
    assert len(_read(reader, _sender([b"x" * 100])[0])) == 100
    with pytest.raises(ServerBusy):
        _read(reader, _sender([b"x" * 100])[0])
    assert reader.num_buffered_bytes == 100
    reader.release(100)
    assert len(_read(reader, _sender([b"x" * 100])[0])) == 100


@pytest.mark.parametrize(
    ("limits", "pause_s", "num_pieces"),
    [
        ({"body_idle_timeout_s": 0.05}, 3_600.0, 1),
        ({"body_timeout_s": 0.2, "body_idle_timeout_s": 0.19}, 0.02, 10_000),
    ],
)
def test_a_body_that_trickles_is_given_up(limits: dict[str, float], pause_s: float, num_pieces: int) -> None:
    """Both a client that stops and one that sends a byte now and then."""
    reader = BodyReader(ServerSettings(**limits))  # type: ignore[arg-type] # names of limits
    with pytest.raises(RequestTooSlow):
        _read(reader, _sender([b"x"] * num_pieces, pause_s=pause_s)[0])
    assert reader.num_buffered_bytes == 0


def test_a_client_that_goes_in_the_middle_leaves_nothing() -> None:
    """What it had sent is given back."""
    reader = BodyReader(ServerSettings())
    with pytest.raises(ClientDisconnect):
        _read(reader, _sender([b"x" * 10], is_ended=False)[0])
    assert reader.num_buffered_bytes == 0


@pytest.mark.parametrize("length", [b"-1", b"1e3", b"ten", b""])
def test_a_length_that_is_no_number_is_refused(length: bytes) -> None:
    """The HTTP library refuses these too; this layer does not rely on it."""
    with pytest.raises(UsageError):
        _read(BodyReader(ServerSettings()), _sender([b"x"])[0], {b"content-length": length})


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((_depth(item) for item in value.values()), default=0)
    return 1 + max((_depth(item) for item in value), default=0) if isinstance(value, list) else 0


_texts = st.text(alphabet='a"\\[]{}:,é\n', max_size=8)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=20,
)


@given(value=_values, max_depth=st.integers(0, 8), ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
@settings(max_examples=200, deadline=None)
def test_depth_is_that_of_a_parser(value: Any, max_depth: int, ascii_only: bool, indent: int | None) -> None:
    """Brackets in strings, escaped quotes and escaped backslashes do not count."""
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert nests_deeper(body, max_depth) == (_depth(value) > max_depth)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b"[" * 100 + b"]" * 100,
        b"[{" * 50 + b"}]" * 50,
        b'"unclosed [' + b'"' + b"[" * 100,
        b"[" * 34 + b"}",
        b'["\\\\",' * 40,
    ],
)
def test_deep_bodies_are_found(body: bytes) -> None:
    """Whole ones, and those that end too early for a parser to say so."""
    assert nests_deeper(body, 32)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]" * 500_000,
        b"]" * 1_000_000,
        b'"' + b"[" * 1_000_000,
        b'{"a": "' + b'\\"[' * 300_000 + b'"}',
        b'"' + b"\\" * 1_000_000,
        b'"[",' * 250_000,
    ],
)
def test_flat_bodies_are_let_through_quickly(body: bytes) -> None:
    """What is written to make a pattern backtrack takes no longer than anything else: it never takes a second."""
    started = time.process_time()
    assert not nests_deeper(body, 32)
    assert time.process_time() - started < 5


def test_deep_body_is_refused_with_the_limit() -> None:
    """As too large: it is a matter of size."""
    reader = BodyReader(ServerSettings(max_json_depth=3))
    with pytest.raises(AllInOneError, match="deeper than 3") as refusal:
        _read(reader, _sender([b"[[[[1]]]]"])[0])
    assert isinstance(refusal.value, RequestTooLarge) and reader.num_buffered_bytes == 0
