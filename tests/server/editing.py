"""A whole server in the test's own process, with a folder of tasks that may be edited, and keys of three people."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from allinone import AllInOne
from allinone.server.app import create_app
from allinone.server.context import ServerContext
from allinone.server.key_file import KeyFile
from allinone.server.keys import KeyRing
from allinone.server.settings import ServerSettings
from allinone.store.database import Store

PROMPT = """---
description: 甲乙
config: {temperature: 0}
input: {schema: {text: string}}
allinone.kind: label
allinone.labels:
  甲: {name: a}
  乙: {name: b}
---
{{role "system"}}
甲?
{{role "user"}}
{{text}}
"""
CASES = """tests:
  - vars: {text: x}
    assert: [{type: regex, value: '甲|乙'}]
  - description: impossible
    vars: {text: y}
    assert: [{type: equals, value: 丙}]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The server's parts, and who may ask it."""

    ai: AllInOne
    store: Store
    context: ServerContext
    client: TestClient
    keys: dict[str, str]

    def call(self, method: str, path: str, body: Any = None, *, who: str = "admin") -> Any:
        """A response; its JSON with `.json()`."""
        headers = {"Authorization": f"Bearer {self.keys[who]}"}
        return self.client.request(method, path, json=body, headers=headers)


@cache
def _make_keys() -> tuple[str, dict[str, str]]:
    """The content of a key file, and the keys; hashing them takes long, so it is done once."""
    with tempfile.TemporaryDirectory() as folder:
        file = KeyFile(Path(folder) / "keys.json")
        keys = {name: file.add(name, is_admin=name == "admin")[1] for name in ("admin", "ann", "bob")}
        keys["guest"] = file.add("guest", is_admin=True, allowed_tasks=("sentiment",))[1]
        return file.path.read_text(encoding="utf-8"), keys


@contextmanager
def serving(
    place: Path, *, tasks: Sequence[Path] = (), settings: ServerSettings | None = None, ai: AllInOne | None = None
) -> Generator[Server]:
    """A server for "admin", "ann" and "bob" on the fake backend; "guest" may only use `sentiment`, as an admin."""
    content, keys = _make_keys()
    (place / "keys.json").write_text(content, encoding="utf-8")
    ring = KeyRing(file=KeyFile(place / "keys.json"))
    with (
        ai or AllInOne.load(backend="fake", tasks=list(tasks)) as ai,
        Store.open(f"sqlite:///{place / 'store.db'}") as store,
    ):
        settings = settings or ServerSettings(edit_prompts=True)
        context = ServerContext.create(ai, store, settings=settings, keys=ring)
        with TestClient(create_app(context), base_url="http://127.0.0.1") as client:
            yield Server(ai=ai, store=store, context=context, client=client, keys=keys)
        ring.close()
