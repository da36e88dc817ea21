"""Bytes that no client should send: the server refuses them, holds its memory, and answers the next honest request."""

from __future__ import annotations

import json
import os
import random
import re
import selectors
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import pytest

from .bad_documents import CHAT, COMPLETE, DOCUMENTS, MESSAGE, Document
from .processes import ServerProcess, running_server, watch_memory

pytestmark = pytest.mark.e2e

MAX_GROWTH_BYTES = 192 * 2**20
"""Over what the idle server held: a body of 4 MB can be 80 MB as Python objects while its request lasts."""
MAX_HONEST_S = 30.0
MAX_BODY_BYTES = 4 * 2**20
LIMITS = {
    "max_body_bytes": MAX_BODY_BYTES, "header_timeout_s": 2, "body_idle_timeout_s": 2, "body_timeout_s": 4,
    "keep_alive_s": 2,
}  # fmt: skip
NUM_FUZZED = int(os.environ.get("ALLINONE_FUZZ", "400"))
NUM_SLOW = 200

HOST = b"Host: 127.0.0.1\r\n"
GET = b"GET /healthz HTTP/1.1\r\n" + HOST
POST = b"POST /v1/tasks/sentiment HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
BODY = '{"text":"太棒了"}'.encode()
WHOLE = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
SMUGGLED = GET + b"X-Request-ID: smuggled\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@dataclass(frozen=True, slots=True)
class Heard:
    """What came back on one connection, and whether the server ended it."""

    content: bytes
    is_closed: bool

    @property
    def statuses(self) -> list[int]:
        """Of the responses, in order; interim ones left out."""
        return [int(status) for status in _STATUS.findall(self.content) if status != b"100"]


def listen(connection: socket.socket) -> Heard:
    """Everything until the end, or until nothing comes for the connection's timeout."""
    content = bytearray()
    try:
        while piece := connection.recv(65_536):
            content += piece
    except TimeoutError:
        return Heard(bytes(content), is_closed=False)
    except ConnectionError:
        pass
    return Heard(bytes(content), is_closed=True)


def say(server: ServerProcess, data: bytes, *, timeout_s: float = MAX_HONEST_S) -> Heard:
    """Send bytes, and listen."""
    with socket.create_connection((server.host, server.port), timeout=timeout_s) as connection:
        with suppress(ConnectionError):  # cut before all of it was sent; what it said before can still be there
            connection.sendall(data)
        return listen(connection)


def say_last(server: ServerProcess, data: bytes) -> Heard:
    """Send one request that ends the connection, and listen."""
    return say(server, data.replace(HOST, HOST + b"Connection: close\r\n", 1))


def with_body(path: str, body: bytes) -> bytes:
    """A POST of JSON."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One for all tests of this file, with short times; it has answered before, so its memory is what it holds idle."""
    options = [text for name, value in LIMITS.items() for text in ("--limit", f"{name}={value}")]
    with running_server(tmp_path_factory.mktemp("raw"), *options) as running:
        with running.client() as client:
            assert client.post("/v1/tasks/sentiment", json={"text": "太棒了"}).status_code == 200
            assert client.post("/v1/reply", json={"text": "你好", "store": False}).status_code == 200
        yield running
        assert running.stop() == 0


@pytest.fixture(scope="module")
def idle_bytes(server: ServerProcess) -> int:
    """Memory before the first attack."""
    return server.rss_bytes()


@pytest.fixture(autouse=True)
def unharmed(server: ServerProcess, idle_bytes: int) -> Iterator[None]:
    """After each test: memory was bounded, an honest request is answered, and nothing unforeseen is in the log."""
    log_start = server.log.stat().st_size
    with watch_memory(server) as memory:
        yield
    start = time.perf_counter()
    heard = say_last(server, WHOLE)
    seconds = time.perf_counter() - start
    print(f"  peak +{(memory.peak - idle_bytes) / 2**20:.1f} MiB, honest request {seconds * 1_000:.0f} ms")
    assert heard.statuses == [200] and b'"label"' in heard.content
    assert seconds < MAX_HONEST_S
    assert memory.peak - idle_bytes < MAX_GROWTH_BYTES
    with server.log.open("rb") as log:
        log.seek(log_start)
        written = log.read().decode()
    assert "Traceback" not in written and " ERROR " not in written, written


