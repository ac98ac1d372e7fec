"""What labels declare and what sources see: services, instances, endpoints, as frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from mesh.model.probe import Probe

Address: TypeAlias = str
"""An IPv4 or IPv6 address, canonical text, no port, no prefix length."""


EndpointKey: TypeAlias = tuple[str, str]
"""(worker, `Endpoint.id`): ids are unique on their worker only."""


Name: TypeAlias = str
"""A DNS name, lower case, no trailing dot: `restserver.local`."""


class Transport(StrEnum):
    """What a virtual server listens for."""

    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"
    """Where the kernel has it; a proxy in user space has not."""

    __hash__ = str.__hash__
    """Part of every key of a table: an enum's own is ten times as slow."""


class Scheduler(StrEnum):
    """How IPVS picks the real server of a new connection: ipvsadm(8), option -s."""

    RR = "rr"
    WRR = "wrr"
    LC = "lc"
    WLC = "wlc"
    SH = "sh"
    MH = "mh"
    SED = "sed"
    NQ = "nq"
    DH = "dh"


class SchedulerFlag(StrEnum):
    """How the hashing schedulers `sh` and `mh` choose: ipvsadm(8), option -b."""

    FALLBACK = "fallback"
    """A client whose real server has weight 0 or is overloaded gets another one, instead of a refusal."""
    PORT = "port"
    """The client's port counts too: its connections spread, instead of all going to one real server."""


class Forwarding(StrEnum):
    """How a packet gets to the real server: ipvsadm(8), PACKET-FORWARDING METHODS."""

    MASQUERADE = "masquerade"
    """The destination is rewritten, ports may differ, replies come back through this worker."""
    TUNNEL = "tunnel"
    """In an IP-in-IP packet; the real server holds the VIP too and answers the client itself."""
    DIRECT = "direct"
    """As it is, on a shared link; the real server holds the VIP too and answers the client itself."""


class Health(StrEnum):
    """What is known of one endpoint. An endpoint that nobody probes counts as healthy while it runs."""

    STARTING = "starting"
    """No success yet: it gets no traffic."""
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class DrainReason(StrEnum):
    """Why an endpoint that runs takes no new connection."""

    ASKED = "asked"
    """An operator said so."""
    STOPPING = "stopping"
    """Its engine was told to stop it."""
    PAUSED = "paused"
    """It is frozen and will come back as it was."""
    UNREACHABLE = "unreachable"
    """This worker does not reach it; what each finds out for itself and tells nobody."""
    MAINTENANCE = "maintenance"
    """An operator works on it: it is not probed either."""


@dataclass(frozen=True, slots=True, order=True)
class HostPort:
    """A port of the worker that leads to a container port."""

    transport: Transport
    container_port: int
    port: int


@dataclass(frozen=True, slots=True)
class Instance:
    """One running container (or `x-endpoints` entry) as a source saw it, its labels not yet understood."""

    id: str
    """Unique on this worker and stable over a restart of the daemon: `demo/server/127.0.0.11`."""
    owner: str
    """The declaration it comes from, `project/service`: instances of one owner are endpoints of one service."""
    address: Address
    labels: Mapping[str, str]
    port: int | None = None
    """Where the instance is reached if that is not its container port (`127.0.0.11:18080` in `x-endpoints`)."""
    host_ports: tuple[HostPort, ...] = ()
    """Where single container ports are reached, when `address` is the worker's and not the container's."""
    health: Health | None = None
    """What its engine says of it; None: the engine does not check it."""
    drain: DrainReason | None = None
    """Why it shall take no new connection; None: it takes them."""
    name: str | None = None
    """What people call it, if that is not its id: the container's name."""
    runs_commands: bool = False
    """Whether commands can be run inside it, as `probe.cmd` asks."""


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """One routing name on one port: the VIP listens on `listen_port`, endpoints on `container_port`."""

    name: Name
    listen_port: int
    transport: Transport
    container_port: int


@dataclass(frozen=True, slots=True, order=True)
class PortPublication:
    """A published port: a port of every worker's own address that leads to the service."""

    container_port: int
    transport: Transport
    port: int | None
    """None: assigned from the range of the settings."""


@dataclass(frozen=True, slots=True)
class Service:
    """What is balanced, as its labels declare it."""

    owner: str
    """`project/service` of the declaration; two owners never share a name."""
    name: Name
    """The first routing name; it holds the VIP."""
    routes: tuple[Route, ...]
    publishes: tuple[PortPublication, ...] = ()
    fixed_vip: Address | None = None
    scheduler: Scheduler = Scheduler.WRR
    persistence: int = 0
    """Client affinity in seconds; 0: none."""
    probe: Probe | None = None
    flags: frozenset[SchedulerFlag] = frozenset()

    @property
    def declared(self) -> frozenset[tuple[Transport, int]]:
        """The container ports that clients are led to."""
        ports = [(route.transport, route.container_port) for route in self.routes]
        return frozenset([*ports, *((publish.transport, publish.container_port) for publish in self.publishes)])

    @property
    def names(self) -> tuple[Name, ...]:
        """All routing names, the first one first, each once."""
        return tuple(dict.fromkeys((self.name, *(route.name for route in self.routes))))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One instance of a service, as the workers share it."""

    id: str
    owner: str
    """The `Service.owner` it belongs to."""
    worker: str
    address: Address
    port: int | None = None
    """Where it is reached for every container port; None: the container port itself."""
    weight: int = 1
    release: str | None = None
    forwarding: Forwarding = Forwarding.MASQUERADE
    max_connections: int = 0
    """With so many it gets no new one; 0: no limit."""
    min_connections: int = 0
    """Once full, it gets new ones again below so many; 0: three quarters of `max_connections`."""
    host_ports: tuple[HostPort, ...] = ()
    """Where single container ports are reached; goes before `port`."""
    health: Health | None = None
    """What its engine says of it, for services without a probe of their own; None: nothing."""
    drain: DrainReason | None = None
    """Why it takes no new connection; None: it takes them."""
    name: str | None = None
    """What people call it, if that is not its id: the container's name."""

    @property
    def key(self) -> EndpointKey:
        """What it is called in the whole cluster."""
        return self.worker, self.id

    def port_for(self, container_port: int, transport: Transport = Transport.TCP) -> int:
        """The port to send to for what the container calls `container_port`."""
        for mapped in self.host_ports:
            if (mapped.transport, mapped.container_port) == (transport, container_port):
                return mapped.port
        return self.port if self.port is not None else container_port
