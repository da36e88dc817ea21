"""Guesses from the prompt: which they are, that they save steps, and that no output ever depends on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allinone.backends.base import Chunk, FloatArray
from allinone.backends.fake import ByteTokenizer
from allinone.engine.engine import Engine
from allinone.engine.prompt_lookup import PromptLookup
from allinone.engine.requests import Constraint, GenerateRequest, Generation, SamplingParams, ScoreRequest
from allinone.engine.stats import EngineStats
from allinone.errors import InvalidInput, ModelError

from .conftest import RecordingBackend

TEXT = b"the cat sat on the mat, and then the dog came."


def lookup(text: bytes, *, max_tokens: int = 8) -> PromptLookup:
    return PromptLookup(tuple(text), max_tokens=max_tokens)


def test_a_guess_is_what_followed_the_same_words() -> None:
    """The latest place with the same three ids, or two, or one; nothing where there is none."""
    assert bytes(lookup(b"abcdefgh, abc").guess(3)) == b"def"
    assert bytes(lookup(b"bcx abcdef bcy abc").guess(2)) == b"de"
    assert bytes(lookup(b"xbcd bce bc").guess(1)) == b"e"
    assert lookup(b"abc").guess(4) == lookup(b"").guess(4) == lookup(b"abcab").guess(0) == ()


def test_a_corrected_word_does_not_lose_the_place() -> None:
    """After a wrong guess the text goes on one further: "i gose" becomes "i goes", and what follows stands there."""
    found = lookup(b"0123456789 | 01234")
    assert bytes(found.guess(2)) == b"56"
    found.push(ord("X"))
    assert bytes(found.guess(4)) == b"6789"


def test_what_repeats_itself_is_guessed_to_go_on() -> None:
    """A loop of two letters gives eight of them, not two."""
    found = lookup(b"so: ababab")
    found.learn(num_guessed=4, num_right=4)
    assert bytes(found.guess(8)) == b"abababab"


def test_the_size_of_a_guess_follows_how_many_were_right() -> None:
    """Twice as many when all were right, half as many when few were, none for a while in the end."""
    found = lookup(b"abcdefghijklmnopqrstuvwxyz abc", max_tokens=12)
    sizes: list[int] = []
    for num_right in (4, 8, 3, 2, 1, 0):
        sizes.append(len(found.guess(99)))
        found.learn(num_guessed=sizes[-1], num_right=num_right)
    assert sizes == [4, 8, 12, 12, 6, 3]  # a quarter of twelve is enough, two of twelve and one of six are not
    assert len(found.guess(99)) == 2
    found.learn(num_guessed=2, num_right=0)
    assert found.guess(99) == ()
    for token_id in b"0123456789123abc":
        assert found.guess(99) == ()
        found.push(token_id)
    assert len(found.guess(99)) == 2


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 9))
def test_a_guess_is_always_a_part_of_what_was_said(ids: list[int], most: int) -> None:
    """Whatever repeats itself: not longer than asked for, and a copy from one place on, perhaps of itself."""
    found = PromptLookup(ids[:20], max_tokens=8)
    for token_id in ids[20:]:
        guess = found.guess(most)
        num_said = len(found._ids)  # pyright: ignore[reportPrivateUsage]
        whole = (*found._ids, *guess)  # pyright: ignore[reportPrivateUsage]
        assert len(guess) <= most
        places = range(num_said if guess else 1)
        assert any(whole[place : place + len(guess)] == guess for place in places)
        found.push(token_id)


@pytest.fixture
def copying(byte_tokenizer: ByteTokenizer) -> Iterator[tuple[Engine, RecordingBackend]]:
    """An engine whose model repeats its input with two letters changed, then says anything."""
    said = TEXT.replace(b"sat", b"set").replace(b"dog", b"dig")
    backend = RecordingBackend(script={TEXT: said}, has_exact_drafts=True)
    with Engine(backend, byte_tokenizer) as engine:
        yield engine, backend
    assert backend.num_sequences() == 0, "sequences were leaked"


def request(num_tokens: int = 8, **sampling: Any) -> GenerateRequest:
    return GenerateRequest(
        prefix_ids=tuple(b"repeat: "),
        input_ids=tuple(TEXT),
        sampling=SamplingParams(**{"max_tokens": 80, "prompt_lookup_num_tokens": num_tokens} | sampling),
    )


def plain(asked: GenerateRequest) -> GenerateRequest:
    return replace(asked, sampling=replace(asked.sampling, prompt_lookup_num_tokens=0))


def twice_equal(engine: Engine, asked: GenerateRequest) -> Generation:
    """The answer without guesses, after comparing everything but times and the cache with the one with guesses."""
    expected, found = engine.stream(plain(asked)).result(), engine.stream(asked).result()
    usage = replace(expected.usage, num_cached_tokens=found.usage.num_cached_tokens)
    assert found == replace(expected, timings=found.timings, usage=usage)
    return expected


def test_repeating_takes_fewer_steps_and_says_the_same(copying: tuple[Engine, RecordingBackend]) -> None:
    """The counts tell how often the guesses were right; wrong ones count as nothing."""
    engine, backend = copying
    slow = engine.stream(plain(request())).result()
    before, num_slow = engine.stats(), len(backend.batches)
    fast = engine.stream(request()).result()
    after, num_fast = engine.stats(), len(backend.batches) - num_slow
    assert (fast.token_ids, fast.text, fast.usage.num_output_tokens) == (slow.token_ids, slow.text, 80)
    assert num_fast < 60 < num_slow
    assert after.num_decoded_tokens - before.num_decoded_tokens == before.num_decoded_tokens == 79
    assert 30 <= after.num_accepted_tokens < after.num_draft_tokens
    assert num_fast == 80 - after.num_accepted_tokens


@pytest.mark.parametrize(
    "sampling",
    [
        {"stop": ("dig",)},
        {"max_tokens": 7},
        {"max_tokens": 1},
        {"temperature": 1.5, "seed": 4},
        {"temperature": 20.0, "seed": 5, "top_k": 3},
        {"repetition_penalty": 1.5},
        {"frequency_penalty": 9.0, "presence_penalty": 4.0},
        {"num_logprobs": 2},
        {"constraint": Constraint(kind="regex", value="the [a-z ]+")},
        {"constraint": Constraint(kind="choice", value=("the cat", "the dog"))},
        {"logit_bias": {258: 49.0}},
    ],
    ids=lambda sampling: "+".join(sampling),
)
def test_no_setting_makes_a_guess_visible(copying: tuple[Engine, RecordingBackend], sampling: dict[str, Any]) -> None:
    """Ids, text, log-probabilities, reason and counts are those of one token at a time; streamed too."""
    engine, backend = copying
    asked = request(**sampling)
    expected = twice_equal(engine, asked)
    events = list(engine.stream(asked))
    assert tuple(event.token_id for event in events if event.token_id is not None) == expected.token_ids
    assert "".join(event.text for event in events) == expected.text
    assert backend.num_sequences() == 1, "only the prefix stays"


def test_a_conversation_holds_what_was_said_and_no_guess(copying: tuple[Engine, RecordingBackend]) -> None:
    """Its next turn starts from the same ids, wherever the reply ended within a guess."""
    engine, backend = copying
    for num_tokens in range(1, 30):
        replies: list[tuple[int, ...]] = []
        for lookup_tokens in (0, 8):
            sampling = SamplingParams(max_tokens=num_tokens, prompt_lookup_num_tokens=lookup_tokens)
            with engine.open_session(tuple(b"system")) as session:
                turn = GenerateRequest(session=session, input_ids=tuple(TEXT), sampling=sampling)
                said = engine.stream(turn).result()
                held = session.ids
                again = replace(turn, input_ids=tuple(b"and then?"))
                replies.append((*said.token_ids, *held, *engine.stream(again).result().token_ids))
        assert replies[0] == replies[1]
    assert any(chunk.is_draft for batch in backend.batches for chunk in batch)


def test_streams_side_by_side_do_not_guess(copying: tuple[Engine, RecordingBackend]) -> None:
    """They share steps already."""
    engine, backend = copying
    asked = [request(seed=place) for place in range(3)]
    expected = engine.stream(asked[0]).result().token_ids
    backend.batches.clear()
    together = [stream.result() for stream in engine.submit(*asked)]  # type: ignore[union-attr]
    assert [one.token_ids for one in together] == [expected] * 3  # type: ignore[union-attr]
    streaming = [batch for batch in backend.batches if sum(chunk.wanted != "nothing" for chunk in batch) > 1]
    assert streaming and not any(chunk.is_draft for batch in streaming for chunk in batch)


def test_a_lone_stream_goes_on_guessing_beside_labels(
    copying: tuple[Engine, RecordingBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A label that comes meanwhile has a step of its own, and its branches run together with the guesses."""
    engine, backend = copying
    label_ids = {"w": (2, 3), "x": (2, 4), "y": (5, 6), "z": (5, 7)}  # two beginnings: two branches
    score = ScoreRequest(prefix_ids=(), input_ids=tuple(b"a label"), label_ids=label_ids)
    expected, alone = engine.stream(plain(request())).result().token_ids, engine.score(score)
    submitted: list[Any] = []
    extend = backend.extend

    def submit_at_the_first_guess(batch: Sequence[Chunk]) -> list[FloatArray | None]:
        if not submitted and any(chunk.is_draft for chunk in batch):
            submitted.extend(engine.submit(score))
        return extend(batch)

    monkeypatch.setattr(backend, "extend", submit_at_the_first_guess)
    assert engine.stream(request()).result().token_ids == expected
    assert submitted[0].result().logprobs == alone.logprobs
    assert any(len(batch) > 1 and any(chunk.is_draft for chunk in batch) for batch in backend.batches)


