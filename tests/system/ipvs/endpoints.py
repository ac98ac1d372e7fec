"""The lab with more places for an endpoint, each of which reports the client address that it sees:

    client 10.1.0.2 -- 10.1.0.1 worker 10.2.0.254 -- bridge -- a 10.2.0.1, b 10.2.0.2: default route by the worker
                                |                          `-- shut 10.2.0.3: no default route
                                `- 10.3.0.254 -- abroad 10.3.0.3: knows VIP and worker, else no route by it

Of all these, only the bridge's is a network of the worker's containers; to none is there a gateway. Packets on the
bridge pass the firewall, as on hosts with Docker.

The same with IPv6: fd00:1::2, fd00:1::1, fd00:2::254, fd00:2::1, fd00:3::254, fd00:3::3.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias, cast

from typing_extensions import override

from mesh.model.service import Address
from tests.netns import Namespace, run_ip
from tests.system.ipvs.lab import PATIENCE, PORT, Lab

Where: TypeAlias = tuple[Address, int]

CLIENT, A, B, SHUT, ABROAD, HERE = "10.1.0.2", "10.2.0.1", "10.2.0.2", "10.2.0.3", "10.3.0.3", "10.1.0.1"
CLIENT6, A6, ABROAD6, HERE6 = "fd00:1::2", "fd00:2::1", "fd00:3::3", "fd00:1::1"
ADDRESSES = frozenset([HERE, "10.2.0.254", "10.3.0.254", HERE6, "fd00:2::254", "fd00:3::254"])
VIP, VIP6, PUBLISHED = "10.112.0.7", "fd00:112::7", 30080
TO_VIP, TO_PUBLISHED, TO_VIP6, TO_PUBLISHED6 = (VIP, 80), (HERE, PUBLISHED), (VIP6, 80), (HERE6, PUBLISHED)
LOST = 4.0
"""Seconds without an answer that count as never: TCP tries again after one."""
AGAIN = 3.0
"""Seconds after which a datagram without an answer is sent again."""


class Places(Lab):
    """Made in the worker's namespace, which the caller has entered."""

    def __init__(self, *, ipvs: bool) -> None:
        super().__init__(ipvs=ipvs)
        assert filter_bridged("1"), "needs the module br_netfilter: modprobe br_netfilter"
        shut, abroad = self._more = Namespace(), Namespace()
        a, client = self._backends["a"], self._client
        self._places = {A: a, A6: a, B: self._backends["b"], SHUT: shut}
        self._places |= {ABROAD: abroad, ABROAD6: abroad, CLIENT: client, CLIENT6: client}
        run_ip(
            f"link add es type veth peer name e0 netns {shut.path}",
            "link set es master br0",
            "link set es up",
            f"link add u1 type veth peer name e0 netns {abroad.path}",
            "address add 10.3.0.254/24 dev u1",
            "link set u1 up",
            "address add fd00:3::254/64 dev u1 nodad",
        )
        shut.ip(f"address add {SHUT}/24 dev e0", "link set e0 up", "link set lo up")
        abroad.ip(
            f"address add {ABROAD}/24 dev e0",
            f"address add {ABROAD6}/64 dev e0 nodad",
            "link set e0 up",
            "link set lo up",
            *(f"route add {there} via 10.3.0.254" for there in (VIP, HERE)),
        )

    @override
    def close(self) -> None:
        super().close()
        for namespace in self._more:
            namespace.close()

    def route_back(self, done: str = "add") -> None:
        """The endpoint abroad has the worker as its default route; `del`: no longer."""
        self._more[1].ip(f"route {done} default via 10.3.0.254")

    def socket_at(self, place: Address, kind: socket.SocketKind) -> socket.socket:
        """A socket in one of the places, the worker itself included."""
        family = socket.AF_INET6 if ":" in place else socket.AF_INET
        if place not in self._places:
            sock = socket.socket(family, kind)
        else:
            with self._places[place].entered():
                sock = socket.socket(family, kind)
        sock.setblocking(False)
        return sock

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        """All places of an endpoint, and the worker itself, tell who asks them."""
        loop = asyncio.get_running_loop()
        started: list[asyncio.Server | asyncio.DatagramTransport] = []
        for place in (A, A6, B, SHUT, ABROAD, ABROAD6, HERE):
            stream, datagrams = self.socket_at(place, socket.SOCK_STREAM), self.socket_at(place, socket.SOCK_DGRAM)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            for sock in (stream, datagrams):
                sock.bind((place, PORT))
            started.append(await asyncio.start_server(_tell, sock=stream))
            started.append((await loop.create_datagram_endpoint(_Teller, sock=datagrams))[0])
        yield
        for one in started:
            one.close()


def filter_bridged(value: str) -> bool:
    """Whether packets from one port of a bridge to another pass nftables' `ip`, as they do where Docker runs: 0 or 1.

    The module br_netfilter is in some kernels and not in others, and on at first where it is. False: it is not.
    """
    settings = [Path(f"/proc/sys/net/bridge/bridge-nf-call-{version}tables") for version in ("ip", "ip6")]
    if not settings[0].exists():
        return False
    for setting in settings:
        setting.write_text(value)
    return True


class Asking:
    """One client that asks, as often as it likes."""

    def __init__(self, lab: Places, place: Address, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
        self._socket = lab.socket_at(place, kind)

    async def connect(self, where: Where) -> None:
        await asyncio.get_running_loop().sock_connect(self._socket, where)

    async def seen_at(self, patience: float = PATIENCE) -> Address:
        """At which address the endpoint sees it. Raises TimeoutError or OSError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(patience):
            while True:
                await loop.sock_sendall(self._socket, b"?\n")
                try:
                    async with asyncio.timeout(AGAIN if self._socket.type == socket.SOCK_DGRAM else None):
                        return (await loop.sock_recv(self._socket, 100)).decode()
                except TimeoutError:
                    continue  # nothing repeats a datagram that is lost, for instance while its next hop is looked up

    def close(self) -> None:
        self._socket.close()


async def ask(
    lab: Places, client: Address, where: Where, kind: socket.SocketKind = socket.SOCK_STREAM, patience: float = PATIENCE
) -> Address:
    """At which address the endpoint sees a new connection of the client. Raises TimeoutError or OSError."""
    asking = Asking(lab, client, kind)
    try:
        async with asyncio.timeout(patience):
            await asking.connect(where)
            return await asking.seen_at()
    finally:
        asking.close()


async def lost(lab: Places, client: Address, where: Where) -> bool:
    """Whether the client gets no answer."""
    try:
        await ask(lab, client, where, patience=LOST)
    except (TimeoutError, OSError):
        return True
    return False


async def _tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await reader.readline():
            writer.write(writer.get_extra_info("peername")[0].encode())
    except ConnectionError:
        pass  # a client that gave up
    finally:
        writer.close()


class _Teller(asyncio.DatagramProtocol):
    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    @override
    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(addr[0].encode(), addr)
