"""The name server: sockets around `answer`, one zone for all of them, swapped in one assignment."""

import asyncio
import errno
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from meshdns.answer import Forward, Rcode, answer, failure
from meshdns.forward import Forwarder
from meshdns.tcp import TcpServer
from meshdns.udp import UdpServer
from meshdns.zone import Zone

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


class NameServerError(Exception):
    """The server cannot listen where it was told to. The text ends with the remedy."""


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
        self._zone = zone
        self._forwarder = forwarder or Forwarder(())
        self._allows = lru_cache(4096)(lambda host: _within(host, allowed))
        self._udp: list[asyncio.DatagramTransport] = []
        self._tcp: list[tuple[asyncio.Server, TcpServer]] = []
        self._forwarding: set[asyncio.Task[None]] = set()
        self.counters = Counters()
        self.addresses: tuple[tuple[str, int], ...] = ()
        """Where it really listens, after `start`: port 0 became a number."""

    async def start(self) -> None:
        """Bind every address. Raises `NameServerError`; then none is bound."""
        try:
            self.addresses = tuple([await self._bind(host, port) for host, port in self._listen])
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close the sockets and end what is under way."""
        for transport in self._udp:
            transport.close()
        for server, connections in self._tcp:
            server.close()
            await connections.stop()
        for task in self._forwarding:
            task.cancel()
        await asyncio.gather(*self._forwarding, return_exceptions=True)
        await self._forwarder.close()
        self._udp, self._tcp = [], []

    def replace(self, zone: Zone) -> None:
        """Answer from this zone from the next question on."""
        self._zone = zone

    async def _bind(self, host: str, port: int) -> tuple[str, int]:
        loop = asyncio.get_running_loop()
        try:
            connections = TcpServer(self._answer_tcp, lambda question: self._resolve(question, tcp=True))
            server = await asyncio.start_server(connections.serve, host, port)
            self._tcp.append((server, connections))
            bound = int(server.sockets[0].getsockname()[1])
            transport, _ = await loop.create_datagram_endpoint(
                lambda: UdpServer(self._answer_udp, self._forward), local_addr=(host, bound)
            )
            self._udp.append(transport)
        except OSError as error:
            raise NameServerError(f"dns: cannot listen on {host}:{port}: {_words(error)}") from error
        return host, bound

    def _answer_udp(self, packet: bytes, host: str) -> bytes | Forward | None:
        return self._answer(packet, host, tcp=False)

    def _answer_tcp(self, packet: bytes, host: str) -> bytes | Forward | None:
        return self._answer(packet, host, tcp=True)

    def _answer(self, packet: bytes, host: str, *, tcp: bool) -> bytes | Forward | None:
        said = answer(packet, self._zone, tcp=tcp)
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

    def _forward(self, question: Forward, send: Callable[[bytes], None]) -> None:
        async def work() -> None:
            send(await self._resolve(question, tcp=False))

        task = asyncio.get_running_loop().create_task(work(), name="dns forward")
        self._forwarding.add(task)
        task.add_done_callback(self._forwarding.discard)

    async def _resolve(self, question: Forward, *, tcp: bool) -> bytes:
        return await self._forwarder.resolve(question.packet, tcp=tcp)


def _within(host: str, networks: Sequence[Network]) -> bool:
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def _words(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            "the port is taken, often by systemd-resolved, dnsmasq or avahi-daemon; "
            "stop that (`ss -lnp` shows it) or set [dns] listen to another address"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return "not permitted; give CAP_NET_BIND_SERVICE or set [dns] listen to a port above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this host does not have that address; set [dns] listen to one that `ip address` shows"
    return f"{error.strerror}; set [dns] listen to another address"
