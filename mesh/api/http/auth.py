"""Authenticates the clients of the admin API.

On the unix socket the file mode decides: whoever may open it may do everything. Over TCP anybody can connect, so each
request needs a token, or its connection a client certificate. A token has a role: it may do everything, or only read.
Only paths without secrets are open: the files of the page, the description of the API, and `/healthz`.

Any site that a browser visits can make it send requests here. Such a page cannot read the answers, but it could send a
`drain`, or give its own name the address of this worker and then read everything (DNS rebinding). So a write that a
browser sends on behalf of another origin is refused, and so is every request whose `Host` is not a name or an address
of this worker (`mesh.api.http.host_names`). Where the client needs no token, a write must not have one of the content
types that a form of a foreign page can send.
"""

import hmac
import json
import logging
import socket
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from mesh.api.http.connections import AdminConnection
from mesh.api.http.host_names import host_refusal, is_foreign_origin
from mesh.api.http.refusals import RefusalLog
from mesh.model.codes import Code
from mesh.model.credential import parse_holder
from mesh.model.errors import MeshError
from mesh.util.regular_file import read_regular_file

log = logging.getLogger("vipmesh")

MAX_TOKEN_FILE_BYTES = 64 << 10
"""The most bytes of the file with the token."""
MIN_TOKEN_LENGTH = 16
"""The smallest number of characters of a token."""

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid; unix(7)


class TokenError(MeshError):
    """The token cannot be used. The text ends with the remedy."""


class AdminRole(Enum):
    """What an authenticated client may do."""

    READ = "read"
    """Read status, events and metrics: the methods GET and HEAD."""
    OPERATOR = "operator"
    """Everything."""


class AdminToken:
    """The token in a file. A changed file takes effect at the next request; an unusable one changes nothing."""

    def __init__(self, file: Path, setting: str = "token_file") -> None:
        """`setting` is the name of the setting in `[admin]` that names the file. Raises `TokenError`."""
        self._file = file
        self.setting = setting
        self._stamp = self._now()
        self._secret = self._read()

    def accepts(self, header: str) -> bool:
        """Return whether an `Authorization` header has the token (RFC 6750)."""
        self._refresh()
        scheme, _, given = header.partition(" ")
        return scheme.lower() == "bearer" and self.is_secret(given.strip().encode(errors="replace"))

    def is_secret(self, given: bytes) -> bool:
        """Return whether these bytes are the token, in a time that does not depend on them."""
        return hmac.compare_digest(given, self._secret)

    def equals(self, other: "AdminToken") -> bool:
        """Return whether two files have the same token."""
        return other.is_secret(self._secret)

    def _refresh(self) -> None:
        try:
            if self._now() != self._stamp:
                self._stamp, self._secret = self._now(), self._read()
        except TokenError as error:
            log.warning("admin API: the previous token stays valid: %s", error, extra=error.code.extra)

    def _now(self) -> tuple[int, int, int]:
        """Return what changes when the file changes. Raises `TokenError`."""
        try:
            found = self._file.stat()
        except OSError as error:
            raise TokenError(
                Code.ADMIN_TOKEN, f"{self._file}: {error.strerror}; write a token with `{_MAKE} > {self._file}`"
            ) from error
        return found.st_mtime_ns, found.st_ctime_ns, found.st_ino

    def _read(self) -> bytes:
        """Return the token. Raises `TokenError` if it is unusable; logs a warning if every user may read it."""
        try:
            secret = read_regular_file(self._file, MAX_TOKEN_FILE_BYTES).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise TokenError(
                Code.ADMIN_TOKEN, f"{self._file}: {error}; write a token with `{_MAKE} > {self._file}`"
            ) from error
        if len(secret) < MIN_TOKEN_LENGTH or not secret.isascii() or not secret.isprintable() or " " in secret:
            raise TokenError(
                Code.ADMIN_TOKEN,
                f"{self._file}: the token is not one line of at least {MIN_TOKEN_LENGTH} printable ASCII characters "
                f"without spaces; write one with `{_MAKE} > {self._file}`",
            )
        if self._file.stat().st_mode & 0o007:
            log.warning(
                "admin API: %s can be read by every user of this host; run `chmod 640 %s`",
                self._file,
                self._file,
                extra=Code.ADMIN_TOKEN.extra,
            )
        return secret.encode()


_MAKE = "openssl rand -hex 32"


@dataclass(frozen=True, slots=True)
class AdminTokens:
    """The tokens of the clients over TCP."""

    operator: AdminToken | None = None
    """The token that may do everything; None for none."""
    read: AdminToken | None = None
    """The token that may only read; None for none."""

    def role_of(self, header: str) -> AdminRole | None:
        """Return the role of the token in an `Authorization` header, or None if it is neither token.

        A token that is in both files may do everything.
        """
        may_read = self.read is not None and self.read.accepts(header)
        if self.operator is not None and self.operator.accepts(header):
            return AdminRole.OPERATOR
        return AdminRole.READ if may_read else None

    def warn_of_equal(self) -> None:
        """Log a warning if both files have the same token."""
        if self.operator is not None and self.read is not None and self.operator.equals(self.read):
            log.warning(
                "admin API: [admin] token_file and read_token_file have the same token, so it may do everything; "
                "write another one to read_token_file with `%s`",
                _MAKE,
                extra=Code.ADMIN_TOKEN.extra,
            )


FORM_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
"""The content types that a page can send to another origin without its permission (Fetch, section 2.2.2)."""


