"""Replies under way: each is a task of its own that writes into a log, so that a lost connection loses nothing.

A reply goes on for a while without a reader, and its log can be read again from any event; then it is stopped, and what
was said is kept as the turn. A turn that was announced as done is in the store. Above: `reply_api.py`. Below:
`talks.py`, `waiting.py`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass

from allinone.errors import AllInOneError, Cancelled, NotFound
from allinone.pipelines.conversation import Conversation, Opening
from allinone.pipelines.reply import Reply
from allinone.server.context import ServerContext
from allinone.server.failures import log_failure
from allinone.server.keys import Access
from allinone.server.problems import describe
from allinone.server.sse import EventLog
from allinone.server.talks import Talk, Talks, mood_of, title_of
from allinone.server.waiting import events, settled
from allinone.types import Result, Usage

MAX_ENDED = 2_000
"""Replies that have ended and whose log is still held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a client asked for.

    Attributes:
        conversation: id of the one to go on with; a new one where None, none at all where `is_stored` is false.
    """

    text: str
    conversation: str | None
    language: str
    is_stored: bool


class ReplyRun:
    """One reply, from the text to the turn in the store.

    Attributes:
        log: its events; None until there is a first one.
    """

    def __init__(self, context: ServerContext, talks: Talks, access: Access, wanted: Wanted) -> None:
        self._context, self._talks = context, talks
        self._access, self._wanted = access, wanted
        self._reply: Reply | None = None
        self._began = asyncio.Event()
        self._unread: asyncio.TimerHandle | None = None
        self._error: BaseException | None = None
        self.log: EventLog | None = None
        self.task = asyncio.create_task(self._run())

    @property
    def owner(self) -> str:
        """Whose it is."""
        return self._access.owner

    async def begun(self) -> EventLog:
        """The log, once there is something in it.

        Raises:
            AllInOneError: it failed before its first event.
        """
        await self._began.wait()
        if self.log is None:
            assert self._error is not None
            raise self._error
        return self.log

    def stop(self) -> None:
        """End it where it is; what was said is kept."""
        if self._reply is not None:
            self._reply.cancel()
        else:
            self.task.cancel()

    def watch(self) -> None:
        """Call when a reader has gone: without another one in time, the reply is stopped."""
        if self._unread is not None:
            self._unread.cancel()
        self._unread = asyncio.get_running_loop().call_later(
            self._context.settings.unread_reply_s, self._stop_unless_read
        )

    def _stop_unless_read(self) -> None:
        if self.log is None or (not self.log.num_readers and not self.log.is_closed):
            self.stop()

    async def _run(self) -> None:
        """The whole way; how it ends is the log's last event."""
        try:
            with self._context.drain.running():
                async with self._context.limits.stream(self._access):
                    await self._answer()
        except asyncio.CancelledError:  # stopped before there was anything to keep, or the server ends at once
            self._error = Cancelled("The reply was stopped before it began.")
        except AllInOneError as error:
            self._fail(error)
        except Exception as error:
            log_failure(error, request_id="a reply", with_message=self._context.settings.log_texts)
            self._fail(AllInOneError("The server failed at this reply; its log says where."))
        finally:
            if self.log is not None:
                self.log.close()
            self._began.set()

    def _fail(self, error: AllInOneError) -> None:
        self._error = error
        if self.log is not None:
            self.log.append("error", describe(error))

    async def _answer(self) -> None:
        wanted = self._wanted
        if not wanted.is_stored:
            conversation = self._context.ai.conversation(client=self.owner, language=wanted.language)
            try:
                await self._speak(conversation, None)
            finally:
                conversation.close()
            return
        id = wanted.conversation
        if id is None:
            title = title_of(wanted.text)
            id = (await self._talks.create(self.owner, language=wanted.language, title=title)).id
        async with self._talks.hold(self.owner, id) as talk:
            await self._speak(talk.conversation, talk)

    async def _speak(self, conversation: Conversation, talk: Talk | None) -> None:
        """Mood, tokens, and the turn: one event each, in this order."""
        opening = conversation.begin(self._wanted.text)
        adding = asyncio.create_task(self._context.answers.add(self._access, conversation.chat))
        try:
            reply = await self._open(opening)
        except BaseException:
            adding.cancel()
            raise
        (answer_id,) = await adding
        where = {"id": answer_id, "conversation": None if talk is None else talk.record.id}
        self._reply = reply
        self._announce(EventLog(answer_id), {**where, **mood_of(reply.mood), "model": reply.mood.model})
        async for event in events(reply):
            if event.text:
                self._tell("token", {"text": event.text})
        result = reply.result()
        self._count(reply.mood, result)
        number = None
        if talk is not None and result.usage.num_output_tokens:
            number = await asyncio.shield(talk.keep_last_turn(reply=result, answer_id=answer_id))
        done = {
            **where,
            "turn": number,
            "text": result.text,
            "finish_reason": result.finish_reason,
            "usage": asdict(result.usage),
            "timings": asdict(result.timings),
        }
        self._tell("done", done)

    async def _open(self, opening: Opening) -> Reply:
        try:
            await settled(opening)
        except asyncio.CancelledError:
            await asyncio.to_thread(opening.cancel)  # waits for the engine's step
            raise
        return opening.finish()

    def _announce(self, log: EventLog, label: Mapping[str, object]) -> None:
        self.log = log
        log.append("label", label)
        self.watch()
        self._began.set()

    def _tell(self, name: str, data: Mapping[str, object]) -> None:
        if self.log is not None:
            self.log.append(name, data)

    def _count(self, mood: Result, reply: Result) -> None:
        for result in (mood, reply):
            usage: Usage = result.usage
            self._context.limits.add_tokens(self._access, usage)
            self._context.metrics.count_result(result)


class ReplyRuns:
    """All replies that are under way or can still be read again. Used from one event loop."""

    def __init__(self, context: ServerContext, talks: Talks) -> None:
        self._context = context
        self._talks = talks
        self._by_id: OrderedDict[str, ReplyRun] = OrderedDict()

    async def begin(self, access: Access, wanted: Wanted) -> ReplyRun:
        """A new reply that has its mood.

        Raises:
            AllInOneError: it failed before that; nothing was kept.
        """
        run = ReplyRun(self._context, self._talks, access, wanted)
        try:
            log = await run.begun()
        except asyncio.CancelledError:  # the client has gone: nobody knows the reply's id
            run.stop()
            raise
        self._by_id[log.id] = run
        run.task.add_done_callback(lambda _: self._retire(log.id))
        while len(self._by_id) > MAX_ENDED and next(iter(self._by_id.values())).task.done():
            self._by_id.popitem(last=False)
        return run

    def find(self, access: Access, id: str) -> ReplyRun:
        """A reply of this owner.

        Raises:
            NotFound: there is none (any more), or it is another's.
        """
        run = self._by_id.get(id)
        if run is None or run.owner != access.owner:
            raise NotFound("There is no such reply, or its events are no longer held.", hint="read the conversation")
        return run

    @asynccontextmanager
    async def reading(self, run: ReplyRun) -> AsyncGenerator[EventLog]:
        """The log of a reply while a client reads it."""
        async with AsyncExitStack() as stack:
            log = await run.begun()
            stack.callback(run.watch)
            yield log

    def _retire(self, id: str) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(2 * self._context.settings.unread_reply_s, self._by_id.pop, id, None)
