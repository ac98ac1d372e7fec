"""The HTTP check that reads more than the status: the body, or the targets of redirects.

aiohttp handles chunks, lengths and redirects. It takes three times as much CPU time as the plain check
(`mesh.health.checks.http`), so only probes that need it use it. As with every check, each connection is new and is
closed by a reset. A redirect is followed only to the same endpoint: another host is another endpoint, and must not
decide the verdict on this one.
"""

import socket
import ssl
from urllib.parse import urljoin

import aiohttp
from typing_extensions import override
from yarl import URL

from mesh.health.checks.http import request_headers, request_target
from mesh.health.checks.tcp import await_verdict, explain_error, tls_server_name
from mesh.health.state_machine import Verdict
from mesh.model.probe import Probe
from mesh.model.service import Address
from mesh.model.table import RealKey
from mesh.util.sockets import LINGER_RESET

MAX_BODY_BYTES = 65536
"""Bytes of the body that are searched."""
MAX_REDIRECTS = 5
"""Redirects in a row that are followed."""

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
"""RFC 9110, section 15.4."""


class RedirectRefusedError(Exception):
    """A redirect that is not followed. The text says why."""


async def check_http_body(address: Address, port: int, probe: Probe, *, tls: ssl.SSLContext | None = None) -> Verdict:
    """Like `check_http`, but search the body for `probe.expect_body`, and follow redirects if the probe says so.

    The body is compared as it is received; the request asks for no content encoding.
    """
    return await await_verdict(_ask(address, port, probe, tls), probe.timeout)


async def _ask(address: Address, port: int, probe: Probe, tls: ssl.SSLContext | None) -> tuple[bool, str]:
    try:
        return await _HttpBodyCheck(address, port, probe, tls).answer()
    except RedirectRefusedError as error:
        return False, str(error)
    except aiohttp.ClientConnectorCertificateError as error:
        return False, _of_certificate(error.certificate_error)
    except aiohttp.ClientConnectorError as error:
        return False, explain_error(error.os_error) or "no connection"
    except aiohttp.ClientOSError as error:
        return False, explain_error(error) or "reset before an answer"
    except aiohttp.ServerDisconnectedError:
        return False, "closed before an answer"
    except aiohttp.ClientPayloadError:
        return False, "closed within the body of an answer"
    except aiohttp.ClientResponseError as error:
        return False, f"not HTTP: {error.message[:60]!r}"


class _HttpBodyCheck:
    """One check. Its sockets are closed by a reset."""

    def __init__(self, address: Address, port: int, probe: Probe, tls: ssl.SSLContext | None) -> None:
        self._probe = probe
        self._tls = tls
        self._origin = URL(f"{probe.kind}://{RealKey(address, port)}")
        self._headers = request_headers(address, port, probe)
        self._server_name = None if tls is None else tls_server_name(address, probe)
        self._sockets_left = 0

    async def answer(self) -> tuple[bool, str]:
        """Return (ok, reason). Raises `RedirectRefusedError` and the exceptions of aiohttp."""
        connector = aiohttp.TCPConnector(force_close=True, limit=0, socket_factory=self._socket)
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # `await_verdict` keeps the time
            skip_auto_headers=("Accept-Encoding", "Content-Type"),
            auto_decompress=False,
        ) as session:
            return await self._follow(session)

    async def _follow(self, session: aiohttp.ClientSession) -> tuple[bool, str]:
        probe = self._probe
        target = request_target(probe.path)
        for _ in range(MAX_REDIRECTS + 1):
            self._sockets_left = 1
            async with session.request(
                probe.method,
                URL(f"{self._origin}{target}", encoded=True),
                headers=self._headers,
                allow_redirects=False,
                ssl=True if self._tls is None else self._tls,
                server_hostname=self._server_name,
            ) as answer:
                location = answer.headers.get("Location")
                if not probe.follow_redirects or answer.status not in _REDIRECTS or location is None:
                    return await _judged(answer, probe)
            target = _same_endpoint(location, target, self._origin, probe)
        raise RedirectRefusedError(f"more than {MAX_REDIRECTS} redirects")

    def _socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """Make the socket of a request. There is only one: aiohttp would silently retry if the server closed it."""
        if not self._sockets_left:
            raise _ConnectionClosedError
        self._sockets_left -= 1
        family, kind, protocol, _, _ = info
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        return sock


async def _judged(answer: aiohttp.ClientResponse, probe: Probe) -> tuple[bool, str]:
    status = f"status {answer.status}"
    if not any(low <= answer.status <= high for low, high in probe.expect_status):
        return False, status
    if not probe.expect_body or await _contains(answer.content, probe.expect_body.encode()):
        return True, status
    return False, f"{status}, but the body does not contain {probe.expect_body[:40]!r}"


async def _contains(body: aiohttp.StreamReader, wanted: bytes) -> bool:
    seen = b""
    while len(seen) < MAX_BODY_BYTES and (more := await body.readany()):
        seen += more
        if wanted in seen[:MAX_BODY_BYTES]:
            return True
    return False


def _same_endpoint(location: str, target: str, origin: URL, probe: Probe) -> str:
    """Return the request target that a redirect leads to.

    Raises `RedirectRefusedError`, whose text shows no query because it may contain a password.
    """
    asked = URL(f"{probe.kind}://{probe.host}") if probe.host else origin
    try:
        to = URL(urljoin(f"{asked}{target}", location))
        same = (to.scheme, to.host) == (asked.scheme, asked.host) and to.port in (asked.port, origin.port)
    except ValueError:
        raise RedirectRefusedError("the redirect leads to an invalid URL") from None
    if not same:
        raise RedirectRefusedError(f"the redirect leads away, to {str(to.origin())[:60] if to.host else to.scheme}")
    return request_target(to.raw_path_qs)


class _ConnectionClosedError(OSError):
    """The endpoint has closed the connection, and the request is not repeated."""

    @override
    def __str__(self) -> str:
        return "closed before an answer"


def _of_certificate(error: Exception) -> str:
    return explain_error(error) if isinstance(error, OSError) else str(error)