def auth_middleware(
    tokens: AdminTokens, open_paths: Callable[[str], bool], refusals: RefusalLog, hosts: Collection[str] = ()
) -> Middleware:
    """Return the middleware that refuses unauthenticated requests, except for open paths, and notes them.

    Without tokens, a client certificate is the only way over TCP. `hosts` are the names of this worker.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        refusal = _refusal(request, tokens, open_paths, hosts)
        if refusal is None:
            return await handler(request)
        line = f"admin API: {request.method} {quote_untrusted(request.path)} by {describe_client(request)} refused"
        refusals.note(request, f"{line}: {_REASONS[refusal.status]}", refusal.status)
        return refusal

    return check


_REASONS = {400: "the request is invalid", 401: "no valid token", 403: "its Host, Origin or token does not allow it"}


def _refusal(
    request: web.Request, tokens: AdminTokens, open_paths: Callable[[str], bool], hosts: Collection[str]
) -> web.StreamResponse | None:
    """Return the refusal, or None if the request is allowed."""
    elsewhere = _foreign_host(request, hosts)
    if elsewhere is not None:
        return elsewhere
    writes = request.method not in ("GET", "HEAD")
    if writes and _from_elsewhere(request):
        return refusal_response(
            403, "a write from a page of another origin is refused; use the command line, or this worker's own page"
        )
    token = tokens.role_of(request.headers.get("Authorization", ""))
    role = AdminRole.OPERATOR if is_on_unix_socket(request) else _role_of_certificate(request)
    needs_no_token = role is not None and token is not AdminRole.OPERATOR
    if needs_no_token and writes and request.content_type in FORM_TYPES and _is_by_browser(request):
        return refusal_response(
            400, f"a write as {request.content_type} is refused; send Content-Type: application/json"
        )
    role = AdminRole.OPERATOR if AdminRole.OPERATOR in (role, token) else role or token
    if role is not None:
        _authenticated(request)
        if writes and role is AdminRole.READ:
            what = "this token" if token is AdminRole.READ else "the certificate of a worker"
            remedy = "show an operator's certificate, or send the token in the file [admin] token_file"
            return refusal_response(403, f"{what} may only read; {remedy}")
        return None
    if open_paths(request.path):
        return None
    answer = refusal_response(
        401, "no valid token; send Authorization: Bearer TOKEN, as in the file [admin] token_file or read_token_file"
    )
    answer.headers["WWW-Authenticate"] = 'Bearer realm="vipmesh"'
    return answer


def _is_by_browser(request: web.Request) -> bool:
    """Return whether a browser may have sent the request. `curl -d` writes the content type of a form, too."""
    marks = ("Origin", "Referer", "Cookie", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Accept-Language")
    return any(mark in request.headers for mark in marks) or "Mozilla" in request.headers.get("User-Agent", "")


def _foreign_host(request: web.Request, hosts: Collection[str]) -> web.StreamResponse | None:
    """Return the refusal of a request for another host, or None if it is for this worker."""
    if not request.raw_path.startswith("/"):
        # The other forms are those of requests to a proxy: RFC 9112, section 3.2.
        return refusal_response(400, "the request target is invalid; send the path alone")
    host = request.headers.get("Host")
    if host is None:  # HTTP/1.0; no browser sends that
        return None
    refusal = host_refusal(host, hosts, is_local=is_on_unix_socket(request))
    return None if refusal is None else refusal_response(refusal.status, refusal.reason)


def _authenticated(request: web.Request) -> None:
    if isinstance(request.protocol, AdminConnection):
        request.protocol.authenticated()


CODE = "Vipmesh-Code"
"""The header with the code of a refusal, if it has one."""


def refusal_response(status: int, reason: str, code: Code | None = None) -> web.Response:
    """Return a response with the reason as `{"error": ...}`."""
    headers = {} if code is None else {CODE: str(code)}
    return web.json_response({"error": reason}, status=status, headers=headers)


def is_on_unix_socket(request: web.Request) -> bool:
    """Return whether the request came over the unix socket."""
    return _socket(request).family == socket.AF_UNIX


def describe_client(request: web.Request) -> str:
    """Return who sent the request, as far as the kernel, the certificate or the address identify the client."""
    if is_on_unix_socket(request):
        pid, uid, _ = _CREDENTIALS.unpack(
            _socket(request).getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        return f"uid {uid} (pid {pid})"
    name = _certified(request)
    return f"{name} at {request.remote}" if name else f"{request.remote}"


def quote_untrusted(text: str) -> str:
    """Return text from outside for a log line: quoted, with at most 200 characters and without control characters."""
    return json.dumps(text if len(text) <= 200 else f"{text[:200]}...")


def _socket(request: web.Request) -> socket.socket:
    """Return the socket of a request. Raises `HTTPBadRequest` if the connection is closed."""
    if request.transport is None:
        raise web.HTTPBadRequest(text="the connection is gone")
    found: socket.socket = request.transport.get_extra_info("socket")
    return found


def _certified(request: web.Request) -> str | None:
    """Return the name in a client certificate, which the TLS layer has verified, or None if there is no certificate."""
    certificate = request.transport.get_extra_info("peercert") if request.transport is not None else None
    if not certificate:
        return None
    names = dict(pair for part in certificate.get("subject", ()) for pair in part)
    return quote_untrusted(str(names.get("commonName", "a certificate without a name")))


def _role_of_certificate(request: web.Request) -> AdminRole | None:
    """Return what the client certificate permits, or None without one. A worker may only read."""
    certificate = request.transport.get_extra_info("peercert") if request.transport is not None else None
    if not certificate:
        return None
    holder = parse_holder(text for kind, text in certificate.get("subjectAltName", ()) if kind == "URI")
    return AdminRole.READ if holder is not None and holder.is_worker else AdminRole.OPERATOR


def _from_elsewhere(request: web.Request) -> bool:
    """Return whether a browser sends the request for a page of another origin (Fetch, section 3.2; Fetch Metadata)."""
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return True
    return is_foreign_origin(request.headers.get("Origin"), request.headers.get("Host", ""))
