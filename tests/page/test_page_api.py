"""The page as files: types, caching, policy, and rules that its sources keep. Needs no browser and no model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from allinone.errors import AllInOneError
from allinone.server.page_api import FOLDER, Page, load_page, router
from allinone.server.problems import on_error

MAX_TOTAL_BYTES = 230_000
"""Of all views together. What a first visit loads is measured in test_loading.py."""
MAX_FILE_LINES = 300
SOURCES = sorted(path for path in FOLDER.rglob("*") if path.is_file())
SCRIPTS = [path for path in SOURCES if path.suffix == ".js"]
_TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in (FOLDER / "js" / "i18n").glob("*.js")}
_KEY = re.compile(r'^ {2}"([^"]+)": "((?:[^"\\]|\\.)*)",$', re.MULTILINE)


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    app.include_router(router)
    app.add_exception_handler(AllInOneError, on_error)

    async def with_id(scope: dict[str, object], receive: object, send: object) -> None:
        scope["request_id"] = "id"
        await app(scope, receive, send)  # type: ignore[arg-type]

    return TestClient(with_id)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_every_file_has_its_type_and_may_be_kept_for_ever(client: TestClient, path: Path) -> None:
    """An address with the version never changes its content; a module with another type is not run."""
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
    name = path.relative_to(FOLDER).as_posix()
    response = client.get(f"/page/{load_page().version}/{name}")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(types[path.suffix])
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert path.suffix == ".html" or response.content == path.read_bytes()
    assert client.get(f"/page/{name}").headers["cache-control"] == "no-cache"


def test_start_names_the_version_and_is_asked_for_again(client: TestClient) -> None:
    """Whoever comes back gets the new page at once, and 304 when there is none."""
    response = client.get("/")
    assert response.headers["cache-control"] == "no-cache"
    assert '"/page/' in response.text
    assert not re.search(rf'"/page/(?!{load_page().version}/)', response.text)
    again = client.get("/", headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/", headers={"If-None-Match": '"other", W/' + response.headers["etag"]}).status_code == 304
    assert client.head("/").content == b""


def test_policy_allows_no_inline_script_and_no_other_origin(client: TestClient) -> None:
    """The policy is the second wall behind textContent."""
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy and "http" not in policy and "*" not in policy and "data:" not in policy


@pytest.mark.parametrize(
    "path",
    [
        "/page/../page_api.py",
        "/page/%2e%2e/page_api.py",
        "/page/..%2fpage_api.py",
        "/page/%2e%2e%2f%2e%2e%2fruntime.py",
        "/page/js/../../app.py",
        "/page/js%5c..%5c..%5capp.py",
        "/page//etc/passwd",
        "/page/%00",
        "/page/js",
        "/page/js/",
        "/page/",
        "/page/0000000000000000/js/main.js",
        "/page/__init__.py",
    ],
)
def test_nothing_else_can_be_read(client: TestClient, path: str) -> None:
    """Paths are looked up in a table; there is no way out of it."""
    assert client.get(path).status_code == 404


def test_version_follows_the_content(tmp_path: Path) -> None:
    """A changed file has a new address, or browsers would keep the old one for a year."""
    (tmp_path / "index.html").write_text('<link href="/page/a.css">', encoding="utf-8")
    (tmp_path / "a.css").write_text("a {}", encoding="utf-8")
    before = Page.read(tmp_path)
    (tmp_path / "a.css").write_text("b {}", encoding="utf-8")
    after = Page.read(tmp_path)
    assert before.version != after.version
    assert after.files["index.html"].content == f'<link href="/page/{after.version}/a.css">'.encode()
    assert before.find(f"{after.version}/a.css")[0] is None


def test_whole_page_is_small() -> None:
    """All files together, views that are loaded later included, uncompressed."""
    assert sum(path.stat().st_size for path in SOURCES) <= MAX_TOTAL_BYTES


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_no_source_makes_markup_of_text(path: Path) -> None:
    """What users and models say becomes text nodes; there is no second way that could be taken by mistake."""
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|srcdoc|setHTML"
        r"|\beval\b|new Function|javascript:|setAttribute\(\s*[\"']style|setAttribute\(\s*[\"']on"
    )
    source = path.read_text(encoding="utf-8")
    assert not re.findall(forbidden, source)
    assert not re.findall(r"https?://", re.sub(r"Source: \S+|http://www\.w3\.org/2000/svg", "", source))
    assert len(source.splitlines()) <= MAX_FILE_LINES
    assert path.name == "early.js" or source.startswith("/**"), "a module says first what it owns"


def test_start_has_no_inline_script_and_no_inline_style() -> None:
    """The policy would refuse them; the page would look broken."""
    source = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\ssrc=)[^>]*>|<style|\sstyle=|\son\w+=|https?://", source)


def test_languages_have_the_same_keys_and_places() -> None:
    """A key that one language lacks is an exception in front of a user."""
    english, chinese = (dict(_KEY.findall(_TEXTS[name])) for name in ("en", "zh"))
    assert list(english) == list(chinese) and len(english) > 100
    for key, text in english.items():
        places = set(re.findall(r"\{(\w+)\}", text))
        assert places == set(re.findall(r"\{(\w+)\}", chinese[key])), key
        assert text.count("|") <= 1 and "|" not in chinese[key]


def test_texts_are_all_used_and_all_there() -> None:
    """Every key in the sources has a text; every text is used somewhere."""
    sources = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES if path.parent.name != "i18n")
    known = set(dict(_KEY.findall(_TEXTS["en"])))
    families = set(re.findall(r"`(\w+\.(?:\w+_)?)\$\{", sources))
    named = set(re.findall(r"""["'&;]([a-z_0-9]+(?:\.[a-z_0-9]+)?)["'&;]""", sources))
    unused = {key for key in known - named if not any(key.startswith(family) for family in families)}
    assert not unused
    calls = r"""(?:\bt\(|i18n: |i18n\w+: |i18n: \[|i18nLabel: \[|key: |title: |confirm: )"([a-z_]+\.[a-z_0-9.]+)\""""
    assert not set(re.findall(calls, sources)) - known
