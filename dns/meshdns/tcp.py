"""Questions over TCP: several on one connection, answered as soon as each answer is known (RFC 7766).

A protocol and not a stream: what comes in one segment is answered in one write, length and body together, since some
clients take the first segment for all of it.

Nobody can use the server up. A connection that is idle, or whose client does not read, is closed after a while. When
there are too many, the one that has been idle for longest goes, and if none is, the new one. A client that asks faster
than it reads, or has too many questions at the upstreams, is not read from until that is over.
"""

import asyncio
import struct
from typing import Protocol, cast

from meshdns.authoritative import ForwardQuery

IDLE_TIMEOUT = 10.0
"""Seconds without a question after which a connection is closed (RFC 7766, section 6.2.3)."""
MAX_CONNECTIONS = 256
MAX_PIPELINED = 32
"""Forwarded questions of one connection that are under way; the next one waits in the socket."""
WRITE_CHUNK_BYTES = 32768
"""Octets of answers that are written at once; then a client that does not read is noticed."""


class TcpResponder(Protocol):
    """Who answers: the name server, as far as a transport needs it."""

    def answer_tcp(self, packet: bytes, host: str) -> bytes | ForwardQuery | None:
        """Any question from anybody."""
        ...

    def forward_tcp(self, question: ForwardQuery, host: str) -> "asyncio.Future[bytes]":
        """Have it answered by an upstream."""
        ...


class DnsTcpServer:
    """The connections of one listening address; `connection` makes the protocol of each."""

    def __init__(self, server: TcpResponder, *, idle: float = IDLE_TIMEOUT, connections: int = MAX_CONNECTIONS) -> None:
        self._server = server
        self._idle = idle
        self._most = connections
        self._open: dict[DnsTcpConnection, None] = {}
        """The one that has been idle for longest comes first."""

    def connection(self) -> "DnsTcpConnection":
        """Factory for `loop.create_server`."""
        return DnsTcpConnection(self._server, self, self._idle)

    def opened(self, connection: "DnsTcpConnection") -> bool:
        """Whether there is room for a new connection."""
        if len(self._open) >= self._most:
            idle = next((each for each in self._open if each.idle), None)
            if idle is None:
                return False
            self.closed(idle)
            idle.close()
        self._open[connection] = None
        return True

    def asked(self, connection: "DnsTcpConnection") -> None:
        """It is not idle."""
        if connection in self._open:
            del self._open[connection]
            self._open[connection] = None

    def closed(self, connection: "DnsTcpConnection") -> None:
        """It is gone."""
        self._open.pop(connection, None)

    def stop(self) -> None:
        """End all connections."""
        for connection in list(self._open):
            connection.close()


class DnsTcpConnection(asyncio.Protocol):
    """One client, until it is done or was idle for too long."""

    def __init__(self, server: TcpResponder, connections: DnsTcpServer, idle: float) -> None:
        self._server = server
        self._connections = connections
        self._patience = idle
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._host = ""
        self._rest = b""
        self._under_way: set[asyncio.Future[bytes]] = set()
        self._unread = False
        """Whether the client does not read what it asked for."""
        self._ended = False
        """Whether the client will ask no more."""
        self._since = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is under way for the client."""
        return not self._under_way and not self._unread

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client."""
        self._transport = cast(asyncio.Transport, transport)
        self._host = str(transport.get_extra_info("peername")[0])
        if self._connections.opened(self):
            self._timer = self._loop.call_later(self._patience, self._look)
        else:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Some of its questions."""
        self._rest = self._rest + data if self._rest else data
        self._work()

    def eof_received(self) -> bool:
        """The client asks no more, but may wait for answers."""
        self._ended = True
        return bool(self._under_way or self._unread)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._connections.closed(self)
        if self._timer is not None:
            self._timer.cancel()
        for task in self._under_way:
            task.cancel()

    def pause_writing(self) -> None:
        """The client does not read."""
        self._unread = True

    def resume_writing(self) -> None:
        """It does again."""
        self._unread = False
        self._since = self._loop.time()
        self._work()

    def close(self) -> None:
        """End it, what is under way with it."""
        self._transport.abort()

    def _look(self) -> None:
        """Whether patience is at its end. One timer goes round, since to set one per question costs more."""
        left = self._since + self._patience - self._loop.time()
        if self._under_way and not self._unread:
            left = self._patience  # it is the upstreams that take their time, and they have a bound of their own
        if left <= 0:
            self._transport.abort() if self._unread else self._transport.close()
        else:
            self._timer = self._loop.call_later(left, self._look)

    def _work(self) -> None:
        """Answer what is there, as far as there is room."""
        data, at, end = self._rest, 0, len(self._rest)
        out: list[bytes] = []
        octets = 0
        while end - at >= 2 and len(self._under_way) < MAX_PIPELINED and not self._unread:
            length = data[at] << 8 | data[at + 1]
            if end - at < 2 + length:
                break
            packet = data[at + 2 : at + 2 + length]
            at += 2 + length
            said = self._server.answer_tcp(packet, self._host)
            if isinstance(said, ForwardQuery):
                self._forward(said)
            elif said is not None:
                out += struct.pack("!H", len(said)), said
                octets += len(said)
                if octets > WRITE_CHUNK_BYTES:
                    self._transport.write(b"".join(out))
                    out, octets = [], 0
        if out:
            self._transport.write(b"".join(out))
        if at:
            self._rest = data[at:]
            self._since = self._loop.time()
            self._connections.asked(self)
        self._read_on()

    def _read_on(self) -> None:
        if self._transport.is_closing():
            return
        if self._unread or len(self._under_way) >= MAX_PIPELINED:
            self._transport.pause_reading()
        elif self._ended:
            if not self._under_way:
                self._transport.close()
        else:
            self._transport.resume_reading()

    def _forward(self, question: ForwardQuery) -> None:
        task = self._server.forward_tcp(question, self._host)
        self._under_way.add(task)
        task.add_done_callback(self._forwarded)

    def _forwarded(self, task: "asyncio.Future[bytes]") -> None:
        self._under_way.discard(task)
        if task.cancelled() or self._transport.is_closing():
            return
        said = task.result()
        self._transport.write(struct.pack("!H", len(said)) + said)
        self._work()
