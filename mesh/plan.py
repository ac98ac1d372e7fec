"""Cluster view + health -> what the data plane shall hold and which names shall resolve.

A pure function over one immutable picture: the same picture gives the same plan on every worker. The rules:

* a service without a VIP claim, or whose first name another owner holds, is not programmed at all;
* a virtual server exists for each (VIP, listen port, transport) as soon as its service has a VIP, with or without
  endpoints: a client then gets a refusal at once and not a time-out, and the name does not flap;
* an endpoint whose service has a probe takes part while the probe says healthy; without a probe, while its engine does
  not say otherwise; one that drains does not;
* a published port is a virtual server on each of the worker's own addresses of the VIP's family.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from mesh.model import (
    Address,
    ClusterView,
    Endpoint,
    EndpointKey,
    Health,
    Name,
    Probe,
    RealKey,
    RealServer,
    Service,
    Table,
    Transport,
    VirtualKey,
    VirtualServer,
)

_Port: TypeAlias = tuple[int, Transport, int]
"""Published port, transport, container port."""


class Grounds(NamedTuple):
    """All that the plan of one service follows from."""

    service: Service
    vip: Address
    names: tuple[Name, ...]
    """Those it holds."""
    ports: tuple[_Port, ...]
    """Those it holds."""
    contested: frozenset[tuple[Transport, int]]
    """Those of them that a program of the worker listens on."""
    own: tuple[Address, ...]
    """The worker's addresses."""
    endpoints: tuple[Endpoint, ...]
    verdicts: tuple[Health | None, ...]
    """Of each endpoint."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one service adds to the plan."""

    grounds: Grounds
    vip: Address
    names: tuple[Name, ...]
    virtual_servers: Mapping[VirtualKey, VirtualServer]
    published: Mapping[tuple[Transport, int], VirtualServer]
    """What its published ports lead to on every worker, wherever this one serves them."""
    failed: frozenset[RealKey]


@dataclass(frozen=True, slots=True)
class Plan:
    """What shall be: the whole of it, every time."""

    table: Table
    names: Mapping[Name, Address]
    """Routing name -> VIP."""
    failed: frozenset[RealKey] = frozenset()
    """Real servers whose probes failed: their connections are to be reset and not drained."""
    parts: Mapping[str, Part] = field(default_factory=dict, repr=False, compare=False)
    """By `Service.owner`."""


def plan(
    view: ClusterView,
    health: Mapping[EndpointKey, Health],
    worker_addresses: Iterable[Address] = (),
    before: Plan | None = None,
    *,
    resolver: Address | None = None,
    contested: Collection[tuple[Transport, int]] = (),
) -> Plan:
    """The plan for one worker.

    `health` has the verdict on each endpoint; one that is missing there while its service has a probe has not
    answered yet and gets no traffic. `worker_addresses` are the worker's own, for published ports. From an earlier
    plan, `before`, the parts of services of which nothing has changed are taken over: that only saves time.
    `resolver` is bound beside the VIPs. `contested` are published ports to leave to programs of this worker.
    """
    endpoints = endpoints_by_owner(view)
    ports = _published_ports(view)
    known = before.parts if before is not None else {}
    own = tuple(worker_addresses)
    parts: dict[str, Part] = {}
    for service in view.services:
        vip = vip_of(service, view)
        if vip is None:
            continue
        group = endpoints.get(service.owner, ())
        verdicts = tuple(health.get(endpoint.key) for endpoint in group)
        held = held_names(service, view)
        published = ports.get(service.name, ())
        left = frozenset((transport, port) for port, transport, _ in published if (transport, port) in contested)
        grounds = Grounds(service, vip, held, published, left, own, group, verdicts)
        part = known.get(service.owner)
        parts[service.owner] = part if part is not None and part.grounds == grounds else _part(grounds)
    names = {name: part.vip for part in parts.values() for name in part.names}
    servers = {key: server for part in parts.values() for key, server in part.virtual_servers.items()}
    failed = frozenset(real for part in parts.values() for real in part.failed)
    bound = frozenset(names.values()) | (frozenset() if resolver is None else {resolver})
    return Plan(Table(servers, bound), names, failed, parts)


def _part(grounds: Grounds) -> Part:
    service, vip, names, *_ = grounds
    judged = list(zip(grounds.endpoints, grounds.verdicts, strict=True))
    serving = [e for e, probed in judged if e.drain is None and said(service, e, probed) in {None, Health.HEALTHY}]
    unhealthy = [e for e, probed in judged if said(service, e, probed) is Health.UNHEALTHY]
    routed = {
        VirtualKey(vip, route.listen_port, route.transport): route.container_port
        for route in service.routes
        if route.name in names
    }
    published = {(transport, port): container_port for port, transport, container_port in _published(grounds)}
    same_family = [address for address in grounds.own if (":" in address) == (":" in vip)]
    family = ":" in vip
    servers = {key: _virtual_server(service, key.transport, port, family, serving) for key, port in routed.items()}
    everywhere = {key: _virtual_server(service, key[0], port, family, serving) for key, port in published.items()}
    for (transport, port), server in everywhere.items():
        if (transport, port) not in grounds.contested:
            servers |= {VirtualKey(address, port, transport): server for address in same_family}
    ports = {(key.transport, port) for key, port in routed.items()} | {(key[0], p) for key, p in published.items()}
    failed = frozenset(real_key(endpoint, port, transport) for endpoint in unhealthy for transport, port in ports)
    return Part(grounds, vip, names, servers, everywhere, failed)


