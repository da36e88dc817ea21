"""The processes of `allinone serve`: one that loads a model and serves, or several of them on one port.

Connects the parts: store, keys, runtime, context, sockets. Above: `serve.py`. Below: the room `server/`, which is
imported inside functions, so that no other command pays for it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from allinone.cli.output import note
from allinone.cli.session import RuntimeOptions
from allinone.errors import UsageError

if TYPE_CHECKING:
    import socket

    from allinone.server.keys import KeyRing
    from allinone.server.settings import ServerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What the options of the command say; sent to each process of the server."""

    host: str
    runtime: RuntimeOptions
    settings: ServerSettings
    store: str = field(repr=False)
    api_key: str | None = field(default=None, repr=False)
    key_file: Path | None = None
    has_access_log: bool = True


def refuse_open_door(options: ServeOptions) -> None:
    """Refuse to let a whole network in without a key.

    Raises:
        UsageError: the host can be reached from elsewhere, and no key is needed or none works.
    """
    from allinone.server.origins import is_loopback

    if is_loopback(options.host):
        return
    keys = make_keys(options)
    try:
        if not keys.num_working:
            found = "no key in the key file works" if keys.is_required else "there are no keys"
            raise UsageError(
                f"{options.host} can be reached from other machines, and {found}: anybody could use the model and read "
                "what is stored.",
                hint="make a key with `allinone keys new NAME`, or set ALLINONE_API_KEY; or leave out --host",
            )
    finally:
        keys.close()


def make_keys(options: ServeOptions) -> KeyRing:
    """The keys of one process."""
    from allinone.server.key_file import KeyFile
    from allinone.server.keys import KeyRing

    return KeyRing(
        api_key=options.api_key,
        file=None if options.key_file is None else KeyFile(options.key_file),
        max_checks=options.settings.max_key_checks,
        max_waiting=options.settings.max_waiting_key_checks,
    )


def serve_alone(options: ServeOptions, port: int) -> int:
    """One process, until a signal ends it; its exit code."""
    from allinone.server.serving import bind

    with ExitStack() as stack:
        sockets = [stack.enter_context(listener) for listener in bind(options.host, port)]
        return _run(options, sockets, on_ready=lambda: _announce(options, sockets[0].getsockname()[1]))


def serve_together(options: ServeOptions, port: int) -> int:
    """Hold the port, so that it is ours and stays ours; the processes bind it too, and only they listen."""
    from allinone.server.serving import bind
    from allinone.server.supervisor import Supervisor

    for probe in bind(options.host, port):
        port = port or probe.getsockname()[1]
        probe.close()
    with ExitStack() as stack:
        for held in bind(options.host, port, is_shared=True):
            stack.enter_context(held)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="allinone-"))
        options = replace(options, settings=replace(options.settings, metrics_dir=folder))
        supervisor = Supervisor(
            _Process(options, port),
            num_workers=options.settings.num_workers,
            drain_timeout_s=options.settings.drain_timeout_s,
            report=note,
            on_ready=lambda: _announce(options, port),
        )
        return supervisor.run()


@dataclass(frozen=True, slots=True)
class _Process:
    """What one of several processes does."""

    options: ServeOptions
    port: int

    def __call__(self, number: int, on_ready: Callable[[], None]) -> int:
        from allinone.server.serving import bind

        options = replace(self.options, settings=replace(self.options.settings, worker=number))
        with ExitStack() as stack:
            sockets = [stack.enter_context(own) for own in bind(options.host, self.port, is_shared=True)]
            return _run(options, sockets, on_ready=on_ready)


def _run(options: ServeOptions, sockets: list[socket.socket], *, on_ready: Callable[[], None]) -> int:
    """Load, serve, close; the exit code."""
    from allinone.cli.session import open_runtime
    from allinone.server.context import ServerContext
    from allinone.server.serving import configure_log, run_server
    from allinone.store.database import Store

    configure_log(has_access_log=options.has_access_log)
    with ExitStack() as stack:
        store = stack.enter_context(Store.open(options.store))
        keys = make_keys(options)
        stack.callback(keys.close)
        if options.settings.worker == 1:
            note("Loading the model …")
        ai = stack.enter_context(open_runtime(options.runtime))
        context = ServerContext.create(ai, store, settings=options.settings, keys=keys)
        return run_server(context, sockets, on_ready=on_ready)


def _announce(options: ServeOptions, port: int) -> None:
    from allinone.server.origins import LOOPBACK_NAMES

    host = f"[{options.host}]" if ":" in options.host else options.host
    note(f"Ready: http://{host}:{port}  (Ctrl-C stops)")
    if options.api_key is None and options.key_file is None:
        note("No key is needed: whoever can use this machine can use the model.")
        if others := sorted((options.settings.allowed_hosts or frozenset()) - {options.host} - LOOPBACK_NAMES):
            note(f"It answers to {', '.join(others)} too: if a proxy makes that public, anybody can use the model.")
    if options.settings.log_texts:
        note("What users send is logged (--log-texts).")
