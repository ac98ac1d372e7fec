"""The DNS server: sockets around the responder. All of them share one zone, which is replaced in one assignment."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from meshdns import bulkhead
from meshdns.acl import LOCAL_NETWORKS, Network, network_matcher
from meshdns.authoritative import ForwardQuery, Rcode, failure_response
from meshdns.bind import NameServerError, bind_sockets
from meshdns.forwarder import ForwardCounters, Forwarder
from meshdns.packet_cache import ZoneResponder
from meshdns.tcp import DnsTcpServer
from meshdns.udp import BatchUdpServer, PlainUdpServer, serve_udp
from meshdns.zone import Zone

__all__ = ["LOCAL_NETWORKS", "NameServer", "NameServerError", "QueryCounters"]


@dataclass(slots=True)
class QueryCounters:
    """How queries were handled since the start."""

    answered: int = 0
    """Answered from the zone or from a ready response of an upstream, or with an error such as FORMERR."""
    forwarded: int = 0
    """Passed to the forwarder."""
    refused: int = 0
    """Refused because the client is outside the served networks."""
    dropped: int = 0
    """Dropped because the packet is not a query."""


class NameServer:
    """Serves DNS on each address over UDP and TCP.

    Queries for other names go to `forwarder`; without one they are refused. `listen` is pairs of host and port; port 0
    takes a free one. Only clients in the `allowed` networks are served.
    """

    def __init__(
        self,
        listen: Sequence[tuple[str, int]],
        zone: Zone,
        forwarder: Forwarder | None = None,
        *,
        allowed: Sequence[Network] = LOCAL_NETWORKS,
    ) -> None:
        self._listen = tuple(listen)
        self._forwarder = forwarder or Forwarder()
        self.answers = ZoneResponder(zone, self._forwarder.ready)
        """The packet cache for UDP."""
        self._answers_tcp = ZoneResponder(zone, tcp=True)
        self._allows = network_matcher(allowed)
        self._udp: list[BatchUdpServer | PlainUdpServer] = []
        self._tcp: list[tuple[asyncio.Server, DnsTcpServer]] = []
        self.counters = QueryCounters()
        self.addresses: tuple[tuple[str, int], ...] = ()
        """The addresses it listens on, empty before `start`; port 0 has been replaced by the real port."""

    @property
    def forward_counters(self) -> ForwardCounters:
        """How queries for other names were handled since the start."""
        return self._forwarder.counters

    async def start(self) -> None:
        """Bind every address. Raises `NameServerError`, and then none is bound."""
        try:
            self.addresses = tuple([await self._serve(host, port) for host, port in self._listen])
        except BaseException:
            await self.stop()
            raise
        self._forwarder.start(self.addresses)

    async def stop(self) -> None:
        """Close the sockets and end whatever is under way."""
        for transport in self._udp:
            transport.close()
        for server, connections in self._tcp:
            server.close()
            connections.stop()
        await self._forwarder.close()
        self._udp, self._tcp = [], []

    def replace(self, zone: Zone, touched: Iterable[bytes] | None = None) -> None:
        """Answer from this zone from the next query on.

        `touched` is the lower-case wire names that `ZoneBuilder.update` returns; None if any response may differ.
        """
        self.answers.replace(zone, touched)
        self._answers_tcp.replace(zone, touched)
        # A name with a ready response from an upstream may have become own.
        self._forwarder.ready.forget()

    async def _serve(self, host: str, port: int) -> tuple[str, int]:
        """Bind one address over UDP and TCP; returns it with the real port."""
        udp, tcp = bind_sockets(host, port)
        bound = int(udp.getsockname()[1])
        connections = DnsTcpServer(self)
        listener = await asyncio.get_running_loop().create_server(connections.connection, sock=tcp)
        self._tcp.append((listener, connections))
        self._udp.append(await serve_udp(udp, self))
        return host, bound

    # ------------------------------------------------------------------------------- called by the transports

    def allows(self, host: str) -> bool:
        """Return whether a client is served."""
        return self._allows(host)

    def answer_udp(self, packet: bytes, host: str, *, looked: bool = False) -> bytes | ForwardQuery | None:
        """Answer a packet from a host; the result is that of `authoritative.answer_query`.

        `looked` says that the packet cache has no response and that the host is served, so that both checks are
        skipped.
        """
        if looked:
            return self._counted(_think(self.answers.think, packet))
        return self._answer(packet, host, self.answers)

    def answer_tcp(self, packet: bytes, host: str) -> bytes | ForwardQuery | None:
        """Answer a packet from a host; the result is that of `authoritative.answer_query`."""
        return self._answer(packet, host, self._answers_tcp)

    def count(self, answered: int) -> None:
        """Count queries that a transport answered from the packet cache by itself."""
        self.counters.answered += answered

    def forward(self, question: ForwardQuery, host: str, send: Callable[[bytes], None]) -> bytes | None:
        """Return the response to a forwarded query if it is available now; else None, and `send` gets it later."""
        try:
            return self._forwarder.ask(question.packet, question.query, host, send)
        except Exception as error:  # noqa: BLE001 -- one query fails
            bulkhead.caught("a forwarded query", error)
            return failure_response(question.packet, Rcode.SERVFAIL)

    def forward_tcp(self, question: ForwardQuery, host: str) -> "asyncio.Future[bytes]":
        """Return a future of the response to a forwarded query."""
        return self._forwarder.resolve(question.packet, question.query, host, tcp=True)

    def _answer(self, packet: bytes, host: str, answers: ZoneResponder) -> bytes | ForwardQuery | None:
        if not self._allows(host):
            return self._refuse(packet)
        return self._counted(_think(answers.ask, packet))

    def _counted(self, said: bytes | ForwardQuery | None) -> bytes | ForwardQuery | None:
        if said is None:
            self.counters.dropped += 1
        elif isinstance(said, ForwardQuery):
            self.counters.forwarded += 1
        else:
            self.counters.answered += 1
        return said

    def _refuse(self, packet: bytes) -> bytes | None:
        """Answer with REFUSED.

        The response is no longer than the query, so that a forged source address gains nothing by it.
        """
        if len(packet) < 12 or packet[2] & 0x80:
            self.counters.dropped += 1
            return None
        self.counters.refused += 1
        return failure_response(packet, Rcode.REFUSED)


def _think(answer: Callable[[bytes], bytes | ForwardQuery | None], packet: bytes) -> bytes | ForwardQuery | None:
    """Return the answer to a packet; SERVFAIL if that raises, or None if not even that can be said."""
    try:
        return answer(packet)
    except Exception as error:  # noqa: BLE001 -- one query fails
        bulkhead.caught("a query", error)
    with bulkhead.contain("the failure of a query"):
        return failure_response(packet, Rcode.SERVFAIL) if len(packet) >= 12 and not packet[2] & 0x80 else None
    return None
