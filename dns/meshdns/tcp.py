"""DNS over TCP: several queries per connection, each answered as soon as its response is known (RFC 7766).

It is a protocol and not a stream: the queries of one segment are answered in one write, length and body together, since
some clients take the first segment for the whole response.

Resources are bounded. A connection that is idle, or whose client does not read, is closed after a while. Clients share
the connections: one may have up to four times as many as are still free, so that there is always room for another
client. A new one beyond that replaces the client's own that has been idle for longest, or is refused. If there is no
room at all, the client with the most connections loses one. The server stops reading from a client that does not read
its responses, or that has too many queries at the upstreams, until that is over.
"""

import asyncio
import struct
from collections import Counter
from collections.abc import Callable
from typing import Protocol, TypeAlias, cast

from typing_extensions import override

from meshdns import bulkhead
from meshdns.acl import quota_key
from meshdns.authoritative import ForwardQuery
from meshdns.response_block import LENGTH_SIZE

IDLE_TIMEOUT = 10.0
"""Seconds without a query after which a connection is closed (RFC 7766, section 6.2.3)."""
MAX_CONNECTIONS = 256
"""Maximum open connections per listening address."""
SHARE = 4
"""How many times as many connections as are still free a client may have."""
MAX_PIPELINED = 32
"""Maximum forwarded queries of one connection that are under way; further ones wait in the socket."""
WRITE_CHUNK_BYTES = 32768
"""Bytes of responses after which they are written, so that a client that does not read is noticed early."""

ReadyResponses: TypeAlias = Callable[[bytes], bytes | None]
"""Takes a query without its ID; returns its response as a block with any ID, or None if there is none yet."""

_PREFIX = struct.Struct("!H").pack
"""The length of a message, which precedes it: RFC 1035, section 4.2.2."""


class TcpResponder(Protocol):
    """The name server as the TCP transport needs it."""

    def ready_tcp(self, host: str) -> ReadyResponses:
        """Return the look-up of responses that need no work, which finds none for a host that is not served."""
        ...

    def count(self, answered: int) -> None:
        """Count queries that were answered from `ready_tcp`."""
        ...

    def answer_tcp(self, packet: bytes, host: str) -> bytes | ForwardQuery | None:
        """Answer any packet from any host; the result is that of `authoritative.answer_query`."""
        ...

    def forward_tcp(self, question: ForwardQuery, host: str) -> "asyncio.Future[bytes]":
        """Return a future of an upstream's response to the query."""
        ...


class DnsTcpServer:
    """The connections of one listening address; `connection` makes the protocol of each."""

    def __init__(self, server: TcpResponder, *, idle: float = IDLE_TIMEOUT, connections: int = MAX_CONNECTIONS) -> None:
        self._server = server
        self._idle = idle
        self._most = connections
        self._open: dict[DnsTcpConnection, str] = {}
        """All open connections, each with its client. The least recently active one comes first."""
        self._counts: Counter[str] = Counter()
        """The number of connections by client."""

    def connection(self) -> "DnsTcpConnection":
        """Make a protocol; this is the factory for `loop.create_server`."""
        return DnsTcpConnection(self._server, self, self._idle)

    def opened(self, connection: "DnsTcpConnection", host: str) -> bool:
        """Register a new connection, possibly at the cost of another; returns whether there is room for it."""
        client = quota_key(host)
        if self._counts.get(client, 0) >= SHARE * (self._most - len(self._open)):
            other = self._replaceable(client)
            if other is None:
                return False
            self.closed(other)
            other.close()
        self._open[connection] = client
        self._counts[client] += 1
        return True

    def _replaceable(self, client: str) -> "DnsTcpConnection | None":
        """Return the connection that a new one of this client replaces; None if there is none."""
        mine = self._counts.get(client, 0)
        greediest, most = max(self._counts.items(), key=lambda each: each[1], default=(client, 0))
        is_full = len(self._open) >= self._most
        if is_full and most > mine + 1:
            theirs = [each for each, whose in self._open.items() if whose == greediest]
            return next((each for each in theirs if each.idle), theirs[0])
        anyone = is_full and not mine
        return next((each for each, whose in self._open.items() if each.idle and (anyone or whose == client)), None)

    def asked(self, connection: "DnsTcpConnection") -> None:
        """Mark a connection as the most recently active one."""
        client = self._open.pop(connection, None)
        if client is not None:
            self._open[connection] = client

    def closed(self, connection: "DnsTcpConnection") -> None:
        """Remove a connection."""
        client = self._open.pop(connection, None)
        if client is not None:
            self._counts[client] -= 1
            if not self._counts[client]:
                del self._counts[client]

    def stop(self) -> None:
        """Close all connections."""
        for connection in list(self._open):
            connection.close()


