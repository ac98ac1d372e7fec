"""The TCP proxy: for each accepted connection, one connection to a real server, with bytes forwarded both ways.

It uses protocols instead of streams, so that bytes are not copied twice and a slow reader stops its sender: what one
side cannot take pauses the other (asyncio's flow control). The end of file is forwarded for each direction by itself,
so that a client may close its sending side and still receive the response.

Clients share the connections of all virtual servers (`mesh.util.connection_shares`); one beyond a client's share is
reset. A connection over which nothing is sent for `IDLE_TIMEOUT` is reset as well.
"""

import asyncio
import socket
import struct
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, cast

from typing_extensions import override

from mesh.model.part import DaemonPart
from mesh.model.service import Address
from mesh.model.table import FailedConnections, RealKey, TrafficCounters
from mesh.util.bulkhead import Bulkhead
from mesh.util.connection_shares import ConnectionShares
from mesh.util.sockets import LACK_ERRNOS

bulkhead = Bulkhead(DaemonPart.DATA_PLANE)

MAX_CONNECTIONS = 1 << 14
"""Connections of all virtual servers, if no other limit is given."""
IDLE_TIMEOUT = 7200.0
"""Seconds without a byte after which a connection is reset: as long as the kernel planes keep one."""
_SWEEPS = 4
"""How often connections are looked at within `IDLE_TIMEOUT`."""
MAX_BACKLOG = 1024
"""Connections that wait to be accepted."""
CONNECT_TIMEOUT = 3.0
"""Seconds that a real server has to accept a connection before the next one is tried."""


class ProxyBackend(Protocol):
    """The virtual server as the proxies need it."""

    def pick(self, client: Address, without: set[RealKey]) -> RealKey | None:
        """Return the real server to try next; None if there is none outside of `without`."""
        ...

    def refused(self, real: RealKey, *, answered: bool = True) -> None:
        """Report that a real server did not accept a connection, and whether it has refused it."""
        ...

    def opened(self, real: RealKey) -> "RealServerMeter":
        """Report that a connection to a real server is open; returns what counts its bytes."""
        ...

    def closed(self, real: RealKey) -> None:
        """Report that a connection to a real server is closed."""
        ...


@dataclass(slots=True)
class ByteMeter:
    """Counts bytes in one direction."""

    octets: int = 0
    """Bytes so far."""


@dataclass(slots=True)
class RealServerMeter:
    """Counts what one real server behind a virtual server has carried."""

    connections: int = 0
    """Connections so far."""
    inward: ByteMeter = field(default_factory=ByteMeter)
    """Bytes from clients."""
    outward: ByteMeter = field(default_factory=ByteMeter)
    """Bytes to clients."""
    refused: int = 0
    unanswered: int = 0
    reset: int = 0
    """Connections that the real server reset after it had accepted."""

    def failed(self) -> FailedConnections:
        """Return the counts of failed connections so far."""
        return FailedConnections(self.refused, self.unanswered, self.reset)

    def counted(self) -> TrafficCounters:
        """Return the counts so far."""
        return TrafficCounters(self.connections, self.inward.octets, self.outward.octets)


def reset_connection(transport: asyncio.Transport | None) -> None:
    """End a connection with a reset, as a closed port would; an end of file would look like success."""
    if transport is None or transport.is_closing():
        return
    # With a linger time of 0, close(2) sends RST (socket(7), SO_LINGER).
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class _ConnectionSide(asyncio.Protocol):
    """One end of a proxied connection; `other` is set once both ends are connected."""

    def __init__(self, meter: ByteMeter) -> None:
        """`meter` counts the bytes that this side sends."""
        self._meter = meter
        self._real_meter = ByteMeter()
        self.transport: asyncio.Transport | None = None
        self.other: _ConnectionSide | None = None
        self._early = bytearray()
        """Bytes that arrived before the other side was connected."""
        self._eof = False
        """Whether the peer of this side has sent its end of file."""
        self.octets = 0
        """Bytes that this side has received."""
        self.was_reset = False
        """Whether its peer has reset the connection."""
        self.server_meter: RealServerMeter | None = None
        """What counts the resets of a real server; None on the side of the client."""

    @override
    @bulkhead.method
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    @override
    @bulkhead.method
    def data_received(self, data: bytes) -> None:
        self._meter.octets += len(data)
        self._real_meter.octets += len(data)
        self.octets += len(data)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)
        else:
            self._early += data
            assert self.transport is not None
            self.transport.pause_reading()  # the kernel keeps the rest until a real server is connected

    @override
    def eof_received(self) -> bool:
        self._eof = True
        with bulkhead.contain("the end of a proxied connection"):
            if self.other is not None:
                self.other.finish()
        return True  # keep the transport open: the other side may still send

    @override
    @bulkhead.method
    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    @override
    @bulkhead.method
    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    @override
    @bulkhead.method
    def connection_lost(self, exc: Exception | None) -> None:
        self.was_reset = isinstance(exc, ConnectionError)
        if self.was_reset and self.server_meter is not None:
            self.server_meter.reset += 1
        if self.other is not None and self.other.transport is not None:
            if exc is None:
                self.other.transport.close()
            else:
                reset_connection(self.other.transport)  # a reset is passed on as a reset

    def count_for(self, meter: ByteMeter) -> None:
        """Count the bytes that this side has received and will receive by this meter, too: that of a real server."""
        meter.octets += self.octets
        self._real_meter = meter

    def count_resets_for(self, meter: RealServerMeter) -> None:
        """Count by this meter if the peer of this side, a real server, resets the connection or has done so."""
        self.server_meter = meter
        meter.reset += self.was_reset

    def finish(self) -> None:
        """Pass on the end of file of the other side; if both sides have sent one, close the connection."""
        if self.transport is None or self.transport.is_closing():
            return
        if not self._eof:
            self.transport.write_eof()
            return
        self.transport.close()
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def join(self, other: "_ConnectionSide") -> None:
        """Connect two sides: forward what arrived early, then everything."""
        self.other, other.other = other, self
        self.pass_on(other)
        other.pass_on(self)

    def pass_on(self, other: "_ConnectionSide") -> None:
        """Forward what arrived early, then resume reading."""
        if self._early and other.transport is not None:
            other.transport.write(bytes(self._early))
            self._early.clear()
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
        if self._eof:
            other.finish()


