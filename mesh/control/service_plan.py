"""Plans one service: its virtual servers, its names, and its failed real servers.

A pure function of `ServicePlanInput`, so that a part whose inputs have not changed is taken over as it is. The rules:

* A virtual server exists for each (VIP, listen port, transport) as soon as its service has a VIP, with or without
  endpoints. Without endpoints a client is refused at once instead of timing out, and the name does not flap.
* An endpoint that has a probe takes traffic while the probe says healthy; without a probe, unless its engine says
  unhealthy. A draining endpoint takes none.
* Ports, scheduler and affinity are those of the declaration in force. An endpoint whose own labels lead a port to
  another container port is reached there; one whose labels do not have the port gets no traffic from it.
* A published port is a virtual server on each of the worker's own addresses of the VIP's family.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from mesh.model.eligibility import effective_health, published_port, real_key, routed_port
from mesh.model.service import Address, DrainReason, Endpoint, Health, Name, Service, Transport
from mesh.model.table import RealKey, RealServer, VirtualKey, VirtualServer

PublishedPort: TypeAlias = tuple[int, Transport, int]
"""Published port, transport, container port."""


class ServicePlanInput(NamedTuple):
    """All inputs of the plan of one service."""

    service: Service
    vip: Address
    names: tuple[Name, ...]
    """The names that the service holds."""
    ports: tuple[PublishedPort, ...]
    """The published ports that the service holds."""
    contested: frozenset[tuple[Transport, int]]
    """Published ports of the service that a program of the worker listens on."""
    own: tuple[Address, ...]
    """The worker's own addresses."""
    withheld: bool
    """Whether this worker must not bind the VIP: it would take the traffic of another host."""
    endpoints: tuple[Endpoint, ...]
    verdicts: tuple[Health | None, ...]
    """The health of each endpoint, in the order of `endpoints`; None without a result."""


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """The part of the plan that one service adds."""

    inputs: ServicePlanInput
    vip: Address
    names: tuple[Name, ...]
    virtual_servers: Mapping[VirtualKey, VirtualServer]
    published: Mapping[tuple[Transport, int], VirtualServer]
    """The virtual servers of its published ports, as on every worker; this worker serves them on each of its addresses.
    """
    failed: frozenset[RealKey]
    draining: frozenset[RealKey] = frozenset()
    """Real servers of endpoints that drain: they still answer, and must lose no connection."""

    @property
    def served(self) -> Mapping[VirtualKey, VirtualServer]:
        """The virtual servers that this worker programs: without those on a VIP that is withheld."""
        if not self.inputs.withheld:
            return self.virtual_servers
        return {key: server for key, server in self.virtual_servers.items() if key.address != self.vip}

    @property
    def answered(self) -> tuple[Name, ...]:
        """The names that this worker answers; empty if the VIP is withheld."""
        return () if self.inputs.withheld else self.names


def plan_service(inputs: ServicePlanInput) -> ServicePlan:
    """Compute the plan of one service."""
    service, vip, names, *_ = inputs
    endpoints = list(zip(inputs.endpoints, inputs.verdicts, strict=True))
    serving = [
        e
        for e, probed in endpoints
        if e.drain is None and effective_health(service, e, probed) in {None, Health.HEALTHY}
    ]
    unhealthy = [e for e, probed in endpoints if effective_health(service, e, probed) is Health.UNHEALTHY]
    of_family = [endpoint for endpoint in serving if (":" in endpoint.address) == (":" in vip)]
    everywhere = {
        (transport, port): _virtual_server(
            service, transport, [(e, published_port(service, e, transport, port, container_port)) for e in of_family]
        )
        for port, transport, container_port in _published(inputs)
    }
    servers: dict[VirtualKey, VirtualServer] = {}
    for key, container_port in virtual_keys(inputs):
        if key.address == vip:
            reached = [(e, routed_port(e, key.transport, key.port, container_port)) for e in of_family]
            servers[key] = _virtual_server(service, key.transport, reached)
        else:
            servers[key] = everywhere[key.transport, key.port]
    ports = {(route.transport, route.container_port) for route in service.routes if route.name in names}
    ports |= {(transport, container_port) for _, transport, container_port in _published(inputs)}
    failed = _reals_on(unhealthy, ports)
    answering = (e for e, _ in endpoints if e.drain not in {None, DrainReason.UNREACHABLE})
    draining = _reals_on(answering, ports)
    return ServicePlan(inputs, vip, names, servers, everywhere, failed, draining)


def _reals_on(endpoints: Iterable[Endpoint], ports: Set[tuple[Transport, int]]) -> frozenset[RealKey]:
    """The real servers of endpoints behind these container ports, and behind those that their own labels declare."""
    return frozenset(
        real_key(endpoint, port, transport)
        for endpoint in endpoints
        for transport, port in (ports if endpoint.declared is None else ports | endpoint.declared.declared)
    )


def virtual_keys(inputs: ServicePlanInput) -> Iterator[tuple[VirtualKey, int]]:
    """The virtual servers of a service, each with the container port that it leads to."""
    for route in inputs.service.routes:
        if route.name in inputs.names:
            yield VirtualKey(inputs.vip, route.listen_port, route.transport), route.container_port
    same_family = [address for address in inputs.own if (":" in address) == (":" in inputs.vip)]
    for port, transport, container_port in _published(inputs):
        if (transport, port) not in inputs.contested:
            for address in same_family:
                yield VirtualKey(address, port, transport), container_port


def _published(inputs: ServicePlanInput) -> Iterator[PublishedPort]:
    """The published ports that the service holds and still declares, each with the container port that it declares."""
    for port, transport, claimed in inputs.ports:
        declared = [
            publish.container_port
            for publish in inputs.service.publishes
            if publish.transport is transport
            and (publish.port == port or (publish.port is None and publish.container_port == claimed))
        ]
        # A port that the labels name may lead to another container port than before: it does at once.
        if declared:
            yield port, transport, claimed if claimed in declared else declared[0]


def _virtual_server(
    service: Service, transport: Transport, serving: Iterable[tuple[Endpoint, int | None]]
) -> VirtualServer:
    """Build one virtual server from endpoints and their own container ports behind it. One that has none is left out:
    nothing listens there. Endpoints are of the VIP's address family: the kernel cannot masquerade between families.
    """
    real_servers = {
        real_key(endpoint, container_port, transport): RealServer(
            endpoint.weight, endpoint.forwarding, endpoint.max_connections, endpoint.min_connections
        )
        for endpoint, container_port in serving
        if container_port is not None
    }
    return VirtualServer(service.scheduler, service.persistence, real_servers, service.flags)
