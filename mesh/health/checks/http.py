"""The HTTP check: sends one request and reads only the status line of the response.

It does not use an HTTP client, because a check needs no pool, cookies, redirects or body. It takes a quarter of the CPU
time, which limits how many endpoints a worker can probe. Response syntax: RFC 9112, section 4; interim responses: RFC
9110, section 15.2.
"""

import asyncio
import re
import socket
import ssl
from typing import cast
from urllib.parse import quote

from typing_extensions import override

from mesh import __version__
from mesh.health.checks.tcp import await_verdict, explain_error, tls_server_name
from mesh.health.state_machine import Verdict
from mesh.model.part import DaemonPart
from mesh.model.probe import Probe
from mesh.model.service import Address
from mesh.model.table import RealKey
from mesh.util.bulkhead import Bulkhead
from mesh.util.sockets import LINGER_RESET, connect_socket

bulkhead = Bulkhead(DaemonPart.PROBES)

MAX_HEAD_BYTES = 8192
"""Bytes within which the final status line must come, interim responses included."""

_TARGET = "/?&=%:@!$'()*+,;~"
"""Characters allowed in a request target besides letters, digits and `-._` (RFC 3986, section 3.4), and `%`."""

_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([1-9][0-9]{2})(?: [^\r\n]*)?\r?\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_TLS_ALERT = b"\x15\x03"
"""A record of type alert (RFC 8446, section 5.1), which a TLS server sends in response to plain text."""


class NotHttpError(Exception):
    """The bytes are not a response of an HTTP/1 server. The text begins with "not HTTP: "."""


async def check_http(address: Address, port: int, probe: Probe, *, tls: ssl.SSLContext | None = None) -> Verdict:
    """Succeed if `probe.path` is answered within `probe.timeout` with one of `probe.expect_status`.

    The timeout covers connecting, the TLS handshake and the response together. A redirect is a response like any other
    and is not followed. `tls` is the context for TLS, which verifies the certificate against `probe.host`, or against
    the address if that is empty; None: no TLS.
    """
    return await await_verdict(_ask(address, port, probe, tls), probe.timeout)


async def _ask(address: Address, port: int, probe: Probe, tls: ssl.SSLContext | None) -> tuple[bool, str]:
    loop = asyncio.get_running_loop()
    answer = _StatusLineProtocol(build_request(address, port, probe), probe.expect_status)
    if tls is None:
        # A quarter cheaper than with a socket of our own, since uvloop then connects without calling Python. The price:
        # a check that is cancelled between the connection and `connection_made` leaves one TIME_WAIT.
        transport, _ = await loop.create_connection(lambda: answer, address, port)
    else:
        # SO_LINGER must be set before the TLS handshake, because the time may run out during it.
        transport, _ = await loop.create_connection(
            lambda: answer,
            sock=await connect_socket(address, port),
            ssl=tls,
            server_hostname=tls_server_name(address, probe),
            ssl_handshake_timeout=probe.timeout + 1,  # never the first to fire
        )
    try:
        return await answer.outcome
    finally:
        transport.abort()


def build_request(address: Address, port: int, probe: Probe) -> bytes:
    """Return the whole request. Characters not allowed in a target are percent-encoded, so a path adds no lines."""
    lines = [
        f"{probe.method} {request_target(probe.path)} HTTP/1.1",
        *(f"{name}: {value}" for name, value in request_headers(address, port, probe).items()),
        "Connection: close",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


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


def final_status(received: bytes | bytearray) -> int | None:
    """Return the status code of the final response, or None if more bytes are needed. Raises `NotHttpError`."""
    start = 0
    while True:
        line_end = received.find(b"\n", start) + 1
        if not line_end:
            _expect_http(bytes(received[start : start + 40]))
            return None
        line = _STATUS_LINE.fullmatch(received, start, line_end)
        if line is None:
            raise NotHttpError(_describe(bytes(received[start:line_end])))
        status = int(line[1])
        if status >= 200 or status == 101:  # after 101 (Switching Protocols) only the other protocol follows
            return status
        head_end = _HEAD_END.search(received, line_end - 2)
        if head_end is None:
            return None
        start = head_end.end()


def _expect_http(beginning: bytes) -> None:
    if not beginning.startswith(b"HTTP/1."[: len(beginning)]):
        raise NotHttpError(_describe(beginning))


def _describe(beginning: bytes) -> str:
    if beginning.startswith(_TLS_ALERT):
        return "not HTTP: the port speaks TLS; probe it with https://"
    return f"not HTTP: {beginning[:40].decode('latin-1').strip()!r}"


class _StatusLineProtocol(asyncio.Protocol):
    """Sends the request and judges the first final status line. The outcome is (ok, reason)."""

    def __init__(self, request: bytes, expect: tuple[tuple[int, int], ...]) -> None:
        self.outcome: asyncio.Future[tuple[bool, str]] = asyncio.get_running_loop().create_future()
        self._request = request
        self._expect = expect
        self._received = bytearray()

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
        self._received += data[: MAX_HEAD_BYTES - len(self._received)]
        try:
            status = final_status(self._received)
        except NotHttpError as error:
            self._finish(False, str(error))
            return
        if status is not None:
            self._finish(any(low <= status <= high for low, high in self._expect), f"status {status}")
        elif len(self._received) >= MAX_HEAD_BYTES:
            self._finish(False, f"not HTTP: no final status in {MAX_HEAD_BYTES} bytes")

    @override
    @bulkhead.method
    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, OSError):
            self._finish(False, explain_error(exc) or "reset before an answer")
        elif exc is None:
            self._finish(False, "closed before an answer")
        elif not self.outcome.done():
            self.outcome.set_exception(exc)

    def _finish(self, ok: bool, reason: str) -> None:
        if not self.outcome.done():
            self.outcome.set_result((ok, reason))
