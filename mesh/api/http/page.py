"""The page that shows a worker in a browser: a handful of files, without a build step and without any other host.

They are read once, when the daemon starts, and hold no secret: whoever may ask the worker for nothing else gets them
too, and then a page that asks for the token. What they may do is written in the policy: run these scripts, ask this
worker, and nothing else. Names and labels are strangers' texts; with `require-trusted-types-for` the browser itself
refuses to make markup of any text.
"""

import hashlib
from importlib.resources import files
from types import MappingProxyType

from aiohttp import web

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
    {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"},
)
_START = "index.html"
_FILES = MappingProxyType({file.name: file.read_bytes() for file in (files("mesh.api.http") / "static").iterdir()})
_TAG = hashlib.blake2b(b"".join(_FILES[name] for name in sorted(_FILES)), digest_size=8).hexdigest()
"""Of all files at once: a browser has either those of this version or asks again."""


def add_page(app: web.Application) -> None:
    """`/` and the files that it names."""
    app.router.add_get("/", _get)
    app.router.add_get("/page/{file}", _get)


def is_page_path(path: str) -> bool:
    """Whether it is one of these files."""
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
