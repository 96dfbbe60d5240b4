"""Serves the page: `GET /` and its files under `/page/`. Everything is read once, at start; nothing of a request reaches the disk."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

PREFIX = "/page/"
STATIC = Path(__file__).parent / "static"

_INDEX = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# No inline script or style, no markup made from strings, nothing from or to another host. Pictures are blobs that scripts fetched.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "Cache-Control": "no-cache",  # asked for each time, answered by 304: no old script beside a new one
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def add_routes(app: web.Application) -> None:
    """Mount the page. It holds no data and is for everybody: what it shows, it asks of the API with the caller's credential."""
    files = _read(STATIC)

    async def index(request: web.Request) -> web.Response:
        return _answer(request, files[_INDEX])

    async def file(request: web.Request) -> web.Response:
        found = files.get(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound
        return _answer(request, found)

    app.router.add_get("/", index)
    app.router.add_get(f"{PREFIX}{{name}}", file)


def is_page(path: str) -> bool:
    """Whether a path is the page's, which whoever checks credentials lets everybody have."""
    return path == "/" or path.startswith(PREFIX)


@dataclass(frozen=True, slots=True)
class _File:
    content_type: str
    digest: str
    plain: bytes
    zipped: bytes


def _read(directory: Path) -> Mapping[str, _File]:
    return {path.name: _file(path) for path in directory.iterdir() if path.suffix in _TYPES}


def _file(path: Path) -> _File:
    plain = path.read_bytes()
    zipped = gzip.compress(plain, compresslevel=9, mtime=0)
    return _File(_TYPES[path.suffix], hashlib.sha256(plain).hexdigest()[:20], plain, zipped)


def _answer(request: web.Request, file: _File) -> web.Response:
    """The file as the client can read it, or 304 where it has it."""
    zipped = _reads_gzip(request.headers.get("Accept-Encoding", ""))
    tag = f"{file.digest}-gzip" if zipped else file.digest
    if any(known.value == tag for known in request.if_none_match or ()):
        response = web.Response(status=304, headers=_HEADERS)
    else:
        response = web.Response(body=file.zipped if zipped else file.plain, headers=_HEADERS)
        response.headers["Content-Type"] = file.content_type
        if zipped:
            response.headers["Content-Encoding"] = "gzip"
    response.etag = tag
    return response


def _reads_gzip(accepted: str) -> bool:
    for choice in accepted.lower().split(","):
        name, _, weight = choice.replace(" ", "").partition(";q=")
        if name == "gzip":
            return weight == "" or weight.strip("0.") != ""
    return False
