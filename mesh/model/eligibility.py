"""Decides which endpoints take part in their service, where they are reached, what is probed, and by whom. Pure."""

from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b
from ipaddress import ip_address

from mesh.model.probe import DEFAULT_PROBE_PORTS, Probe, ProbeKind
from mesh.model.service import Address, Endpoint, EndpointKey, Health, Name, Service, Transport
from mesh.model.table import RealKey
from mesh.model.view import ClusterView


def vip_of(service: Service, view: ClusterView) -> Address | None:
    """Return the service's VIP, or None if it has none or another owner holds its first name."""
    if view.claims.owners.get(service.name) != service.owner:
        return None
    vip = view.claims.vips.get(service.name)
    return vip if service.fixed_vip in (None, vip) else None


def held_names(service: Service, view: ClusterView) -> tuple[Name, ...]:
    """Return the routing names of the service that it holds. Another owner may have been first with the rest."""
    return tuple(name for name in service.names if view.claims.owners.get(name) == service.owner)


def declaration_of(service: Service, endpoint: Endpoint) -> Service:
    """Return what the endpoint's own labels declare. `service` is the one of the view."""
    return endpoint.declared or service


def probe_of(service: Service, endpoint: Endpoint) -> Probe | None:
    """Return the endpoint's own probe, or None if it has none, whatever other endpoints of the service have."""
    return declaration_of(service, endpoint).probe


def routed_port(endpoint: Endpoint, transport: Transport, listen_port: int, container_port: int) -> int | None:
    """Return the endpoint's own container port behind a port of the VIP, or None if its labels route none there.

    `container_port` is the one that the service of the view declares.
    """
    if endpoint.declared is None:
        return container_port
    own = endpoint.declared.routes
    return next((r.container_port for r in own if (r.transport, r.listen_port) == (transport, listen_port)), None)


def published_port(
    service: Service, endpoint: Endpoint, transport: Transport, port: int, container_port: int
) -> int | None:
    """Return the endpoint's own container port behind a published port, or None if its labels lead none there.

    `container_port` is the one that the service of the view publishes.
    """
    own = endpoint.declared
    if own is None:
        return container_port
    fixed = [p.container_port for p in own.publishes if (p.transport, p.port) == (transport, port)]
    if fixed or (transport, container_port) in own.declared:
        return fixed[0] if fixed else container_port
    # The same port of the VIP, which leads to another container port in the endpoint's own labels.
    routed = (
        routed_port(endpoint, transport, route.listen_port, container_port)
        for route in service.routes
        if (route.transport, route.container_port) == (transport, container_port)
    )
    return next((found for found in routed if found is not None), None)


def takes_traffic(service: Service, endpoint: Endpoint, health: Mapping[EndpointKey, Health]) -> bool:
    """Return whether new connections may go to the endpoint."""
    return endpoint.drain is None and endpoint_verdict(service, endpoint, health) in (None, Health.HEALTHY)


def serves(service: Service, endpoint: Endpoint, vip: Address, health: Mapping[EndpointKey, Health]) -> bool:
    """Return whether the virtual servers of the service, which has this VIP, send new connections to the endpoint."""
    return takes_traffic(service, endpoint, health) and is_same_family(endpoint, vip) and endpoint.weight > 0


def endpoint_verdict(service: Service, endpoint: Endpoint, health: Mapping[EndpointKey, Health]) -> Health | None:
    """Return the endpoint's effective health, by its probe or else its engine; None if neither checks it."""
    return effective_health(service, endpoint, health.get(endpoint.key))


def probe_targets(
    view: ClusterView, endpoints: Iterable[Endpoint] | None = None
) -> Mapping[EndpointKey, tuple[Probe, RealKey]]:
    """Return what to probe: endpoint -> (its own probe, where to send it), for the endpoints that have a probe.

    `endpoints` limits the result to these endpoints of the view; None means all of them.
    """
    owners = {service.owner: service for service in view.services}
    wanted: dict[EndpointKey, tuple[Probe, RealKey]] = {}
    for endpoint in view.endpoints if endpoints is None else endpoints:
        service = owners.get(endpoint.owner)
        probe = None if service is None else probe_of(service, endpoint)
        if service is None or probe is None:
            continue
        own = declaration_of(service, endpoint)
        wanted[endpoint.key] = (probe, RealKey(endpoint.address, probed_port(own, probe, endpoint)))
    return wanted


def probed_port(service: Service, probe: Probe, endpoint: Endpoint) -> int:
    """Return the port of an endpoint to probe; `service` is what its own labels declare.

    `Endpoint.port` says where the routed and published container ports are reached. A probe of another port is sent to
    that port: a port for health checks beside the one for clients. A URL without a port has the default port of its
    scheme, which nobody wrote: where that is not declared, the endpoint's port stands in for it.
    """
    port = probe.port or first_container_port(service)
    transport = Transport.UDP if probe.kind is ProbeKind.UDP else Transport.TCP
    reached = endpoint.port_for(port, transport)
    is_declared = any(declared == port for _, declared in service.declared)
    if reached != endpoint.port or is_declared or port == DEFAULT_PROBE_PORTS.get(probe.kind):
        return reached
    return port


def first_container_port(service: Service) -> int:
    """Return the port of a probe that declares none: the first routed container port, else the first published one."""
    return (service.routes or service.publishes)[0].container_port


def effective_health(service: Service, endpoint: Endpoint, probed: Health | None) -> Health | None:
    """Return the effective health of one endpoint; `probed` is None before its first result."""
    return endpoint.health if probe_of(service, endpoint) is None else probed or Health.STARTING


def real_key(endpoint: Endpoint, container_port: int, transport: Transport) -> RealKey:
    """Return where a virtual server for a container port sends its connections."""
    return RealKey(endpoint.address, endpoint.port_for(container_port, transport))


def real_keys(service: Service, endpoint: Endpoint) -> frozenset[RealKey]:
    """Return every destination that the service's virtual servers may use for this endpoint."""
    ports = service.declared if endpoint.declared is None else service.declared | endpoint.declared.declared
    return frozenset(real_key(endpoint, port, transport) for transport, port in ports)


def is_same_family(endpoint: Endpoint, vip: Address) -> bool:
    """Return whether a virtual server on the VIP can send to the endpoint: the kernel translates no IP versions."""
    return (":" in endpoint.address) == (":" in vip)


def probeable_by_anyone(probe: Probe, place: RealKey) -> bool:
    """Return whether any worker can run the probe.

    Commands, loopback and link-local addresses are local to one worker. The values of headers are known to one worker.
    """
    if probe.kind is ProbeKind.COMMAND or probe.has_headers:
        return False
    address = ip_address(place.address)
    return not address.is_loopback and not address.is_link_local


PROBERS_PER_ENDPOINT = 2
"""The number of workers that probe an endpoint of a departed worker."""


def choose_probers(endpoint: EndpointKey, workers: Collection[str]) -> tuple[str, ...]:
    """The workers that probe this endpoint, in order of rank; the same on each worker that knows the same workers."""
    worker, id = endpoint

    def rank(candidate: str) -> bytes:
        return blake2b(f"{candidate}\0{worker}\0{id}".encode(), digest_size=8).digest()

    return tuple(sorted(workers, key=lambda candidate: (rank(candidate), candidate))[:PROBERS_PER_ENDPOINT])
