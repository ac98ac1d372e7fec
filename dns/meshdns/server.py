"""The DNS server: sockets around the responder. All of them share one zone, which is replaced in one assignment."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from meshdns import bulkhead
from meshdns.acl import LOCAL_NETWORKS, Network, network_matcher
from meshdns.authoritative import ForwardQuery, Rcode, failure_response, truncate_answer
from meshdns.bind import NameServerError, bind_sockets
from meshdns.forwarder import ForwardCounters, Forwarder
from meshdns.local_address import is_local_address
from meshdns.packet_cache import ZoneResponder
from meshdns.rate_limit import ClientRate
from meshdns.tcp import MAX_CONNECTIONS, DnsTcpServer, ReadyResponses
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
    """Dropped because the packet is not a query, or because its client got `ServerRates.refusals` already."""
    limited: int = 0
    """Answered with TC instead of an answer, because the client sent more than `ServerRates.queries`."""


@dataclass(frozen=True, slots=True)
class ServerRates:
    """How much one client gets over UDP, where its address may be forged, per second; 0 for no limit."""

    queries: int = 0
    """Answers; a client that sends more queries is sent to TCP."""
    refusals: int = 0
    """REFUSED responses; further ones are not sent."""


class NameServer:
    """Serves DNS on each address over UDP and TCP.

    Queries for other names go to `forwarder`; without one they are refused. `listen` is pairs of host and port; port 0
    takes a free one. Only clients in the `allowed` networks are served.
    """

    # 13 attributes: its sockets and what answers; the last is the limit of each TCP socket.

    def __init__(
        self,
        listen: Sequence[tuple[str, int]],
        zone: Zone,
        forwarder: Forwarder | None = None,
        *,
        allowed: Sequence[Network] = LOCAL_NETWORKS,
        rates: ServerRates | None = None,
        connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._listen = tuple(listen)
        self._most_connections = connections
        self._forwarder = forwarder or Forwarder()
        self.answers = ZoneResponder(zone, self._forwarder.ready, is_here=is_local_address)
        """The packet cache for UDP."""
        self._answers_tcp = ZoneResponder(zone, tcp=True, is_here=is_local_address)
        rates = rates or ServerRates()
        self._queries, self._refusals = ClientRate(rates.queries), ClientRate(rates.refusals)
        self.limits_queries = rates.queries > 0
        """Whether `limit` has to be asked about each response over UDP."""
        self._allows = network_matcher(allowed)
        self._forwarder.use_zone(zone)
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
        # A name with a ready response from an upstream may have become own, or a name that it leads to.
        self._forwarder.use_zone(zone)

    async def _serve(self, host: str, port: int) -> tuple[str, int]:
        """Bind one address over UDP and TCP; returns it with the real port."""
        udp, tcp = bind_sockets(host, port)
        bound = int(udp.getsockname()[1])
        connections = DnsTcpServer(self, connections=self._most_connections)
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
            try:
                said = self._counted(self.answers.think(packet, host))
            except Exception as error:  # noqa: BLE001 -- one query fails
                bulkhead.caught("a query", error)
                said = self._counted(_fail(packet))
        else:
            said = self._answer(packet, host, self.answers)
        if said.__class__ is bytes and said[3] & 0xF == Rcode.REFUSED and not self._may_refuse(host):
            return None
        return said

    def limit(self, packet: bytes, said: bytes, host: str) -> bytes:
        """Return the response to send over UDP to a query: this one, or a short one that sends the client to TCP.

        A client that is not where it says gets nothing of use from the latter, and its victim no more than was sent.
        """
        if self._queries.allows(host, asyncio.get_running_loop().time()):
            return said
        self.counters.limited += 1
        return truncate_answer(packet, said)

    def _may_refuse(self, host: str) -> bool:
        """Return whether a client gets another REFUSED response in this second."""
        if self._refusals.allows(host, asyncio.get_running_loop().time()):
            return True
        self.counters.dropped += 1
        return False

    def answer_tcp(self, packet: bytes, host: str) -> bytes | ForwardQuery | None:
        """Answer a packet from a host; the result is that of `authoritative.answer_query`."""
        return self._answer(packet, host, self._answers_tcp)

    def ready_tcp(self, host: str) -> ReadyResponses:
        """Return the look-up in the packet cache for TCP, which finds nothing for a host that is not served."""
        return self._answers_tcp.ready.get if self._allows(host) else _find_nothing

    def count(self, answered: int) -> None:
        """Count queries that a transport answered from the packet cache by itself."""
        self.counters.answered += answered

    def forward(self, question: ForwardQuery, host: str, send: Callable[[bytes], None]) -> bytes | None:
        """Return the response to a forwarded query if it is available now; else None, and `send` gets it later."""
        try:
            said = self._forwarder.ask(question.packet, question.query, host, send)
        except Exception as error:  # noqa: BLE001 -- one query fails
            bulkhead.caught("a forwarded query", error)
            return failure_response(question.packet, Rcode.SERVFAIL)
        return self._within_rate(said, host)

    def forward_again(self, packet: bytes, host: str, send: Callable[[bytes], None]) -> bytes | None:
        """Forward a query over UDP that is known to be for a name that is not own.

        The result is that of `forward`, with any ID. Raises KeyError if the query is not in `foreign` of the cache.
        """
        self.counters.forwarded += 1
        return self._within_rate(self._forwarder.ask_again(packet, host, send), host)

    def _within_rate(self, said: bytes | None, host: str) -> bytes | None:
        """Return a response of the forwarder; empty if it is REFUSED and the client got enough of these."""
        if said is not None and said[3] & 0xF == Rcode.REFUSED and not self._may_refuse(host):
            return b""
        return said

    def forward_tcp(self, question: ForwardQuery, host: str) -> "asyncio.Future[bytes]":
        """Return a future of the response to a forwarded query."""
        return self._forwarder.resolve(question.packet, question.query, host, tcp=True)

    def _answer(self, packet: bytes, host: str, answers: ZoneResponder) -> bytes | ForwardQuery | None:
        if not self._allows(host):
            return self._refuse(packet)
        try:
            said = answers.ask(packet, host)
        except Exception as error:  # noqa: BLE001 -- one query fails
            bulkhead.caught("a query", error)
            said = _fail(packet)
        return self._counted(said)

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


def _find_nothing(_: bytes) -> None:
    return None


def _fail(packet: bytes) -> bytes | None:
    """Return SERVFAIL for a packet that has raised, or None if not even that can be said."""
    with bulkhead.contain("the failure of a query"):
        return failure_response(packet, Rcode.SERVFAIL) if len(packet) >= 12 and not packet[2] & 0x80 else None
    return None
