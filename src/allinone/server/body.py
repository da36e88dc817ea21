"""Reading the body of a request, and refusing it early: size, pace, nesting.

A body is read whole before anything looks at it, so that every limit holds whatever parses it later. Knows bytes, no
JSON values. Above: `guard.py`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from allinone.errors import RequestTooLarge, RequestTooSlow, ServerBusy, UsageError
from allinone.server.settings import ServerSettings

_STRING = re.compile(rb'"[^"]*"?')
_TO_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


class BodyReader:
    """Reads bodies within the settings' limits; all bodies under way together are bounded too."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self.num_buffered_bytes = 0

    async def read(self, receive: Receive, headers: Mapping[bytes, bytes]) -> bytes:
        """The whole body; whoever read it gives its size back with `release`.

        Raises:
            RequestTooLarge: it is, or says that it will be, larger than allowed, or nested deeper.
            RequestTooSlow: it does not come in time.
            ServerBusy: the bodies under way leave no room.
            ClientDisconnect: its sender has gone.
        """
        if not has_body(headers):
            return b""
        self._check_announced(headers)
        body = bytearray()
        deadline = asyncio.get_running_loop().time() + self._settings.body_timeout_s
        is_kept = False
        try:
            more = True
            while more:
                piece, more = await self._next_piece(receive, deadline)
                body += piece
                self.num_buffered_bytes += len(piece)
                self._check_size(len(body))
            if nests_deeper(body, self._settings.max_json_depth):
                depth = self._settings.max_json_depth
                raise RequestTooLarge(f"The body is nested deeper than {depth} brackets.", hint="send a flatter one")
            is_kept = True
            return bytes(body)
        finally:
            if not is_kept:
                self.release(len(body))

    def release(self, num_bytes: int) -> None:
        """A body is no longer held."""
        self.num_buffered_bytes -= num_bytes

    def _check_announced(self, headers: Mapping[bytes, bytes]) -> None:
        announced = headers.get(b"content-length", b"0")
        if not announced.isdigit():
            raise UsageError("The header Content-Length is not a number.")
        self._check_size(int(announced[:20]))

    def _check_size(self, num_bytes: int) -> None:
        most = self._settings.max_body_bytes
        if num_bytes > most:
            raise RequestTooLarge(f"The body is larger than {most:,} bytes.", hint="send it in several requests")
        if self.num_buffered_bytes > self._settings.max_buffered_bytes:
            raise ServerBusy("The bodies of the requests under way leave no room for this one.")

    async def _next_piece(self, receive: Receive, deadline: float) -> tuple[bytes, bool]:
        left_s = deadline - asyncio.get_running_loop().time()
        try:
            message = await asyncio.wait_for(receive(), min(left_s, self._settings.body_idle_timeout_s))
        except asyncio.TimeoutError:
            raise RequestTooSlow("The body did not come in time.", hint="send it at once") from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        return message.get("body", b""), message.get("more_body", False)


def has_body(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request says that something follows its head."""
    return b"content-length" in headers or b"transfer-encoding" in headers


def nests_deeper(body: bytes | bytearray, max_depth: int) -> bool:
    """Whether brackets stand within brackets more than `max_depth` deep, as a JSON parser would meet them.

    Strings are left out; the kinds of bracket are not told apart, for a parser stops at the first that does not fit.

    Complexity: `max_depth` passes over the brackets at most; no backtracking.
    """
    if body.count(b"[") + body.count(b"{") <= max_depth:
        return False
    plain = bytes(body).replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = _STRING.sub(b"", plain).translate(_TO_SQUARE, _NO_BRACKETS)
    for _ in range(max_depth):
        flatter = brackets.replace(b"[]", b"")
        if len(flatter) == len(brackets):
            break
        brackets = flatter
    return b"[]" in brackets or brackets.count(b"[") > max_depth
