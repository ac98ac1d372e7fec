"""Sockets towards upstreams: UDP sockets with unpredictable ports, and TCP for responses that UDP truncated.

A forger has to guess the source port and the ID of a query (RFC 5452). Each socket is connected, so that the kernel
drops packets from elsewhere and reports when nothing listens at the upstream, and has a random port. A single query
gets a socket of its own. In a burst, up to `QUERIES_PER_SOCKET` queries of the same moment share a socket, since
creating one costs as much as everything else together. Queries of one turn of the event loop are sent together at its
end.

One epoll instance (epoll(7)) watches all of them, and the event loop watches only that: registering a socket with the
loop costs more than opening it.

Replies that nothing on a socket waits for are counted. A socket that gets too many of them is being guessed at: it is
given up, and its queries are repeated over TCP, where a forger cannot take part.
"""

import asyncio
import secrets
import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from meshdns import bulkhead
from meshdns.udp_burst import UdpBurst, UnbatchedUdp, open_burst
from meshdns.upstream_ports import RandomPorts
from meshdns.upstream_query import FORGERY_SUSPECTED
from meshdns.upstreams import Address

QUERIES_PER_SOCKET = 32
"""Maximum queries per socket."""
SOCKET_LIFETIME = 1.0
"""Seconds after which a socket takes no more queries."""
MAX_UNWANTED = QUERIES_PER_SOCKET + 1
"""Unwanted replies after which a socket is given up: more than an upstream causes that repeats no question exactly."""

_NOISE_BYTES = 4096


class _RandomIds:
    """Yields unpredictable query IDs, made many at a time."""

    def __init__(self) -> None:
        self._unused: list[bytes] = []

    def take(self) -> bytes:
        """Return two random bytes."""
        if not self._unused:
            data = secrets.token_bytes(_NOISE_BYTES)
            self._unused = [data[at : at + 2] for at in range(0, _NOISE_BYTES, 2)]
        return self._unused.pop()


