"""The UDP proxy: one session per client, each with its own socket towards its real server.

UDP has no end of a connection. A session is over after it was idle for a while, or when its real server takes no more
traffic; the client's next datagram then begins a session with another real server. If there are too many clients, the
session that was idle for longest is ended.
"""

import asyncio
import os
import socket
from typing import Any, TypeAlias, cast

from typing_extensions import override

from mesh.dataplane.userspace.tcp_proxy import ByteMeter, ProxyBackend, RealServerMeter
from mesh.model.part import DaemonPart
from mesh.model.service import Address
from mesh.model.table import RealKey
from mesh.util.bulkhead import Bulkhead
from mesh.util.connection_shares import ConnectionShares

bulkhead = Bulkhead(DaemonPart.DATA_PLANE)

IDLE_TIMEOUT = 60.0
"""Seconds without a datagram after which a session ends; IPVS keeps UDP for 300 s."""
MAX_SESSIONS = 4096
"""Maximum sessions of a virtual server."""
MAX_PENDING_DATAGRAMS = 16
"""Datagrams that are kept while a session's socket is being opened; further ones are lost, as UDP permits."""

Client: TypeAlias = tuple[Any, ...]
"""A socket address: host and port first."""


def send_datagram(transport: asyncio.DatagramTransport, data: bytes, to: Client | None = None) -> None:
    """Send a datagram, which may be empty, to an address, or to the peer of a connected socket if that is None.

    Event loops drop empty datagrams, which some protocols use: as keep-alives and as the queries of TIME (RFC 868) and
    others. One that the kernel has no room for is lost. Raises OSError for an empty one that cannot be sent; the
    protocol is told of others.
    """
    if data:
        transport.sendto(data, to)
        return
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as sock:
        try:
            if to is None:
                sock.send(data)
            else:
                sock.sendto(data, to)
        except BlockingIOError:
            return


class _UdpSession(asyncio.DatagramProtocol):
    """The socket of one client's session towards its real server."""

    def __init__(self, listener: "UdpListener", client: Client, real: RealKey, now: float) -> None:
        self._listener = listener
        self._client = client
        self._waiting: list[bytes] = []
        self._transport: asyncio.DatagramTransport | None = None
        self.real = real
        self.meter = RealServerMeter()
        self.used = now
        self.ended = False

    @override
    @bulkhead.method
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        if self.ended:
            transport.close()
            return
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self.send(data)

    @override
    @bulkhead.method
    def datagram_received(self, data: bytes, addr: Client) -> None:
        self._listener.reply(self, data, self._client)

    @override
    @bulkhead.method
    def error_received(self, exc: Exception) -> None:
        self._listener.refused(self._client, self.real)

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            try:
                send_datagram(self._transport, data)
            except OSError as error:
                self.error_received(error)
        elif len(self._waiting) < MAX_PENDING_DATAGRAMS:
            self._waiting.append(data)

    def end(self) -> None:
        self.ended = True
        if self._transport is not None:
            self._transport.close()


class UdpListener(asyncio.DatagramProtocol):
    """A virtual server's UDP socket and its sessions.

    `idle` is in seconds, `sessions` is the maximum of sessions.
    """

    def __init__(
        self,
        behind: ProxyBackend,
        idle: float = IDLE_TIMEOUT,
        sessions: int = MAX_SESSIONS,
        shares: ConnectionShares | None = None,
    ) -> None:
        """`shares` are those of all listeners; None: it has its own."""
        self._behind = behind
        self._shares = shares or ConnectionShares(2 * sessions)
        self._idle = idle
        self._most = sessions
        self._transport: asyncio.DatagramTransport | None = None
        self._sessions: dict[Client, _UdpSession] = {}
        """Sessions by client, the least recently used first."""
        self._opening: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self.inward, self.outward = ByteMeter(), ByteMeter()
        """Bytes from clients (`inward`) and to clients (`outward`)."""

    async def open(self, address: Address, port: int) -> None:
        """Listen on an address. Raises OSError."""
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=(address, port))
        self._sweep = loop.call_later(self._idle, bulkhead.callback(self._end_idle))

    async def close(self) -> None:
        """Stop listening and end all sessions."""
        if self._transport is not None:
            self._transport.close()
        if self._sweep is not None:
            self._sweep.cancel()
        for client in list(self._sessions):
            self.end(client)
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)

    @override
    @bulkhead.method
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport of the bound socket."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def refused(self, client: Client, real: RealKey) -> None:
        """End the session of a real server where nothing listens; the client's next datagram goes to another one."""
        self._behind.refused(real)
        self.end(client)

    @override
    @bulkhead.method
    def datagram_received(self, data: bytes, addr: Client) -> None:
        """Forward a client's datagram, in a new session if need be."""
        session = self._sessions.pop(addr, None) or self._begin(addr)
        if session is None:
            return  # no real server; UDP offers no way to tell the client from here
        self._sessions[addr] = session  # inserted again, as the most recently used one
        session.used = asyncio.get_running_loop().time()
        session.send(data)
        self.inward.octets += len(data)
        session.meter.inward.octets += len(data)

    def reply(self, session: _UdpSession, data: bytes, client: Client) -> None:
        """Forward a real server's datagram to the client."""
        session.used = asyncio.get_running_loop().time()
        if self._transport is not None and not self._transport.is_closing():
            try:
                send_datagram(self._transport, data, client)
            except OSError:
                return  # the client cannot be reached; it will ask again if it is there
            self.outward.octets += len(data)
            session.meter.outward.octets += len(data)

    def end(self, client: Client) -> None:
        """End a client's session; its next datagram begins another one."""
        session = self._sessions.pop(client, None)
        if session is not None:
            session.end()
            self._shares.give(str(client[0]))
            self._behind.closed(session.real)

    def end_sessions_of(self, real: RealKey) -> None:
        """End all sessions of a real server; the next datagram of each client begins another session."""
        for client in [client for client, session in self._sessions.items() if session.real == real]:
            self.end(client)

    def _begin(self, client: Client) -> _UdpSession | None:
        """Begin a session, possibly at the cost of the least recently used one; None if there is no real server, or if
        the client has its share of sessions.
        """
        host = str(client[0])
        real = self._behind.pick(host, set())
        if real is None:
            return None
        if self._sessions and (len(self._sessions) >= self._most or not self._shares.free):
            self.end(next(iter(self._sessions)))
        if not self._shares.take(host):
            return None
        loop = asyncio.get_running_loop()
        session = _UdpSession(self, client, real, loop.time())
        session.meter = self._behind.opened(real)
        connect = bulkhead.run("a proxied session", self._connect, session, client)
        opening = loop.create_task(connect, name="proxy session")
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        return session

    async def _connect(self, session: _UdpSession, client: Client) -> None:
        """Open a session's socket towards its real server."""
        real = session.real
        try:
            await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: session, remote_addr=(real.address, real.port)
            )
        except OSError:
            self.end(client)  # no route to the real server: the client's next datagram finds another one

    def _end_idle(self) -> None:
        """End idle sessions, and do so again after half the idle time."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._sweep = loop.call_later(self._idle / 2, bulkhead.callback(self._end_idle))
        for client in [client for client, session in self._sessions.items() if session.used + self._idle <= now]:
            self.end(client)
