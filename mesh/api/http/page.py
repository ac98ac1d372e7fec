"""The page that shows a worker in a browser: a few static files, without a build step and without any other host.

The files are read once, when the daemon starts, and contain no secret: a client without a token gets them too, and then
a form that asks for the token. `codes.json` has the texts of docs/errors.md, so that a code on the page leads to its
meaning in this very version. The Content Security Policy limits what the page may do: run these scripts, and send
requests to this worker. Names and labels are untrusted text; with `require-trusted-types-for` the browser itself
refuses to turn text into markup.
"""

import hashlib
from importlib.resources import files
from types import MappingProxyType

import msgspec
from aiohttp import web

from mesh.model.codes import Code

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
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""Content Security Policy, level 3, and Trusted Types."""

_TYPES = MappingProxyType(
    {
        ".html": "text/html",
        ".css": "text/css",
        ".js": "text/javascript",
        ".svg": "image/svg+xml",
        ".json": "application/json",
    },
)
_START = "index.html"
_CODES = {str(code): {"title": code.title, "text": code.explanation} for code in Code}
_FILES = MappingProxyType(
    {file.name: file.read_bytes() for file in (files("mesh.api.http") / "static").iterdir()}
    | {"codes.json": msgspec.json.encode(_CODES)}
)
_TAG = hashlib.blake2b(b"".join(_FILES[name] for name in sorted(_FILES)), digest_size=8).hexdigest()
"""The entity tag of all files together: a browser has either all files of this version, or requests them again."""


def add_page(app: web.Application) -> None:
    """Add the routes of `/` and of the files that it links to."""
    app.router.add_get("/", _get)
    app.router.add_get("/page/{file}", _get)


def is_page_path(path: str) -> bool:
    """Return whether a path is one of the page's files."""
    return path == "/" or path.startswith("/page/")


async def _get(request: web.Request) -> web.Response:
    name = request.match_info.get("file", _START)
    body = _FILES.get(name)
    if body is None:
        raise web.HTTPNotFound
    headers = {
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "Cross-Origin-Opener-Policy": "same-origin",
        "X-Frame-Options": "DENY",
        "Cache-Control": "no-cache",
        "ETag": f'"{_TAG}"',
    }
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return web.Response(status=304, headers=headers)
    kind = _TYPES[f".{name.rpartition('.')[2]}"]
    return web.Response(body=body, content_type=kind, charset="utf-8", headers=headers)
