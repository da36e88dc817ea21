"""The engine with hardly any memory, driven at random: every answer, every history and every count as the oracle says.

The oracle is a plain greedy loop over a backend of its own: no cache, no scheduler, no session.
"""

from __future__ import annotations

import random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from allinone.backends.base import Chunk, FloatArray
from allinone.backends.fake import ByteTokenizer, FakeBackend
from allinone.engine.engine import Engine
from allinone.engine.prefix_cache import NaivePrefixCache
from allinone.engine.requests import (
    GenerateRequest,
    Generation,
    LabelScores,
    PrefillRequest,
    Request,
    SamplingParams,
    ScoreRequest,
)
from allinone.engine.session import Session
from allinone.engine.stats import EngineStats
from allinone.engine.tickets import Stream, Ticket
from allinone.errors import ModelError

TOKENIZER = ByteTokenizer()
PREFIXES = ((), tuple(b"aaaaaaaaaaaaaa"), tuple(b"bbbbbbbbbb"), tuple(b"cccccccccccccccccccccc"))
LABELS = {"x": (1,), "y": (2, 3), "z": (2,)}
texts = st.binary(min_size=1, max_size=24).map(tuple)
Ids = tuple[int, ...]


class FailingBackend(FakeBackend):
    """Its next call fails if `is_broken`."""

    is_broken = False

    def extend(self, batch: list[Chunk]) -> list[FloatArray | None]:  # type: ignore[override]
        """Fail after a part of the batch was written: the worst there is."""
        if self.is_broken:
            self.is_broken = False
            super().extend(batch[: len(batch) // 2])
            raise RuntimeError("bad kernel")
        return super().extend(batch)


def greedy(ids: Ids, *, max_tokens: int) -> Ids:
    """What a model without any engine says."""
    backend = FakeBackend()
    sequence = backend.fork()
    said: list[int] = []
    feed = ids
    while len(said) < max_tokens and not (said and said[-1] in TOKENIZER.stop_ids):
        logits = backend.extend([Chunk(sequence=sequence, input_ids=feed, wanted="last_logits")])[0]
        assert logits is not None
        logits[TOKENIZER.control_tokens["<|im_start|>"]] = -100
        said.append(int(logits.argmax()))
        feed = (said[-1],)
    return tuple(said)


def kept(said: Ids) -> Ids:
    """What a conversation keeps of a reply: all but the id that ended it."""
    return said[:-1] if said[-1] in TOKENIZER.stop_ids else said


def scores(ids: Ids) -> LabelScores:
    with Engine(FakeBackend(), TOKENIZER) as engine:
        return engine.score(ScoreRequest(prefix_ids=(), input_ids=ids, label_ids=LABELS))


def is_broken(ticket: Ticket[Any]) -> bool:
    """Whether the failing step took it along."""
    try:
        ticket.result()
    except ModelError as error:
        assert "bad kernel" in str(error)
        return True
    return False


def assert_grown(before: EngineStats, after: EngineStats) -> None:
    """What a monitor takes for a counter never falls, whatever failed."""
    for name in ("num_steps", "num_prefilled_tokens", "num_decoded_tokens", "num_draft_tokens", "num_accepted_tokens"):
        assert getattr(after, name) >= getattr(before, name), name


class Conversation:
    """A session and the ids it should have."""

    def __init__(self, session: Session, prefix_ids: Ids) -> None:
        self.session, self.prefix_ids, self.ids = session, prefix_ids, prefix_ids


class Engines(RuleBasedStateMachine):
    """One engine, several conversations, requests alone and together."""

    conversations = Bundle("conversations")

    def __init__(self) -> None:
        super().__init__()
        self.backend = FailingBackend(has_exact_drafts=True)
        self.last_stats = EngineStats()
        self.engine = Engine(
            self.backend,
            TOKENIZER,
            max_prefix_tokens=40,
            max_cached_tokens=130,
            max_batch_tokens=16,
            prefixes=self.make_prefixes(),
        )

    def make_prefixes(self) -> NaivePrefixCache | None:
        """None is the engine's own."""
        return None

    @rule(target=conversations, prefix_ids=st.sampled_from(PREFIXES))
    def open(self, prefix_ids: Ids) -> Conversation:
        """A conversation begins; nothing is computed."""
        return Conversation(self.engine.open_session(prefix_ids), prefix_ids)

    @rule(prefix_ids=st.sampled_from(PREFIXES), together=st.lists(texts, min_size=1, max_size=5))
    def ask_without_a_session(self, prefix_ids: Ids, together: list[Ids]) -> None:
        """Labels and texts at once, from one task."""
        requests: list[Request] = []
        for place, ids in enumerate(together):
            if place % 2:
                sampling = SamplingParams(max_tokens=place + 1, prompt_lookup_num_tokens=4)
                requests.append(GenerateRequest(prefix_ids=prefix_ids, input_ids=ids, sampling=sampling))
            else:
                requests.append(ScoreRequest(prefix_ids=prefix_ids, input_ids=ids, label_ids=LABELS))
        results = [ticket.result() for ticket in self.engine.submit(*requests)]
        for place, (ids, result) in enumerate(zip(together, results, strict=True)):
            if isinstance(result, Generation):
                assert result.token_ids == greedy(prefix_ids + ids, max_tokens=place + 1)
            else:
                assert isinstance(result, LabelScores)
                assert result.logprobs == scores(prefix_ids + ids).logprobs

    @rule(conversation=conversations, text=texts, hint=texts, num=st.integers(1, 4), split=st.booleans())
    def reply(self, conversation: Conversation, text: Ids, hint: Ids, num: int, split: bool) -> None:
        """A turn, in one part or in two, with a label beside it."""
        if len(conversation.ids) + len(text) + len(hint) + num > 110:
            return
        session = conversation.session
        if split:
            score, prefill = self.engine.submit(
                ScoreRequest(prefix_ids=PREFIXES[1], input_ids=text, label_ids=LABELS),
                PrefillRequest(session=session, input_ids=text),
            )
            assert score.result().logprobs == scores(PREFIXES[1] + text).logprobs
            prefill.result()
        input_ids = hint if split else text + hint
        sampling = SamplingParams(max_tokens=num, prompt_lookup_num_tokens=4)
        request = GenerateRequest(session=session, input_ids=input_ids, sampling=sampling)
        said = self.engine.stream(request).result().token_ids
        assert said == greedy(conversation.ids + text + hint, max_tokens=num)
        conversation.ids += text + hint + kept(said)
        assert session.ids == conversation.ids

    @rule(conversation=conversations, text=texts, num=st.integers(0, 3))
    def cancel(self, conversation: Conversation, text: Ids, num: int) -> None:
        """A reply is stopped; what was said stays, and what was not begun leaves no trace."""
        if len(conversation.ids) + len(text) + 20 > 110:
            return
        sampling = SamplingParams(max_tokens=20, prompt_lookup_num_tokens=4)
        stream = self.engine.stream(GenerateRequest(session=conversation.session, input_ids=text, sampling=sampling))
        said = [event.token_id for _, event in zip(range(num), stream, strict=False)]
        stream.cancel()
        said += [event.token_id for event in stream]
        ids = tuple(token_id for token_id in said if token_id is not None)
        assert ids == greedy(conversation.ids + text, max_tokens=20)[: len(ids)]
        if ids:
            conversation.ids += text + kept(ids)
        assert conversation.session.ids == conversation.ids

    @rule(conversation=conversations, text=texts)
    def fail(self, conversation: Conversation, text: Ids) -> None:
        """A step fails half-way; conversations are as before."""
        if len(conversation.ids) + len(text) + 2 > 110:
            return
        self.backend.is_broken = True
        prefill, score = self.engine.submit(
            PrefillRequest(session=conversation.session, input_ids=text),
            ScoreRequest(prefix_ids=PREFIXES[2], input_ids=text, label_ids=LABELS),
        )
        has_failed = [is_broken(ticket) for ticket in (prefill, score)]
        assert any(has_failed)
        if not has_failed[0]:
            conversation.ids += text
        assert conversation.session.ids == conversation.ids

    @rule(conversation=conversations, cut=st.integers(0, 200), end=st.integers(0, 200), is_tail=st.booleans())
    def forget(self, conversation: Conversation, cut: int, end: int, is_tail: bool) -> None:
        """Turns are taken back, or the oldest forgotten."""
        prefix, length = len(conversation.prefix_ids), len(conversation.ids)
        start = prefix + cut % (length - prefix + 1)
        if is_tail:
            conversation.session.truncate(start)
            conversation.ids = conversation.ids[:start]
        else:
            stop = start + end % (length - start + 1)
            conversation.session.drop(start, stop)
            conversation.ids = conversation.ids[:start] + conversation.ids[stop:]

    @rule(conversation=consumes(conversations))
    def close(self, conversation: Conversation) -> None:
        """A conversation ends."""
        conversation.session.close()

    @rule(text=texts)
    def abandon(self, text: Ids) -> None:
        """Somebody asks and goes away."""
        stream: Stream | None = self.engine.stream(
            GenerateRequest(prefix_ids=PREFIXES[3], input_ids=text, sampling=SamplingParams(max_tokens=60))
        )
        if random.Random(len(text)).random() < 0.5:
            next(stream)
        stream = None

    @precondition(lambda self: self.engine.stats().num_steps)
    @invariant()
    def books_are_right(self) -> None:
        """After a request that makes the engine read all its messages, nothing is running: count everything."""
        self.engine.score(ScoreRequest(prefix_ids=(), input_ids=(1,), label_ids={"a": (1,)}))
        stats = self.engine.stats()
        assert_grown(self.last_stats, stats)
        self.last_stats = stats
        if stats.num_running == stats.num_waiting == 0:
            self.engine._memory.check_integrity()

    def teardown(self) -> None:
        """Nothing stays."""
        self.engine.close()
        assert self.backend.num_sequences() == 0


class NaiveEngines(Engines):
    """The same, sharing no prefix."""

    def make_prefixes(self) -> NaivePrefixCache | None:
        """Another cache, the same answers."""
        return NaivePrefixCache(self.backend)


TestEngines = Engines.TestCase
TestEngines.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestNaiveEngines = NaiveEngines.TestCase
TestNaiveEngines.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
