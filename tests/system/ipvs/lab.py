"""A client, a director and two backends, each in a network namespace:

    client 10.1.0.2 -- 10.1.0.1 director 10.2.0.254 -- bridge -- backends a 10.2.0.1, b 10.2.0.2

and alike over IPv6: fd00:1::2 -- fd00:1::1 director fd00:2::254 -- bridge -- fd00:2::1, fd00:2::2.

The test itself is the director. Backends answer with their name; their default route leads through the director.
"""

import asyncio
import os
import socket
from typing import cast

from typing_extensions import override

from mesh.host.sysctl import ensure_settings, router_settings
from mesh.model.table import RealKey, VirtualKey
from tests.dataplane.contract import Connection
from tests.netns import Namespace, run_command, run_ip

PORT = 8080
BACKENDS = {"a": RealKey("10.2.0.1", PORT), "b": RealKey("10.2.0.2", PORT)}
BACKENDS_6 = {"a": RealKey("fd00:2::1", PORT), "b": RealKey("fd00:2::2", PORT)}
PATIENCE = 20.0
"""Seconds for anything on the wire: the virtual machine may emulate its processor."""


class Lab:
    """Made in the director's namespace, which the caller has entered."""

    def __init__(self, *, ipvs: bool = True) -> None:
        self._client = Namespace()
        self._backends = {name: Namespace() for name in BACKENDS}
        self._sockets: list[socket.socket] = []
        run_ip(
            f"link add c1 type veth peer name c0 netns {self._client.path}",
            "address add 10.1.0.1/24 dev c1",
            "address add fd00:1::1/64 dev c1 nodad",
            "link set c1 up",
            "link add br0 type bridge",
            "address add 10.2.0.254/24 dev br0",
            "address add fd00:2::254/64 dev br0 nodad",
            "link set br0 up",
            *(f"link add e{name} type veth peer name e0 netns {there.path}" for name, there in self._backends.items()),
            *(line for name in BACKENDS for line in (f"link set e{name} master br0", f"link set e{name} up")),
        )
        self._client.ip(
            "address add 10.1.0.2/24 dev c0",
            "address add fd00:1::2/64 dev c0 nodad",
            "link set c0 up",
            "link set lo up",
            "route add default via 10.1.0.1",
            "route add default via fd00:1::1",
        )
        for name, there in self._backends.items():
            there.ip(
                f"address add {BACKENDS[name].address}/24 dev e0",
                f"address add {BACKENDS_6[name].address}/64 dev e0 nodad",
                "link set e0 up",
                "link set lo up",
                "route add default via 10.2.0.254",
                "route add default via fd00:2::254",
            )
        ensure_settings(router_settings(os.uname().release, ipv6=True, ipvs=ipvs))

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._client.close()
        for namespace in self._backends.values():
            namespace.close()

    def knock(self, key: VirtualKey) -> None:
        """The client begins a connection, and does not wait for it."""
        with self._client.entered():
            sock = self._keep(socket.socket())
        sock.setblocking(False)
        sock.connect_ex((key.address, key.port))

    def listen(
        self, name: str, kind: socket.SocketKind = socket.SOCK_STREAM, family: int = socket.AF_INET, protocol: int = 0
    ) -> socket.socket:
        """A socket on a backend's port."""
        with self._backends[name].entered():
            sock = self._keep(socket.socket(family, kind, protocol))
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(("", PORT))
        if kind is socket.SOCK_STREAM:
            sock.listen(64)
        return sock

    def client(
        self, kind: socket.SocketKind = socket.SOCK_STREAM, family: int = socket.AF_INET, protocol: int = 0
    ) -> socket.socket:
        """A socket on the client."""
        with self._client.entered():
            return self._keep(socket.socket(family, kind, protocol))

    def on_client(self, *command: str) -> str:
        """What a command prints on the client; it must succeed."""
        with self._client.entered():
            return run_command(*command)

    def on_backend(self, name: str, *command: str) -> str:
        """What a command prints on a backend; it must succeed."""
        with self._backends[name].entered():
            return run_command(*command)

    def add_elsewhere(self) -> RealKey:
        """A backend `c` on another network, whose default route leads past the director: 10.3.0.1 by 10.3.0.254."""
        there = self._backends["c"] = Namespace()
        run_ip(
            f"link add ec type veth peer name e0 netns {there.path}",
            "address add 10.3.0.254/24 dev ec",
            "link set ec up",
            "route add default via 10.3.0.9 dev ec",  # what this host itself uses as its way out is no container's
        )
        there.ip("address add 10.3.0.1/24 dev e0", "link set e0 up", "link set lo up")
        return RealKey("10.3.0.1", PORT)

    def on_backend_socket(self, name: str) -> socket.socket:
        """A TCP socket of a backend, to be a client itself."""
        with self._backends[name].entered():
            return self._keep(socket.socket(socket.AF_INET, socket.SOCK_STREAM))

    def join_client_to_bridge(self) -> None:
        """Let backends answer the client past the director, as they do when they are not masqueraded."""
        run_ip(
            f"link add cb type veth peer name c2 netns {self._client.path}",
            "link set cb master br0",
            "link set cb up",
        )
        self._client.ip("address add 10.2.0.9/24 dev c2", "link set c2 up")
        for there in self._backends.values():
            there.ip("route add 10.1.0.2/32 via 10.2.0.9")

    def _keep(self, sock: socket.socket) -> socket.socket:
        sock.setblocking(False)
        self._sockets.append(sock)
        return sock