class UpstreamSockets:
    """The sockets towards all upstreams. It must not be used by two threads at a time."""

    def __init__(self, on_unwanted: Callable[[Address, bool], None] | None = None) -> None:
        """`on_unwanted` is called for each unwanted reply, with the upstream and whether its socket is given up."""
        self._current: dict[Address, _UpstreamSocket] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._shared = _SharedParts(open_burst(), _RandomIds(), RandomPorts(), on_unwanted or _ignore, _SocketWatcher())

    def ask(self, address: Address, question: bytes, heard: Callable[[bytes | None], bool]) -> Callable[[], None]:
        """Send a query without its ID over UDP.

        Each packet that comes back with its ID is passed to `heard`, until `heard` returns True. `heard` gets None if
        the upstream cannot be reached, and `FORGERY_SUSPECTED` if the socket is given up. Returns a function that ends
        the waiting. Raises OSError if no socket can be made or connected.
        """
        now = self._shared.watcher.loop.time()
        line = self._current.get(address)
        if line is None or line.closed or line.uses >= QUERIES_PER_SOCKET or now - line.born > SOCKET_LIFETIME:
            line = _UpstreamSocket(address, now, self._shared)
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
            bulkhead.run("an upstream over TCP", work), name="dns upstream tcp"
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
        self._shared.watcher.close()
        self._current.clear()
        connections = list(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


def _ignore(_: Address, given_up: bool) -> None:
    """Do nothing about an unwanted reply."""


@dataclass(slots=True)
class _SharedParts:
    """What all sockets use."""

    burst: UdpBurst | UnbatchedUdp
    ids: _RandomIds
    ports: RandomPorts
    on_unwanted: Callable[[Address, bool], None]
    watcher: "_SocketWatcher"


class _SocketWatcher:
    """Tells open sockets when they have something to read."""

    def __init__(self) -> None:
        self._open: dict[int, _UpstreamSocket] = {}
        """By file descriptor."""
        self._epoll: select.epoll | None = None
        """None before the first socket and after `close`."""
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop, looked up once, as in `FirstTryTimer.loop`."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def add(self, descriptor: int, line: "_UpstreamSocket") -> None:
        if self._epoll is None:
            self._epoll = select.epoll()
            self.loop.add_reader(self._epoll.fileno(), self._read)
        self._epoll.register(descriptor, select.EPOLLIN)
        self._open[descriptor] = line

    def discard(self, descriptor: int) -> None:
        """Forget a socket that is about to be closed, which takes it out of the epoll instance as well."""
        self._open.pop(descriptor, None)

    def close(self) -> None:
        """Close all sockets."""
        for line in list(self._open.values()):
            line.close()
        if self._epoll is not None:
            self.loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _read(self) -> None:
        with bulkhead.contain("packets of upstreams"):
            for descriptor, _ in () if self._epoll is None else self._epoll.poll(0):
                line = self._open.get(descriptor)
                if line is not None:  # else the callback of another socket has closed it
                    with bulkhead.contain("packets of an upstream"):
                        line.read()


class _UpstreamSocket:
    """One connected UDP socket and the queries that wait on it."""

    def __init__(self, address: Address, born: float, shared: _SharedParts) -> None:
        self.uses = 0
        self.born = born
        self.closed = False
        self._address = address
        self._waiting: dict[bytes, Callable[[bytes | None], bool]] = {}
        self._ended: set[bytes] = set()
        """IDs of queries that ended without a reply over this socket: it may still come, and is not unwanted then."""
        self._unwanted = 0
        """Unwanted replies so far."""
        self._shared = shared
        self._unsent: list[bytes] = []
        family, to = _where(address)
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            shared.ports.bind(self._socket)
            self._socket.connect(to)
            shared.watcher.add(self._socket.fileno(), self)
        except OSError:
            self._socket.close()
            raise

    def ask(self, question: bytes, heard: Callable[[bytes | None], bool]) -> Callable[[], None]:
        ident = self._shared.ids.take()
        while ident in self._waiting or ident in self._ended:
            ident = self._shared.ids.take()
        self.uses += 1
        self._waiting[ident] = heard
        if not self._unsent:
            self._shared.watcher.loop.call_soon(self._flush)
        self._unsent.append(ident + question)
        return partial(self._end, ident, heard)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._shared.watcher.discard(self._socket.fileno())
            self._socket.close()

    def _flush(self) -> None:
        with bulkhead.contain("queries to an upstream"):
            unsent, self._unsent = self._unsent, []
            if not self.closed:
                try:
                    self._shared.burst.send(self._socket, unsent)
                except OSError:
                    self._end_all(None)

    def read(self) -> None:
        """Process the datagrams that are waiting."""
        try:
            packets = self._shared.burst.receive(self._socket)
        except OSError:
            self._end_all(None)
            return
        waiting = self._waiting
        for packet in packets:
            ident = packet[:2]
            heard = waiting.get(ident)
            # One packet that raises must not cost the responses that came with it.
            with bulkhead.contain("a packet of an upstream"):
                if heard is None:
                    self._count_unwanted(ident)
                elif heard(packet):
                    if waiting.get(ident) is heard:  # its query may have been cancelled meanwhile
                        del waiting[ident]
                else:
                    self._count_unwanted(b"")
        if not waiting:
            self.close()

    def _count_unwanted(self, ident: bytes) -> None:
        """Count a reply that nothing waits for, unless its query has ended and this is the first reply to it."""
        if ident in self._ended:
            self._ended.discard(ident)
            return
        self._unwanted += 1
        give_up = self._unwanted == MAX_UNWANTED
        self._shared.on_unwanted(self._address, give_up)
        if give_up:
            self._end_all(FORGERY_SUSPECTED)

    def _end_all(self, packet: bytes | None) -> None:
        """End all queries of this socket with the same packet, and close it.

        It is None after an ICMP error: the kernel does not say which query caused it, but nothing listens for the
        others either.
        """
        waiting = list(self._waiting.values())
        self._waiting.clear()
        self.close()
        for heard in waiting:
            with bulkhead.contain("a broken upstream"):
                heard(packet)

    def _end(self, ident: bytes, heard: Callable[[bytes | None], bool]) -> None:
        """End the waiting of one query, which has no reply over this socket so far."""
        if self._waiting.get(ident) is heard:  # the query may have ended already
            del self._waiting[ident]
            self._ended.add(ident)
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
