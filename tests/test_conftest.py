from __future__ import annotations

import socket

import pytest


def test_network_is_barred_but_this_machine_is_not() -> None:
    """A test that reaches out would pass here and fail at somebody's desk: it fails here too."""
    with socket.socket() as far, pytest.raises(AssertionError, match="no network"):
        far.connect(("192.0.2.1", 80))
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as near:
        near.connect(server.getsockname())
