"""Two hosts with Docker, their containers and another host, each a network namespace, on one switch:

    a to d 172.30.1.2 to 5 -.
    near 172.30.1.9 --------+- br-front 172.30.1.1 -.
                                                    +- worker 10.1.0.1 --+-- other worker 10.1.0.2 -- 172.31.1.1
    far 172.30.2.9 ------------ br-back 172.30.2.1 -'                    |        remote 172.31.1.9 -- br-front
                                                                         `-- another host 10.1.0.9

and alike over IPv6 (fd00:1::1; fd00:30:1::2). Networks are as Docker makes them: a bridge that is the gateway of the
containers, a veth pair for each container, `docker0` without containers, and packets on bridges pass the firewall. The
containers `c` and `d` publish a port as with `docker run -p`, the others none: Docker lets pass what is sent to a
published port, even to the container's own address. The other host has a route to the VIPs by the worker, and the hosts
have routes to one another's containers. `a` to `d` answer with their name, over TCP and UDP.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from tests.netns import Namespace, run_command, run_ip
from tests.system.hosts.rule_sets import (
    RULE_SETS,
    DockerContainer,
    DockerHost,
    DockerNetwork,
    PublishedPort,
    load_rules,
)
from tests.system.ipvs.lab import PORT, Datagrams, Echo

POOL = {4: "10.112.0.0/16", 6: "fd00:112::/64"}
ADDRESSES: Mapping[str, Mapping[int, str]] = MappingProxyType(
    {
        "worker": {4: "10.1.0.1", 6: "fd00:1::1"},
        "other worker": {4: "10.1.0.2", 6: "fd00:1::2"},
        "another host": {4: "10.1.0.9", 6: "fd00:1::9"},
    }
)
"""Of the hosts on the switch, by IP version."""
HOST_PORTS = {"c": 18080, "d": 18081}
"""The host ports that containers publish with `docker run -p`, for TCP and UDP."""

_DOCKER0 = DockerNetwork("docker0", "172.17.0.0/16")
_FRONT = DockerNetwork("br-front", "172.30.1.0/24", "fd00:30:1::/64")
_BACK = DockerNetwork("br-back", "172.30.2.0/24", "fd00:30:2::/64")
_ELSEWHERE = DockerNetwork("br-front", "172.31.1.0/24", "fd00:31:1::/64")


def _container(network: DockerNetwork, number: int, host_port: int = 0) -> DockerContainer:
    address, address6 = (subnet.partition("/")[0] for subnet in (network.subnet, network.subnet6))
    ports = (PublishedPort("tcp", host_port, PORT), PublishedPort("udp", host_port, PORT)) if host_port else ()
    return DockerContainer(network, f"{address[:-1]}{number}", f"{address6}{number}", ports)


CONTAINERS: Mapping[str, DockerContainer] = MappingProxyType(
    {
        "a": _container(_FRONT, 2),
        "b": _container(_FRONT, 3),
        "c": _container(_FRONT, 4, HOST_PORTS["c"]),
        "d": _container(_FRONT, 5, HOST_PORTS["d"]),
        "near": _container(_FRONT, 9),
        "far": _container(_BACK, 9),
        "remote": _container(_ELSEWHERE, 9),
    }
)
ANSWERING = ("a", "b", "c", "d")
"""The containers that listen."""
HOSTS: Mapping[str, DockerHost] = MappingProxyType(
    {
        "worker": DockerHost(
            (_DOCKER0, _FRONT, _BACK), tuple(CONTAINERS[name] for name in (*ANSWERING, "near", "far"))
        ),
        "other worker": DockerHost((_DOCKER0, _ELSEWHERE), (CONTAINERS["remote"],)),
    }
)


@dataclass(frozen=True)
class HostKind:
    """How both workers are set up."""

    rules: str
    """The name of the rule set in force."""
    rp_filter: int = 1
    """`net.ipv4.conf.all.rp_filter`: distributions set 1 or 2."""
    version: int = 4
    """The IP version of the VIPs."""


class HostLab:
    """Builds the hosts in a namespace that the caller has entered, which becomes the switch."""

    def __init__(self, kind: HostKind) -> None:
        self.kind = kind
        self._namespaces = {name: Namespace() for name in (*ADDRESSES, *CONTAINERS)}
        run_ip("link add lan type bridge", "link set lan up")
        for number, (name, addresses) in enumerate(ADDRESSES.items()):
            there = self._namespaces[name]
            run_ip(f"link add p{number} type veth peer name u0 netns {there.path}", f"link set p{number} master lan up")
            there.ip(
                "link set lo up",
                f"address add {addresses[4]}/24 dev u0",
                f"address add {addresses[6]}/64 dev u0 nodad",
                "link set u0 up",
                "route add default via 10.1.0.254",
            )
        for name in HOSTS:
            self._make_docker_host(name)
        for name in ("another host", *HOSTS):
            self._add_routes(name)

    def _make_docker_host(self, name: str) -> None:
        there, host = self._namespaces[name], HOSTS[name]
        with there.entered():
            self._set_kernel()
            for network in host.networks:
                run_ip(f"link add {network.bridge} type bridge", *_gateway(network), f"link set {network.bridge} up")
            for container, settings in CONTAINERS.items():
                if settings in host.containers:
                    self._plug(container, settings)
            load_rules(RULE_SETS[self.kind.rules].files, host)

    def _set_kernel(self) -> None:
        """Set what Docker, distributions and br_netfilter set, in this thread's namespace."""
        if not Path("/proc/sys/net/bridge").exists():
            run_command("modprobe", "br_netfilter")
        for key, value in {
            "net/bridge/bridge-nf-call-iptables": 1,
            "net/bridge/bridge-nf-call-ip6tables": 1,
            "net/ipv4/ip_forward": 1,
            "net/ipv6/conf/all/forwarding": 1,
            "net/ipv4/conf/all/rp_filter": self.kind.rp_filter,
        }.items():
            (Path("/proc/sys") / key).write_text(str(value))

    def _plug(self, name: str, container: DockerContainer) -> None:
        """Connect a container to its network, in the namespace of its host, which this thread has entered."""
        there, gateways = self._namespaces[name], _gateway_addresses(container.network)
        run_ip(
            f"link add v-{name} type veth peer name eth0 netns {there.path}",
            f"link set v-{name} master {container.network.bridge} up",
        )
        there.ip(
            "link set lo up",
            f"address add {container.address}/24 dev eth0",
            f"address add {container.address6}/64 dev eth0 nodad",
            "link set eth0 up",
            *(f"route add default via {gateway}" for gateway in gateways),
        )

    def _add_routes(self, name: str) -> None:
        """Add the routes of a host to the containers of the others, and to the VIPs where it has none itself."""
        routes = [(pool, ADDRESSES["worker"]) for pool in POOL.values()] if name not in HOSTS else []
        for other, host in HOSTS.items():
            if other != name and name in HOSTS:
                routes += [(subnet, ADDRESSES[other]) for subnet in _routed(host)]
        self._namespaces[name].ip(
            *(f"route add {network} via {gateway[6 if ':' in network else 4]}" for network, gateway in routes)
        )

    def open_firewalls(self) -> None:
        """Add what the lines of `vipmesh doctor` add to the rules of both workers."""
        for name, host in HOSTS.items():
            with self._namespaces[name].entered():
                load_rules(RULE_SETS[self.kind.rules].opening, host)

    def close(self) -> None:
        for namespace in self._namespaces.values():
            namespace.close()

    def path(self, name: str) -> str:
        """The path of the namespace of a host or a container."""
        return self._namespaces[name].path

    def entered(self, name: str) -> AbstractContextManager[None]:
        """Enter the namespace of a host or a container, for this thread and what it starts."""
        return self._namespaces[name].entered()

    def run(self, name: str, *command: str) -> str:
        """Return what a command prints on a host or in a container; it must succeed."""
        with self._namespaces[name].entered():
            return run_command(*command)

    def socket(self, name: str, kind: socket.SocketKind, version: int | None = None) -> socket.socket:
        """Open a socket on a host or in a container; it does not block. `version` None: the lab's IP version."""
        with self._namespaces[name].entered():
            sock = socket.socket(socket.AF_INET6 if (version or self.kind.version) == 6 else socket.AF_INET, kind)
        sock.setblocking(False)
        return sock

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Answer on port 8080 of each container in `ANSWERING`."""
        started: list[asyncio.Server | asyncio.DatagramTransport] = []
        loop = asyncio.get_running_loop()
        for name in ANSWERING:
            stream, datagrams = self.socket(name, socket.SOCK_STREAM), self.socket(name, socket.SOCK_DGRAM)
            for sock in (stream, datagrams):
                sock.bind(("", PORT))
            started.append(await asyncio.start_server(Echo(name), sock=stream))
            started.append((await loop.create_datagram_endpoint(partial(Datagrams, name), sock=datagrams))[0])
        try:
            yield
        finally:
            for one in started:
                one.close()


def _gateway_addresses(network: DockerNetwork) -> Iterator[str]:
    """The addresses of a network's bridge, which are the default routes of its containers."""
    yield f"{network.subnet.partition('/')[0][:-1]}1"
    if network.subnet6:
        yield f"{network.subnet6.partition('/')[0]}1"


def _gateway(network: DockerNetwork) -> Iterator[str]:
    """The commands that give the bridge its addresses."""
    for address in _gateway_addresses(network):
        prefix = (network.subnet6 if ":" in address else network.subnet).partition("/")[2]
        yield f"address add {address}/{prefix} dev {network.bridge}" + (" nodad" if ":" in address else "")


def _routed(host: DockerHost) -> Iterator[str]:
    """The networks of a host that the other one has routes to; `docker0` is the same on both."""
    for network in host.networks:
        if network.subnet6:
            yield from (network.subnet, network.subnet6)
