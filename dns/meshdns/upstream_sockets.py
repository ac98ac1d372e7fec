"""Sockets towards upstreams: UDP sockets with unpredictable ports, and TCP for responses that UDP truncated.

A forger has to guess the source port and the ID of a query (RFC 5452). Each socket is connected, so that the kernel
drops packets from elsewhere and reports when nothing listens at the upstream, and its port is chosen by the kernel. A
single query gets a socket of its own. In a burst, up to `QUERIES_PER_SOCKET` queries of the same moment share a socket,
since creating one costs as much as everything else together. Queries of one turn of the event loop are sent together at
its end.
"""

import asyncio
import secrets
import socket
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from meshdns import bulkhead
from meshdns.udp_burst import UdpBurst, UnbatchedUdp, open_burst
from meshdns.upstreams import Address

QUERIES_PER_SOCKET = 32
"""Maximum queries per socket."""
SOCKET_LIFETIME = 1.0
"""Seconds after which a socket takes no more queries."""


class UpstreamSockets:
    """The sockets towards all upstreams. It must not be used by two threads at a time."""

    def __init__(self) -> None:
        self._current: dict[Address, _UpstreamSocket] = {}
        self._open: set[_UpstreamSocket] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._burst = open_burst()

    def ask(self, address: Address, question: bytes, heard: Callable[[bytes | None], bool]) -> Callable[[], None]:
        """Send a query without its ID over UDP.

        Each packet that comes back with its ID is passed to `heard`, until `heard` returns True. `heard` gets None if
        the upstream cannot be reached. Returns a function that ends the waiting. Raises OSError if no socket can be
        made or connected.
        """
        now = asyncio.get_running_loop().time()
        line = self._current.get(address)
        if line is None or line.closed or line.uses >= QUERIES_PER_SOCKET or now - line.born > SOCKET_LIFETIME:
            line = _UpstreamSocket(address, now, self._open, self._burst)
            self._current[address] = line
        return line.ask(question, heard)

    def ask_tcp(self, address: Address, question: bytes, heard: Callable[[bytes | None], None]) -> Callable[[], None]:
        """Send a query without its ID over a TCP connection of its own.

        `heard` is called once: with the response, or with None if there was none. Returns a function that ends the
        waiting.
        """

        async def work() -> None:
            heard(await _exchange(address, question))

        task = asyncio.get_running_loop().create_task(
            bulkhead.run("an upstream over TCP", work()), name="dns upstream tcp"
        )
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

        def cancel() -> None:
            # The response of this very task may have ended the query: it is over anyway, and must not cancel itself.
            if task is not asyncio.current_task():
                task.cancel()

        return cancel

    async def close(self) -> None:
        """Close all sockets; no more responses are delivered."""
        for line in list(self._open):
            line.close()
        self._current.clear()
        connections = list(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


class _UpstreamSocket:
    """One connected UDP socket and the queries that wait on it."""

    def __init__(
        self, address: Address, born: float, all_open: "set[_UpstreamSocket]", both_ways: UdpBurst | UnbatchedUdp
    ) -> None:
        self.uses = 0
        self.born = born
        self.closed = False
        self._waiting: dict[bytes, Callable[[bytes | None], bool]] = {}
        data = secrets.token_bytes(2 * (QUERIES_PER_SOCKET + 8))
        self._ids = list({data[at : at + 2] for at in range(0, len(data), 2)})
        """Random IDs, each used once. Eight are spare, since a few may be drawn twice."""
        self._all = all_open
        self._burst = both_ways
        self._unsent: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        family, to = _where(address)
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(to)
        except OSError:
            self._socket.close()
            raise
        self._loop.add_reader(self._socket, bulkhead.callback(self._readable, "packets of an upstream"))
        all_open.add(self)

    def ask(self, question: bytes, heard: Callable[[bytes | None], bool]) -> Callable[[], None]:
        ident = self._ids.pop()
        self.uses += 1
        self._waiting[ident] = heard
        if not self._unsent:
            self._loop.call_soon(bulkhead.callback(self._flush, "queries to an upstream"))
        self._unsent.append(ident + question)
        return lambda: self._end(ident, heard)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._all.discard(self)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if not self.closed:
            try:
                self._burst.send(self._socket, unsent)
            except OSError:
                self._broken()

    def _readable(self) -> None:
        try:
            packets = self._burst.receive(self._socket)
        except OSError:
            self._broken()
            return
        for packet in packets:
            ident = packet[:2]
            heard = self._waiting.get(ident)
            # One packet that raises must not cost the responses that came with it.
            with bulkhead.contain("a packet of an upstream"):
                if heard is not None and heard(packet):
                    self._end(ident, heard)

    def _broken(self) -> None:
        """End all queries of this socket after an ICMP error.

        The kernel does not say which query caused it, but nothing listens for the others either.
        """
        waiting, self._waiting = list(self._waiting.values()), {}
        self.close()
        for heard in waiting:
            with bulkhead.contain("a broken upstream"):
                heard(None)

    def _end(self, ident: bytes, heard: Callable[[bytes | None], bool]) -> None:
        if self._waiting.get(ident) is heard:  # the query may have ended already
            del self._waiting[ident]
        if not self._waiting:
            self.close()


@lru_cache(256)
def _where(address: Address) -> tuple[int, tuple[Any, ...]]:
    """Return the address family and the socket address of an upstream, including the scope of a link-local one."""
    family, _, _, _, to = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0]
    return family, to


async def _exchange(address: Address, question: bytes) -> bytes | None:
    """Send one query over TCP; returns the response, or None if there is none or its ID is wrong."""
    ident = secrets.token_bytes(2)
    try:
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(struct.pack("!H", len(question) + 2) + ident + question)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            reply = await reader.readexactly(length)
        finally:
            writer.transport.abort()  # a reset leaves no socket in TIME_WAIT behind
    except (OSError, EOFError):
        return None
    return reply if reply[:2] == ident else None
