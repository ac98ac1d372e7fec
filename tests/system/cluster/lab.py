"""Three workers, their containers, an etcd and a client, each in a network namespace, on one underlay:

    container 1a 10.20.1.1 -- br0 10.20.1.254 -.
    container 1b 10.21.1.2 -- br1 10.21.1.254 -+- worker w1 - 10.1.0.1 --.
                           ... w2 (10.20.2.0/24, 10.21.2.0/24) - 10.1.0.2 ---+-- switch -- 10.1.0.9 client
                           ... w3 (10.20.3.0/24, 10.21.3.0/24) - 10.1.0.3 ---'        `--- 10.1.0.10 etcd

Workers are hosts with Docker 20.10: its rules are in force, and packets on bridges pass them. Containers publish their
port as with `docker run -p`, so that other workers reach them at their own addresses over the underlay. They have their
worker as default route, the client has routes to the VIPs over the worker that it is told. Containers answer with their
name, over TCP and UDP.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.netns import Namespace, run_command, run_ip
from tests.system.hosts.rule_sets import (
    RULE_SETS,
    DockerContainer,
    DockerHost,
    DockerNetwork,
    PublishedPort,
    load_rules,
)
from tests.system.ipvs.endpoints import filter_bridged
from tests.system.ipvs.lab import PORT, Datagrams, Echo

WORKERS = (1, 2, 3)
CONTAINERS = {
    f"{number}{letter}": f"10.{20 + bridge}.{number}.{bridge + 1}"
    for number in WORKERS
    for bridge, letter in enumerate("ab")
}
CLIENT, ETCD, POOL = "10.1.0.9", "10.1.0.10", "10.112.0.0/16"


def underlay(number: int) -> str:
    """A worker's address that the others reach."""
    return f"10.1.0.{number}"


class Lab:
    """Made in a namespace that the caller has entered: the switch."""

    def __init__(self) -> None:
        self._places = {name: Namespace() for name in ("client", "etcd", *CONTAINERS)}
        self._places |= {f"w{number}": Namespace() for number in WORKERS}
        self._answering: dict[str, tuple[asyncio.Server, asyncio.DatagramTransport]] = {}
        self.askers: dict[str, set[str]] = {name: set() for name in CONTAINERS}
        """The addresses from which each container was asked over TCP."""
        run_ip("link add under type bridge", "link set under up")
        for name, address in (("client", CLIENT), ("etcd", ETCD), *((f"w{n}", underlay(n)) for n in WORKERS)):
            self._plug(name, address)
        for number in WORKERS:
            self._give_containers(number)
        self.client_goes_over(1)

    def _plug(self, name: str, address: str) -> None:
        there = self._places[name]
        run_ip(
            f"link add s-{name} type veth peer name u0 netns {there.path}",
            f"link set s-{name} master under",
            f"link set s-{name} up",
        )
        there.ip("link set lo up", f"address add {address}/24 dev u0", "link set u0 up")

    def _give_containers(self, number: int) -> None:
        host = self._places[f"w{number}"]
        others = [other for other in WORKERS if other != number]
        host.ip(*(f"route add 10.{n}.{other}.0/24 via {underlay(other)}" for other in others for n in (20, 21)))
        containers = []
        for bridge, letter in enumerate("ab"):
            name, subnet = f"{number}{letter}", f"10.{20 + bridge}.{number}"
            there = self._places[name]
            host.ip(
                f"link add br{bridge} type bridge",
                f"address add {subnet}.254/24 dev br{bridge}",
                f"link set br{bridge} up",
                f"link add e{name} type veth peer name e0 netns {there.path}",
                f"link set e{name} master br{bridge}",
                f"link set e{name} up",
            )
            there.ip(
                "link set lo up",
                f"address add {CONTAINERS[name]}/24 dev e0",
                "link set e0 up",
                f"route add default via {subnet}.254",
            )
            published = tuple(PublishedPort(transport, 18080 + bridge, PORT) for transport in ("tcp", "udp"))
            network = DockerNetwork(f"br{bridge}", f"{subnet}.0/24")
            containers.append(DockerContainer(network, CONTAINERS[name], published=published))
        docker = DockerHost(tuple(container.network for container in containers), tuple(containers))
        with host.entered():
            assert filter_bridged("1"), "needs the module br_netfilter: modprobe br_netfilter"
            load_rules(RULE_SETS["docker-20.10"].files, docker)

    def client_goes_over(self, number: int) -> None:
        """VIPs are asked of this worker by the client."""
        self._places["client"].ip(f"route replace {POOL} via {underlay(number)}")

    # ---------------------------------------------------------------------------------------------- faults

    def cut(self, name: str) -> None:
        """The switch forwards nothing from or to this place; its own link stays up, as with a broken switch."""
        run_command("bridge", "link", "set", "dev", f"s-{name}", "state", "0")

    def heal(self, name: str) -> None:
        run_command("bridge", "link", "set", "dev", f"s-{name}", "state", "3")

    def cut_from_etcd(self, name: str) -> None:
        """Nothing that etcd sends arrives at this worker; all else does."""
        self._places["etcd"].ip(f"route add blackhole {underlay(int(name[1:]))}/32")

    def heal_to_etcd(self, name: str) -> None:
        self._places["etcd"].ip(f"route del blackhole {underlay(int(name[1:]))}/32")

    def power_off(self, name: str) -> None:
        """Of a worker without its processes: nothing of its network answers any more."""
        run_ip(f"link set s-{name} down")

    # ------------------------------------------------------------------------------------------ being there

    def inside(self, name: str) -> list[str]:
        """What to put before a command that shall run in this place."""
        return ["nsenter", f"--net={self._places[name].path}"]

    def socket(self, name: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        """A socket in this place, not blocking."""
        with self._places[name].entered():
            sock = socket.socket(socket.AF_INET, kind)
        sock.setblocking(False)
        return sock

    async def run(self, name: str, *command: str) -> str:
        """What a command prints in this place; it must succeed."""

        def enter() -> str:
            with self._places[name].entered():
                return run_command(*command)

        return await asyncio.to_thread(enter)

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """All containers answer."""
        for name in CONTAINERS:
            await self.start(name)
        yield
        for name in list(self._answering):
            self.stop(name)

    def stop(self, name: str) -> None:
        """One container refuses."""
        for one in self._answering.pop(name):
            one.close()

    async def start(self, name: str) -> None:
        """One container answers."""
        stream, datagrams = self.socket(name), self.socket(name, socket.SOCK_DGRAM)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for sock in (stream, datagrams):
            sock.bind(("", PORT))
        echo = Echo(name)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.askers[name].add(writer.get_extra_info("peername")[0])
            await echo(reader, writer)

        server = await asyncio.start_server(answer, sock=stream)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: Datagrams(name), sock=datagrams)
        self._answering[name] = (server, transport)

    def close(self) -> None:
        for namespace in self._places.values():
            namespace.close()
