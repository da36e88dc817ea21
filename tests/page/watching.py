"""What a page under test may never do: open a dialog, ask another machine, break its own security policy, fail."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, ConsoleMessage, Dialog, Request

_NOTE_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy violation: ${event.violatedDirective} ${event.blockedURI}`);
});
"""


class Watcher:
    """A browser context with one page, and what it did wrong."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        parts = urlsplit(url)
        self._origin = f"{parts.scheme}://{parts.netloc}/"
        self._context = context
        self.wrong: list[str] = []
        context.add_init_script(_NOTE_VIOLATIONS)
        context.on("request", self._on_request)
        context.on("console", self._on_console)
        context.on("dialog", self._on_dialog)
        context.on("weberror", lambda error: self.wrong.append(f"error: {error.error}"))
        self.page = context.new_page()

    def check_and_close(self) -> None:
        """Nothing may have gone wrong."""
        self._context.close()
        assert not self.wrong, "\n".join(self.wrong)

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((self._origin, f"blob:{self._origin}")):
            self.wrong.append(f"request to elsewhere: {request.url[:200]}")

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.wrong.append(f"console: {message.text}")

    def _on_dialog(self, dialog: Dialog) -> None:
        if dialog.type != "beforeunload":
            self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()
