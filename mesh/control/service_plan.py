"""What one service adds to the plan: its virtual servers, its names, and what of it has failed.

A pure function of its grounds, so that a part whose grounds have not changed is taken over as it is. The rules:

* a virtual server exists for each (VIP, listen port, transport) as soon as its service has a VIP, with or without
  endpoints: a client then gets a refusal at once and not a time-out, and the name does not flap;
* an endpoint whose service has a probe takes part while the probe says healthy; without a probe, while its engine does
  not say otherwise; one that drains does not;
* a published port is a virtual server on each of the worker's own addresses of the VIP's family.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from mesh.model.eligibility import effective_health, real_key
from mesh.model.service import Address, Endpoint, Health, Name, Service, Transport
from mesh.model.table import RealKey, RealServer, VirtualKey, VirtualServer

PublishedPort: TypeAlias = tuple[int, Transport, int]
"""Published port, transport, container port."""


class ServicePlanInput(NamedTuple):
    """All that the plan of one service follows from."""

    service: Service
    vip: Address
    names: tuple[Name, ...]
    """Those it holds."""
    ports: tuple[PublishedPort, ...]
    """Those it holds."""
    contested: frozenset[tuple[Transport, int]]
    """Those of them that a program of the worker listens on."""
    own: tuple[Address, ...]
    """The worker's addresses."""
    endpoints: tuple[Endpoint, ...]
    verdicts: tuple[Health | None, ...]
    """Of each endpoint."""


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """What one service adds to the plan."""

    grounds: ServicePlanInput
    vip: Address
    names: tuple[Name, ...]
    virtual_servers: Mapping[VirtualKey, VirtualServer]
    published: Mapping[tuple[Transport, int], VirtualServer]
    """What its published ports lead to on every worker, wherever this one serves them."""
    failed: frozenset[RealKey]


def plan_service(grounds: ServicePlanInput) -> ServicePlan:
    """What follows from the grounds."""
    service, vip, names, *_ = grounds
    judged = list(zip(grounds.endpoints, grounds.verdicts, strict=True))
    serving = [
        e for e, probed in judged if e.drain is None and effective_health(service, e, probed) in {None, Health.HEALTHY}
    ]
    unhealthy = [e for e, probed in judged if effective_health(service, e, probed) is Health.UNHEALTHY]
    everywhere = {
        (transport, port): _virtual_server(service, transport, container_port, ":" in vip, serving)
        for port, transport, container_port in _published(grounds)
    }
    servers: dict[VirtualKey, VirtualServer] = {}
    for key, container_port in virtual_keys(grounds):
        if key.address == vip:
            servers[key] = _virtual_server(service, key.transport, container_port, ":" in vip, serving)
        else:
            servers[key] = everywhere[key.transport, key.port]
    ports = {(route.transport, route.container_port) for route in service.routes if route.name in names}
    ports |= {(transport, container_port) for _, transport, container_port in _published(grounds)}
    failed = frozenset(real_key(endpoint, port, transport) for endpoint in unhealthy for transport, port in ports)
    return ServicePlan(grounds, vip, names, servers, everywhere, failed)


def virtual_keys(grounds: ServicePlanInput) -> Iterator[tuple[VirtualKey, int]]:
    """The virtual servers of a service, each with the container port that it leads to."""
    for route in grounds.service.routes:
        if route.name in grounds.names:
            yield VirtualKey(grounds.vip, route.listen_port, route.transport), route.container_port
    same_family = [address for address in grounds.own if (":" in address) == (":" in grounds.vip)]
    for port, transport, container_port in _published(grounds):
        if (transport, port) not in grounds.contested:
            for address in same_family:
                yield VirtualKey(address, port, transport), container_port


def _published(grounds: ServicePlanInput) -> Iterator[PublishedPort]:
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
