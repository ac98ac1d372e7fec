"""A client, a director and two backends, each in a network namespace:

    client 10.1.0.2 -- 10.1.0.1 director 10.2.0.254 -- bridge -- backends a 10.2.0.1, b 10.2.0.2

The test itself is the director. Backends answer with their name; their default route leads through the director.
"""

import asyncio
import os
import socket
from typing import cast

from mesh.host.sysctl import ensure, router_settings
from mesh.model import RealKey, VirtualKey
from tests.dataplane.contract import Connection
from tests.netns import Namespace, ip, run

PORT = 8080
BACKENDS = {"a": RealKey("10.2.0.1", PORT), "b": RealKey("10.2.0.2", PORT)}
PATIENCE = 20.0
"""Seconds for anything on the wire: the virtual machine may emulate its processor."""


class Lab:
    """Made in the director's namespace, which the caller has entered."""

    def __init__(self) -> None:
        self._client = Namespace()
        self._backends = {name: Namespace() for name in BACKENDS}
        self._sockets: list[socket.socket] = []
        ip(
            f"link add c1 type veth peer name c0 netns {self._client.path}",
            "address add 10.1.0.1/24 dev c1",
            "link set c1 up",
            "link add br0 type bridge",
            "address add 10.2.0.254/24 dev br0",
            "link set br0 up",
            *(f"link add e{name} type veth peer name e0 netns {there.path}" for name, there in self._backends.items()),
            *(line for name in BACKENDS for line in (f"link set e{name} master br0", f"link set e{name} up")),
        )
        self._client.ip(
            "address add 10.1.0.2/24 dev c0", "link set c0 up", "link set lo up", "route add default via 10.1.0.1"
        )
        for name, there in self._backends.items():
            address = BACKENDS[name].address
            there.ip(
                f"address add {address}/24 dev e0",
                "link set e0 up",
                "link set lo up",
                "route add default via 10.2.0.254",
            )
        ensure(router_settings(os.uname().release))

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._client.close()
        for namespace in self._backends.values():
            namespace.close()

    def listen(self, name: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        """A socket on a backend's port."""
        with self._backends[name].entered():
            sock = self._keep(socket.socket(socket.AF_INET, kind))
            sock.bind(("", PORT))
        if kind is socket.SOCK_STREAM:
            sock.listen(64)
        return sock

    def client(self, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        """A socket on the client."""
        with self._client.entered():
            return self._keep(socket.socket(socket.AF_INET, kind))

    def on_client(self, *command: str) -> str:
        """What a command prints on the client; it must succeed."""
        with self._client.entered():
            return run(*command)

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

    async def start(self, name: str) -> RealKey:
        """Both of one backend."""
        self._started.append(await asyncio.start_server(Echo(name), sock=self._lab.listen(name)))
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Datagrams(name), sock=self._lab.listen(name, socket.SOCK_DGRAM)
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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(f"{self._name} ".encode() + data, addr)


class Client(Connection):
    """A TCP connection of the client."""

    def __init__(self, lab: Lab) -> None:
        self._socket = lab.client()

    async def connect(self, key: VirtualKey) -> None:
        """Raises `OSError` if it is refused."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_connect(self._socket, (key.address, key.port))

    async def echo(self) -> str:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE):
            await loop.sock_sendall(self._socket, b"hello\n")
            return name_in(await loop.sock_recv(self._socket, 100))

    async def close(self) -> None:
        self._socket.close()


async def ask_tcp(lab: Lab, key: VirtualKey) -> str:
    """Which backend answers a new connection. Raises `OSError` if it is refused."""
    client = Client(lab)
    try:
        await client.connect(key)
        return await client.echo()
    finally:
        await client.close()


async def ask_udp(lab: Lab, key: VirtualKey) -> str:
    """Which backend answers a datagram from a port of its own."""
    loop = asyncio.get_running_loop()
    with lab.client(socket.SOCK_DGRAM) as sock:
        sock.connect((key.address, key.port))
        async with asyncio.timeout(PATIENCE):
            await loop.sock_sendall(sock, b"hello\n")
            return name_in(await loop.sock_recv(sock, 100))


def name_in(answer: bytes) -> str:
    name, said = answer.decode().split()
    assert said == "hello"
    return name
