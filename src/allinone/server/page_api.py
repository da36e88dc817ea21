"""The web page: the files below `page/`, read once, served from memory.

Owns their types, their caching and the page's content security policy. Their addresses carry a hash of all files: what
lies below it never changes and may be kept for ever, and a new version of the page has new addresses. A path is looked
up in a table, never on disk, so none can leave the folder. Knows nothing of the API that the page calls.
Above: `app.py` takes `router` in; `guard.py` adds the headers that every response has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response

from allinone.errors import NotFound

FOLDER = Path(__file__).parent / "page"
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # a browser that knows it refuses HTML from strings altogether
        "trusted-types 'none'",
    )
)
FOR_EVER = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"
_START = "index.html"
_ADDRESS = b'"/page/'
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""All kinds of files that the page has; the machine's own table of types may be wrong."""

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFile:
    """One file of the page."""

    content: bytes
    media_type: str
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """All files by their path below `page/`, and the hash of them together."""

    files: Mapping[str, PageFile]
    version: str

    @classmethod
    def read(cls, folder: Path = FOLDER) -> Page:
        """Read a folder; its `index.html` is made to point to the addresses of this version."""
        paths = sorted(path for path in folder.rglob("*") if path.suffix in _TYPES)
        contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        digest = hashlib.sha256()
        for name, content in contents.items():
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        version = digest.hexdigest()[:16]
        contents[_START] = contents[_START].replace(_ADDRESS, _ADDRESS + version.encode() + b"/")
        return cls(files={name: _to_file(name, content) for name, content in contents.items()}, version=version)

    def find(self, path: str) -> tuple[PageFile | None, str]:
        """The file of a path below `/page/`, with or without the version before it, and how long it may be kept."""
        head, _, rest = path.partition("/")
        is_versioned = head == self.version
        return self.files.get(rest if is_versioned else path), FOR_EVER if is_versioned else ASK_AGAIN


def _to_file(name: str, content: bytes) -> PageFile:
    etag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'
    return PageFile(content=content, media_type=_TYPES[Path(name).suffix], etag=etag)


@cache
def load_page() -> Page:
    """The page of this installation."""
    return Page.read()


@router.api_route("/", methods=["GET", "HEAD"])
async def get_start(request: Request) -> Response:
    """The page itself: small, and asked for again each time, for it names the version of everything else."""
    return _respond(request, load_page().files[_START], ASK_AGAIN)


@router.api_route("/page/{path:path}", methods=["GET", "HEAD"])
async def get_file(request: Request, path: str) -> Response:
    """A file of the page."""
    file, caching = load_page().find(path)
    if file is None:
        raise NotFound("The page has no such file.", hint="load the page again: it may have a new version")
    return _respond(request, file, caching)


def _respond(request: Request, file: PageFile, caching: str) -> Response:
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": caching, "ETag": file.etag}
    asked = request.headers.get("if-none-match", "")
    if file.etag in (tag.strip().removeprefix("W/") for tag in asked.split(",")):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)
