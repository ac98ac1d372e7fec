"""What a worker says of itself: one value, shown as text to people and as JSON to programs.

A pure function over what the daemon knows; `vipmesh status` renders the same value that the admin API serves.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mesh.model import Address, ClusterView, EndpointKey, Health, Name
from mesh.plan import Plan, endpoints_by_owner, held_names, takes_traffic, verdict, vip_of


@dataclass(frozen=True, slots=True)
class VerdictStatus:
    """The outcome of one check."""

    at: str
    """When it ended, in UTC: `2026-11-23T16:15:41.123+00:00`."""
    ok: bool
    reason: str
    seconds: float
    """How long it took."""


@dataclass(frozen=True, slots=True)
class ProbeStatus:
    """What the prober of this worker does; the counts are since its start."""

    endpoints: int = 0
    """How many it asks."""
    checks: int = 0
    failures: int = 0
    late: int = 0
    """Checks that began more than a tenth of a second after their time."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the endpoints' health."""

    health: Mapping[EndpointKey, Health] = field(default_factory=dict)
    traffic: Mapping[EndpointKey, Health] = field(default_factory=dict)
    """What traffic follows; usually the same."""
    kept: frozenset[EndpointKey] = frozenset()
    """Unhealthy, and in traffic all the same."""
    held_back: frozenset[EndpointKey] = frozenset()
    """Answers, and is not believed yet."""
    verdicts: Mapping[EndpointKey, tuple[VerdictStatus, ...]] = field(default_factory=dict)
    """Of each endpoint that this worker asks, oldest first."""


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """One endpoint and whether it is in the way of traffic."""

    id: str
    worker: str
    address: Address
    port: int | None
    """None: the container port itself."""
    weight: int
    release: str | None
    health: str
    """`healthy`, `unhealthy`, `starting`, or `not probed`."""
    serving: bool
    """Whether new connections go to it."""
    last_probe: str | None
    """What the last probe found, in words."""
    drain: str | None = None
    """Why it takes no new connection: `asked`, `stopping`, `paused`; None: it does not drain."""
    name: str | None = None
    """What people call it, the container's name; None: as its id."""
    kept: bool = False
    """It is unhealthy and serves all the same: too many have failed at once."""
    held_back: bool = False
    """It answers, and is not believed yet: it comes and goes."""
    verdicts: tuple[VerdictStatus, ...] = ()
    """Its last ten checks by this worker, oldest first."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service, from its name to its endpoints."""

    name: Name
    owner: str
    vip: Address | None
    """None: refused; the reason is among the problems."""
    names: tuple[Name, ...]
    virtual_servers: tuple[str, ...]
    """`tcp://10.112.0.7:80`, published ports included."""
    endpoints: tuple[EndpointStatus, ...]


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """The whole answer of `vipmesh status --json`."""

    version: str
    worker: str
    data_plane: str
    data_plane_reason: str
    """Why this data plane was taken."""
    dns: tuple[str, ...]
    """`ADDRESS:PORT` of each name server socket."""
    services: tuple[ServiceStatus, ...] = ()
    problems: tuple[str, ...] = ()
    """What was refused or ignored, one line each."""
    failures: tuple[str, ...] = ()
    """What the data plane would not do."""
    frozen: tuple[str, ...] = ()
    """What does not answer, so that its last good state stays in force."""
    repairs: int = 0
    """How much of what somebody else had changed was mended since the start."""
    suspicions: tuple[str, ...] = ()
    """Where so many endpoints fail at once that it is not obeyed."""
    probes: ProbeStatus = ProbeStatus()


@dataclass(frozen=True, slots=True)
class Facts:
    """What does not change while the daemon runs."""

    version: str
    worker: str
    data_plane: str
    data_plane_reason: str
    dns: tuple[str, ...] = field(default=())


def services(view: ClusterView, known: Known, planned: Plan) -> tuple[ServiceStatus, ...]:
    """The services in order of their name."""
    endpoints = endpoints_by_owner(view)
    found = []
    for service in view.services:
        vip = vip_of(service, view)
        keys = [key for key in planned.table.virtual_servers if key.address == vip]
        rows = tuple(
            EndpointStatus(
                id=endpoint.id,
                worker=endpoint.worker,
                address=endpoint.address,
                port=endpoint.port,
                weight=endpoint.weight,
                release=endpoint.release,
                health=verdict(service, endpoint, known.health) or "not probed",
                serving=vip is not None and takes_traffic(service, endpoint, known.traffic),
                last_probe=known.verdicts[endpoint.key][-1].reason if known.verdicts.get(endpoint.key) else None,
                drain=endpoint.drain,
                name=endpoint.name,
                kept=endpoint.key in known.kept,
                held_back=endpoint.key in known.held_back,
                verdicts=known.verdicts.get(endpoint.key, ()),
            )
            for endpoint in endpoints.get(service.owner, ())
        )
        names = held_names(service, view) if vip else ()
        found.append(
            ServiceStatus(service.name, service.owner, vip, names, tuple(str(key) for key in sorted(keys)), rows)
        )
    return tuple(sorted(found, key=lambda row: (row.name, row.owner)))


def render(status: WorkerStatus) -> str:
    """The text for people."""
    return "\n".join(_lines(status))


def _lines(status: WorkerStatus) -> Iterator[str]:
    yield f"worker      {status.worker}  (vipmesh {status.version})"
    yield f"data plane  {status.data_plane}: {status.data_plane_reason}"
    yield f"dns         {', '.join(status.dns)}"
    if status.repairs:
        yield f"repairs     {status.repairs}: somebody else changed what is ours; the log says what"
    for line in status.frozen:
        yield f"frozen      {line}"
    for line in status.suspicions:
        yield f"suspected   {line}"
    for service in status.services:
        serving = sum(endpoint.serving for endpoint in service.endpoints)
        yield ""
        yield (
            f"{service.name}  {service.vip or 'REFUSED'}  {serving} of {len(service.endpoints)} endpoints serving"
            f"  ({service.owner})"
        )
        if service.virtual_servers:
            yield f"  {'  '.join(service.virtual_servers)}"
        if len(service.names) > 1:
            yield f"  names: {' '.join(service.names)}"
        for endpoint in service.endpoints:
            yield f"  {_endpoint_line(endpoint)}"
    if not status.services:
        yield ""
        yield "no services"
    for title, lines in (("problems", status.problems), ("the data plane refused", status.failures)):
        if lines:
            yield ""
            yield f"{title}:"
            yield from (f"  {line}" for line in lines)


def _endpoint_line(endpoint: EndpointStatus) -> str:
    address = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    port = f":{endpoint.port}" if endpoint.port is not None else ""
    mark = "->" if endpoint.serving else "x "
    words = [f"{mark} {address + port:<24} {endpoint.health:<10} weight {endpoint.weight}"]
    if endpoint.name:
        words.append(endpoint.name)
    if endpoint.kept:
        words.append("kept in traffic")
    if endpoint.held_back:
        words.append("held back")
    if endpoint.drain:
        words.append(f"drains: {endpoint.drain}")
    if endpoint.release:
        words.append(f"release {endpoint.release}")
    if endpoint.last_probe:
        words.append(f"last probe: {endpoint.last_probe}")
    return "  ".join(words)