AMBIGUOUS: dict[str, bytes] = {
    "length and chunked": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    "chunked and length": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "two lengths": b"Content-Length: 4\r\nContent-Length: 5\r\n",
    "the same length twice": b"Content-Length: 5\r\nContent-Length: 5\r\n",
    "a list of lengths": b"Content-Length: 5, 5\r\n",
    "plus": b"Content-Length: +5\r\n",
    "minus": b"Content-Length: -5\r\n",
    "hexadecimal": b"Content-Length: 0x5\r\n",
    "underscore": b"Content-Length: 1_0\r\n",
    "blank inside": b"Content-Length: 5 6\r\n",
    "no length": b"Content-Length: \r\n",
    "not ASCII digits": b"Content-Length: \xd9\xa5\r\n",
    "overflow": b"Content-Length: 18446744073709551621\r\n",
    "blank before the colon": b"Content-Length : 5\r\n",
    "chunked, blank before the colon": b"Transfer-Encoding : chunked\r\n",
    "chunked is not the last": b"Transfer-Encoding: chunked, identity\r\n",
    "chunked twice": b"Transfer-Encoding: chunked, chunked\r\n",
    "two encodings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "identity": b"Transfer-Encoding: identity\r\n",
    "nearly chunked": b"Transfer-Encoding: xchunked\r\n",
    "quoted": b'Transfer-Encoding: "chunked"\r\n',
    "vertical tab": b"Transfer-Encoding: \x0bchunked\r\n",
    "folded": b"Transfer-Encoding:\r\n chunked\r\n",
    "length, folded": b"Content-Length:\r\n 5\r\n",
    "bare CR": b"X-A: b\rContent-Length: 5\r\n",
    "NUL in the length": b"Content-Length: 5\x00\r\n",
}