class _ClientSide(_ConnectionSide):
    """The accepted side of a connection, which tries one real server after the other."""

    def __init__(self, listener: "TcpListener") -> None:
        super().__init__(listener.inward)
        self._listener = listener
        self.real: RealKey | None = None
        """The real server; None until one has accepted."""
        self.host: Address | None = None
        """The client whose share it takes from; None if it takes from none."""
        self.seen = 0
        """The bytes of both directions when the connection was looked at last."""
        self.still = 0
        """How often in a row nothing had been sent since."""

    @override
    @bulkhead.method
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._listener.accepted(self)

    @override
    @bulkhead.method
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._listener.lost(self)

    def is_still(self) -> bool:
        """Whether nothing was sent in either direction since the last call."""
        octets = self.octets + (self.other.octets if self.other is not None else 0)
        is_still, self.seen = octets == self.seen, octets
        return is_still

    async def connect(self, behind: ProxyBackend) -> None:
        """Connect to a real server and join both sides. If that fails, reset the client, as a closed port would."""
        try:
            await self._find_real_server(behind)
        except Exception:
            reset_connection(self.transport)
            raise

    async def _find_real_server(self, behind: ProxyBackend) -> None:
        assert self.transport is not None
        assert self.host is not None
        loop = asyncio.get_running_loop()
        refused: set[RealKey] = set()
        there = partial(_ConnectionSide, self._listener.outward)
        while (real := behind.pick(self.host, refused)) is not None:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    _, server = await loop.create_connection(there, real.address, real.port)
            except OSError as error:  # includes TimeoutError
                refused.add(real)
                if error.errno not in LACK_ERRNOS:  # what this worker lacks is not the real server's failure
                    behind.refused(real, answered=isinstance(error, ConnectionError))
                continue
            if self.transport.is_closing() and server.transport is not None:
                server.transport.abort()  # the client has gone meanwhile
                return
            self.real = real
            meter = behind.opened(real)
            self.count_for(meter.inward)
            server.count_for(meter.outward)
            server.count_resets_for(meter)
            self.join(server)
            return
        reset_connection(self.transport)


class TcpListener:
    """A virtual server's listening TCP socket and its connections."""

    def __init__(
        self, behind: ProxyBackend, shares: ConnectionShares | None = None, idle: float = IDLE_TIMEOUT
    ) -> None:
        """`shares` are those of all listeners; None: it has its own. `idle` is in seconds."""
        self._behind = behind
        self._shares = shares or ConnectionShares(MAX_CONNECTIONS)
        self._idle = idle
        self._sweep: asyncio.TimerHandle | None = None
        self._server: asyncio.Server | None = None
        self._clients: set[_ClientSide] = set()
        self._connecting: dict[_ClientSide, asyncio.Task[None]] = {}
        """Tasks that look for a real server, by client."""
        self.inward, self.outward = ByteMeter(), ByteMeter()
        """Bytes from clients (`inward`) and to clients (`outward`)."""

    async def open(self, address: Address, port: int) -> None:
        """Listen on an address. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _ClientSide(self), address, port, backlog=min(MAX_BACKLOG, self._shares.total)
        )
        self._sweep = loop.call_later(self._idle / _SWEEPS, bulkhead.callback(self._end_idle))

    async def close(self) -> None:
        """Stop listening and reset all connections."""
        if self._server is not None:
            self._server.close()
        if self._sweep is not None:
            self._sweep.cancel()
        tasks = list(self._connecting.values())
        for task in tasks:
            task.cancel()
        for client in list(self._clients):
            reset_connection(client.transport)
        await asyncio.gather(*tasks, return_exceptions=True)

    def accepted(self, client: _ClientSide) -> None:
        """Register a new connection and look for its real server in a task, if its client has a share left."""
        assert client.transport is not None
        peer = client.transport.get_extra_info("peername")
        if not peer:  # the client has reset it before it was accepted, so that nobody knows its address
            client.transport.abort()
            return
        if not self._shares.take(str(peer[0])):
            reset_connection(client.transport)
            return
        client.host = str(peer[0])
        self._clients.add(client)
        work = bulkhead.run("a proxied connection", client.connect, self._behind)
        looking = asyncio.get_running_loop().create_task(work, name="proxy connect")
        self._connecting[client] = looking
        looking.add_done_callback(bulkhead.callback(lambda _: self._connecting.pop(client, None)))

    def lost(self, client: _ClientSide) -> None:
        """Unregister a connection that has ended."""
        self._clients.discard(client)
        if client.host is not None:
            self._shares.give(client.host)
        if client.real is not None:
            self._behind.closed(client.real)
        looking = self._connecting.get(client)
        if looking is not None:
            looking.cancel()

    def _end_idle(self) -> None:
        """Reset connections over which nothing was sent for the idle time."""
        self._sweep = asyncio.get_running_loop().call_later(self._idle / _SWEEPS, bulkhead.callback(self._end_idle))
        for client in list(self._clients):
            client.still = client.still + 1 if client.is_still() else 0
            if client.still >= _SWEEPS:
                reset_connection(client.transport)
                if client.other is not None:
                    reset_connection(client.other.transport)
