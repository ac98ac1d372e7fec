"""The proxy for TCP: one accepted connection, one connection to a real server, octets both ways.

Protocols instead of streams, so that nothing is copied twice and a slow reader stops its sender: what one side cannot
take pauses the other (asyncio's flow control). Each side's end of file is passed on by itself, so that a client may
say "that was all" and still get its answer.
"""

import asyncio
import socket
import struct
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

from mesh.model.service import Address
from mesh.model.table import RealKey

CONNECT_TIMEOUT = 3.0
"""Seconds that a real server gets to accept before the next one is tried."""


class ProxyBackend(Protocol):
    """What the proxy asks about the virtual server it serves."""

    def pick(self, client: Address, without: set[RealKey]) -> RealKey | None:
        """The next real server to try; None: nobody is left."""
        ...

    def refused(self, real: RealKey) -> None:
        """It did not accept a connection."""
        ...

    def opened(self, real: RealKey) -> None:
        """A connection to it is open now."""
        ...

    def closed(self, real: RealKey) -> None:
        """That connection is closed now."""
        ...


@dataclass(slots=True)
class ByteMeter:
    """Octets that went one way."""

    octets: int = 0


def reset_connection(transport: asyncio.Transport | None) -> None:
    """End a connection by a reset, as a closed port would, and not by an end of file that looks like success."""
    if transport is None or transport.is_closing():
        return
    # With the time to linger at 0, close(2) sends RST: socket(7), SO_LINGER.
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class _ConnectionSide(asyncio.Protocol):
    """One end of a proxied connection; `other` is set once both are there."""

    def __init__(self, meter: ByteMeter) -> None:
        """`meter` counts what this side sends."""
        self._meter = meter
        self.transport: asyncio.Transport | None = None
        self.other: _ConnectionSide | None = None
        self._early = bytearray()
        self._eof = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._meter.octets += len(data)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)
        else:
            self._early += data
            assert self.transport is not None
            self.transport.pause_reading()  # until a real server is there, the kernel keeps the rest

    def eof_received(self) -> bool:
        self._eof = True
        if self.other is not None:
            self.other.finish()
        return True  # our own direction stays open until the other side has ended, too

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            if exc is None:
                self.other.transport.close()
            else:
                reset_connection(self.other.transport)  # as it came

    def finish(self) -> None:
        """The other side has nothing more to say; when neither has, the connection is over."""
        if self.transport is None or self.transport.is_closing():
            return
        if not self._eof:
            self.transport.write_eof()
            return
        self.transport.close()
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def join(self, other: "_ConnectionSide") -> None:
        """Both are there: pass on what came early, then everything."""
        self.other, other.other = other, self
        for one, two in ((self, other), (other, self)):
            if one._early and two.transport is not None:
                two.transport.write(bytes(one._early))
                one._early.clear()
            if one.transport is not None and not one.transport.is_closing():
                one.transport.resume_reading()
            if one._eof:
                two.finish()


class _ClientSide(_ConnectionSide):
    """The accepted side. It finds a real server for itself, one after the other."""

    def __init__(self, listener: "TcpListener") -> None:
        super().__init__(listener.inward)
        self._listener = listener
        self.real: RealKey | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._listener.accepted(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._listener.lost(self)

    async def find_real_server(self, behind: ProxyBackend) -> None:
        """Connect to a real server and join; nobody accepts: reset the client, as a closed port would."""
        assert self.transport is not None
        client = str(self.transport.get_extra_info("peername")[0])
        loop = asyncio.get_running_loop()
        refused: set[RealKey] = set()
        there = partial(_ConnectionSide, self._listener.outward)
        while (real := behind.pick(client, refused)) is not None:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    _, server = await loop.create_connection(there, real.address, real.port)
            except OSError:  # a timeout as well
                refused.add(real)
                behind.refused(real)
                continue
            if self.transport.is_closing() and server.transport is not None:
                server.transport.abort()  # the client did not wait
                return
            self.real = real
            behind.opened(real)
            self.join(server)
            return
        reset_connection(self.transport)


class TcpListener:
    """A virtual server's listening socket and its connections."""

    def __init__(self, behind: ProxyBackend) -> None:
        self._behind = behind
        self._server: asyncio.Server | None = None
        self._clients: set[_ClientSide] = set()
        self._connecting: dict[_ClientSide, asyncio.Task[None]] = {}
        self.inward, self.outward = ByteMeter(), ByteMeter()
        """From clients, and to them."""

    async def open(self, address: Address, port: int) -> None:
        """Listen. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _ClientSide(self), address, port, backlog=1024)

    async def close(self) -> None:
        """Stop listening and end all connections."""
        if self._server is not None:
            self._server.close()
        tasks = list(self._connecting.values())
        for task in tasks:
            task.cancel()
        for client in list(self._clients):
            reset_connection(client.transport)
        await asyncio.gather(*tasks, return_exceptions=True)

    def accepted(self, client: _ClientSide) -> None:
        """A new connection; until it has a real server, a task of its own looks for one."""
        self._clients.add(client)
        looking = asyncio.get_running_loop().create_task(client.find_real_server(self._behind), name="proxy connect")
        self._connecting[client] = looking
        looking.add_done_callback(lambda _: self._connecting.pop(client, None))

    def lost(self, client: _ClientSide) -> None:
        """A connection has ended."""
        self._clients.discard(client)
        if client.real is not None:
            self._behind.closed(client.real)
        looking = self._connecting.get(client)
        if looking is not None:
            looking.cancel()
