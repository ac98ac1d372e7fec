"""Accepts the connections of the admin API, within limits that hold before a client has authenticated.

Whoever reaches the port can open connections and leave them unfinished. Each costs a descriptor, which probes and the
data plane need, too. So a connection has a few seconds for its TLS handshake and for the head of each request, and only
a limited number of connections may be open whose client has not authenticated yet: in all, and per address.
"""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from aiohttp import ClientError, web
from aiohttp.http_exceptions import HttpProcessingError
from typing_extensions import override

from mesh.model.codes import Code
from mesh.model.part import DaemonPart
from mesh.util.bulkhead import Bulkhead
from mesh.util.sockets import LINGER_RESET

log = logging.getLogger("vipmesh")
bulkhead = Bulkhead(DaemonPart.ADMIN)

HEAD_TIMEOUT = 10.0
"""Seconds that a client has for its TLS handshake, and for the head of each request."""
BODY_TIMEOUT = 10.0
"""Seconds that a client has for the body of a request."""
IDLE_TIMEOUT = 75.0
"""Seconds that a connection may be open without a request."""
MAX_UNAUTHENTICATED = 128
"""The most connections whose clients have not authenticated."""
MAX_UNAUTHENTICATED_PER_CLIENT = 32
"""The most of them from one IPv4 address or IPv6 /64."""
_BACKLOG = 128
_ACCEPT_PAUSE = 1.0
"""Seconds until the next attempt when a connection could not be accepted, as for want of descriptors."""


class UnauthenticatedLimit:
    """Counts the connections whose clients have not authenticated, by client. Pure."""

    def __init__(self, total: int = MAX_UNAUTHENTICATED, per_client: int = MAX_UNAUTHENTICATED_PER_CLIENT) -> None:
        self._total = total
        self._per_client = per_client
        self._open: Counter[str] = Counter()
        self.refused = 0
        """Connections that were refused since the start."""

    def admit(self, client: str) -> bool:
        """Count a connection and return True, or return False if it is one too many."""
        if self._open.total() >= self._total or self._open[client] >= self._per_client:
            self.refused += 1
            return False
        self._open[client] += 1
        return True

    def release(self, client: str) -> None:
        """Count a connection no more: it is closed, or its client has authenticated."""
        self._open[client] -= 1
        if self._open[client] <= 0:
            del self._open[client]


def client_key(address: str) -> str:
    """Return what connections from an address are counted under: an IPv4 address, or an IPv6 /64 network."""
    found = ip_address(address.partition("%")[0])
    if not isinstance(found, IPv6Address):
        return str(found)
    return str(found.ipv4_mapped) if found.ipv4_mapped else str(ip_network((found, 64), strict=False))


class AdminConnection(web.RequestHandler):
    """One connection of the admin API. A client that is too slow or speaks no HTTP is disconnected."""

    __slots__ = ("_busy", "_head_timer", "_release")

    def __init__(self, server: web.Server, release: Callable[[], None] | None = None) -> None:
        """`release` is called once, when the client has authenticated or the connection is closed."""
        # Bodies are small: without decompression, none can become large here.
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=IDLE_TIMEOUT,
            access_log=None,  # type: ignore[arg-type]
            auto_decompress=False,
        )
        self._release = release
        self._busy = False
        self._head_timer: asyncio.TimerHandle | None = None

    def authenticated(self) -> None:
        """Note that the client has authenticated: its connection is not counted any more."""
        if self._release is not None:
            release, self._release = self._release, None
            release()

    def begin_request(self) -> None:
        """Note that the head of a request is complete."""
        self._busy = True
        self._stop_timer()

    def end_request(self) -> None:
        """Note that the response is ready."""
        self._busy = False

    @override
    @bulkhead.method
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._start_timer()

    @override
    @bulkhead.method
    def data_received(self, data: bytes) -> None:
        if not self._busy and self._head_timer is None:
            self._start_timer()
        super().data_received(data)

    @override
    @bulkhead.method
    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        self.authenticated()
        super().connection_lost(exc)

    @override
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the response to what is no HTTP request; status 500 is an error of this program."""
        if status >= web.HTTPInternalServerError.status_code:
            self.log_exception("a response", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionResetError("a part of another response has been sent")
        response = web.json_response(
            {"error": "this is not a valid HTTP request; send HTTP/1.1, as curl does"}, status=status
        )
        response.force_close()
        return response

    @override
    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Report an error of this program once; what a client has sent is none."""
        error = kw.get("exc_info")
        if isinstance(error, Exception) and not isinstance(
            error, (HttpProcessingError, web.RequestPayloadError, ClientError, ConnectionError)
        ):
            bulkhead.caught("a connection", error)

    def _start_timer(self) -> None:
        self._head_timer = asyncio.get_running_loop().call_later(
            HEAD_TIMEOUT, bulkhead.callback(self._too_slow, "a slow client")
        )

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if self.transport is not None and not self._busy:
            # `close` alone would wait for a client that reads nothing.
            abort = self.transport.abort
            self.force_close()
            abort()


async def read_body(request: web.Request) -> bytes:
    """Return the body of a request. Raises `HTTPRequestTimeout` if the client is too slow."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            return await request.read()
    except TimeoutError as error:
        raise web.HTTPRequestTimeout from error


class AdminTcpListener:
    """Accepts connections of one TCP address.

    Accepted sockets are counted before their TLS handshake, which `loop.create_server` does not allow.
    """

    def __init__(self, server: web.Server, tls: ssl.SSLContext | None, limit: UnauthenticatedLimit) -> None:
        self._server = server
        self._tls = tls
        self._limit = limit
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket: socket.socket | None = None

    def start(self, host: str, port: int) -> None:
        """Listen. Raises `OSError`."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Resolving an address without a name never asks a server; it understands the zone of fe80::1%eth0.
            address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)[0][4]
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        accept = bulkhead.keep_running(f"connections to {host}:{port}", lambda: self._accept(listener))
        self._keep(asyncio.get_running_loop().create_task(accept, name="admin connections"))

    async def stop(self) -> None:
        """Accept no more connections, and end unfinished handshakes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listener)
            except ConnectionError:
                continue  # the client has left already: accept(2)
            except OSError as error:
                log.warning(
                    "admin API: a connection cannot be accepted: %s; close others or raise LimitNOFILE",
                    error.strerror,
                    extra=Code.ADMIN_CONNECTIONS_REFUSED.extra,
                )
                await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            client = client_key(address[0])
            if self._limit.admit(client):
                serve = bulkhead.run("a connection", self._serve, sock, client)
                self._keep(loop.create_task(serve, name="admin connection"))
                continue
            log.warning(
                "admin API: a connection from %s is refused: too many are open without a valid token; close them",
                client,
                extra=Code.ADMIN_CONNECTIONS_REFUSED.extra,
            )
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
            sock.close()

    async def _serve(self, sock: socket.socket, client: str) -> None:
        """Make a connection of an accepted socket, with a TLS handshake if there is a certificate."""
        connection = AdminConnection(self._server, lambda: self._limit.release(client))
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=self._tls,
                ssl_handshake_timeout=HEAD_TIMEOUT if self._tls is not None else None,
            )
        except (OSError, asyncio.CancelledError) as error:  # SSLError is an OSError
            connection.authenticated()
            sock.close()
            if isinstance(error, asyncio.CancelledError):
                raise
            log.debug("admin API: no TLS with %s: %s", client, error)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
