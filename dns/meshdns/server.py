"""The name server: sockets around `answer_query`, one zone for all of them, swapped in one assignment."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

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
    """What became of the questions since the start."""

    answered: int = 0
    forwarded: int = 0
    refused: int = 0
    """From outside of the networks that are served."""
    dropped: int = 0
    """Not questions at all."""


class NameServer:
    """Answers on each address over UDP and TCP. Questions about other names go to the forwarder, if there is one."""

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
        """What is known over UDP."""
        self._answers_tcp = ZoneResponder(zone, tcp=True)
        self._allows = network_matcher(allowed)
        self._udp: list[BatchUdpServer | PlainUdpServer] = []
        self._tcp: list[tuple[asyncio.Server, DnsTcpServer]] = []
        self.counters = QueryCounters()
        self.addresses: tuple[tuple[str, int], ...] = ()
        """Where it really listens, after `start`: port 0 became a number."""

    @property
    def forward_counters(self) -> ForwardCounters:
        """What became of the questions about other names."""
        return self._forwarder.counters

    async def start(self) -> None:
        """Bind every address. Raises `NameServerError`; then none is bound."""
        try:
            self.addresses = tuple([await self._serve(host, port) for host, port in self._listen])
        except BaseException:
            await self.stop()
            raise
        self._forwarder.start(self.addresses)

    async def stop(self) -> None:
        """Close the sockets and end what is under way."""
        for transport in self._udp:
            transport.close()
        for server, connections in self._tcp:
            server.close()
            connections.stop()
        await self._forwarder.close()
        self._udp, self._tcp = [], []

    def replace(self, zone: Zone, touched: Iterable[bytes] | None = None) -> None:
        """Answer from this zone from the next question on. `touched` is what `ZoneBuilder.update` says; None:
        anything."""
        self.answers.replace(zone, touched)
        self._answers_tcp.replace(zone, touched)
        self._forwarder.ready.forget()  # a name in there may have become own

    async def _serve(self, host: str, port: int) -> tuple[str, int]:
        udp, tcp = bind_sockets(host, port)
        bound = int(udp.getsockname()[1])
        connections = DnsTcpServer(self)
        listener = await asyncio.get_running_loop().create_server(connections.connection, sock=tcp)
        self._tcp.append((listener, connections))
        self._udp.append(await serve_udp(udp, self))
        return host, bound

    # ------------------------------------------------------------------------------- what the transports ask

    def allows(self, host: str) -> bool:
        """Whether a client is served."""
        return self._allows(host)

    def answer_udp(self, packet: bytes, host: str, *, looked: bool = False) -> bytes | ForwardQuery | None:
        """What to say to a packet from a host. `looked`: it is not known; the host is served."""
        if looked:
            return self._counted(self.answers.think(packet))
        return self._answer(packet, host, self.answers)

    def answer_tcp(self, packet: bytes, host: str) -> bytes | ForwardQuery | None:
        """What to say to a packet from a host."""
        return self._answer(packet, host, self._answers_tcp)

    def count(self, answered: int) -> None:
        """So many were answered from `answers`."""
        self.counters.answered += answered

    def forward(self, question: ForwardQuery, host: str, send: Callable[[bytes], None]) -> bytes | None:
        """What is known of another name; None: `send` gets it from an upstream."""
        return self._forwarder.ask(question.packet, question.query, host, send)

    def forward_tcp(self, question: ForwardQuery, host: str) -> "asyncio.Future[bytes]":
        """What is known of another name, or what an upstream says."""
        return self._forwarder.resolve(question.packet, question.query, host, tcp=True)

    def _answer(self, packet: bytes, host: str, answers: ZoneResponder) -> bytes | ForwardQuery | None:
        if not self._allows(host):
            return self._refuse(packet)
        return self._counted(answers.ask(packet))

    def _counted(self, said: bytes | ForwardQuery | None) -> bytes | ForwardQuery | None:
        if said is None:
            self.counters.dropped += 1
        elif isinstance(said, ForwardQuery):
            self.counters.forwarded += 1
        else:
            self.counters.answered += 1
        return said

    def _refuse(self, packet: bytes) -> bytes | None:
        """As many octets as were asked, and no thought about what they mean."""
        if len(packet) < 12 or packet[2] & 0x80:
            self.counters.dropped += 1
            return None
        self.counters.refused += 1
        return failure_response(packet, Rcode.REFUSED)
