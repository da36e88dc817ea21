from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allinone.backends.base import Backend, Chunk
from allinone.backends.fake import ByteTokenizer, FakeBackend
from allinone.errors import InvalidInput


def say(backend: FakeBackend, ids: tuple[int, ...], count: int) -> bytes:
    """Greedy bytes after these ids."""
    sequence, said, feed = backend.fork(), [], ids
    for _ in range(count):
        logits = backend.extend([Chunk(sequence=sequence, input_ids=feed, wanted="last_logits")])[0]
        assert logits is not None
        said.append(int(logits.argmax()))
        feed = (said[-1],)
    backend.free(sequence)
    return bytes(said)


def test_fake_backend_is_a_backend() -> None:
    """The seam is checked at run time too."""
    assert isinstance(FakeBackend(), Backend)


def test_fake_logits_are_spread_evenly_and_the_same_on_every_machine() -> None:
    """Pinned: whatever is built on the fake model must not change from one version to the next by accident."""
    backend = FakeBackend(vocab_size=10_000)
    sequence = backend.fork()
    logits = backend.extend([Chunk(sequence=sequence, input_ids=(1, 2, 3), wanted="last_logits")])[0]
    assert logits is not None
    assert -4 <= logits.min() < -3.99 and 3.99 < logits.max() < 4
    assert abs(logits.mean()) < 0.1 and len(np.unique(logits)) > 9_900
    np.testing.assert_allclose(logits[:3], [-3.9093399, -1.9635906, 0.3276129], atol=1e-6)


def test_script_is_said_after_its_key_and_the_longest_key_wins() -> None:
    """What tests of the layers above use to get sensible answers from a model without weights."""
    script = {tuple(b"mood?"): tuple(b"good"), tuple(b"real mood?"): tuple(b"bad"), tuple(b"x"): tuple(b"yz")}
    backend = FakeBackend(script=script)
    assert say(backend, tuple(b"your mood?"), 4) == b"good"
    assert say(backend, tuple(b"your real mood?"), 3) == b"bad"
    assert say(backend, tuple(b"axe x"), 2) == b"yz"
    assert say(backend, tuple(b"something else"), 4) not in (b"good", b"badx")


@given(st.text())
def test_byte_tokenizer_keeps_every_text(text: str) -> None:
    """Also texts with control tokens in them: values are never altered, trusted text loses only the markers."""
    tokenizer = ByteTokenizer()
    ids = tokenizer.tokenize(text, control=False)
    assert tokenizer.detokenize(ids) == text and tokenizer.control_ids.isdisjoint(ids)
    assert tokenizer.tokenize(text, control=True) == ids


def test_byte_tokenizer_knows_control_tokens_in_trusted_text() -> None:
    """Anywhere, adjacent, and only whole ones."""
    tokenizer = ByteTokenizer()
    text = "<|im_start|>a<|im_end|><|endoftext|><|im_start"
    ids = tokenizer.tokenize(text, control=True)
    assert ids == [257, ord("a"), 258, 256, *b"<|im_start"]
    assert tokenizer.detokenize(ids) == "a<|im_start"
    assert [tokenizer.token_bytes(i) for i in (65, 256, 258)] == [b"A", b"", b""]


def test_byte_tokenizer_refuses_half_a_character() -> None:
    """A lone surrogate is not text."""
    for control in (False, True):
        with pytest.raises(InvalidInput, match="position 1"):
            ByteTokenizer().tokenize("a\ud800", control=control)


def test_byte_tokenizer_saves_what_it_is(tmp_path: Path) -> None:
    """A folder of the fake model says so."""
    ByteTokenizer().save(tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_text())["type"] == "byte"
