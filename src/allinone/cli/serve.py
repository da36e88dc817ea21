"""`allinone serve`: the options of the server, and what is refused before anything is loaded.

Everything of the web is imported inside functions: no other command pays for it. Below: `server_process.py` starts what
the options say; the server itself is in `server/`.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer

from allinone.cli.options import (
    BackendOption,
    LanguageOption,
    ModelOption,
    NoCacheOption,
    TasksOption,
    ThreadsOption,
    choose_backend,
    choose_language,
)
from allinone.cli.server_process import ServeOptions, refuse_open_door, serve_alone, serve_together
from allinone.cli.session import RuntimeOptions
from allinone.config import Settings
from allinone.errors import ConfigError, UsageError

_NEEDED = ("fastapi", "uvicorn", "httptools", "sqlalchemy", "argon2", "prometheus_client")
_MIN_KEY_CHARS = 16

HostOption = Annotated[
    str, typer.Option(help="Address to listen on. Any but this machine's own (loopback) needs keys.")
]
PortOption = Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0 takes a free one.")]
WorkersOption = Annotated[
    int, typer.Option(min=1, max=64, help="Processes on the port, each with a model and a share of the threads.")
]
KvMemoryOption = Annotated[
    int | None,
    typer.Option(
        "--kv-memory",
        min=1,
        metavar="MB",
        help="Keys and values of conversations and running requests, in each process. Default: 1536.",
    ),
]
ApiKeyOption = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        metavar="KEY",
        help="One key for everything. Better in ALLINONE_API_KEY: other users see a program's options.",
        show_default=False,
    ),
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        metavar="FILE",
        help="Keys made with `allinone keys new`. Default: keys.json in the data folder, where it is there.",
    ),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="Database of conversations and feedback: sqlite:///FILE or postgresql://…. "
        "Default: ALLINONE_STORE, else server.db in the data folder.",
        show_default=False,
    ),
]
AllowHostOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host", metavar="NAME", help="A further name that requests may be sent to (behind a proxy). Repeatable."
    ),
]
EditPromptsOption = Annotated[
    bool, typer.Option("--edit-prompts", help="Task files may be changed from the page, in the last --tasks folder.")
]
LogTextsOption = Annotated[bool, typer.Option("--log-texts", help="Log what users send. Off: no text is ever logged.")]
AccessLogOption = Annotated[bool, typer.Option("--access-log/--no-access-log", help="A line on stderr per request.")]
LimitOption = Annotated[
    list[str] | None,
    typer.Option("--limit", metavar="NAME=VALUE", help="Change a limit (docs/server.md lists them). Repeatable."),
]


def serve(
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    workers: WorkersOption = 1,
    model: ModelOption = None,
    tasks: TasksOption = None,
    backend: BackendOption = None,
    threads: ThreadsOption = None,
    no_cache: NoCacheOption = False,
    kv_memory: KvMemoryOption = None,
    lang: LanguageOption = None,
    api_key: ApiKeyOption = None,
    key_file: KeyFileOption = None,
    store: StoreOption = None,
    allow_host: AllowHostOption = None,
    edit_prompts: EditPromptsOption = False,
    log_texts: LogTextsOption = False,
    access_log: AccessLogOption = True,
    limit: LimitOption = None,
) -> None:
    """Serve tasks, replies and an OpenAI-compatible API over HTTP, with a page at /.

    [bold]Examples[/]

    allinone serve
    allinone serve --tasks my-tasks --edit-prompts
    allinone keys new phone && allinone serve --host 0.0.0.0
    allinone serve --workers 2 --store postgresql://user@host/db

    It listens to this machine only, unless there are keys (docs/security.md).
    SIGTERM and Ctrl-C let running requests end; a second Ctrl-C does not.
    """
    require_extra()
    from allinone.server.settings import ServerSettings

    environment = Settings.from_env()
    settings = ServerSettings(
        edit_prompts=edit_prompts,
        log_texts=log_texts,
        num_workers=workers,
        allowed_hosts=_allowed_hosts(host, allow_host or []),
    )
    options = ServeOptions(
        host=host,
        runtime=RuntimeOptions(
            model=model,
            tasks=tasks,
            backend=choose_backend(backend),
            threads=_share_threads(threads, environment, workers),
            use_cache=not no_cache,
            kv_memory_mb=kv_memory,
            language=choose_language(lang),
        ),
        settings=settings.with_limits(limit or []),
        store=store or environment.store or _default_store(environment),
        api_key=_check_key(api_key or environment.api_key),
        key_file=_find_key_file(key_file, environment),
        has_access_log=access_log,
    )
    if edit_prompts and not options.runtime.task_folders:
        raise UsageError("--edit-prompts needs a folder of your own to save in.", hint="add --tasks DIR")
    refuse_open_door(options)
    raise typer.Exit(serve_alone(options, port) if workers == 1 else serve_together(options, port))


def require_extra() -> None:
    """Refuse where the server's packages are not installed.

    Raises:
        ConfigError: says which one is missing, and how to get it.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"The server needs {', '.join(missing)}, which is not installed.",
            hint="pip install 'qwen-allinone[server]' (in a checkout: make serve)",
        )


def _allowed_hosts(host: str, more: list[str]) -> frozenset[str] | None:
    """Names that requests may be sent to; any, where another machine may ask and no name was given."""
    from allinone.server.origins import LOOPBACK_NAMES, is_loopback

    if not more and not is_loopback(host):
        return None
    return LOOPBACK_NAMES | {host.lower()} | {name.lower() for name in more}


def _share_threads(threads: int | None, environment: Settings, num_workers: int) -> int | None:
    """Threads of each process: what was asked for, else an equal share of the cores."""
    if threads is not None or environment.threads is not None or num_workers == 1:
        return threads
    from allinone.backends.cpu import detect_cpu

    return max(1, detect_cpu().default_threads // num_workers)


def _default_store(environment: Settings) -> str:
    environment.home.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{environment.home / 'server.db'}"


def _find_key_file(given: Path | None, environment: Settings) -> Path | None:
    """The key file that counts. Where one is there, keys are needed, even if all of them were revoked."""
    if given is None:
        usual = environment.home / "keys.json"
        return usual if usual.exists() else None
    if not given.expanduser().is_file():
        raise ConfigError(
            f"There is no key file {str(given)!r}.", hint="`allinone keys new NAME --key-file FILE` makes it"
        )
    return given.expanduser()


def _check_key(key: str | None) -> str | None:
    if key is not None and (len(key) < _MIN_KEY_CHARS or not key.isascii() or key.split() != [key]):
        raise ConfigError(
            f"The key has to be at least {_MIN_KEY_CHARS} ASCII characters without blanks.",
            hint=f"{Path(sys.executable).name} -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    return key
