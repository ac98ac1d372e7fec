"""Services, instances and endpoints, as frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from operator import attrgetter
from typing import TypeAlias

from mesh.model.probe import Probe

Address: TypeAlias = str
"""An IPv4 or IPv6 address as canonical text, without port or prefix length."""


EndpointKey: TypeAlias = tuple[str, str]
"""(worker, `Endpoint.id`): IDs are unique on their worker only."""


Name: TypeAlias = str
"""A DNS name in lower case, without a trailing dot: `restserver.local`."""


class Transport(StrEnum):
    """The transport protocol of a virtual server."""

    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"
    """Only if the data plane is in the kernel: the user space proxy does not support it."""

    __hash__ = str.__hash__
    """A transport is part of every table key, and the hash of an enum takes ten times as long as that of a string."""


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


BY_WEIGHT = frozenset({Scheduler.WRR, Scheduler.WLC, Scheduler.SED, Scheduler.NQ})
"""The schedulers that divide connections by weight. The others ignore weights, or divide clients."""


MAX_SLOW_START = 900
"""The most seconds over which the weight of a new endpoint grows."""


class SchedulerFlag(StrEnum):
    """How the hashing schedulers `sh` and `mh` choose: ipvsadm(8), option -b."""

    FALLBACK = "fallback"
    """A client whose real server has weight 0 or is overloaded gets another one instead of a refusal."""
    PORT = "port"
    """The client's port is hashed too, so that the connections of one client spread over the real servers."""


class Forwarding(StrEnum):
    """How a packet gets to the real server: ipvsadm(8), PACKET-FORWARDING METHODS."""

    MASQUERADE = "masquerade"
    """The destination is rewritten; ports may differ; replies return through this worker."""
    TUNNEL = "tunnel"
    """The packet is sent inside an IP-in-IP packet; the real server has the VIP too and answers the client directly."""
    DIRECT = "direct"
    """The packet is sent unchanged on a shared link; the real server has the VIP too and answers the client directly.
    """


class Health(StrEnum):
    """The health of one endpoint. An endpoint that is not checked counts as healthy while it runs."""

    STARTING = "starting"
    """No check has succeeded yet: the endpoint gets no traffic."""
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class DrainReason(StrEnum):
    """Why a running endpoint gets no new connections."""

    ASKED = "asked"
    """An operator drained it."""
    STOPPING = "stopping"
    """The engine is stopping it."""
    PAUSED = "paused"
    """Its processes are frozen; it will resume in the same state."""
    UNREACHABLE = "unreachable"
    """This worker cannot reach it. Each worker decides this for itself and does not share it."""
    MAINTENANCE = "maintenance"
    """An operator is working on it: it is not probed either."""


class WeightOrigin(StrEnum):
    """Where the weight of an endpoint comes from."""

    LABEL = "label"
    """Its label, or the default without one."""
    OPERATOR = "operator"
    """An operator requested it, in place of the label's."""


@dataclass(frozen=True, slots=True, order=True)
class HostPort:
    """A port of the worker that leads to a container port."""

    transport: Transport
    container_port: int
    port: int


@dataclass(frozen=True, slots=True)
class Instance:
    """One running container (or `x-endpoints` entry) as a source reports it, before its labels are parsed."""

    id: str
    """Unique on this worker, and the same after a restart of the daemon: `demo/server/127.0.0.11`."""
    owner: str
    """The declaration it belongs to, `project/service`. Instances of one owner are endpoints of one service."""
    address: Address
    labels: Mapping[str, str]
    port: int | None = None
    """The port where the instance is reached (`127.0.0.11:18080` in `x-endpoints`), or None if it is the container
    port.
    """
    host_ports: tuple[HostPort, ...] = ()
    """Where single container ports are reached, if `address` is the worker's and not the container's."""
    health: Health | None = None
    """Its health according to its engine, or None if the engine does not check it."""
    drain: DrainReason | None = None
    """Why it must get no new connections, or None if it gets them."""
    name: str | None = None
    """The name that operators use, such as the container's name; None: the same as its ID."""
    runs_commands: bool = False
    """Whether commands can run inside it, as `probe.cmd` requires."""
    run: str | None = None
    """Distinguishes its successive processes: a restart changes it and keeps the ID. None if the source does not tell.
    """
    asked_weight: int | None = None
    """The weight that an operator requested in place of its label's; None if none did."""

    def with_drain(self, drain: DrainReason | None) -> "Instance":
        """Return a copy that gets no new connections for this reason; None if it gets them."""
        return replace(self, drain=drain)

    def with_asked_weight(self, weight: int | None) -> "Instance":
        """Return a copy with this weight in place of its label's; None for that of the label."""
        return replace(self, asked_weight=weight)


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """One routing name on one port: the VIP listens on `listen_port`, the endpoints on `container_port`."""

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
    """The published port, or None to have one assigned from the range of the settings."""