@pytest.mark.parametrize("headers", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_ambiguous_framing_is_refused(server: ServerProcess, headers: bytes) -> None:
    """Two servers that read a length differently let a request hide in another's body: whatever is odd ends it."""
    heard = say(server, POST + headers + b"\r\n0\r\n\r\n" + SMUGGLED)
    assert heard.statuses in ([], [400])
    assert heard.is_closed and b"smuggled" not in heard.content


CHUNKS: dict[str, bytes] = {
    "no number": b"zz\r\n" + BODY,
    "negative": b"-5\r\nhello\r\n0\r\n\r\n",
    "overflow": b"ffffffffffffffffff\r\nhello",
    "0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "longer than it says": b"5\r\nhelloXX0\r\n\r\n",
    "cut": b"5\r\nhel",
    "no last chunk": b"5\r\nhello\r\n",
    "extension without end": b"5;" + b"a" * 1_000_000,
    "padded bytes": b"1;abcdefghijklmnopqrstuvwxyz\r\n \r\n" * 100_000,
    "trailer without end": b"0\r\nX-A: " + b"a" * 1_000_000,
    "many trailers": b"0\r\n" + b"X-A: b\r\n" * 100_000,
}


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS.keys())
def test_bad_chunks_end_the_connection(server: ServerProcess, chunks: bytes) -> None:
    """Nothing of the body counts, and nothing after it is a request."""
    heard = say(server, POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert heard.is_closed and not {200, 500}.intersection(heard.statuses)


HEADS: dict[str, bytes] = {
    "folded header": GET + b"X-A: b\r\n folded\r\n\r\n",
    "folded first header": b"GET /healthz HTTP/1.1\r\n " + HOST + b"\r\n",
    "NUL in a value": GET + b"X-A: b\x00c\r\n\r\n",
    "NUL in a name": GET + b"X\x00A: b\r\n\r\n",
    "high byte in a name": GET + b"X\xff: b\r\n\r\n",
    "no name": GET + b": b\r\n\r\n",
    "no colon": GET + b"abc\r\n\r\n",
    "bare LF": b"GET /healthz HTTP/1.1\nHost: 127.0.0.1\n\n",
    "bare CR": b"GET /healthz HTTP/1.1\rHost: 127.0.0.1\r\r",
    "NUL in the path": b"GET /health\x00z HTTP/1.1\r\n" + HOST + b"\r\n",
    "high byte in the path": b"GET /v1/tasks/\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "no such version": b"GET /healthz HTTP/9.9\r\n" + HOST + b"\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT": b"CONNECT example.com:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "no such method": b"G\x00T /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "TLS": bytes.fromhex("16030102000100") + bytes(range(256)),
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "another host": b"GET /healthz HTTP/1.1\r\nHost: example.com\r\n\r\n",
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_bad_heads_are_refused(server: ServerProcess, head: bytes) -> None:
    """With a 4xx that says so, and an end of the connection."""
    heard = say(server, head)
    assert heard.is_closed and heard.statuses in ([400], [403])
    assert b"x-request-id: " in heard.content.lower() and b"application/problem+json" in heard.content


@pytest.mark.parametrize(
    "header", [b"X-A: \xff\xfe\x80", b"X-Request-ID: \xff\xfe", b"Last-Event-ID: \xff", b"Authorization: Bearer \xff"]
)
def test_high_bytes_in_values_do_no_harm(server: ServerProcess, header: bytes) -> None:
    """They are allowed, and mean nothing; none comes back."""
    heard = say_last(server, GET + header + b"\r\n\r\n")
    assert heard.statuses == [200]
    assert not any(byte > 127 for byte in heard.content.partition(b"\r\n\r\n")[0])


@pytest.mark.parametrize("path", ["%00", "%ff%fe", "%zz", "%ed%a0%80", "..%2f..%2f..%2fetc%2fpasswd", "a" * 20_000])
@pytest.mark.parametrize("place", ["/v1/tasks/", "/v1/models/", "/v1/conversations/", "/v1/reply/", "/page/", "/"])
def test_odd_paths_lead_nowhere(server: ServerProcess, place: str, path: str) -> None:
    """A 4xx of a bounded size."""
    heard = say_last(server, f"GET {place}{path} HTTP/1.1\r\n".encode() + HOST + b"\r\n")
    assert heard.statuses in ([400], [404], [422]) and len(heard.content) < 70_000


HUGE: dict[str, bytes] = {
    "header": GET + b"X-A: " + b"a" * 8_000_000 + b"\r\n\r\n",
    "name": GET + b"a" * 8_000_000 + b": b\r\n\r\n",
    "many headers": GET + b"a: b\r\n" * 1_000_000 + b"\r\n",
    "path": b"GET /" + b"a" * 8_000_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "query": b"GET /healthz?" + b"a=b&" * 2_000_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "method": b"A" * 8_000_000,
    "blank lines": b"\r\n" * 4_000_000,
}


@pytest.mark.parametrize("head", HUGE.values(), ids=HUGE.keys())
def test_huge_heads_are_cut_early(server: ServerProcess, head: bytes) -> None:
    """Whether the refusal still arrives depends on who is faster; the connection is over either way."""
    heard = say(server, head)
    assert heard.is_closed and heard.statuses in ([], [400], [431])


def test_pipelined_requests_are_answered_in_order(server: ServerProcess) -> None:
    """Reading and writing ones, sent as one piece."""
    pieces = [
        (GET if number % 3 else WHOLE).replace(HOST, HOST + b"X-Request-ID: nr%d\r\n" % number, 1)
        + (b"\r\n" if number % 3 else b"")
        for number in range(12)
    ]
    pieces[-1] = pieces[-1].replace(HOST, HOST + b"Connection: close\r\n", 1)
    heard = say(server, b"".join(pieces))
    assert heard.statuses == [200] * 12
    assert re.findall(rb"x-request-id: (\w+)", heard.content) == [b"nr%d" % number for number in range(12)]


def test_a_flood_of_pipelined_requests_ends_the_connection(server: ServerProcess) -> None:
    """They would be held in memory; so few are held that it does not matter."""
    heard = say(server, (GET + b"\r\n") * 100_000)
    assert heard.is_closed and set(heard.statuses) <= {200, 400}


@pytest.mark.parametrize("start", [b"", b"GET", GET, GET + b"X-A: b", POST + b"Content-Length: 100\r\n\r\n{"])
def test_requests_that_are_never_finished_are_dropped(server: ServerProcess, start: bytes) -> None:
    """By the client, a hundred times; and by time, once."""
    for _ in range(100):
        with socket.create_connection((server.host, server.port)) as connection:
            connection.sendall(start)
    heard = say(server, start)
    assert heard.is_closed and heard.statuses == ([408] if start else [])


@pytest.mark.parametrize("start", [b"", POST + b"Content-Length: 1000\r\n\r\n"], ids=["head", "body"])
def test_200_connections_that_drip_are_cut(server: ServerProcess, start: bytes) -> None:
    """A byte now and then keeps none of them open; honest requests are answered meanwhile."""
    drops = start + (GET + b"X-A: " + b"a" * 10_000 if not start else b"{" * 1_000)
    places = dict[socket.socket, int]()
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(NUM_SLOW):
            connection = stack.enter_context(socket.create_connection((server.host, server.port)))
            connection.sendall(drops[: len(start) + 1])
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ)
            places[connection] = len(start) + 1
        num_honest = 0
        deadline = time.monotonic() + MAX_HONEST_S
        while places and time.monotonic() < deadline:
            assert say_last(server, WHOLE).statuses == [200]
            num_honest += 1
            time.sleep(0.2)
            for key, _ in selector.select(0):
                assert isinstance(key.fileobj, socket.socket)
                if is_over(key.fileobj):
                    selector.unregister(key.fileobj)
                    del places[key.fileobj]
            for connection, place in places.items():
                places[connection] = place + drip(connection, drops[place : place + 1])
        print(f"  {num_honest} honest requests meanwhile")
        assert not places, f"{len(places)} of {NUM_SLOW} are still open"


def is_over(connection: socket.socket) -> bool:
    """Take what came; whether that was the end."""
    try:
        return not connection.recv(65_536)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def drip(connection: socket.socket, drop: bytes) -> int:
    """Send a byte if the other side still listens; how many were sent."""
    try:
        return connection.send(drop)
    except (ConnectionError, BlockingIOError):
        return 0


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"], ids=["at once", "asks first"])
def test_a_body_of_a_gigabyte_is_refused_before_it_is_sent(server: ServerProcess, expect: bytes) -> None:
    """Its length says enough."""
    heard = say(server, POST + expect + b"Content-Length: %d\r\n\r\n" % 2**30)
    assert heard.statuses == [413] and heard.is_closed and b"100 Continue" not in heard.content


@pytest.mark.parametrize("is_chunked", [True, False], ids=["chunked", "announced"])
def test_a_body_of_a_gigabyte_that_is_sent_anyway_is_cut(server: ServerProcess, is_chunked: bool) -> None:
    """Where no length is announced, or the client does not listen, the stream stops within what the system buffers."""
    piece = b"a" * 2**20
    framed = b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece
    length = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % 2**30
    num_sent = 0
    with socket.create_connection((server.host, server.port), timeout=MAX_HONEST_S) as connection:
        connection.sendall(POST + length + b"\r\n\r\n")
        with pytest.raises(ConnectionError):
            while num_sent < 2**30:
                connection.sendall(framed)
                num_sent += len(piece)
    print(f"  {num_sent / 2**20:.0f} MiB were taken")
    assert num_sent < 128 * 2**20


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_bad_documents_are_refused(server: ServerProcess, document: Document) -> None:
    """With a 4xx no longer than a screen: a mistake made a million times is reported a few times.

    250,000 unknown members once cost 12 seconds, 280 MB and a response of 20 MB; a million wrong tools, a gigabyte.
    """
    path, body = document()
    heard = say_last(server, with_body(path, body))
    assert heard.statuses in ([400], [413], [422])
    assert len(heard.content) < 30_000


REQUESTS = (
    WHOLE,
    POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
    with_body(CHAT, MESSAGE + b',"stream":true}'),
    with_body(COMPLETE, json.dumps({"model": "allinone", "prompt": "你", "max_tokens": 2}).encode()),
    with_body("/v1/reply", json.dumps({"text": "你好", "store": False}).encode()),
    with_body("/v1/feedback", b'{"answer_id":"ans_0","rating":"up"}'),
    b"GET /v1/conversations?limit=3 HTTP/1.1\r\n" + HOST + b"\r\n",
    b"DELETE /v1/conversations/conv_0 HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /v1/reply/ans_0 HTTP/1.1\r\n" + HOST + b"Last-Event-ID: ans_0:3\r\n\r\n",
)
"""What fuzzing begins with."""


def mutate(chance: random.Random) -> bytes:
    """Some requests, with a few bytes changed, left out, doubled or put in."""
    data = bytearray(b"".join(chance.choices(REQUESTS, k=chance.choice((1, 1, 1, 2, 3)))))
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        place = chance.randrange(len(data))
        end = min(len(data), place + chance.choice((1, 2, 8, 64)))
        data[place:end] = chance.choice(
            (
                b"", bytes(data[place:end]) * 2, chance.randbytes(end - place), chance.randbytes(chance.randrange(64)),
                chance.choice((b"\r\n", b"\n", b"\r", b"\x00", b"\xff", b": ", b" ", b"0", b"99999999999", b"{", b'"')),
            )
        )  # fmt: skip
        if not data:
            break
    return bytes(data)


def test_random_bytes_never_make_the_server_fail(server: ServerProcess) -> None:
    """Whatever comes back is no 5xx. The seed is fixed: what fails here fails again."""
    chance = random.Random(20)
    fuzzed = [mutate(chance) for _ in range(NUM_FUZZED)] + [chance.randbytes(2_000) for _ in range(NUM_FUZZED // 10)]
    with ThreadPoolExecutor(16) as pool:
        all_heard = list(pool.map(lambda data: say(server, data, timeout_s=3 * LIMITS["header_timeout_s"]), fuzzed))
    statuses = [status for heard in all_heard for status in heard.statuses]
    print(f"  {len(fuzzed)} connections, {len(statuses)} responses")
    assert statuses and max(statuses) < 500
    assert 200 in statuses and 400 in statuses
