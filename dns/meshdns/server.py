"""The name server: sockets around `answer`, one zone for all of them, swapped in one assignment."""

import asyncio
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

from meshdns.answer import Forward, Rcode, failure
from meshdns.forward import Forwarder
from meshdns.listen import NameServerError, bind
from meshdns.table import Answers
from meshdns.tcp import TcpServer
from meshdns.udp import BatchServer, PlainServer, serve
from meshdns.zone import Zone

__all__ = ["LOCAL", "Counters", "NameServer", "NameServerError"]

T = TypeVar("T")

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

LOCAL: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)
"""Private, shared, loopback and link-local networks (RFC 1918, 6598, 3927, 4193): an open resolver is a weapon."""


@dataclass(slots=True)
class Counters:
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
        allowed: Sequence[Network] = LOCAL,
    ) -> None:
        self._listen = tuple(listen)
        self.answers = Answers(zone)
        """What is known over UDP."""
        self._answers_tcp = Answers(zone, tcp=True)
        self._forwarder = forwarder or Forwarder(())
        self._allows = lru_cache(4096)(lambda host: _within(host, allowed))
        self._udp: list[BatchServer | PlainServer] = []
        self._tcp: list[tuple[asyncio.Server, TcpServer]] = []
        self._forwarding: set[asyncio.Task[Any]] = set()
        self.counters = Counters()
        self.addresses: tuple[tuple[str, int], ...] = ()
        """Where it really listens, after `start`: port 0 became a number."""

    async def start(self) -> None:
        """Bind every address. Raises `NameServerError`; then none is bound."""
        try:
            self.addresses = tuple([await self._serve(host, port) for host, port in self._listen])
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close the sockets and end what is under way."""
        for transport in self._udp:
            transport.close()
        for server, connections in self._tcp:
            server.close()
            connections.stop()
        for task in self._forwarding:
            task.cancel()
        await asyncio.gather(*self._forwarding, return_exceptions=True)
        await self._forwarder.close()
        self._udp, self._tcp = [], []

    def replace(self, zone: Zone, touched: Iterable[bytes] | None = None) -> None:
        """Answer from this zone from the next question on. `touched` is what `Draft.update` says; None: anything."""
        self.answers.replace(zone, touched)
        self._answers_tcp.replace(zone, touched)

    async def _serve(self, host: str, port: int) -> tuple[str, int]:
        udp, tcp = bind(host, port)
        bound = int(udp.getsockname()[1])
        connections = TcpServer(self)
        listener = await asyncio.get_running_loop().create_server(connections.connection, sock=tcp)
        self._tcp.append((listener, connections))
        self._udp.append(await serve(udp, self))
        return host, bound

    # ------------------------------------------------------------------------------- what the transports ask

    def allows(self, host: str) -> bool:
        """Whether a client is served."""
        return self._allows(host)

    def answer_udp(self, packet: bytes, host: str) -> bytes | Forward | None:
        """What to say to a packet from a host."""
        return self._answer(packet, host, self.answers)

    def answer_tcp(self, packet: bytes, host: str) -> bytes | Forward | None:
        """What to say to a packet from a host."""
        return self._answer(packet, host, self._answers_tcp)

    def count(self, answered: int) -> None:
        """So many were answered from `answers`."""
        self.counters.answered += answered

    def forward(self, question: Forward, host: str, send: Callable[[bytes], None]) -> None:
        """Send what an upstream says to a client's question, once it does."""

        async def work() -> None:
            send(await self._forwarder.resolve(question.packet))

        self._keep(asyncio.get_running_loop().create_task(work(), name="dns forward"))

    def forward_tcp(self, question: Forward) -> "asyncio.Task[bytes]":
        """What an upstream says."""
        resolving = self._forwarder.resolve(question.packet, tcp=True)
        return self._keep(asyncio.get_running_loop().create_task(resolving, name="dns forward"))

    def _answer(self, packet: bytes, host: str, answers: Answers) -> bytes | Forward | None:
        said = answers.ask(packet)
        if said is None:
            self.counters.dropped += 1
        elif not self._allows(host):
            self.counters.refused += 1
            return failure(packet, Rcode.REFUSED)
        elif isinstance(said, Forward):
            self.counters.forwarded += 1
        else:
            self.counters.answered += 1
        return said

    def _keep(self, task: "asyncio.Task[T]") -> "asyncio.Task[T]":
        self._forwarding.add(task)
        task.add_done_callback(self._forwarding.discard)
        return task


def _within(host: str, networks: Sequence[Network]) -> bool:
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in network for network in networks)