def endpoints_by_owner(view: ClusterView) -> Mapping[str, tuple[Endpoint, ...]]:
    """The endpoints of each service, by `Service.owner`, in order of id."""
    grouped: dict[str, list[Endpoint]] = {}
    for endpoint in view.endpoints:
        grouped.setdefault(endpoint.owner, []).append(endpoint)
    return {owner: tuple(group) for owner, group in grouped.items()}


def vip_of(service: Service, view: ClusterView) -> Address | None:
    """The service's VIP, or None while it has none or another owner holds its first name."""
    if view.claims.owners.get(service.name) != service.owner:
        return None
    vip = view.claims.vips.get(service.name)
    return vip if service.fixed_vip in (None, vip) else None


def held_names(service: Service, view: ClusterView) -> tuple[Name, ...]:
    """Those of the service's routing names that it holds; another owner may have been first with the rest."""
    return tuple(name for name in service.names if view.claims.owners.get(name) == service.owner)


def takes_traffic(service: Service, endpoint: Endpoint, health: Mapping[EndpointKey, Health]) -> bool:
    """Whether new connections may go to the endpoint."""
    return endpoint.drain is None and verdict(service, endpoint, health) in (None, Health.HEALTHY)


def verdict(service: Service, endpoint: Endpoint, health: Mapping[EndpointKey, Health]) -> Health | None:
    """What is known of the endpoint's health: by the service's probe, else by its engine; None: nobody asks."""
    return said(service, endpoint, health.get(endpoint.key))


def said(service: Service, endpoint: Endpoint, probed: Health | None) -> Health | None:
    """The same, of one endpoint, from what the probes say of it (None: nothing yet)."""
    return endpoint.health if service.probe is None else probed or Health.STARTING


def real_key(endpoint: Endpoint, container_port: int, transport: Transport) -> RealKey:
    """Where a virtual server for a container port sends to."""
    return RealKey(endpoint.address, endpoint.port_for(container_port, transport))


def real_keys(service: Service, endpoint: Endpoint) -> frozenset[RealKey]:
    """Everywhere that the service's virtual servers may send to for this endpoint."""
    return frozenset(real_key(endpoint, port, transport) for transport, port in service.declared)


def probes(view: ClusterView) -> Mapping[EndpointKey, tuple[Probe, RealKey]]:
    """What to probe: endpoint -> the check and where to send it, for services that have one and are in force."""
    owners = {service.owner: service for service in view.services}
    wanted: dict[EndpointKey, tuple[Probe, RealKey]] = {}
    for endpoint in view.endpoints:
        service = owners.get(endpoint.owner)
        if service is None or service.probe is None:
            continue
        port = service.probe.port or first_container_port(service)
        wanted[endpoint.key] = (service.probe, RealKey(endpoint.address, endpoint.port_for(port)))
    return wanted


def first_container_port(service: Service) -> int:
    """What a probe without a port asks: the first routed container port, else the first published one."""
    return (service.routes or service.publishes)[0].container_port


def _published_ports(view: ClusterView) -> Mapping[Name, tuple[_Port, ...]]:
    """The published ports that each service name holds."""
    held: dict[Name, list[_Port]] = {}
    for (transport, port), (name, container_port) in sorted(view.claims.ports.items()):
        held.setdefault(name, []).append((port, transport, container_port))
    return {name: tuple(ports) for name, ports in held.items()}


def _published(grounds: Grounds) -> Iterator[_Port]:
    """Of the ports that the service holds those that it still declares."""
    for port, transport, container_port in grounds.ports:
        if any(
            (publish.transport, publish.container_port) == (transport, container_port) and publish.port in (None, port)
            for publish in grounds.service.publishes
        ):
            yield port, transport, container_port


def _virtual_server(
    service: Service, transport: Transport, container_port: int, ipv6: bool, serving: Iterable[Endpoint]
) -> VirtualServer:
    """Real servers of the other address family are left out: the kernel cannot masquerade between families."""
    real_servers = {
        real_key(endpoint, container_port, transport): RealServer(
            endpoint.weight, endpoint.forwarding, endpoint.max_connections, endpoint.min_connections
        )
        for endpoint in serving
        if (":" in endpoint.address) == ipv6
    }
    return VirtualServer(service.scheduler, service.persistence, real_servers, service.flags)
