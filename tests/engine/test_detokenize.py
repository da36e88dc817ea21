from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allinone.engine.detokenize import StopStrings, StreamDetokenizer


def byte(token_id: int) -> bytes:
    return bytes([token_id])


@given(st.text())
def test_detokenizer_streams_what_the_whole_says(text: str) -> None:
    """Streamed = whole, and every piece is made of complete characters (it could not be encoded otherwise)."""
    detokenizer = StreamDetokenizer(byte)
    pieces = [detokenizer.push(token_id) for token_id in text.encode("utf-8")]
    assert "".join(pieces) == text
    assert all("�" not in piece or "�" in text for piece in pieces)


def test_detokenizer_waits_for_the_last_byte_of_a_character() -> None:
    """Half an emoji is never shown."""
    detokenizer = StreamDetokenizer(byte)
    assert [detokenizer.push(b) for b in "好😄".encode()] == ["", "", "好", "", "", "", "😄"]


def test_detokenizer_replaces_impossible_bytes_and_drops_an_unfinished_end() -> None:
    """A model may say any byte; what can never become text is marked, what is cut off is not shown."""
    detokenizer = StreamDetokenizer(byte)
    assert "".join(detokenizer.push(b) for b in b"a\xffb\xe5\xa5") == "a�b"


@given(
    st.lists(st.text(alphabet="abc", max_size=4), max_size=30),
    st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=3).map(tuple),
)
def test_stop_strings_release_the_text_up_to_the_first_and_nothing_of_it(
    pieces: list[str], stop: tuple[str, ...]
) -> None:
    """However the text is cut: never a piece of a stop string, never a character lost."""
    finder, released, text = StopStrings(stop), "", ""
    for piece in pieces:
        text += piece
        part, is_found = finder.push(piece)
        released += part
        places = [place for place in (text.find(one) for one in stop) if place >= 0]
        assert is_found == bool(places)
        if is_found:
            assert released == text[: min(places)]
            return
        assert text.startswith(released)
    assert released + finder.flush() == text


@pytest.mark.parametrize(
    ("stop", "text", "held"), [(("\n用户：",), "好\n用户", "\n用户"), (("abc", "bx"), "ab", "ab"), ((), "ab", "")]
)
def test_stop_strings_hold_back_exactly_what_may_become_one(stop: tuple[str, ...], text: str, held: str) -> None:
    """The least that is safe: streaming stays as fluent as it can be."""
    finder = StopStrings(stop)
    assert finder.push(text) == (text[: len(text) - len(held)], False)
    assert finder.flush() == held