def test_counts_do_not_fall_when_a_step_with_guesses_fails(copying: tuple[Engine, RecordingBackend]) -> None:
    """A monitor takes a smaller number for a new process; guesses of a failed step were made, and not right."""
    engine, backend = copying
    extend, seen = backend.extend, list[EngineStats]()

    def fail_at_the_third_guess(batch: Sequence[Chunk]) -> list[FloatArray | None]:
        seen.append(engine.stats())
        if sum(chunk.is_draft for done in (*backend.batches, batch) for chunk in done) == 3:
            backend.error = RuntimeError("bad kernel")
        return extend(batch)

    backend.extend = fail_at_the_third_guess  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="bad kernel"):
        engine.stream(request(temperature=1.0, seed=2)).result()
    backend.extend = extend  # type: ignore[method-assign]
    engine.stream(plain(request(max_tokens=1))).result()
    seen.append(engine.stats())
    for name in ("num_decoded_tokens", "num_draft_tokens", "num_accepted_tokens"):
        counts = [getattr(stats, name) for stats in seen]
        assert counts == sorted(counts), name
    assert seen[-1].num_draft_tokens > seen[-1].num_accepted_tokens


def test_a_backend_without_exact_drafts_is_never_asked_for_one(byte_tokenizer: ByteTokenizer) -> None:
    """There a guess could change the last bits, and with them the output."""
    backend = RecordingBackend(script={TEXT: TEXT})
    with Engine(backend, byte_tokenizer) as engine:
        assert engine.stream(request()).result().text.startswith(TEXT.decode())
    assert not any(chunk.is_draft for batch in backend.batches for chunk in batch)


