"""The HTTP check: sends one request and reads as much of the response as the verdict needs.

It does not use an HTTP client, because a check needs no pool and no cookies. That takes a quarter of the CPU time,
which limits how many endpoints a worker can probe. Responses are parsed by `mesh.health.checks.http_response`.
"""

import asyncio
import socket
import ssl
from functools import lru_cache
from typing import NamedTuple, cast
from urllib.parse import quote

from typing_extensions import override

from mesh import __version__
from mesh.health.checks.http_response import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    HttpResponse,
    NotHttpError,
    final_status,
)
from mesh.health.checks.tcp import await_verdict, explain_error, tls_server_name
from mesh.health.state_machine import Verdict
from mesh.model.part import DaemonPart
from mesh.model.probe import Probe
from mesh.model.service import Address
from mesh.model.table import RealKey
from mesh.util.bulkhead import Bulkhead
from mesh.util.sockets import LACK_ERRNOS, LINGER_RESET, connect_socket

__all__ = (
    "MAX_HEAD_BYTES",
    "REDIRECTS",
    "ExchangeError",
    "HttpExchange",
    "NotHttpError",
    "RequestTemplate",
    "build_request",
    "check_http",
    "final_status",
    "is_enough",
    "judge_response",
    "judge_status",
    "redirects_to",
    "request_headers",
    "request_target",
    "request_template",
)

REDIRECTS = frozenset((301, 302, 303, 307, 308))
"""RFC 9110, section 15.4."""

bulkhead = Bulkhead(DaemonPart.PROBES)

_SAMPLE = ("192.0.2.1", 80)
"""Any endpoint."""
_TARGET = "/?&=%:@!$'()*+,;~"
"""Characters allowed in a request target besides letters, digits and `-._` (RFC 3986, section 3.4), and `%`."""


class ExchangeError(Exception):
    """The connection ended before the response was complete. The text says how."""


async def check_http(address: Address, port: int, probe: Probe, *, tls: ssl.SSLContext | None = None) -> Verdict:
    """Succeed if `probe.path` is answered within `probe.timeout` with one of `probe.expect_status`.

    The timeout covers connecting, the TLS handshake and the response together. A redirect is a response like any other
    and is not followed. `tls` is the context for TLS, which verifies the certificate against `probe.host`, or against
    the address if that is empty; None: no TLS.
    """
    return await await_verdict(_ask(address, port, probe, tls), probe.timeout)


async def _ask(address: Address, port: int, probe: Probe, tls: ssl.SSLContext | None) -> tuple[bool, str]:
    exchange = HttpExchange(address, port, probe, tls)
    try:
        response = await exchange.run(build_request(address, port, probe))
    except (ExchangeError, NotHttpError) as error:
        return False, str(error)
    return judge_response(response, probe)


def judge_response(response: HttpResponse, probe: Probe) -> tuple[bool, str]:
    """Return (ok, reason) for a response of which nothing more is needed."""
    assert response.status is not None
    ok, reason = judge_status(response.status, probe.expect_status)
    if ok and probe.expect_body and not response.found:
        return False, f"{reason}, but the body does not contain {probe.expect_body[:40]!r}"
    return ok, reason


def judge_status(status: int, expect: tuple[tuple[int, int], ...]) -> tuple[bool, str]:
    """Return (ok, reason) for a status alone."""
    return any(low <= status <= high for low, high in expect), f"status {status}"


def is_enough(response: HttpResponse, probe: Probe) -> bool:
    """Return whether the verdict is clear, so that the rest of the response need not arrive."""
    if response.status is None:
        return False
    if probe.follow_redirects and response.status in REDIRECTS and not response.head_ended:
        return False
    return (
        not probe.expect_body
        or response.found
        or response.ended
        or (redirects_to(response, probe) is not None)
        or not judge_status(response.status, probe.expect_status)[0]
    )


def redirects_to(response: HttpResponse, probe: Probe) -> bytes | None:
    """Return the location of a redirect that the probe follows, or None if the response is to be judged."""
    return response.location if probe.follow_redirects and response.status in REDIRECTS else None


