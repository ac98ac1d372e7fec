"""The words of the mesh as frozen values: what labels declare, what the workers share, what the kernel holds.

Nothing here does anything. Every value is immutable, hashable where it serves as a key, and ordered where it is
listed, so that the functions over them (`labels`, `claims`, `plan`, `diff`) are deterministic.

Addresses are text in canonical form (`10.112.0.7`, `fd00::7`): the edge that first reads one validates it with
`ipaddress`, everything behind compares strings.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from mesh.model.probe import Probe as Probe
from mesh.model.probe import ProbeKind as ProbeKind
from meshdns.persistent_map import ShardedMap

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


# --------------------------------------------------------------------------------------------- what labels declare


class Health(StrEnum):
    """What is known of one endpoint. An endpoint that nobody probes counts as healthy while it runs."""

    STARTING = "starting"
    """No success yet: it gets no traffic."""
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Drain(StrEnum):
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
    drain: Drain | None = None
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
class Publish:
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
    publishes: tuple[Publish, ...] = ()
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
    drain: Drain | None = None
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


# ------------------------------------------------------------------------------------------ what the cluster knows


@dataclass(frozen=True, slots=True)
class Claims:
    """What the cluster has given away for good."""

    vips: Mapping[Name, Address] = field(default_factory=dict)
    """Service name -> its VIP."""
    owners: Mapping[Name, str] = field(default_factory=dict)
    """Routing name -> the owner that holds it."""
    ports: Mapping[tuple[Transport, int], tuple[Name, int]] = field(default_factory=dict)
    """Published (transport, port) -> (service name, container port)."""
    holders: Mapping[Address, Name] = field(default_factory=dict)
    """Every VIP ever given -> the service name it was given to; one that a service has left stays its own."""


class Group(NamedTuple):
    """The endpoints of one service."""

    endpoints: tuple[Endpoint, ...]
    """In order of `id`, and of `worker` where that is the same."""
    verdicts: tuple[Health | None, ...]
    """What was last said of each; None: it has not answered its probes yet."""


@dataclass(frozen=True, slots=True)
class ClusterView:
    """One immutable picture of what all workers have registered; `plan` reads nothing else of the store."""

    services: tuple[Service, ...] = ()
    """In order of `owner`."""
    endpoints: tuple[Endpoint, ...] = ()
    """In order of `id`, and of `worker` where that is the same."""
    claims: Claims = field(default_factory=Claims)
    health: Mapping[EndpointKey, Health] = field(default_factory=dict)
    """What was last said of each endpoint, by its own worker; if that is gone, by those that ask in its place. Who is
    missing has not answered its probes yet."""
    kept: frozenset[EndpointKey] = frozenset()
    """Unhealthy ones that whoever asks them leaves in traffic: too many have failed at once."""
    held_back: frozenset[EndpointKey] = frozenset()
    """Unhealthy ones that answer, and have come and gone too often."""
    workers: frozenset[str] = frozenset()
    """Those whose daemons are there."""
    silent: frozenset[str] = frozenset()
    """Workers whose verdicts have lost their validity: they are gone, or nothing can be heard of them."""
    _groups: Mapping[str, Group] | None = field(default=None, init=False, compare=False, repr=False)
    _by_key: Mapping[EndpointKey, Endpoint] | None = field(default=None, init=False, compare=False, repr=False)

    def regrouped(
        self, groups: Mapping[str, Group], by_key: Mapping[EndpointKey, Endpoint] | None = None, **changes: Any
    ) -> "ClusterView":
        """With these fields changed, of whoever makes one picture after another and knows the groups that follow, and
        the endpoints by key where those have changed. What is as before shall stay the same object: what follows from
        it need not be made again.
        """
        view = replace(self, **changes)
        object.__setattr__(view, "_groups", groups)
        same = "endpoints" not in changes
        object.__setattr__(view, "_by_key", self._by_key if by_key is None and same else by_key)
        return view

    @property
    def by_key(self) -> Mapping[EndpointKey, Endpoint]:
        """The endpoints."""
        if self._by_key is None:
            found = ShardedMap({endpoint.key: endpoint for endpoint in self.endpoints})
            object.__setattr__(self, "_by_key", found)  # it follows from the rest
            return found
        return self._by_key

    @property
    def groups(self) -> Mapping[str, Group]:
        """The endpoints by `Service.owner`."""
        if self._groups is None:
            found: dict[str, list[Endpoint]] = {}
            for endpoint in self.endpoints:
                found.setdefault(endpoint.owner, []).append(endpoint)
            groups = ShardedMap({owner: group(endpoints, self.health) for owner, endpoints in found.items()})
            object.__setattr__(self, "_groups", groups)  # it follows from the rest
            return groups
        return self._groups

    def judged(self, verdicts: Mapping[EndpointKey, Health | None]) -> "ClusterView":
        """With these verdicts, None: there is none; the view itself where nothing differs."""
        changed = {key: health for key, health in verdicts.items() if self.health.get(key) is not health}
        owners = {endpoint.owner for key in changed if (endpoint := self.by_key.get(key)) is not None}
        if not owners:
            return self
        health = ShardedMap.of(self.health).changed(changed)
        groups = {owner: group(self.groups[owner].endpoints, health) for owner in owners}
        return self.regrouped(ShardedMap.of(self.groups).changed(groups), health=health)


def group(endpoints: Iterable[Endpoint], health: Mapping[EndpointKey, Health]) -> Group:
    """These endpoints of one service, in their order."""
    ordered = tuple(endpoints)
    return Group(ordered, tuple(health.get(endpoint.key) for endpoint in ordered))


# --------------------------------------------------------------------------------------------- what the kernel holds


class VirtualKey(NamedTuple):
    """What IPVS calls a virtual service: where clients connect to. A tuple, since tables are looked up by it."""

    address: Address
    port: int
    transport: Transport

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.transport}://{host}:{self.port}"


class RealKey(NamedTuple):
    """Where a real server is reached. A tuple, since tables are looked up by it."""

    address: Address
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class RealServer:
    """The settings of a real server behind one virtual server."""

    weight: int = 1
    """0 takes no new connection."""
    forwarding: Forwarding = Forwarding.MASQUERADE
    upper_threshold: int = 0
    """Connections at which it takes no new one; 0: no limit."""
    lower_threshold: int = 0
    """Connections below which it takes new ones again; 0: three quarters of the upper threshold."""

    def __str__(self) -> str:
        words = [f"weight {self.weight}"]
        if self.forwarding is not Forwarding.MASQUERADE:
            words.append(f"forwarding {self.forwarding}")
        if self.upper_threshold or self.lower_threshold:
            words.append(f"thresholds {self.upper_threshold} and {self.lower_threshold}")
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class VirtualServer:
    """The settings of a virtual server, and the real servers behind it."""

    scheduler: Scheduler = Scheduler.WRR
    persistence: int = 0
    """Seconds; 0: none."""
    real_servers: Mapping[RealKey, RealServer] = field(default_factory=lambda: MappingProxyType({}))
    flags: frozenset[SchedulerFlag] = frozenset()


@dataclass(frozen=True, slots=True)
class Table:
    """The whole content of a data plane, as far as it is ours. Empty: nothing is balanced, no VIP is bound."""

    virtual_servers: Mapping[VirtualKey, VirtualServer] = field(default_factory=lambda: MappingProxyType({}))
    vips: frozenset[Address] = frozenset()
    """Addresses that this worker answers to."""

    def part(self, keys: Collection[VirtualKey]) -> "Table":
        """The same with these virtual servers alone, as far as they exist."""
        return Table({key: self.virtual_servers[key] for key in keys if key in self.virtual_servers}, self.vips)

    def changed(self, keys: Collection[VirtualKey], part: "Table") -> "Table":
        """The same with these virtual servers, and the VIPs, as the part has them."""
        gone: dict[VirtualKey, VirtualServer | None] = dict.fromkeys(keys)
        return Table(ShardedMap.of(self.virtual_servers).changed(gone | dict(part.virtual_servers)), part.vips)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What has gone through one virtual server since it was made."""

    connections: int = 0
    """Those that were opened, ever."""
    bytes_in: int = 0
    """From clients."""
    bytes_out: int = 0
    """To clients, as far as replies come back this way."""
