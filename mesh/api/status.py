"""The status of a worker: one value, served as JSON to programs and shown as text to people. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from mesh.control.arrival import Arrivals, describe_network
from mesh.control.planner import Plan, has_virtual_servers
from mesh.control.snapshot import WorkerSnapshot
from mesh.health.snapshot import HealthStatus, ProbeStatus, VerdictStatus, health_status
from mesh.model.eligibility import endpoint_verdict, held_names, serves, vip_of
from mesh.model.problem import Notices, Severity
from mesh.model.service import Address, Name
from mesh.model.table import VirtualKey
from mesh.model.view import ClusterView


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """One endpoint, and whether it gets traffic."""

    id: str
    """Unique on its worker."""
    worker: str
    """The worker that runs it."""
    address: Address
    port: int | None
    """Where it is reached; None for the container port itself."""
    weight: int
    """Its weight, from its labels."""
    release: str | None
    """The release that its label names; None without one."""
    health: str
    """`healthy`, `unhealthy`, `starting`, or `not probed`."""
    serving: bool
    """Whether new connections go to it."""
    last_probe: str | None
    """The result of the last probe, in words; None if this worker has not probed it."""
    drain: str | None = None
    """Why it takes no new connections: `asked`, `maintenance`, `stopping`, `paused`, `unreachable`; None if it takes
    them.
    """
    name: str | None = None
    """The container's name; None if it is the same as the id."""
    kept: bool = False
    """Whether it serves although it is unhealthy, since too many have failed at once."""
    held_back: bool = False
    """Whether it is held back although it answers, since it has failed and recovered too often."""
    verdicts: tuple[VerdictStatus, ...] = ()
    """Its last checks by this worker, up to ten, oldest first."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service, from its name to its endpoints."""

    name: Name
    """The first routing name."""
    owner: str
    """The declaration that it comes from, `project/service`."""
    vip: Address | None
    """The VIP; None if it was refused, with the reason among the problems."""
    names: tuple[Name, ...]
    """The routing names that it holds; empty without a VIP."""
    virtual_servers: tuple[str, ...]
    """The virtual servers on its VIP: `tcp://10.112.0.7:80`."""
    endpoints: tuple[EndpointStatus, ...]
    not_arriving: tuple[str, ...] = ()
    """The clients whose requests were seen without an answer, in words: `the network 172.18.0.0/16`; empty if none."""
    published: tuple[str, ...] = ()
    """The published ports that lead to it on this worker: `30080/tcp`; empty if there are none."""


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker of the cluster."""

    name: str
    endpoints: int
    """The number of endpoints that it runs."""


class StatusPart(StrEnum):
    """Where a notice of the status stands beside its code."""

    FROZEN = "frozen"
    SUSPICION = "suspicion"
    FAILURE = "failure"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class StatusNotice:
    """One thing that is wrong, with its code."""

    code: str
    """The code of its message: `VM201`."""
    severity: Severity
    """Whether something has no effect, or does not work as it should."""
    text: str
    """The message, without its code."""
    part: StatusPart
    """The field of the status that has the same text."""
    owner: str | None = None
    """The service that it is about, `project/service`; None if it is about none."""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """The document of `vipmesh status --json`."""

    version: str
    worker: str
    data_plane: str
    """`ipvs`, `nftables` or `userspace`."""
    data_plane_reason: str
    """Why this data plane was chosen."""
    dns: tuple[str, ...]
    """`ADDRESS:PORT` of each socket of the name server."""
    services: tuple[ServiceStatus, ...] = ()
    """The services of the whole cluster, sorted by name."""
    problems: tuple[str, ...] = ()
    """The refused or ignored settings, one line each."""
    failures: tuple[str, ...] = ()
    """The operations that the data plane refused, one line each."""
    frozen: tuple[str, ...] = ()
    """The parts that do not answer, so that their last good state stays in force, one line each."""
    repairs: int = 0
    """The number of outside changes to the kernel state that were reverted since the start."""
    digest: str | None = None
    """The digest of what all workers must agree on (`mesh.control.digest`); None before the first plan."""
    store: str = ""
    """Where claims and endpoints are kept: a URL without secrets."""
    workers: tuple[WorkerRow, ...] = ()
    """This worker, and all workers that run endpoints, sorted by name."""
    suspicions: tuple[str, ...] = ()
    """The groups in which so many endpoints fail at once that the verdicts are not followed, one line each."""
    probes: ProbeStatus | None = None
    """The counts of the prober; None in events."""
    notices: tuple[StatusNotice, ...] = ()
    """Everything that is wrong, with codes: what is frozen, suspected, refused by the data plane, and the problems;
    errors first.
    """


def service_statuses(
    view: ClusterView, known: HealthStatus, planned: Plan, arrivals: Arrivals | None = None
) -> tuple[ServiceStatus, ...]:
    """Return the status of each service, sorted by name. `arrivals`: None if nothing was observed."""
    unreached = {} if arrivals is None else _not_arriving(arrivals)
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
            ServiceStatus(
                service.name,
                service.owner,
                vip,
                names,
                tuple(str(key) for key in sorted(keys)),
                rows,
                unreached.get(service.owner, ()),
                _published(planned, service.owner),
            )
        )
    return tuple(sorted(found, key=lambda row: (row.name, row.owner)))


def _published(planned: Plan, owner: str) -> tuple[str, ...]:
    """Return the published ports of a service, without those that are left to other programs of this worker."""
    part = planned.parts.get(owner)
    if part is None:
        return ()
    held = sorted((port, transport.value) for transport, port in part.published.keys() - part.inputs.contested)
    return tuple(f"{port}/{transport}" for port, transport in held)


def _not_arriving(arrivals: Arrivals) -> Mapping[str, tuple[str, ...]]:
    """Return the clients in words whose requests do not arrive, by owner of the service."""
    owners = {pair.owner for pair in arrivals.pairs}
    found = {owner: arrivals.failing(owner) for owner in owners}
    return {
        owner: tuple(describe_network(pair.network) for pair, _ in pairs) for owner, pairs in found.items() if pairs
    }


def worker_rows(own: str, rows: Iterable[ServiceStatus]) -> tuple[WorkerRow, ...]:
    """Return the number of endpoints of each worker, including the own one, from the rows of all services."""
    found = Counter({own: 0})
    found.update(endpoint.worker for row in rows for endpoint in row.endpoints)
    return tuple(WorkerRow(name, endpoints) for name, endpoints in sorted(found.items()))


def render_status(status: WorkerStatus, notices: Notices) -> str:
    """Return the text for people. `notices` has the messages of the status with their codes."""
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
        reverted = (
            "1 change from outside vipmesh was"
            if status.repairs == 1
            else f"{status.repairs} changes from outside vipmesh were"
        )
        yield f"repairs     {reverted} reverted; see the log"
    for word, lines in (("frozen", notices.frozen), ("suspected", notices.suspicions)):
        yield from (f"{word:<11} {message.line}" for message in lines)
    for service in status.services:
        yield from _service_lines(service)
    if not status.services:
        yield ""
        yield ("no services" if status.digest else "no services are known yet: no pass has ended since the start")
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
    if service.published:
        yield f"  published: {' '.join(service.published)}"
    if len(service.names) > 1:
        yield f"  names: {' '.join(service.names)}"
    if service.not_arriving:
        yield f"  requests do not arrive from {', '.join(service.not_arriving)}"
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
        words.append(f"draining: {endpoint.drain}")
    if endpoint.release:
        words.append(f"release {endpoint.release}")
    if endpoint.last_probe:
        words.append(f"last probe: {endpoint.last_probe}")
    return "  ".join(words)


def worker_status(observed: WorkerSnapshot, *, in_detail: bool = False) -> WorkerStatus:
    """Return the status of a worker.

    With `in_detail`, it includes the last verdicts of each endpoint and the counts of the prober, which change all the
    time.
    """
    facts, effective = observed.facts, observed.effective()
    found: tuple[ServiceStatus, ...] = ()
    if effective is not None and observed.plan is not None:
        view = effective.known
        seen = health_status(observed.health(view), effective.traffic.health, observed.judged, in_detail=in_detail)
        found = service_statuses(view, seen, observed.plan, observed.arrivals)
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
        notices=status_notices(notices(observed)),
    )


def status_notices(found: Notices) -> tuple[StatusNotice, ...]:
    """Return everything that is wrong: errors first, and what stops the whole worker before what stops one service."""
    parts = (
        (StatusPart.FROZEN, found.frozen),
        (StatusPart.SUSPICION, found.suspicions),
        (StatusPart.FAILURE, found.failures),
    )
    rows = [StatusNotice(str(each.code), Severity.ERROR, each.text, part) for part, texts in parts for each in texts]
    rows += [
        StatusNotice(str(each.code), each.severity, str(each), StatusPart.PROBLEM, each.owner)
        for each in found.problems
    ]
    return tuple(sorted(rows, key=lambda row: row.severity is not Severity.ERROR))


def notices(observed: WorkerSnapshot) -> Notices:
    """Return the messages of `worker_status` and of explanations, with their codes."""
    return Notices(
        problems=observed.all_problems,
        failures=observed.failures,
        frozen=tuple(observed.frozen[part] for part in sorted(observed.frozen)),
        suspicions=observed.judged.suspicions,
    )