@dataclass(frozen=True, slots=True)
class Service:
    """A load-balanced service, as its labels declare it."""

    owner: str
    """`project/service` of the declaration. Two owners never share a name."""
    name: Name
    """The first routing name; the VIP is claimed for it."""
    routes: tuple[Route, ...]
    publishes: tuple[PortPublication, ...] = ()
    fixed_vip: Address | None = None
    scheduler: Scheduler = Scheduler.WRR
    persistence: int = 0
    """Client affinity in seconds; 0: none."""
    probe: Probe | None = None
    flags: frozenset[SchedulerFlag] = frozenset()

    @property
    def shared(self) -> "Service":
        """The part that clients share: all but the probe, which is each endpoint's own."""
        return self if self.probe is None else replace(self, probe=None)

    def shares_with(self, other: "Service") -> bool:
        """Whether both are the same to clients: they may differ in the probe."""
        # A copy for each comparison would cost more than everything else that is decided about claims.
        return self is other or _CLIENT_FIELDS(self) == _CLIENT_FIELDS(other)

    def with_probe(self, probe: Probe | None) -> "Service":
        """Return a copy with this probe; None for no probe."""
        return self if probe == self.probe else replace(self, probe=probe)

    @property
    def declared(self) -> frozenset[tuple[Transport, int]]:
        """The container ports that clients are led to, by routes and published ports."""
        ports = [(route.transport, route.container_port) for route in self.routes]
        return frozenset([*ports, *((publish.transport, publish.container_port) for publish in self.publishes)])

    @property
    def names(self) -> tuple[Name, ...]:
        """All routing names without duplicates, `name` first."""
        return tuple(dict.fromkeys((self.name, *(route.name for route in self.routes))))


_CLIENT_FIELDS = attrgetter(*(each.name for each in fields(Service) if each.name != "probe"))
"""The fields of a service that clients share."""


class ReleaseStrategy(StrEnum):
    """A strategy that moves shares, and keeps the old release whole until it is confirmed."""

    CANARY = "canary"
    PROGRESSIVE = "progressive"
    BLUE_GREEN = "blue-green"


@dataclass(frozen=True, slots=True)
class ReleaseStep:
    """One step of a rollout."""

    points: int
    """The share of the new release, in hundredths of a per cent."""
    seconds: int = 0
    """How long it takes at least."""
    is_held: bool = False
    """Whether it lasts until an operator promotes the release."""


@dataclass(frozen=True, slots=True)
class ReleaseRules:
    """What the labels of an instance say of a rollout of its release."""

    strategy: ReleaseStrategy
    steps: tuple[ReleaseStep, ...]
    deadline: int = 3600
    """Seconds for which it may be neither good nor bad in one step; then the rollout is aborted."""
    max_failures: float | None = None
    """Per cent; None: that of the judge."""
    min_connections: int | None = None
    """None: that of the judge."""
    checks: tuple[str, ...] = ()
    """The labels of its checks, without prefix."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One instance of a service, as the workers share it."""

    id: str
    owner: str
    """The `Service.owner` it belongs to."""
    worker: str
    address: Address
    port: int | None = None
    """The port where it is reached for every container port, or None if that is the container port itself."""
    weight: int = 1
    release: str | None = None
    forwarding: Forwarding = Forwarding.MASQUERADE
    max_connections: int = 0
    """The number of connections from which on it gets no new ones; 0: no limit."""
    min_connections: int = 0
    """Once at its limit, it gets new connections again below this number; 0: three quarters of `max_connections`."""
    host_ports: tuple[HostPort, ...] = ()
    """Where single container ports are reached. Takes precedence over `port`."""
    health: Health | None = None
    """Its health according to its engine, for services without a probe; None: the engine does not check it."""
    drain: DrainReason | None = None
    """Why it gets no new connections, or None if it gets them."""
    name: str | None = None
    """The name that operators use, such as the container's name; None: the same as its ID."""
    run: str | None = None
    """Distinguishes its successive processes: a restart changes it and keeps the ID. None if that is not known."""
    declared: Service | None = field(default=None, hash=False)
    """What its own labels declare, or None if that is the same: in a record, as the record of the service that its
    worker writes; in a view, as the service of the view.
    """
    asked_weight: int | None = None
    """The weight that an operator requested in place of its label's; None if none did. `weight` is what counts.
    Versions up to 0.1.0 neither write nor read this.
    """
    slow_start: int = 0
    """Seconds over which its weight grows once it begins to serve (`mesh.control.slow_start`); 0: it has it at once.
    Versions up to 0.1.0 neither write nor read this.
    """
    release_rules: ReleaseRules | None = None
    """How its release takes the place of another one by shares; None: it does not. Versions up to 0.1.0 neither write
    nor read this.
    """

    def with_declared(self, declared: Service | None) -> "Endpoint":
        """Return a copy whose own labels declare this; None: the same as its service."""
        return replace(self, declared=declared)

    def with_state(self, drain: DrainReason | None, health: Health | None) -> "Endpoint":
        """Return a copy with this drain and this health according to its engine."""
        return replace(self, drain=drain, health=health)

    def with_weight(self, weight: int, asked_weight: int | None) -> "Endpoint":
        """Return a copy with this weight, and with the one that an operator requested; None if none did."""
        return replace(self, weight=weight, asked_weight=asked_weight)

    @property
    def weight_from(self) -> WeightOrigin:
        """Where its weight comes from."""
        return WeightOrigin.LABEL if self.asked_weight is None else WeightOrigin.OPERATOR

    @property
    def key(self) -> EndpointKey:
        """Its key, which is unique in the cluster."""
        return self.worker, self.id

    def is_same_run(self, other: "Endpoint | Instance") -> bool:
        """Return whether health that was found for one of them says something about the other: the process is the same,
        as far as is known, and so is its address.
        """
        return self.address == other.address and same_run(self.run, other.run)

    def port_for(self, container_port: int, transport: Transport = Transport.TCP) -> int:
        """Return the port to send to for a container port."""
        for mapped in self.host_ports:
            if (mapped.transport, mapped.container_port) == (transport, container_port):
                return mapped.port
        return self.port if self.port is not None else container_port


def same_run(run: str | None, other: str | None) -> bool:
    """Return whether two runs of one endpoint may be the same. One that is not known equals any other."""
    return run is None or other is None or run == other
