"""The requests of a connectivity test: to each VIP and published port, by address and by name. Pure.

A UDP service that nothing is known of may be right to stay silent. So a reply is required only where the service says
how to get one: by a probe with `probe.send`, or on port 53. Others get an empty datagram.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address, ip_network

from mesh.control.service_plan import ServicePlan
from mesh.control.snapshot import DetailedSnapshot
from mesh.model.probe import Probe, ProbeKind
from mesh.model.request import ServiceRequest
from mesh.model.service import Address, Name, Service, Transport
from mesh.model.table import RealKey, VirtualKey, VirtualServer

PROXY_LINGER = 0.25
"""Seconds that a connection through the proxy in user space must stay open: it accepts before it has an endpoint."""
DNS_PAYLOAD = b"\x56\x4d\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01"
"""A DNS query for the name servers of the root (RFC 1035), which every name server answers or refuses."""


class TargetKind(StrEnum):
    """What a request is sent to."""

    VIP = "vip"
    PUBLISHED = "published"
    """A published port."""


@dataclass(frozen=True, slots=True)
class ConnectivityTarget:
    """One destination, which every client sends one request to."""

    service: Name
    """The first routing name."""
    owner: str
    """The declaration that it comes from, `project/service`."""
    kind: TargetKind
    transport: Transport
    address: Address
    """The VIP, or the address of the worker that publishes the port."""
    port: int
    name: Name | None = None
    """The name that is looked up instead; None for a request by address."""
    worker: str | None = None
    """The worker that publishes the port; None for a VIP."""
    replies: bool = True
    """Whether an answer must come. A UDP service that nothing is known of may stay silent."""
    endpoints: tuple[Address, ...] = ()
    """The addresses of the endpoints that take connections."""
    optional: bool = False
    """Whether a name that does not resolve is no failure, since it is not a name of the mesh."""
    payload: bytes = b""
    """The datagram, for UDP."""

    @property
    def serving(self) -> bool:
        """Whether an endpoint takes connections; if none does, clients are refused at once."""
        return bool(self.endpoints)

    @property
    def destination(self) -> str:
        """The destination as it is asked for: `tcp://web.test:80`."""
        return str(self.request(0.0))

    def request(self, linger: float) -> ServiceRequest:
        """Return the request. `linger`: seconds that a connection must stay open to count."""
        return ServiceRequest(
            self.transport,
            self.port,
            None if self.name is not None else self.address,
            self.name,
            self.payload,
            linger if self.transport is Transport.TCP else 0.0,
            ":" in self.address,
        )


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Another worker, and where it is reached."""

    worker: str
    address: Address | None
    """None if it does not listen for peers, so that its address is not known."""


@dataclass(frozen=True, slots=True)
class ConnectivityPlan:
    """The document of `GET /v1/test`: what a connectivity test of this worker sends, and to whom."""

    worker: str
    data_plane: str
    """`ipvs`, `nftables` or `userspace`."""
    pool: str
    """The pool of VIPs, `10.112.0.0/16`."""
    engine: str | None
    """The URL of the container engine; None if the daemon follows none."""
    resolver: Address | None
    """The address of the name server for containers; None if there is none."""
    host_resolver: Address | None
    """The address where this host can ask the name server; None if it does not listen on port 53."""
    linger: float
    """Seconds that a TCP connection must stay open to count."""
    targets: tuple[ConnectivityTarget, ...] = ()
    """The destinations, by service."""
    workers: tuple[PeerAddress, ...] = ()
    """The other workers, by name."""

    @property
    def is_local(self) -> bool:
        """Whether the VIPs are on loopback, so that only this host reaches them."""
        return ip_network(self.pool).is_loopback


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What a plan needs beside the snapshot of the worker."""

    pool: str
    engine: str | None
    resolver: Address | None
    peers: Mapping[str, RealKey]
    """The peer listener of each other worker that has one."""
    node_address: Address | None
    """The worker's address for other hosts; None if it has no route to any."""
    listening_on: Callable[[VirtualKey], tuple[Address, int]]
    """The address and port where a virtual server is reached."""


