"""Running the application on sockets: listening, the server's life from its first to its last request, its log.

Owns what happens at signals: the first stops the server gently, a second Ctrl-C at once. Above: `cli/serve.py` and
`supervisor.py`. Below: uvicorn, with the protocol of `connection.py`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from types import FrameType

import uvicorn

from allinone.errors import ConfigError
from allinone.server.app import create_app
from allinone.server.connection import GuardedConfig, GuardedProtocol
from allinone.server.context import ServerContext
from allinone.server.drain import Drain

EXIT_INTERRUPTED = 130
_FLUSH_S = 5
"""How long responses that are complete may take to reach slow readers at the end."""
_BACKLOG = 1_024
_MIN_FILES = 4_096


class GuardedServer(uvicorn.Server):
    """uvicorn's server, which goes on answering 503 while what runs is finished, and then ends.

    Args:
        config: with the application and its limits.
        drain: begun at the first signal.
        on_ready: called when requests are taken.
    """

    def __init__(self, config: GuardedConfig, drain: Drain, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain = drain
        self._on_ready = on_ready
        self.signal: int | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: is it over?"""
        if self._drain.is_over:
            self.config.timeout_graceful_shutdown = 0 if self._drain.num_running else _FLUSH_S
            self.should_exit = True
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: end gently; at a second Ctrl-C, at once."""
        if self._drain.is_draining and sig == signal.SIGINT:
            os.write(2, b"Stopped.\n")
            os._exit(EXIT_INTERRUPTED)
        self.signal = sig
        if sig == signal.SIGINT and self._drain.num_running:
            os.write(2, f"Finishing {self._drain.num_running} requests; Ctrl-C again stops at once.\n".encode())
        self._drain.begin()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Handle signals for as long as the server runs; unlike uvicorn's, they are not raised again at the end.

        A server that runs in another thread than the first gets none: `Drain.begin` ends it.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


def make_server(context: ServerContext, *, on_ready: Callable[[], None] = lambda: None) -> GuardedServer:
    """A server for one context, ready to `run` or `serve` on sockets."""
    config = GuardedConfig(
        create_app(context),
        http=GuardedProtocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=int(context.settings.keep_alive_s),
        timeout_graceful_shutdown=_FLUSH_S,
    )
    config.settings = context.settings
    return GuardedServer(config, context.drain, on_ready)


def run_server(
    context: ServerContext, sockets: Sequence[socket.socket], *, on_ready: Callable[[], None] = lambda: None
) -> int:
    """Serve until a signal; the exit code of the process.

    Raises:
        ConfigError: the sockets cannot listen.
    """
    raise_file_limit()
    server = make_server(context, on_ready=on_ready)
    host, port = sockets[0].getsockname()[:2]
    try:
        server.run(list(sockets))
    except OSError as error:  # another server took the port while this one was loading its model
        if server.started:
            raise
        raise _refuse(host, port, error) from error
    if not server.started:
        return 1
    return EXIT_INTERRUPTED if server.signal == signal.SIGINT else 0


def bind(host: str, port: int, *, is_shared: bool = False) -> list[socket.socket]:
    """Sockets bound to every address of a host; nobody is let in before the server listens.

    Args:
        host: name or address.
        port: 0 takes a free one, the same for all addresses.
        is_shared: several processes of ours bind the same port, and the system spreads connections over them.

    Raises:
        ConfigError: an address cannot be had.
    """
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in _addresses(host, port):
            listener = socket.socket(family, kind, protocol)
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if is_shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            port = port or sockets[0].getsockname()[1]
            listener.bind((address[0], port, *address[2:]))
            listener.setblocking(False)
    except OSError as error:
        for listener in sockets:
            listener.close()
        raise _refuse(host, port, error) from error
    return sockets


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int]]]:
    """Addresses of a host, of the families that this machine has."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"The host {host!r} has no address here: {error}.", hint="give --host an address") from error
    usable = [entry for entry in dict.fromkeys(found) if _is_here(entry[0], entry[4][0])]
    return usable or found  # type: ignore[return-value] # the addresses of both families


def _is_here(family: int, address: object) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _refuse(host: str, port: int, error: OSError) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"Port {port} of {host} is taken.", hint="another server runs there? --port 0 takes a free one"
        )
    if error.errno == errno.EACCES:
        return ConfigError(f"Port {port} may not be used: {error.strerror}.", hint="ports from 1024 on need no right")
    return ConfigError(f"{host}:{port} cannot be listened on: {error.strerror or error}.")


def configure_log(*, has_access_log: bool) -> None:
    """Log to stderr: one line a request unless that is not wanted, and what goes wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name, level in (
        ("allinone.server", logging.INFO if has_access_log else logging.WARNING),
        ("uvicorn.error", logging.ERROR),
    ):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False


def raise_file_limit() -> None:
    """Let the process hold as many connections as it takes, where the system allows it to ask for more."""
    try:
        import resource
    except ImportError:  # not a Unix system
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MIN_FILES if hard == resource.RLIM_INFINITY else min(_MIN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # a sandbox may forbid it; the old limit is enough for most
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
