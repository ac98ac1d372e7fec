"""DNS over UDP: one socket per address, so that a response leaves from the address that was queried.

Where the kernel supports it, datagrams are received and sent in batches (`udp_batch`), and repeated queries are
answered from a dictionary without any parsing. Elsewhere asyncio's datagram protocol does the same job more slowly.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping
from itertools import compress
from operator import not_
from typing import Any, Protocol, TypeAlias, cast

from typing_extensions import override

from meshdns import bulkhead, mmsg
from meshdns import udp_batch as batch
from meshdns.authoritative import ForwardQuery
from meshdns.packet_cache import ZoneResponder
from meshdns.response_block import decode_block, encode_block

Peer: TypeAlias = tuple[Any, ...]
"""A socket address as the socket module writes it: host and port first."""
BATCHES_PER_WAKEUP = 4
"""Batches per wake-up; after that, other callbacks on the event loop get their turn."""
MAX_KNOWN_CLIENTS = 4096
"""How many clients are remembered as allowed; when there are more, all are forgotten and checked again."""


class UdpResponder(Protocol):
    """The name server as a UDP transport needs it."""

    answers: ZoneResponder
    """The packet cache, which only allowed hosts may use directly."""

    def allows(self, host: str) -> bool:
        """Return whether a client is served."""
        ...

    def answer_udp(self, packet: bytes, host: str, *, looked: bool = False) -> bytes | ForwardQuery | None:
        """Answer any packet from any host; the result is that of `authoritative.answer_query`.

        `looked` says that the packet is not in `answers` and that the host is served.
        """
        ...

    def forward(self, question: ForwardQuery, host: str, send: Callable[[bytes], None]) -> bytes | None:
        """Return the response if it is available now; else None, and `send` gets it later."""
        ...

    def forward_again(self, packet: bytes, host: str, send: Callable[[bytes], None]) -> bytes | None:
        """Do as `forward` for a packet that is in `answers.ready.foreign`; the ID of the response is any."""
        ...

    def count(self, answered: int) -> None:
        """Count queries that were answered from `answers`."""
        ...

    @property
    def limits_queries(self) -> bool:
        """Whether `limit` has to be asked about each response."""
        ...

    def limit(self, packet: bytes, said: bytes, host: str) -> bytes:
        """Return the response to send to a query: `said`, or a shorter one."""
        ...


class BatchUdpServer:
    """Serves one bound socket in batches; `close` closes it."""

    def __init__(self, sock: socket.socket, server: UdpResponder) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._server = server
        self._batch = batch.UdpBatch(sock)
        self._later = batch.UdpBatch(sock)
        """The batch for responses that arrive later from upstreams."""
        self._late: list[tuple[bytes, bytes, bytes]] = []
        """Query, return path and response of each such response that has not been sent yet."""
        self._ready: Callable[[bytes], bytes | None] = server.answers.ready.__getitem__
        self._foreign: Mapping[bytes, object] = server.answers.ready.foreign
        self._known: set[int] | set[tuple[int, int]] = set()
        """Addresses of clients that are known to be allowed, in the form of `UdpBatch.hosts`."""
        self._next: asyncio.Handle | None = None
        """The callback that continues draining while there is more than one turn's work, else None.

        Meanwhile the socket is not registered with epoll: sending on a socket that is not watched costs less.
        """
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._drain)

    def close(self) -> None:
        """Stop serving and close the socket."""
        self._loop.remove_reader(self._socket)
        if self._next is not None:
            self._next.cancel()
        self._socket.close()

    def _drain(self) -> None:
        with bulkhead.contain("a batch of queries") as drained:
            self._serve_batches()
        if drained.failed:
            self._await()  # the socket must be watched again, whatever was being done

    def _serve_batches(self) -> None:
        """Serve up to `BATCHES_PER_WAKEUP` batches, then give the event loop a turn."""
        for _ in range(BATCHES_PER_WAKEUP):
            count = self._batch.receive()
            if count > 0:
                self._answer(count)
            # A batch that is not full has emptied the socket.
            if count < batch.SLOTS:
                self._await()
                return
        if self._next is None:
            self._loop.remove_reader(self._socket)
        self._next = self._loop.call_soon(self._drain)

    def _await(self) -> None:
        """Wait for the socket to become readable again."""
        if self._next is not None:
            self._next = None
            self._loop.add_reader(self._socket, self._drain)

    def _answer(self, count: int) -> None:
        """Serve one batch: look up, write, send.

        This is the path that has to be fast; everything slower is in `_think`.
        """
        part = self._batch
        looked = self._known.issuperset(part.hosts(count)) or self._meet(count)
        # If one host of the batch is not allowed, nothing is looked up: each query then takes the path that checks its
        # host.
        found: list[bytes | None] = list(map(self._ready, part.keys(count))) if looked else [None] * count
        thought, unanswered = 0, []
        if not all(found):
            for slot in compress(_SLOTS, map(not_, found)):
                thought += 1
                said = self._think(slot, looked)
                if not said:
                    unanswered.append(slot)
                found[slot] = encode_block(said or b"")
        if self._server.limits_queries:
            found = [self._limit(slot, block) for slot, block in enumerate(found)]
        part.answer(cast(list[bytes], found))
        self._server.count(count - thought)
        # Slots are sent in runs: each run ends before a slot that has no response yet.
        first = 0
        for slot in unanswered:
            part.send(first, slot)
            first = slot + 1
        part.send(first, count)

    def _meet(self, count: int) -> bool:
        """Check clients that were not seen before; returns whether all hosts of the batch are allowed."""
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
        """Answer a query that is not in the packet cache; None if there is no response now."""
        packet, host = self._batch.question(slot), self._batch.host(slot)
        if looked and packet[2:] in self._foreign:
            return self._server.forward_again(packet, host, self._sender(slot, packet))
        said = self._server.answer_udp(packet, host, looked=looked)
        if isinstance(said, ForwardQuery):
            return self._server.forward(said, host, self._sender(slot, packet))
        return said

    def _limit(self, slot: int, block: bytes | None) -> bytes:
        """Return the block to send, which is a shorter response if the client has had too many."""
        said = decode_block(block or encode_block(b""))
        if not said:
            return encode_block(b"")
        question = self._batch.question(slot)
        return encode_block(self._server.limit(question, question[:2] + said[2:], self._batch.host(slot)))

    def _sender(self, slot: int, packet: bytes) -> Callable[[bytes], None]:
        """Return a function that sends a response to the query in a slot.

        It may be called later, when the slot is in use for another query.
        """
        way_back = self._batch.way_back(slot)

        def send(reply: bytes) -> None:
            if not self._late:
                self._loop.call_soon(bulkhead.callback(self._send_late, "late responses"))
            self._late.append((packet, way_back, reply))

        return send

    def _send_late(self) -> None:
        """Send all responses that arrived from upstreams within one turn of the event loop."""
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
    """Serves one bound socket through asyncio.

    On a socket bound to all addresses its responses may leave from another address than the queried one.
    """

    def __init__(self, server: UdpResponder) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport of the bound socket."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    @override
    def datagram_received(self, data: bytes, addr: Peer) -> None:
        """Answer one packet."""
        with bulkhead.contain("a query over UDP"):
            said = self._server.answer_udp(data, addr[0])
            if isinstance(said, ForwardQuery):
                said = self._server.forward(said, addr[0], lambda reply: self._send(reply, addr))
            if said:
                limits = self._server.limits_queries
                self._send(self._server.limit(data, said, addr[0]) if limits else said, addr)

    @override
    def error_received(self, exc: Exception) -> None:
        """Ignore an error for one client, such as ICMP port unreachable: the client has gone, or it will ask again."""

    def close(self) -> None:
        """Stop serving and close the socket."""
        if self._transport is not None:
            self._transport.close()

    def _send(self, reply: bytes, peer: Peer) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(reply, peer)


async def serve_udp(
    sock: socket.socket, server: UdpResponder, *, plain: bool | None = None
) -> BatchUdpServer | PlainUdpServer:
    """Serve a bound socket, which belongs to the returned server from now on.

    `plain` selects asyncio instead of batches; None selects it only if batches are unavailable.
    """
    if plain is None:
        plain = not mmsg.available()
    if not plain:
        return BatchUdpServer(sock, server)
    _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(lambda: PlainUdpServer(server), sock=sock)
    return protocol
