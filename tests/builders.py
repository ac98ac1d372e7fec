"""Builders of services, endpoints, instances and views with defaults, and the constants that many tests share.

A test names only what it is about: `service("web.test", probe=TCP_PROBE)` is an otherwise ordinary service.
"""

from collections.abc import Mapping
from ipaddress import IPv4Network

from mesh.model.claims import Claims
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import (
    Address,
    DrainReason,
    Endpoint,
    EndpointKey,
    Health,
    HostPort,
    Instance,
    Name,
    PortPublication,
    Route,
    Service,
    Transport,
)
from mesh.model.table import VirtualKey
from mesh.model.view import ClusterView

POOL = IPv4Network("10.112.0.0/16")
"""The default pool of VIPs."""
SMALL_POOL = IPv4Network("10.112.0.0/24")

WEB_VIP: Address = "10.112.0.7"
WEB_KEY = VirtualKey(WEB_VIP, 80, Transport.TCP)
WEB_LABELS: Mapping[str, str] = {"mesh.routing.port_80": "web.test"}
"""Labels that route port 80 of `web.test`, without a probe."""
PROBED_WEB_LABELS: Mapping[str, str] = {**WEB_LABELS, "mesh.probe.url": "http://container:80"}

TCP_PROBE = Probe(ProbeKind.TCP, 80)
HTTP_PROBE = Probe(ProbeKind.HTTP, 80)


def service(
    name: Name = "web.test",
    *,
    owner: str | None = None,
    listen_port: int = 80,
    container_port: int | None = None,
    transport: Transport = Transport.TCP,
    publishes: tuple[PortPublication, ...] = (),
    fixed_vip: Address | None = None,
    probe: Probe | None = None,
) -> Service:
    """A service with one route.

    `owner` None: `demo/` and the first label of the name. `container_port` None: the same as `listen_port`.
    """
    container = listen_port if container_port is None else container_port
    routes = (Route(name, listen_port, transport, container),)
    return Service(owner or f"demo/{name.partition('.')[0]}", name, routes, publishes, fixed_vip, probe=probe)


def endpoint(
    id: str = "a",
    worker: str = "w1",
    owner: str = "demo/web",
    address: Address = "10.2.0.1",
    *,
    port: int | None = None,
    weight: int = 1,
    release: str | None = None,
    host_ports: tuple[HostPort, ...] = (),
    health: Health | None = None,
    drain: DrainReason | None = None,
    name: str | None = None,
) -> Endpoint:
    """An endpoint of `demo/web` on worker `w1`, unless said otherwise."""
    return Endpoint(
        id,
        owner,
        worker,
        address,
        port,
        weight,
        release,
        host_ports=host_ports,
        health=health,
        drain=drain,
        name=name,
    )


def instance(
    id: str = "a",
    labels: Mapping[str, str] | None = None,
    owner: str = "demo/web",
    address: Address = "10.2.0.1",
    *,
    port: int | None = None,
    health: Health | None = None,
    drain: DrainReason | None = None,
    name: str | None = None,
) -> Instance:
    """An instance of `demo/web`; `labels` None: it has none."""
    return Instance(id, owner, address, labels or {}, port, health=health, drain=drain, name=name)


def numbered_instance(
    number: int, labels: Mapping[str, str] = WEB_LABELS, owner: str = "demo/web", *, port: int | None = None
) -> Instance:
    """The instance at 10.2.0.`number`, whose ID ends with its address."""
    address = f"10.2.0.{number}"
    return instance(f"{owner}/{address}", labels, owner, address, port=port)


def view(
    *parts: Service | Endpoint, claims: Claims | None = None, health: Mapping[EndpointKey, Health] | None = None
) -> ClusterView:
    """A view with these services and endpoints, each in the given order."""
    services = tuple(part for part in parts if isinstance(part, Service))
    endpoints = tuple(part for part in parts if isinstance(part, Endpoint))
    return ClusterView(services, endpoints, claims or Claims(), health or {})
