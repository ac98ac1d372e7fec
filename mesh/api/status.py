"""What a worker says of itself: one value, shown as text to people and as JSON to programs.

A pure function over what the daemon knows; `vipmesh status` renders the same value that the admin API serves.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mesh.control.planner import Plan, has_virtual_servers
from mesh.control.snapshot import WorkerSnapshot
from mesh.health.snapshot import HealthStatus, ProbeStatus, VerdictStatus, health_status
from mesh.model.eligibility import endpoint_verdict, held_names, serves, vip_of
from mesh.model.problem import Notices
from mesh.model.service import Address, Name
from mesh.model.table import VirtualKey
from mesh.model.view import ClusterView


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
class WorkerRow:
    """One worker of the cluster, by what it runs."""

    name: str
    endpoints: int


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
    digest: str | None = None
    """Of what all workers must agree on (`mesh.control.digest`); None: nothing is planned yet."""
    store: str = ""
    """Where claims and endpoints are kept."""
    workers: tuple[WorkerRow, ...] = ()
    """This one, and those that run endpoints, by name."""
    suspicions: tuple[str, ...] = ()
    """Where so many endpoints fail at once that it is not obeyed."""
    probes: ProbeStatus | None = None
    """None: it was not asked for."""


def service_statuses(view: ClusterView, known: HealthStatus, planned: Plan) -> tuple[ServiceStatus, ...]:
    """The services in order of their name."""
    found = []
    at: dict[Address, list[VirtualKey]] = {}
    for key in planned.table.virtual_servers:
        at.setdefault(key.address, []).append(key)
    for service in view.services:
        vip = vip_of(service, view)
        keys = at.get(vip, []) if vip is not None else []
        is_served = has_virtual_servers(planned, service.owner)
        rows = tuple(
            EndpointStatus(
                id=endpoint.id,
                worker=endpoint.worker,
                address=endpoint.address,
                port=endpoint.port,
                weight=endpoint.weight,
                release=endpoint.release,
                health=endpoint_verdict(service, endpoint, known.health) or "not probed",
                serving=vip is not None and is_served and serves(service, endpoint, vip, known.traffic),
                last_probe=known.last.get(endpoint.key),
                drain=endpoint.drain,
                name=endpoint.name,
                kept=endpoint.key in known.kept,
                held_back=endpoint.key in known.held_back,
                verdicts=known.verdicts.get(endpoint.key, ()),
            )
            for endpoint in (view.groups[service.owner].endpoints if service.owner in view.groups else ())
        )
        names = held_names(service, view) if vip else ()
        found.append(
            ServiceStatus(service.name, service.owner, vip, names, tuple(str(key) for key in sorted(keys)), rows)
        )
    return tuple(sorted(found, key=lambda row: (row.name, row.owner)))


def worker_rows(own: str, rows: Iterable[ServiceStatus]) -> tuple[WorkerRow, ...]:
    """Who runs the endpoints of these services, and the own worker."""
    found = Counter({own: 0})
    found.update(endpoint.worker for row in rows for endpoint in row.endpoints)
    return tuple(WorkerRow(name, endpoints) for name, endpoints in sorted(found.items()))


def render_status(status: WorkerStatus, notices: Notices) -> str:
    """The text for people. `notices`: the messages of the status, with their codes."""
    return "\n".join(_lines(status, notices))


def _lines(status: WorkerStatus, notices: Notices) -> Iterator[str]:
    yield f"worker      {status.worker}  (vipmesh {status.version})"
    yield f"data plane  {status.data_plane}: {status.data_plane_reason}"
    yield f"dns         {', '.join(status.dns)}"
    if status.digest is not None:
        yield f"digest      {status.digest}"
    if status.store:
        yield f"store       {status.store}"
    if len(status.workers) > 1:
        rows = (f"{row.name} with {row.endpoints} endpoints" for row in status.workers)
        yield f"workers     {', '.join(rows)}"
    if status.repairs:
        yield f"repairs     {status.repairs}: somebody else changed what is ours; the log says what"
    for word, lines in (("frozen", notices.frozen), ("suspected", notices.suspicions)):
        yield from (f"{word:<11} {message.line}" for message in lines)
    for service in status.services:
        yield from _service_lines(service)
    if not status.services:
        yield ""
        yield ("no services" if status.digest else "no services are known yet: nothing was planned since the start")
    problems = tuple(problem.coded for problem in notices.problems)
    for title, lines in (("problems", problems), ("the data plane refused", notices.failures)):
        if lines:
            yield ""
            yield f"{title}:"
            yield from (f"  {message.line}" for message in lines)


def _service_lines(service: ServiceStatus) -> Iterator[str]:
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


def worker_status(observed: WorkerSnapshot, *, in_detail: bool = False) -> WorkerStatus:
    """What an operator should know. `in_detail`: with the last verdicts and the counts, which change all the time."""
    facts, effective = observed.facts, observed.effective()
    found: tuple[ServiceStatus, ...] = ()
    if effective is not None and observed.plan is not None:
        view = effective.known
        seen = health_status(observed.health(view), effective.traffic.health, observed.judged, in_detail=in_detail)
        found = service_statuses(view, seen, observed.plan)
    return WorkerStatus(
        version=facts.version,
        worker=facts.worker,
        data_plane=facts.data_plane,
        data_plane_reason=facts.data_plane_reason,
        dns=facts.dns,
        services=found,
        problems=tuple(map(str, observed.all_problems)),
        failures=tuple(map(str, observed.failures)),
        frozen=tuple(str(observed.frozen[part]) for part in sorted(observed.frozen)),
        repairs=observed.repairs,
        digest=observed.digest,
        suspicions=tuple(map(str, observed.judged.suspicions)),
        probes=observed.judged.probes if in_detail else None,
        store=facts.store,
        workers=worker_rows(facts.worker, found),
    )


def notices(observed: WorkerSnapshot) -> Notices:
    """The messages of `worker_status` and of explanations with their codes."""
    return Notices(
        problems=observed.all_problems,
        failures=observed.failures,
        frozen=tuple(observed.frozen[part] for part in sorted(observed.frozen)),
        suspicions=observed.judged.suspicions,
    )
