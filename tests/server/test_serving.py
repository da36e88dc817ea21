"""Sockets before there is a server: which addresses, whose port, and what is said when it cannot be had."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from allinone import AllInOne
from allinone.errors import ConfigError
from allinone.server.serving import bind, raise_file_limit, run_server

from .live import context_of


@contextlib.contextmanager
def _bound(host: str, port: int, *, is_shared: bool = False) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(listener) for listener in bind(host, port, is_shared=is_shared)]


def test_every_address_of_a_name_gets_the_same_port() -> None:
    """`localhost` is two addresses on many machines; a browser may try either first."""
    with _bound("localhost", 0) as sockets:
        assert len({listener.getsockname()[1] for listener in sockets}) == 1
        assert {listener.family for listener in sockets} <= {socket.AF_INET, socket.AF_INET6}


def test_nobody_is_let_in_before_the_server_listens() -> None:
    """A port is held while the model is loaded; a client is told at once that nobody is there."""
    with _bound("127.0.0.1", 0) as (listener,), pytest.raises(ConnectionRefusedError):
        socket.create_connection(listener.getsockname(), timeout=10)


def test_a_port_is_shared_by_those_who_ask_for_it_only() -> None:
    """Two servers that were started by mistake must not divide their users between them."""
    with _bound("127.0.0.1", 0, is_shared=True) as (first,):
        port = first.getsockname()[1]
        with _bound("127.0.0.1", port, is_shared=True):
            pass
        first.listen()
        with pytest.raises(ConfigError, match=f"Port {port} of 127.0.0.1 is taken"):
            bind("127.0.0.1", port)


def test_a_port_that_was_taken_meanwhile_is_said(tmp_path: Path) -> None:
    """Two servers may bind one port as long as neither listens; the second to be ready hears of the first."""
    with (
        AllInOne.load(backend="fake") as ai,
        context_of(ai, tmp_path) as context,
        _bound("127.0.0.1", 0) as (quick,),
        _bound("127.0.0.1", quick.getsockname()[1]) as slow,
    ):
        quick.listen()
        with pytest.raises(ConfigError, match="is taken"):
            run_server(context, slow)


def test_an_address_of_another_machine_is_said() -> None:
    """In the system's own words."""
    with pytest.raises(ConfigError, match=r"192\.0\.2\.7:8000 cannot be listened on"):
        bind("192.0.2.7", 8000)


def test_the_limit_of_open_files_is_raised_as_far_as_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual 1,024 are fewer than the connections that the server takes."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: asked.append(limits))
    for soft, hard, expected in (
        (1_024, 65_536, [(4_096, 65_536)]),
        (1_024, 2_048, [(2_048, 2_048)]),
        (8_192, 65_536, []),
        (1_024, resource.RLIM_INFINITY, [(4_096, resource.RLIM_INFINITY)]),
    ):
        asked.clear()
        monkeypatch.setattr(resource, "getrlimit", lambda what, limits=(soft, hard): limits)
        raise_file_limit()
        assert asked == expected


def test_a_sandbox_that_forbids_it_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old limit is enough for most."""

    def refuse(what: int, limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda what: (256, 65_536))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    raise_file_limit()
