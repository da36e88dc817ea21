"""Every limit and switch of the server in one immutable value, with defaults that suit one machine.

Owns the numbers and the check of a number given by hand. Knows no HTTP. Above: the whole room; `cli/serve.py` makes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, cast

from allinone.errors import ConfigError, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What the server takes, waits for and shows.

    Attributes:
        max_connections: open at once in one process; the next is told 503.
        max_head_bytes: of a request line with its headers.
        header_timeout_s: from the first moment a request may come to its last header.
        keep_alive_s: an idle connection is closed after so long.
        max_body_bytes: of one request.
        max_buffered_bytes: of the bodies of all requests under way.
        body_idle_timeout_s, body_timeout_s: between two pieces of a body, and for all of it.
        send_timeout_s, min_send_bytes_per_s: a client that takes less than this rate over so long is cut.
        max_json_depth: brackets within brackets.
        max_streams: replies that are being written at once, of all clients together.
        drain_timeout_s: how long running requests may go on after SIGTERM.
        max_key_checks, max_waiting_key_checks: argon2 computations at once, and waiting for one.
        ping_interval_s: between two signs of life in a quiet stream.
        unread_reply_s: how long a reply goes on after its reader has gone.
        usage_flush_s: how often token counts are written to the store.
        allowed_hosts: names in the Host header that are taken; None takes all.
        edit_prompts: task files may be changed over HTTP.
        log_texts: what users send is logged.
        worker, num_workers: which of how many processes this is.
        metrics_dir: where the processes leave their counts for each other; None for a single one.
    """

    max_connections: int = 1_000
    max_head_bytes: int = 32 * 1024
    header_timeout_s: float = 10.0
    keep_alive_s: float = 75.0
    max_body_bytes: int = 2**20
    max_buffered_bytes: int = 64 * 2**20
    body_idle_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    send_timeout_s: float = 20.0
    min_send_bytes_per_s: float = 1_000.0
    max_json_depth: int = 32
    max_streams: int = 800
    drain_timeout_s: float = 30.0
    max_key_checks: int = 2
    max_waiting_key_checks: int = 32
    ping_interval_s: float = 10.0
    unread_reply_s: float = 15.0
    usage_flush_s: float = 1.0
    allowed_hosts: frozenset[str] | None = None
    edit_prompts: bool = False
    log_texts: bool = False
    worker: int = 1
    num_workers: int = 1
    metrics_dir: str | None = None

    def with_limits(self, assignments: Iterable[str]) -> ServerSettings:
        """These settings with limits given as `NAME=VALUE`.

        Raises:
            ConfigError: no such limit, or a value that it cannot have.
        """
        changes = dict(_parse_limit(assignment) for assignment in assignments)
        return replace(self, **changes)


LIMITS: dict[str, int | float] = {
    field.name: cast("int | float", field.default)
    for field in fields(ServerSettings)
    if type(field.default) in (int, float) and field.name not in ("worker", "num_workers")
}
"""Names and defaults of what `--limit` may change."""


def _parse_limit(assignment: str) -> tuple[str, Any]:
    name, equals, text = assignment.partition("=")
    if not equals:
        raise ConfigError(f"{assignment!r} is not a limit.", hint="write NAME=VALUE, e.g. max_body_bytes=4194304")
    if name not in LIMITS:
        raise ConfigError(f"Unknown limit {name!r}. {did_you_mean(name, LIMITS)}")
    kind = type(LIMITS[name])
    try:
        value = kind(text.replace("_", ""))
    except ValueError:
        value = math.nan
    if not 0 < value < 1e12:
        noun = "whole number" if kind is int else "number"
        raise ConfigError(f"{name} = {text!r} is not possible; a {noun} above 0 is needed.")
    return name, value
