"""A real server, a real browser, and pages that note everything they should never do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .proxy import Proxy, run_proxy
from .servers import RAMBLING, Server, run_server
from .watching import Watcher

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # there is no other machine
]
STEP_S = 0.03
AXE = Path(__file__).parent / "js" / "node_modules" / "axe-core" / "axe.min.js"
OpenPage = Callable[..., "Page"]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server as a user starts it, with `--edit-prompts`."""
    with run_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def slow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose English replies are long and come slowly."""
    program = (str(Path(__file__).with_name("slow_program.py")), str(STEP_S))
    folder = tmp_path_factory.mktemp("slow-server")
    with run_server(folder, program=program, options=(), tasks={"chat.en.prompt": RAMBLING}) as running:
        yield running


@pytest.fixture
def proxy(slow_server: Server) -> Iterator[Proxy]:
    """A proxy before the slow server."""
    with run_proxy(slow_server.url) as running:
        yield running


@pytest.fixture(scope="package")
def browser(chromium_path: str) -> Iterator[Browser]:
    """Debian's chromium. Closed before other packages run: Playwright holds the thread's event loop."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium_path, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens pages, each in a context of its own; at the end none of them may have done what it must never do."""
    watchers: list[Watcher] = []

    def open_(
        url: str,
        *,
        language: str = "en-US",
        theme: str = "light",
        size: tuple[int, int] = (1280, 800),
        bypass_csp: bool = False,
    ) -> Page:
        context = browser.new_context(
            locale=language,
            color_scheme="dark" if theme == "dark" else "light",
            viewport={"width": size[0], "height": size[1]},
            bypass_csp=bypass_csp,
            reduced_motion="reduce",
        )
        context.set_default_timeout(30_000)
        watcher = Watcher(context, url)
        watchers.append(watcher)
        page = watcher.page
        page.goto(url)
        page.locator("main > [role=tabpanel]:visible > *").first.wait_for()
        return page

    yield open_
    for watcher in watchers:
        watcher.check_and_close()


@pytest.fixture(scope="session")
def axe_path() -> Path:
    """axe-core, where `npm ci --prefix tests/page/js` puts it."""
    if not AXE.exists():
        assert os.environ.get("CI") != "true", "axe-core is missing: the continuous integration must have it"
        pytest.skip("axe-core is not installed: npm ci --prefix tests/page/js")
    return AXE