class DnsTcpConnection(asyncio.Protocol):
    """Serves one client until it is done, or idle for too long."""

    def __init__(self, server: TcpResponder, connections: DnsTcpServer, idle: float) -> None:
        self._server = server
        self._connections = connections
        self._patience = idle
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._host = ""
        self._rest = bytearray()
        """Received bytes that are not processed yet: an incomplete query, or queries beyond the bounds."""
        self._under_way: set[asyncio.Future[bytes]] = set()
        """Forwarded queries without a response."""
        self._unread = False
        """Whether the client does not read its responses."""
        self._ended = False
        """Whether the client has closed its sending side."""
        self._since = self._loop.time()
        """The loop time of the last activity, in seconds."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether no response is outstanding for the client."""
        return not self._under_way and not self._unread

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection, or abort it if there is no room."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        if not peer:
            self._transport.abort()  # the client has reset it before it was accepted, so that nobody knows its address
            return
        self._host = str(peer[0])
        with bulkhead.contain("a connection over TCP") as opened:
            if self._connections.opened(self, self._host):
                self._timer = self._loop.call_later(self._patience, self._look)
            else:
                self._transport.abort()
        if opened.failed:
            self._transport.abort()

    @override
    def data_received(self, data: bytes) -> None:
        """Process received bytes, which may be any part of the stream of queries."""
        self._go_on(data)

    @override
    def eof_received(self) -> bool:
        """The client sends no more. Returns True to keep the connection open while responses are outstanding."""
        self._ended = True
        return bool(self._under_way or self._unread)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel everything under way for this client."""
        with bulkhead.contain("the end of a connection over TCP"):
            self._connections.closed(self)
            if self._timer is not None:
                self._timer.cancel()
            for task in list(self._under_way):
                task.cancel()

    @override
    def pause_writing(self) -> None:
        """Stop answering: the client does not read."""
        self._unread = True

    @override
    def resume_writing(self) -> None:
        """Continue: the client reads again."""
        self._unread = False
        self._since = self._loop.time()
        self._go_on()

    def close(self) -> None:
        """Abort the connection, which cancels everything under way."""
        self._transport.abort()

    def _look(self) -> None:
        with bulkhead.contain("the timer of a connection over TCP") as looked:
            self._close_if_inactive()
        if looked.failed:
            self._transport.abort()

    def _close_if_inactive(self) -> None:
        """Close the connection if it has been inactive for too long.

        One timer is re-armed when it fires, since setting one per query would cost more.
        """
        left = self._since + self._patience - self._loop.time()
        if self._under_way and not self._unread:
            left = self._patience  # the client waits for upstreams, and those have a time limit of their own
        if left <= 0:
            if self._unread:
                self._transport.abort()  # close() would wait for the client to read
            else:
                self._transport.close()
        else:
            self._timer = self._loop.call_later(left, self._look)

    def _go_on(self, data: bytes | None = None) -> None:
        """Answer what has just been received, or what is left of it if `data` is None.

        What raises ends this connection alone.
        """
        with bulkhead.contain("queries over TCP") as worked:
            if data is None:
                if self._rest:
                    del self._rest[: self._work(self._rest)]
                self._read_on()
            else:
                self._take(data)
        if worked.failed:
            self._transport.abort()

    def _take(self, data: bytes) -> None:
        """Answer what has just been received, together with what is left of before."""
        rest = self._rest
        if rest:
            rest += data  # in place: a query that arrives byte by byte costs no copy of what has arrived
            if len(rest) < 2 or len(rest) < 2 + (rest[0] << 8 | rest[1]):
                return
            data = bytes(rest)
            rest.clear()
        at = self._work(data)
        if at < len(data):
            rest += data[at:]
        if self._unread or self._under_way:
            self._read_on()

    def _work(self, data: bytes | bytearray) -> int:
        """Answer the queries of a part of the stream, as far as the bounds allow; returns how many bytes they take.

        Nearly all time of a busy server goes by here. So what is the same for all queries of one read is done once for
        all of them, and a query with a ready response is no more than a look-up.
        """
        at, end, under_way, ready = 0, len(data), self._under_way, self._server.ready_tcp(self._host)
        out: list[bytes | bytearray] = []
        size = found = 0
        while end - at >= 2 and len(under_way) < MAX_PIPELINED and not self._unread:
            # Each message is preceded by its length in two bytes (RFC 1035, section 4.2.2).
            behind = at + 2 + (data[at] << 8 | data[at + 1])
            if behind > end:
                break
            block = ready(bytes(data[at + 4 : behind]))
            if block is not None:
                length = int.from_bytes(block[-LENGTH_SIZE:], "little")
                out += _PREFIX(length), data[at + 2 : at + 4], block[2:length]
                size += length
                found += 1
            else:
                said = self._server.answer_tcp(bytes(data[at + 2 : behind]), self._host)
                if isinstance(said, ForwardQuery):
                    self._forward(said)
                elif said is not None:
                    out += _PREFIX(len(said)), said
                    size += len(said)
            at = behind
            if size > WRITE_CHUNK_BYTES:
                self._transport.write(b"".join(out))
                out, size = [], 0
        if out:
            self._transport.write(b"".join(out))
        if at:
            self._server.count(found)
            self._since = self._loop.time()
            self._connections.asked(self)
        return at

    def _read_on(self) -> None:
        """Read on, stop reading, or close, whichever the state of the connection asks for."""
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
        """Have a query answered by an upstream."""
        task = self._server.forward_tcp(question, self._host)
        self._under_way.add(task)
        task.add_done_callback(self._forwarded)

    def _forwarded(self, task: "asyncio.Future[bytes]") -> None:
        """Send the response of an upstream, then continue with queries that had to wait for the place."""
        self._under_way.discard(task)
        if task.cancelled() or self._transport.is_closing():
            return
        with bulkhead.contain("a forwarded query over TCP") as answered:
            said = task.result()
            self._transport.write(_PREFIX(len(said)) + said)
        if answered.failed:
            self._transport.abort()
        else:
            self._go_on()
