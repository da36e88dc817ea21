"""One connection: what the HTTP library leaves to chance is bounded here.

A request's head has to come within a time and a size, a client that does not take its response is cut, and there are
only so many connections. uvicorn has no such limits; they need its protocol class, for an application sees neither
heads nor buffers. Bodies are bounded by `body.py`. Above: `serving.py`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from allinone.server.problems import to_json
from allinone.server.settings import ServerSettings

_MAX_PIPELINED = 16
_MAX_FRAMING = 10
"""A chunk of one byte takes six; a client that pads its chunks more than this is up to no good."""
_log = logging.getLogger("allinone.server")


class GuardedConfig(uvicorn.Config):
    """uvicorn's configuration, with the limits that `GuardedProtocol` holds."""

    settings: ServerSettings


class GuardedProtocol(HttpToolsProtocol):
    """HTTP/1.1 on one connection, with limits on the head, on slow readers and on the number of connections."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        assert isinstance(config, GuardedConfig)
        self._settings = config.settings
        self.access_log = False  # uvicorn's own would hold paths and queries
        self._has_asked = False
        self._is_in_head = True
        self._num_other_bytes = 0  # received since the message began, without its body
        self._num_parsed_bytes = 0  # of its head and trailers
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._num_unsent_bytes = 0

    @property
    def is_idle(self) -> bool:
        """Nothing is being asked or answered, after something was."""
        return self._num_other_bytes == 0 and self._has_asked and not self._is_answering

    @property
    def _is_answering(self) -> bool:
        return self._has_asked and not self.cycle.response_complete

    # The connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Take a connection, make room for it, or say that there is none."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # paused means: the client has not taken everything yet
        if len(self.connections) <= self._settings.max_connections or self._close_an_idle_one():
            self._await_head()
        else:
            self._refuse(503, "server_busy", "Too many connections are open.")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        super().connection_lost(exc)
        self._stop_head_timer()
        self._stop_send_timer()

    def _close_an_idle_one(self) -> bool:
        for other in self.connections:
            if isinstance(other, GuardedProtocol) and other is not self and other.is_idle:
                other.transport.close()
                return True
        return False

    # The request.

    def data_received(self, data: bytes) -> None:
        """Feed the parser; what is no body (head, chunk sizes, trailers) may only grow so far."""
        self._num_other_bytes += len(data)
        if self._is_in_head and self._head_timer is None:
            self._await_head()
        super().data_received(data)
        if self._num_other_bytes > self._settings.max_head_bytes and not self.transport.is_closing():
            self._refuse_head()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._num_parsed_bytes = 0

    def on_url(self, url: bytes) -> None:
        """A piece of the request line."""
        super().on_url(url)
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or trailer."""
        super().on_header(name, value)
        self._count_head(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """The head is here in time."""
        if len(self.pipeline) >= _MAX_PIPELINED:
            raise ValueError("too many requests at once")
        if sum(name == b"host" for name, _ in self.headers) > 1:
            raise ValueError("more than one Host")  # whoever stands in front may have believed the other one
        self._is_in_head = False
        self._stop_head_timer()
        super().on_headers_complete()
        self._has_asked = True

    def on_body(self, body: bytes) -> None:
        """A piece of the body; what frames it may be a few times as long."""
        super().on_body(body)
        self._num_other_bytes -= len(body) * _MAX_FRAMING

    def on_message_complete(self) -> None:
        """What comes next is another head."""
        super().on_message_complete()
        self._is_in_head = True
        self._num_other_bytes = 0

    def _count_head(self, num_bytes: int) -> None:
        """A head that comes in one piece is bounded too; the parser stops at an exception."""
        self._num_parsed_bytes += num_bytes
        if self._num_parsed_bytes > self._settings.max_head_bytes:
            raise ValueError("the head is too large")

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP, or more than fits."""
        if self._num_parsed_bytes > self._settings.max_head_bytes:
            self._refuse_head()
        else:
            self._refuse(400, "bad_request", msg)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self._settings.header_timeout_s, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._is_answering:
            self.cycle.keep_alive = False  # a second request was begun during the first: answer that one, then close
        elif self._num_other_bytes:
            self._refuse(408, "request_too_slow", "The head of the request did not come in time.")
        else:
            self.transport.close()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse_head(self) -> None:
        most = self._settings.max_head_bytes
        self._refuse(431, "request_too_large", f"The head of the request is larger than {most:,} bytes.")

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer without the application, and close."""
        if self._is_answering:
            self.transport.abort()  # nothing can be said in the middle of a response
            return
        request_id = secrets.token_hex(8)
        title = HTTPStatus(status).phrase
        problem = {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code}
        body = to_json({**problem, "request_id": request_id})
        retry = "Retry-After: 1\r\n" if status == 503 else ""
        head = (
            f"HTTP/1.1 {status} {title}\r\nContent-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n"
            f"{retry}X-Request-ID: {request_id}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()
        _log.info("%s refused before it reached the application: %d", request_id, status)

    # The response.

    def pause_writing(self) -> None:
        """The client has not taken everything: from now on it has to keep a pace."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """The client has taken everything."""
        super().resume_writing()
        self._stop_send_timer()

    def _watch_reader(self) -> None:
        self._num_unsent_bytes = self.transport.get_write_buffer_size()
        self._send_timer = self.loop.call_later(self._settings.send_timeout_s, self._judge_reader)

    def _judge_reader(self) -> None:
        num_taken = self._num_unsent_bytes - self.transport.get_write_buffer_size()
        if num_taken >= self._settings.min_send_bytes_per_s * self._settings.send_timeout_s:
            self._watch_reader()
            return
        _log.info("a connection was cut: its client took %d bytes in %g s", num_taken, self._settings.send_timeout_s)
        self.transport.abort()

    def _stop_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None