def build_request(address: Address, port: int, probe: Probe, target: str | None = None) -> bytes:
    """Return the whole request. Characters not allowed in a target are percent-encoded, so a path adds no lines.

    `target` is a request target in place of `probe.path`.
    """
    lines = [
        f"{probe.method} {request_target(probe.path) if target is None else target} HTTP/1.1",
        *(f"{name}: {value}" for name, value in request_headers(address, port, probe).items()),
        "Connection: close",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


class RequestTemplate(NamedTuple):
    """The request of a probe, without the endpoint: all endpoints of a service share it."""

    before: bytes
    after: bytes
    names_endpoint: bool
    """Whether the place of the endpoint belongs between the two parts, as the Host."""

    def request(self, address: Address, port: int) -> bytes:
        """Return the whole request, as `build_request` does."""
        if not self.names_endpoint:
            return self.before
        place = str(RealKey(address, port)) if ":" in address else f"{address}:{port}"
        return self.before + place.encode("ascii") + self.after


@lru_cache(1024)
def request_template(probe: Probe) -> RequestTemplate:
    """Return the requests of a probe to all endpoints."""
    whole = build_request(*_SAMPLE, probe)
    if probe.host or any(name == "Host" for name, _ in probe.headers):
        return RequestTemplate(whole, b"", names_endpoint=False)
    before, host, after = whole.partition(b"\r\nHost: ")
    return RequestTemplate(before + host, after[after.index(b"\r\n") :], names_endpoint=True)


def request_target(path: str) -> str:
    """Return a path and query in the form that a request may contain."""
    return quote(path, safe=_TARGET)


def request_headers(address: Address, port: int, probe: Probe) -> dict[str, str]:
    """Return the headers of the request except those of the connection. The probe's own may contain a password."""
    length = {"Content-Length": "0"} if probe.method == "POST" else {}
    return {
        "Host": probe.host or str(RealKey(address, port)),
        "User-Agent": f"vipmesh-probe/{__version__}",
        "Accept": "*/*",
        **length,
        **dict(probe.headers),
    }


class HttpExchange:
    """Sends requests to one endpoint, each over a connection of its own that is closed by a reset."""

    def __init__(
        self,
        address: Address,
        port: int,
        probe: Probe,
        tls: ssl.SSLContext | None,
        *,
        body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        """`body_bytes`: in how much of a body a text is looked for."""
        self._body_bytes = body_bytes
        self._address, self._port = address, port
        self._probe = probe
        self._tls = tls

    async def run(self, request: bytes) -> HttpResponse:
        """Return the response as far as the verdict needs it.

        Raises `NotHttpError` and `ExchangeError`, and `OSError` if there is no connection.
        """
        loop = asyncio.get_running_loop()
        protocol = _ResponseProtocol(request, self._probe, self._body_bytes)
        if self._tls is None:
            # A quarter cheaper than with a socket of our own, since uvloop then connects without calling Python. The
            # price: a check that is cancelled between the connection and `connection_made` leaves one TIME_WAIT.
            transport, _ = await loop.create_connection(lambda: protocol, self._address, self._port)
        else:
            # SO_LINGER must be set before the TLS handshake, because the time may run out during it.
            transport, _ = await loop.create_connection(
                lambda: protocol,
                sock=await connect_socket(self._address, self._port),
                ssl=self._tls,
                server_hostname=tls_server_name(self._address, self._probe),
                ssl_handshake_timeout=self._probe.timeout + 1,  # never the first to fire
            )
        try:
            return await protocol.outcome
        finally:
            transport.abort()


class _ResponseProtocol(asyncio.Protocol):
    """Sends the request and parses the response until the verdict is clear."""

    def __init__(self, request: bytes, probe: Probe, body_bytes: int) -> None:
        self.outcome: asyncio.Future[HttpResponse] = asyncio.get_running_loop().create_future()
        self._request = request
        self._probe = probe
        self._response = HttpResponse(probe.method, probe.expect_body.encode(), body_bytes)

    @override
    @bulkhead.method
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # event loops guarantee this type for streams
        stream.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        stream.write(self._request)

    @override
    @bulkhead.method
    def data_received(self, data: bytes) -> None:
        if self.outcome.done():
            return
        try:
            self._response.feed(data)
        except NotHttpError as error:
            self.outcome.set_exception(error)
            return
        if is_enough(self._response, self._probe):
            self.outcome.set_result(self._response)

    @override
    @bulkhead.method
    def connection_lost(self, exc: Exception | None) -> None:
        if self.outcome.done():
            return
        if exc is None:
            if self._response.close():
                self.outcome.set_result(self._response)
            else:
                within = "within the body of" if self._response.status is not None else "before"
                self.outcome.set_exception(ExchangeError(f"closed {within} an answer"))
        elif isinstance(exc, OSError) and exc.errno not in LACK_ERRNOS:
            self.outcome.set_exception(ExchangeError(explain_error(exc) or "reset before an answer"))
        else:
            self.outcome.set_exception(exc)