def test_a_chunk_with_guesses_fits_the_smallest_budget(byte_tokenizer: ByteTokenizer) -> None:
    """However few tokens a step may take."""
    expected: set[tuple[int, ...]] = set()
    for max_batch_tokens in (2, 3, 5, 64):
        backend = RecordingBackend(script={TEXT: TEXT}, has_exact_drafts=True)
        with Engine(backend, byte_tokenizer, max_batch_tokens=max_batch_tokens) as engine:
            expected.add(engine.stream(request(20)).result().token_ids)
        assert max(sum(len(chunk.input_ids) for chunk in batch) for batch in backend.batches) <= max_batch_tokens
    assert len(expected) == 1


def test_an_impossible_number_of_guesses_is_refused(engine: Engine) -> None:
    """It names the parameter and its range."""
    for num_tokens in (-1, 33):
        with pytest.raises(InvalidInput, match=f"prompt_lookup_num_tokens = {num_tokens} is not possible"):
            engine.submit(request(num_tokens))


def test_guesses_change_no_bit_on_the_default_backend(onnx_engine: Engine) -> None:
    """Real kernels: ids and log-probabilities of streams with and without guesses are equal, and guesses were right."""
    rng = np.random.default_rng(5)
    before = onnx_engine.stats()
    for place in range(12):
        part = bytes(rng.integers(97, 123, int(rng.integers(2, 12))).astype(np.uint8))
        asked = GenerateRequest(
            prefix_ids=tuple(b"system ") * (place % 3),
            input_ids=tuple(part * 4),
            sampling=SamplingParams(
                max_tokens=60, num_logprobs=2, prompt_lookup_num_tokens=12, temperature=0.3 * (place % 2), seed=place
            ),
        )
        twice_equal(onnx_engine, asked)
    after = onnx_engine.stats()
    assert after.num_accepted_tokens - before.num_accepted_tokens > 50
