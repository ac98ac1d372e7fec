"""Admits connections to the admin API, and ends those that keep a place without a request.

A connection takes a descriptor before its client has said who it is. So their number is limited at each address, the
clients share them (`mesh.util.connection_shares`), and the first request, with the TLS handshake before it, must arrive
within `HEAD_TIMEOUT`. After a response, the client has `IDLE_TIMEOUT` to read it and to send the next request.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from typing_extensions import override

from mesh.model.part import DaemonPart
from mesh.util.bulkhead import Bulkhead
from mesh.util.connection_shares import ConnectionShares

bulkhead = Bulkhead(DaemonPart.ADMIN)

MAX_CONNECTIONS = 128
"""Connections at each address, if no other limit is given."""
HEAD_TIMEOUT = 10.0
"""Seconds from the connection to the end of the first request's head, and to the end of each request's body."""
IDLE_TIMEOUT = 60.0
"""Seconds from the end of a request's handling to the next request."""


class ConnectionGuard:
    """Admits connections at one address; it is the protocol factory of its server."""

    def __init__(
        self,
        server: Callable[[], asyncio.Protocol],
        connections: int = MAX_CONNECTIONS,
        tls: ssl.SSLContext | None = None,
        *,
        head: float = HEAD_TIMEOUT,
        idle: float = IDLE_TIMEOUT,
    ) -> None:
        """`server` makes the protocol of an admitted connection. `tls` None: without TLS. `head` and `idle` are in
        seconds.
        """
        self.server = server
        self.tls = tls
        self.head, self.idle = head, idle
        self.shares = ConnectionShares(connections)
        self.by_transport: dict[asyncio.BaseTransport, _GuardedConnection] = {}

    def __call__(self) -> "_GuardedConnection":
        """Make the protocol of a new connection."""
        return _GuardedConnection(self)


@web.middleware
async def read_body_in_time(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Read the body before the request is handled; its client may not keep the connection by sending it slowly."""
    if request.can_read_body:
        try:
            async with asyncio.timeout(HEAD_TIMEOUT):
                await request.read()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError from None
    return await handler(request)


def while_handled(guards: list[ConnectionGuard]) -> Middleware:
    """Return the middleware that stops the clock of a connection while its request is handled."""

    @web.middleware
    async def handle(request: web.Request, handler: Handler) -> web.StreamResponse:
        transport = request.transport
        connection = None if transport is None else _connection(guards, transport)
        if connection is None:
            return await handler(request)
        connection.stop_clock()
        try:
            return await handler(request)
        finally:
            connection.start_clock()

    return handle


class _GuardedConnection(asyncio.Protocol):
    """Passes a connection on to the protocol of the server once it is admitted."""

    def __init__(self, guard: ConnectionGuard) -> None:
        self._guard = guard
        self._inner: asyncio.Protocol | None = None
        """The protocol of the server; None before the connection is passed on."""
        self._raw: asyncio.Transport
        self._transport: asyncio.Transport | None = None
        """The transport of the server, over TLS if there is any; None before the handshake has ended."""
        self._client: str | None = None
        """The client whose share it takes from; None if it was refused."""
        self._clock: asyncio.TimerHandle | None = None
        self._handshake: asyncio.Task[None] | None = None
        self._early = bytearray()
        """What has arrived in the moment between the handshake and the server."""

    @override
    @bulkhead.method
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)
        client = _client(transport)
        if not self._guard.shares.take(client):
            self._raw.abort()
            return
        self._client = client
        loop = asyncio.get_running_loop()
        self._clock = loop.call_later(self._guard.head, bulkhead.callback(self._expire))
        if self._guard.tls is None:
            self._pass_on(self._raw)
        else:
            self._raw.pause_reading()  # what arrives belongs to the handshake
            self._handshake = loop.create_task(bulkhead.run("a TLS handshake", self._start_tls, self._guard.tls))

    async def _start_tls(self, tls: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(
                self._raw, self, tls, server_side=True, ssl_handshake_timeout=self._guard.head
            )
            if transport is not None:
                self._pass_on(transport)
        except (OSError, TimeoutError):
            return  # the client speaks no TLS, or has gone
        finally:
            if self._inner is None:
                self._raw.abort()
                self._leave()

    def _pass_on(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._guard.by_transport[transport] = self
        self._inner = self._guard.server()
        self._inner.connection_made(transport)
        if self._early:
            self._inner.data_received(bytes(self._early))
            self._early.clear()

    def stop_clock(self) -> None:
        """Take as long as the handling of a request takes."""
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def start_clock(self) -> None:
        """Expect the next request within the idle time."""
        self.stop_clock()
        if self._client is not None:
            loop = asyncio.get_running_loop()
            self._clock = loop.call_later(self._guard.idle, bulkhead.callback(self._expire))

    def _expire(self) -> None:
        self._clock = None
        (self._transport or self._raw).abort()

    def _leave(self) -> None:
        """Give back the place, once."""
        self.stop_clock()
        client, self._client = self._client, None
        if client is not None:
            self._guard.shares.give(client)
        if self._transport is not None:
            self._guard.by_transport.pop(self._transport, None)

    @override
    @bulkhead.method
    def data_received(self, data: bytes) -> None:
        if self._inner is None:
            self._early += data  # at most what one read of the handshake has brought
        else:
            self._inner.data_received(data)

    @override
    def eof_received(self) -> bool | None:
        with bulkhead.contain("the end of a connection"):
            return self._inner.eof_received() if self._inner is not None else None
        return None

    @override
    @bulkhead.method
    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        if self._handshake is not None and self._inner is None:
            self._handshake.cancel()
        if self._inner is not None:
            self._inner.connection_lost(exc)

    @override
    @bulkhead.method
    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    @override
    @bulkhead.method
    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()


def _connection(guards: list[ConnectionGuard], transport: asyncio.BaseTransport) -> _GuardedConnection | None:
    """Return the connection with this transport; None if it has ended."""
    return next((found for guard in guards if (found := guard.by_transport.get(transport)) is not None), None)


def _client(transport: asyncio.BaseTransport) -> str:
    """Return the address of the client; over a unix socket all clients are one."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""
