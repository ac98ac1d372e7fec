"""The ways to the upstreams: UDP sockets with ports that nobody can guess, and TCP for what UDP cut off.

A forged answer has to hit the source port and the ID of a question (RFC 5452). Each socket is connected, so that the
kernel drops what comes from elsewhere and tells when nobody listens, and has a port of the kernel's choice. A question
alone gets a socket of its own; only in a burst up to `QUERIES_PER_SOCKET` questions of the same moment use one, since
making a socket costs as much as all the rest. What is asked in one turn of the event loop goes out at its end,
together.
"""

import asyncio
import secrets
import socket
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from meshdns.udp_burst import UdpBurst, UnbatchedUdp, open_burst
from meshdns.upstreams import Address

QUERIES_PER_SOCKET = 32
"""Questions of one socket."""
SOCKET_LIFETIME = 1.0
"""Seconds after which a socket takes no more questions."""


class UpstreamSockets:
    """Sockets towards upstreams. Not for two threads at a time."""

    def __init__(self) -> None:
        self._current: dict[Address, _UpstreamSocket] = {}
        self._open: set[_UpstreamSocket] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._burst = open_burst()

    def ask(self, address: Address, question: bytes, heard: Callable[[bytes | None], bool]) -> Callable[[], None]:
        """Send a question, given without its ID; what comes back with the same ID is `heard`, until that says True.

        None is heard when the upstream cannot be reached. Returns what ends the waiting. Raises OSError.
        """
        now = asyncio.get_running_loop().time()
        line = self._current.get(address)
        if line is None or line.closed or line.uses >= QUERIES_PER_SOCKET or now - line.born > SOCKET_LIFETIME:
            line = _UpstreamSocket(address, now, self._open, self._burst)
            self._current[address] = line
        return line.ask(question, heard)

    def ask_tcp(self, address: Address, question: bytes, heard: Callable[[bytes | None], None]) -> Callable[[], None]:
        """The same over a connection of its own; `heard` is called once, with None if there was no answer."""

        async def work() -> None:
            heard(await _exchange(address, question))

        task = asyncio.get_running_loop().create_task(work(), name="dns upstream tcp")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

        def cancel() -> None:
            if task is not asyncio.current_task():  # its own answer ends the exchange: it is over anyway
                task.cancel()

        return cancel

    async def close(self) -> None:
        """Close all of them; nothing is heard any more."""
        for line in list(self._open):
            line.close()
        self._current.clear()
        connections = list(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


class _UpstreamSocket:
    def __init__(
        self, address: Address, born: float, all_open: "set[_UpstreamSocket]", both_ways: UdpBurst | UnbatchedUdp
    ) -> None:
        self.uses = 0
        self.born = born
        self.closed = False
        self._waiting: dict[bytes, Callable[[bytes | None], bool]] = {}
        octets = secrets.token_bytes(2 * (QUERIES_PER_SOCKET + 8))
        self._ids = list({octets[at : at + 2] for at in range(0, len(octets), 2)})
        """For as many questions as it takes, each another one; a few are twice the same by chance."""
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
        self._loop.add_reader(self._socket, self._readable)
        all_open.add(self)

    def ask(self, question: bytes, heard: Callable[[bytes | None], bool]) -> Callable[[], None]:
        ident = self._ids.pop()
        self.uses += 1
        self._waiting[ident] = heard
        if not self._unsent:
            self._loop.call_soon(self._flush)
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
            if heard is not None and heard(packet):
                self._end(ident, heard)

    def _broken(self) -> None:
        """ICMP says that nobody listens there: to whichever question that was, the others will hear the same."""
        waiting, self._waiting = list(self._waiting.values()), {}
        self.close()
        for heard in waiting:
            heard(None)

    def _end(self, ident: bytes, heard: Callable[[bytes | None], bool]) -> None:
        if self._waiting.get(ident) is heard:  # the ID may have gone on to another question
            del self._waiting[ident]
        if not self._waiting:
            self.close()


@lru_cache(256)
def _where(address: Address) -> tuple[int, tuple[Any, ...]]:
    family, _, _, _, to = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0]
    return family, to


async def _exchange(address: Address, question: bytes) -> bytes | None:
    ident = secrets.token_bytes(2)
    try:
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(struct.pack("!H", len(question) + 2) + ident + question)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            reply = await reader.readexactly(length)
        finally:
            writer.transport.abort()  # nothing is left to say, and no TIME_WAIT behind
    except (OSError, EOFError):
        return None
    return reply if reply[:2] == ident else None
