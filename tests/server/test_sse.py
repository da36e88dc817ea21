"""The log of a reply: written once, read as often as connections break."""

from __future__ import annotations

import asyncio
import json

import pytest

from allinone.server.sse import PING, EventLog, format_event


def parse(stream: bytes) -> list[tuple[str, str, dict[str, object]]]:
    """(id, event, data) of every event; comments are left out."""
    found: list[tuple[str, str, dict[str, object]]] = []
    for block in stream.decode("utf-8").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if fields:
            found.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return found


@pytest.mark.parametrize("text", ["两行\n文字\r\n", "data: x\n\nevent: done", "\u2028\u2029", "\x00\x1b[0m", '"\\'])
def test_no_text_can_forge_an_event(text: str) -> None:
    ((_, name, data),) = parse(format_event("token", {"text": text}, id="ans_x:0"))
    assert (name, data) == ("token", {"text": text})


async def read_all(log: EventLog, start: int = 0) -> bytes:
    return b"".join([piece async for piece in log.read(start, ping_interval_s=10)])


@pytest.mark.parametrize("start", range(7))
def test_log_reads_alike_from_every_event(start: int) -> None:
    """Whole = beginning, then reconnection."""

    async def run() -> tuple[bytes, bytes]:
        log = EventLog("ans_x")
        first = asyncio.create_task(read_all(log))
        for number in range(6):
            log.append("token", {"text": str(number)})
            await asyncio.sleep(0)
        log.close()
        return await first, await read_all(log, start)

    whole, rest = asyncio.run(run())
    events = parse(whole)
    assert [id for id, _, _ in events] == [f"ans_x:{n}" for n in range(6)]
    assert parse(rest) == events[start:]


def test_quiet_log_gives_signs_of_life_and_counts_its_readers() -> None:
    async def run() -> None:
        log = EventLog("ans_x")
        reading = log.read(0, ping_interval_s=0.01)
        assert await anext(reading) == PING and log.num_readers == 1
        log.append("token", {"text": "终于"})
        assert b"\xe7\xbb\x88" in await anext(reading)
        await reading.aclose()
        assert log.num_readers == 0

    asyncio.run(run())


def test_many_readers_see_every_event() -> None:
    async def run() -> None:
        log = EventLog("ans_x")
        readers = [asyncio.create_task(read_all(log)) for _ in range(50)]
        for number in range(200):
            log.append("token", {"text": str(number)})
            if number % 7 == 0:
                await asyncio.sleep(0)
        log.close()
        found = await asyncio.gather(*readers)
        assert {len(parse(stream)) for stream in found} == {200}

    asyncio.run(run())
