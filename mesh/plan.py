"""Cluster view + health -> what the data plane shall hold and which names shall resolve.

A pure function over one immutable picture: the same picture gives the same plan on every worker. The rules:

* a service without a VIP claim, or whose first name another owner holds, is not programmed at all;
* a virtual server exists for each (VIP, listen port, transport) as soon as its service has a VIP, with or without
  endpoints: a client then gets a refusal at once and not a time-out, and the name does not flap;
* an endpoint whose service has a probe takes part while the probe says healthy; without a probe, while its engine does
  not say otherwise; one that drains does not;
* a published port is a virtual server on each of the worker's own addresses of the VIP's family.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mesh.model import (
    Address,
    ClusterView,
    Endpoint,
    Health,
    Name,
    Probe,
    RealKey,
    Service,
    Table,
    Transport,
    VirtualKey,
    VirtualServer,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What shall be: the whole of it, every time."""

    table: Table
    names: Mapping[Name, Address]
    """Routing name -> VIP."""
    failed: frozenset[RealKey] = frozenset()
    """Real servers whose probes failed: their connections are to be reset and not drained."""


def plan(
    view: ClusterView,
    health: Mapping[str, Health],
    worker_addresses: Iterable[Address] = (),
    resolver: Address | None = None,
) -> Plan:
    """The plan for one worker.

    `health` maps endpoint ids to verdicts; an endpoint that is missing there while its service has a probe has not
    answered yet and gets no traffic. `worker_addresses` are the worker's own, for published ports; `resolver` is bound
    beside the VIPs.
    """
    endpoints = endpoints_by_owner(view)
    own = tuple(worker_addresses)
    servers: dict[VirtualKey, VirtualServer] = {}
    names: dict[Name, Address] = {}
    failed: set[RealKey] = set()
    for service in view.services:
        vip = vip_of(service, view)
        if vip is None:
            continue
        own_endpoints = endpoints.get(service.owner, ())
        serving = [e for e in own_endpoints if takes_traffic(service, e, health)]
        unhealthy = [e for e in own_endpoints if verdict(service, e, health) is Health.UNHEALTHY]
        for name in held_names(service, view):
            names[name] = vip
        for key, container_port in _virtual_keys(service, vip, view, own):
            servers[key] = _virtual_server(service, key, container_port, serving)
            failed.update(real_key(e, container_port, key.transport) for e in unhealthy)
    bound = frozenset(names.values()) | (frozenset() if resolver is None else {resolver})
    return Plan(Table(servers, bound), names, frozenset(failed))


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


def takes_traffic(service: Service, endpoint: Endpoint, health: Mapping[str, Health]) -> bool:
    """Whether new connections may go to the endpoint."""
    return endpoint.drain is None and verdict(service, endpoint, health) in (None, Health.HEALTHY)


def verdict(service: Service, endpoint: Endpoint, health: Mapping[str, Health]) -> Health | None:
    """What is known of the endpoint's health: by the service's probe, else by its engine; None: nobody asks."""
    return endpoint.health if service.probe is None else health.get(endpoint.id, Health.STARTING)


def real_key(endpoint: Endpoint, container_port: int, transport: Transport) -> RealKey:
    """Where a virtual server for a container port sends to."""
    return RealKey(endpoint.address, endpoint.port_for(container_port, transport))


def real_keys(service: Service, endpoint: Endpoint) -> frozenset[RealKey]:
    """Everywhere that the service's virtual servers may send to for this endpoint."""
    return frozenset(real_key(endpoint, port, transport) for transport, port in service.declared)


def probes(view: ClusterView) -> Mapping[str, tuple[Probe, RealKey]]:
    """What to probe: endpoint id -> the check and where to send it, for services that have one and are in force."""
    owners = {service.owner: service for service in view.services}
    wanted: dict[str, tuple[Probe, RealKey]] = {}
    for endpoint in view.endpoints:
        service = owners.get(endpoint.owner)
        if service is None or service.probe is None:
            continue
        port = service.probe.port or first_container_port(service)
        wanted[endpoint.id] = (service.probe, RealKey(endpoint.address, endpoint.port_for(port)))
    return wanted


def first_container_port(service: Service) -> int:
    """What a probe without a port asks: the first routed container port, else the first published one."""
    return (service.routes or service.publishes)[0].container_port


def published_ports(service: Service, view: ClusterView) -> Iterator[tuple[int, Transport, int]]:
    """(port, transport, container port) of each published port that the service holds."""
    for (transport, port), (name, container_port) in sorted(view.claims.ports.items()):
        if name == service.name and any(
            (publish.transport, publish.container_port) == (transport, container_port) and publish.port in (None, port)
            for publish in service.publishes
        ):
            yield port, transport, container_port


def _virtual_keys(
    service: Service, vip: Address, view: ClusterView, own: tuple[Address, ...]
) -> Iterator[tuple[VirtualKey, int]]:
    held = set(held_names(service, view))
    for route in service.routes:
        if route.name in held:
            yield VirtualKey(vip, route.listen_port, route.transport), route.container_port
    same_family = [address for address in own if (":" in address) == (":" in vip)]
    for port, transport, container_port in published_ports(service, view):
        for address in same_family:
            yield VirtualKey(address, port, transport), container_port


def _virtual_server(
    service: Service, key: VirtualKey, container_port: int, serving: Iterable[Endpoint]
) -> VirtualServer:
    """Real servers of the other address family are left out: the kernel cannot masquerade between families."""
    real_servers: dict[RealKey, int] = {}
    for endpoint in serving:
        if (":" in endpoint.address) == (":" in key.address):
            real_servers[real_key(endpoint, container_port, key.transport)] = endpoint.weight
    return VirtualServer(service.scheduler, service.persistence, real_servers)