class Servers:
    """What runs on the backends: TCP echoes every line with the backend's name before it, UDP every datagram."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._started: list[asyncio.Server | asyncio.DatagramTransport] = []

    async def __aenter__(self) -> "Servers":
        return self

    async def __aexit__(self, *error: object) -> None:
        for started in self._started:
            started.close()

    async def start(self, name: str, family: int = socket.AF_INET) -> RealKey:
        """Both of one backend."""
        listening = self._lab.listen(name, family=family)
        self._started.append(await asyncio.start_server(Echo(name), sock=listening))
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Datagrams(name), sock=self._lab.listen(name, socket.SOCK_DGRAM, family)
        )
        self._started.append(transport)
        return BACKENDS[name]


class Echo:
    """One backend's TCP server."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(f"{self._name} ".encode() + line)
        except ConnectionError:
            pass  # a probe resets its connection
        finally:
            writer.close()


class Datagrams(asyncio.DatagramProtocol):
    """One backend's UDP server."""

    def __init__(self, name: str) -> None:
        self._name = name

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    @override
    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(f"{self._name} ".encode() + data, addr)


class Client(Connection):
    """A TCP connection of the client."""

    def __init__(self, lab: Lab, family: int = socket.AF_INET) -> None:
        self._socket = lab.client(family=family)

    async def connect(self, key: VirtualKey) -> None:
        """Raises `OSError` if it is refused."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_connect(self._socket, (key.address, key.port))

    @override
    async def echo(self) -> str:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE):
            await loop.sock_sendall(self._socket, b"hello\n")
            return name_in(await loop.sock_recv(self._socket, 100))

    @override
    async def close(self) -> None:
        self._socket.close()


async def ask_tcp(lab: Lab, key: VirtualKey) -> str:
    """Which backend answers a new connection. Raises `OSError` if it is refused."""
    client = Client(lab, _family(key))
    try:
        await client.connect(key)
        return await client.echo()
    finally:
        await client.close()


async def ask_udp(lab: Lab, key: VirtualKey) -> str:
    """Which backend answers a datagram from a port of its own."""
    loop = asyncio.get_running_loop()
    with lab.client(socket.SOCK_DGRAM, _family(key)) as sock:
        sock.connect((key.address, key.port))
        async with asyncio.timeout(PATIENCE):
            await loop.sock_sendall(sock, b"hello\n")
            return name_in(await loop.sock_recv(sock, 100))


async def ask_name(lab: Lab, name: str = "web.shop.test") -> str:
    """The address that the director's name server answers to the client; empty if it has none yet."""
    printed = lab.on_client("dig", "@10.1.0.1", "+short", name)
    # dig prints a comment for each attempt that was not answered in time
    return "\n".join(line for line in printed.splitlines() if not line.startswith(";"))


def _family(key: VirtualKey) -> int:
    return socket.AF_INET6 if ":" in key.address else socket.AF_INET


def name_in(answer: bytes) -> str:
    name, said = answer.decode().split()
    assert said == "hello"
    return name