def make_connectivity_plan(
    evidence: DetailedSnapshot, facts: PlanFacts, owners: Collection[str] | None
) -> ConnectivityPlan:
    """Return the plan for these services by owner, None for all. It has no targets before the first pass."""
    observed = evidence.observed
    effective, planned = observed.effective(), observed.plan
    parts = planned.parts if planned is not None else {}
    targets: list[ConnectivityTarget] = []
    for service in sorted(effective.known.services if effective is not None else (), key=lambda s: (s.name, s.owner)):
        part = parts.get(service.owner)
        if part is not None and (owners is None or service.owner in owners):
            targets += _vip_targets(service, part, facts)
            targets += _published_targets(service, part, facts, observed.facts.worker)
    others = effective.known.workers - {observed.facts.worker} if effective is not None else frozenset()
    userspace = observed.facts.data_plane == "userspace"
    return ConnectivityPlan(
        worker=observed.facts.worker,
        data_plane=observed.facts.data_plane,
        pool=facts.pool,
        engine=facts.engine,
        resolver=facts.resolver,
        host_resolver=facts.resolver or _host_resolver(observed.facts.dns),
        linger=PROXY_LINGER if userspace else 0.0,
        targets=tuple(targets),
        workers=tuple(
            PeerAddress(worker, facts.peers[worker].address if worker in facts.peers else None)
            for worker in sorted(others | facts.peers.keys())
        ),
    )


def _host_resolver(dns: Collection[str]) -> Address | None:
    """Return the first address of the name server with port 53. `dns`: `ADDRESS:PORT` of each of its sockets."""
    for place in dns:
        address, _, port = place.rpartition(":")
        if port == "53":
            found = ip_address(address.strip("[]"))
            unspecified = "::1" if found.version == 6 else "127.0.0.1"
            return unspecified if found.is_unspecified else str(found)
    return None


def _vip_targets(service: Service, part: ServicePlan, facts: PlanFacts) -> Iterator[ConnectivityTarget]:
    """Yield each listen port by address, and each route by name."""
    routes = [route for route in service.routes if route.name in part.names and route.transport is not Transport.SCTP]
    ports = dict.fromkeys((route.transport, route.listen_port, route.container_port) for route in routes)
    for transport, listen_port, container_port in ports:
        address, port = facts.listening_on(VirtualKey(part.vip, listen_port, transport))
        server = part.virtual_servers.get(VirtualKey(part.vip, listen_port, transport))
        payload, replies = udp_payload(service.probe, transport, container_port)
        for name in (None, *(r.name for r in routes if (r.transport, r.listen_port) == (transport, listen_port))):
            yield ConnectivityTarget(
                service.name,
                service.owner,
                TargetKind.VIP,
                transport,
                address,
                port,
                name,
                endpoints=_endpoints(server),
                replies=replies,
                payload=payload,
            )


def _published_targets(
    service: Service, part: ServicePlan, facts: PlanFacts, worker: str
) -> Iterator[ConnectivityTarget]:
    """Yield each published port of each worker by address, and of this worker by its name."""
    own = published_address(part.inputs.own, facts.node_address, part.vip)
    addresses = {} if own is None else {worker: own}
    addresses |= {
        peer: key.address for peer, key in sorted(facts.peers.items()) if (":" in key.address) == (":" in part.vip)
    }
    containers = {(transport, port): container for port, transport, container in part.inputs.ports}
    for (transport, number), server in sorted(part.published.items()):
        payload, replies = udp_payload(service.probe, transport, containers.get((transport, number), number))
        for publisher, address in addresses.items():
            here = publisher == worker
            if transport is Transport.SCTP or (here and (transport, number) in part.inputs.contested):
                continue
            at, port = facts.listening_on(VirtualKey(address, number, transport)) if here else (address, number)
            for name in (None, worker) if here else (None,):
                yield ConnectivityTarget(
                    service.name,
                    service.owner,
                    TargetKind.PUBLISHED,
                    transport,
                    at,
                    port,
                    name,
                    publisher,
                    endpoints=_endpoints(server),
                    replies=replies,
                    optional=name is not None,
                    payload=payload,
                )


def published_address(own: Collection[Address], preferred: Address | None, vip: Address) -> Address | None:
    """Return the worker's address for requests to its published ports; None if it has none of the VIP's family.

    `own`: the worker's own addresses. `preferred`: its address for other hosts, None if it is not known.
    """
    usable = [address for address in own if (":" in address) == (":" in vip) and not ip_address(address).is_loopback]
    if preferred in usable:
        return preferred
    return min(usable, key=ip_address, default=None)


def udp_payload(probe: Probe | None, transport: Transport, container_port: int) -> tuple[bytes, bool]:
    """Return the datagram for a container port, and whether an answer to it must come. Nothing is sent over TCP."""
    if transport is not Transport.UDP:
        return b"", True
    if probe is not None and probe.kind is ProbeKind.UDP and probe.port in (None, container_port):
        return probe.send, True
    return (DNS_PAYLOAD, True) if container_port == 53 else (b"", False)


def _endpoints(server: VirtualServer | None) -> tuple[Address, ...]:
    """Return the addresses behind a virtual server that take connections; None stands for one that does not exist."""
    servers = {} if server is None else server.real_servers
    return tuple(sorted({key.address for key, real in servers.items() if real.weight > 0}))
