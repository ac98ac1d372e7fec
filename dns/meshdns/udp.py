"""Questions over UDP: one socket per address, so that an answer leaves from the address that was asked.

Where the kernel can, datagrams come and go by the dozen (`batch`), and questions that were seen before are answered
from a dictionary without a further thought. Elsewhere asyncio's own datagram protocol does the same, slower.
"""

import asyncio
import socket
from collections.abc import Callable
from itertools import compress
from operator import not_
from typing import Any, Protocol, TypeAlias, cast

from meshdns import mmsg
from meshdns import udp_batch as batch
from meshdns.authoritative import ForwardQuery
from meshdns.packet_cache import ZoneResponder
from meshdns.response_block import encode_block

Peer: TypeAlias = tuple[Any, ...]
"""A socket address as the socket module writes it: host and port first."""
BATCHES_PER_WAKEUP = 4
"""Batches per wake-up; then others on the event loop have their turn."""
MAX_KNOWN_CLIENTS = 4096
"""Clients that are known to be served; when more come, all are asked about anew."""


class UdpResponder(Protocol):
    """Who answers: the name server, as far as a transport needs it."""

    answers: ZoneResponder
    """What can be looked up at once, for hosts that are served."""

    def allows(self, host: str) -> bool:
        """Whether a client is served."""
        ...

    def answer_udp(self, packet: bytes, host: str, *, looked: bool = False) -> bytes | ForwardQuery | None:
        """Any question from anybody. `looked`: it is from a host that is served, and not in `answers`."""
        ...

    def forward(self, question: ForwardQuery, host: str, send: Callable[[bytes], None]) -> bytes | None:
        """The answer if it is known; None: `send` gets it later."""
        ...

    def count(self, answered: int) -> None:
        """So many were answered from `answers`."""
        ...


class BatchUdpServer:
    """One bound socket; it is closed by `close`."""

    def __init__(self, sock: socket.socket, server: UdpResponder) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._server = server
        self._batch = batch.UdpBatch(sock)
        self._later = batch.UdpBatch(sock)
        """For answers that come from upstreams."""
        self._late: list[tuple[bytes, bytes, bytes]] = []
        """Question, the way back, answer."""
        self._ready: Callable[[bytes], bytes | None] = server.answers.ready.__getitem__
        self._known: set[int] | set[tuple[int, int]] = set()
        self._next: asyncio.Handle | None = None
        """While there is more to do than in one turn; a socket that nobody waits for costs less to send on (epoll)."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._drain)

    def close(self) -> None:
        """Answer no more."""
        self._loop.remove_reader(self._socket)
        if self._next is not None:
            self._next.cancel()
        self._socket.close()

    def _drain(self) -> None:
        for _ in range(BATCHES_PER_WAKEUP):
            count = self._batch.receive()
            if count > 0:
                self._answer(count)
            if count < batch.SLOTS:
                self._await()
                return
        if self._next is None:
            self._loop.remove_reader(self._socket)
        self._next = self._loop.call_soon(self._drain)

    def _await(self) -> None:
        """Come back when there is something."""
        if self._next is not None:
            self._next = None
            self._loop.add_reader(self._socket, self._drain)

    def _answer(self, count: int) -> None:
        """One batch: look up, write, send. This is the path that has to be fast; the rest is in `_think`."""
        part = self._batch
        looked = self._known.issuperset(part.hosts(count)) or self._meet(count)
        found: list[bytes | None] = list(map(self._ready, part.keys(count))) if looked else [None] * count
        thought, unanswered = 0, []
        if not all(found):
            for slot in compress(_SLOTS, map(not_, found)):
                thought += 1
                said = self._think(slot, looked)
                if said is None:
                    unanswered.append(slot)
                found[slot] = encode_block(said or b"")
        part.answer(cast(list[bytes], found))
        self._server.count(count - thought)
        first = 0
        for slot in unanswered:
            part.send(first, slot)
            first = slot + 1
        part.send(first, count)

    def _meet(self, count: int) -> bool:
        """Ask about clients that were not seen yet: whether all are to be served. If not, nothing is looked up."""
        if len(self._known) > MAX_KNOWN_CLIENTS:
            self._known.clear()
        known = cast(set[Any], self._known)
        served = True
        for slot, host in enumerate(self._batch.hosts(count)):
            if host not in known:
                if self._server.allows(self._batch.host(slot)):
                    known.add(host)
                else:
                    served = False
        return served

    def _think(self, slot: int, looked: bool) -> bytes | None:
        """The answer to a question that was not known; None: there is none now."""
        packet, host = self._batch.question(slot), self._batch.host(slot)
        said = self._server.answer_udp(packet, host, looked=looked)
        if isinstance(said, ForwardQuery):
            return self._server.forward(said, host, self._sender(slot, packet))
        return said

    def _sender(self, slot: int, packet: bytes) -> Callable[[bytes], None]:
        way_back = self._batch.way_back(slot)

        def send(reply: bytes) -> None:
            if not self._late:
                self._loop.call_soon(self._send_late)
            self._late.append((packet, way_back, reply))

        return send

    def _send_late(self) -> None:
        """What has been answered in one turn of the event loop."""
        late, self._late = self._late, []
        if self._socket.fileno() < 0:
            return
        for first in range(0, len(late), batch.SLOTS):
            part = late[first : first + batch.SLOTS]
            for slot, (packet, way_back, _) in enumerate(part):
                self._later.put(slot, packet, way_back)
            self._later.answer([encode_block(reply) for _, _, reply in part])
            self._later.send(0, len(part))


_SLOTS = range(batch.SLOTS)


class PlainUdpServer(asyncio.DatagramProtocol):
    """One bound socket of asyncio's. Bound to all addresses, its answers may leave from another one than was asked."""

    def __init__(self, server: UdpResponder) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is bound."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Peer) -> None:
        """One question."""
        said = self._server.answer_udp(data, addr[0])
        if isinstance(said, ForwardQuery):
            said = self._server.forward(said, addr[0], lambda reply: self._send(reply, addr))
        if said is not None:
            self._send(said, addr)

    def error_received(self, exc: Exception) -> None:
        """A client that has gone away (ICMP port unreachable) is no trouble of ours: it asks again or it does not."""

    def close(self) -> None:
        """Answer no more."""
        if self._transport is not None:
            self._transport.close()

    def _send(self, reply: bytes, peer: Peer) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(reply, peer)


async def serve_udp(
    sock: socket.socket, server: UdpResponder, *, plain: bool | None = None
) -> BatchUdpServer | PlainUdpServer:
    """Answer on a bound socket, which is theirs from now on. `plain`: without batches; None: if there are none."""
    if plain is None:
        plain = not mmsg.available()
    if not plain:
        return BatchUdpServer(sock, server)
    _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(lambda: PlainUdpServer(server), sock=sock)
    return protocol
