"""The status of a worker: one value, served as JSON to programs and shown as text to people. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType

from mesh.api.release_rows import (
    ReleaseStatus,
    RolloutStatus,
    release_rows,
    rollout_row,
    shares_by,
    shares_note,
)
from mesh.cluster.worker_directory import dropping_worker
from mesh.control.arrival import Arrivals, describe_network
from mesh.control.endpoint_totals import endpoint_totals
from mesh.control.planner import Plan, has_virtual_servers, programmed_reals
from mesh.control.share_overlay import ShareOverlay
from mesh.control.slow_start import SlowStarts
from mesh.control.snapshot import WorkerSnapshot
from mesh.health.snapshot import HealthStatus, ProbeStatus, VerdictStatus, health_status, utc_time
from mesh.model.codes import Code
from mesh.model.collected_logs import CollectedLogs
from mesh.model.eligibility import endpoint_verdict, held_names, real_keys, serves, vip_of
from mesh.model.errors import CodedText
from mesh.model.problem import Notices, Problem, Severity
from mesh.model.release_rollout import RolloutPhase
from mesh.model.service import Address, EndpointKey, Name, Service, WeightOrigin
from mesh.model.service_scaling import ServiceScaling
from mesh.model.table import RealKey, Table, TrafficCounters, VirtualKey
from mesh.model.view import ClusterView


class StatusDetail(Enum):
    """The amount of constantly changing figures in a status."""

    EVENTS = "events"
    """None, so that two statuses differ only where something has happened."""
    TABLE = "table"
    """The time of each endpoint's last check, and the connections."""
    FULL = "full"
    """As `TABLE`, with the last verdicts on each endpoint and the counts of the prober."""


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
    """The weight that counts; `weight_from` says where it comes from."""
    release: str | None
    """The release that its label names; None without one."""
    health: str
    """`healthy`, `unhealthy`, `starting`, or `not probed`."""
    serving: bool
    """Whether new connections go to it."""
    last_probe: str | None
    """The result of the last probe, in words; for an endpoint that another worker probes, the one that made it
    unhealthy; None if neither is known.
    """
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
    weight_from: str = "label"
    """`label`, also without one, or `operator` if one requested it with `vipmesh weight`."""
    programming: bool = False
    """Whether it is about to serve: it may, and the data plane does not have it yet."""
    since: str | None = None
    """Since when this worker has seen its health and its drain as they are, in UTC: `2026-11-23T16:15:41+00:00`."""
    last_probe_at: str | None = None
    """When the last check ended, in the same form; None if this worker has not probed it, and in events."""
    connections: int | None = None
    """The connections to it through this worker; None where the data plane cannot count them, and in events."""
    opened: int | None = None
    """The connections to it through this worker since it was programmed; None as for `connections`."""
    bytes_in: int | None = None
    """The bytes from clients since then; None as for `connections`."""
    bytes_out: int | None = None
    """The bytes to clients since then; None as for `connections`."""
    slow_start_percent: int | None = None
    """The part of its weight that it has while it ramps, in per cent; None if it has all of it."""
    slow_start_until: str | None = None
    """When it has all of its weight, in the form of `since`; None if it does not ramp."""


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
    releases: tuple[ReleaseStatus, ...] = ()
    """The releases of its endpoints, sorted by name; empty if no endpoint names one."""
    shares_by: str | None = None
    """Who gave the shares that are in force; None if none are, or if that is not known."""
    shares_note: str | None = None
    """How shares in force are kept, if not exactly in each cycle of connections; None otherwise."""
    rollout: RolloutStatus | None = None
    """How far its rollout is; None if it has none."""


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker of the cluster."""

    name: str
    endpoints: int
    """The number of endpoints that it runs."""
    admin: str | None = None
    """`ADDRESS:PORT` of its admin API with TLS, as it says itself; None if it publishes none."""


@dataclass(frozen=True, slots=True)
class StatusNotice:
    """One current condition of the worker, with its code."""

    kind: str
    """`problem`, `failure`, `frozen` or `suspicion`: the list of the status that has its text."""
    severity: str
    """`error` or `warning`. What does not answer or was refused is an error; a suspicion is a warning."""
    code: str
    """Its code, which `docs/errors.md` explains."""
    text: str
    """The line that a user reads, without the code."""
    owner: str | None = None
    """The service that it is about, `project/service`; None if it is about none, or about several."""


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
    acting: str | None = None
    """The worker whose daemon acts for the swarm; None if it is not known, or the engine is part of no swarm."""
    autoscaling: tuple[ServiceScaling, ...] = ()
    """The last decision of autoscaling on each service, if this worker acts for the swarm; empty in events."""
    logs: CollectedLogs | None = None
    """How far `vipmesh ship` is; None if nothing answers and no container asks for it, and in events."""


@dataclass(frozen=True, slots=True)
class LiveFigures:
    """Figures beside the view and the health. Events have none of them."""

    programmed: Table | None = None
    """The table that the last pass has left in the data plane; None stands for the planned one."""
    since: Mapping[EndpointKey, float] = field(default_factory=dict)
    """Since when each endpoint is in its state, in seconds since 1970."""
    connections: Mapping[VirtualKey, Mapping[RealKey, int]] | None = None
    """The connections of each real server, by virtual server; None if they are not known."""
    traffic: Mapping[VirtualKey, Mapping[RealKey, TrafficCounters]] = field(default_factory=dict)
    """The traffic to each real server, by virtual server; empty if it is not known."""
    shared: ShareOverlay = field(default_factory=ShareOverlay)
    """The weights that follow from the shares of releases."""
    data_plane: str = ""
    """The name of the data plane."""
    slow_starts: SlowStarts = field(default_factory=SlowStarts)
    """The endpoints that ramp."""


def service_statuses(
    view: ClusterView,
    known: HealthStatus,
    planned: Plan,
    arrivals: Arrivals | None = None,
    live: LiveFigures | None = None,
) -> tuple[ServiceStatus, ...]:
    """Return the status of each service, sorted by name. `arrivals`: None if nothing was observed."""
    unreached = {} if arrivals is None else _not_arriving(arrivals)
    live = live if live is not None else LiveFigures()
    at: dict[Address, list[VirtualKey]] = {}
    for key in planned.table.virtual_servers:
        at.setdefault(key.address, []).append(key)
    found = []
    for service in view.services:
        vip = vip_of(service, view)
        keys = at.get(vip, []) if vip is not None else []
        found.append(
            ServiceStatus(
                service.name,
                service.owner,
                vip,
                held_names(service, view) if vip else (),
                tuple(str(key) for key in sorted(keys)),
                tuple(_endpoint_rows(service, view, known, planned, live)),
                unreached.get(service.owner, ()),
                _published(planned, service.owner),
                release_rows(service, live.shared),
                shares_by(service, live.shared),
                shares_note(service, live.shared, planned, live.data_plane),
                rollout_row(view.rollouts.get(service.owner)),
            )
        )
    return tuple(sorted(found, key=lambda row: (row.name, row.owner)))


def _endpoint_rows(
    service: Service, view: ClusterView, known: HealthStatus, planned: Plan, live: LiveFigures
) -> Iterator[EndpointStatus]:
    vip = vip_of(service, view)
    group = view.groups[service.owner].endpoints if service.owner in view.groups else ()
    is_served = vip is not None and has_virtual_servers(planned, service.owner)
    there = programmed_reals(planned, service.owner, live.programmed) if is_served else frozenset()
    part = planned.parts.get(service.owner)
    busy = (
        [live.connections[key] for key in part.served if key in live.connections] if part and live.connections else []
    )
    totals = {} if part is None else {each.key: count for each, count in endpoint_totals(part, live.traffic)}
    for endpoint in group:
        carried = totals.get(endpoint.key)
        may_serve = is_served and vip is not None and serves(service, endpoint, vip, known.traffic)
        may_serve = may_serve and live.shared.has_share(endpoint)
        reals = real_keys(service, endpoint) if may_serve or busy else ()
        serving = may_serve and not there.isdisjoint(reals)
        ramp = live.slow_starts.ramp_of(endpoint)
        yield EndpointStatus(
            id=endpoint.id,
            worker=endpoint.worker,
            address=endpoint.address,
            port=endpoint.port,
            weight=endpoint.weight,
            release=endpoint.release,
            health=endpoint_verdict(service, endpoint, known.health) or "not probed",
            serving=serving,
            last_probe=known.last.get(endpoint.key) or view.reasons.get(endpoint.key),
            drain=endpoint.drain,
            name=endpoint.name,
            kept=endpoint.key in known.kept,
            held_back=endpoint.key in known.held_back,
            verdicts=known.verdicts.get(endpoint.key, ()),
            weight_from=endpoint.weight_from.value,
            programming=may_serve and not serving,
            since=None if (since := live.since.get(endpoint.key)) is None else utc_time(int(since)),
            last_probe_at=known.last_at.get(endpoint.key),
            connections=(
                None if live.connections is None else sum(server.get(real, 0) for server in busy for real in reals)
            ),
            opened=None if carried is None else carried.connections,
            bytes_in=None if carried is None else carried.bytes_in,
            bytes_out=None if carried is None else carried.bytes_out,
            slow_start_percent=None if ramp is None else ramp.percent,
            slow_start_until=None if ramp is None else utc_time(ramp.until),
        )


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


def _with_drops(rows: tuple[ServiceStatus, ...], problems: Iterable[Problem], own: str) -> tuple[ServiceStatus, ...]:
    """Return the rows with what firewalls of workers drop, as these workers say."""
    dropped: dict[str | None, dict[str, None]] = {}
    for problem in problems:
        if problem.code is Code.PEERS_DROPPED:
            text = f"other workers to endpoints on {dropping_worker(problem, own)}"
            dropped.setdefault(problem.owner, {})[text] = None
    if not dropped:
        return rows
    return tuple(replace(row, not_arriving=(*row.not_arriving, *dropped.get(row.owner, ()))) for row in rows)


def worker_rows(
    own: str, rows: Iterable[ServiceStatus], admin: Mapping[str, RealKey] = MappingProxyType({})
) -> tuple[WorkerRow, ...]:
    """Return each worker that runs endpoints, and the own one, from the rows of all services. `admin` says where their
    admin APIs are.
    """
    found = Counter({own: 0})
    found.update(endpoint.worker for row in rows for endpoint in row.endpoints)
    at = {name: str(address) for name, address in admin.items()}
    return tuple(WorkerRow(name, endpoints, at.get(name)) for name, endpoints in sorted(found.items()))


def render_status(status: WorkerStatus, notices: Notices) -> str:
    """Return the text for people. `notices` has the messages of the status with their codes."""
    return "\n".join(_lines(status, notices))


def _upkeep_lines(status: WorkerStatus) -> Iterator[str]:
    if status.acting is not None:
        yield f"swarm       {status.acting} acts"
    if status.repairs:
        reverted = (
            "1 change from outside vipmesh was"
            if status.repairs == 1
            else f"{status.repairs} changes from outside vipmesh were"
        )
        yield f"repairs     {reverted} reverted; see the log"


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
    yield from _upkeep_lines(status)
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
    if any(row.given is not None for row in service.releases):
        yield f"  shares: {', '.join(map(_release_text, service.releases))}"
    if service.rollout is not None and service.rollout.phase is not RolloutPhase.DONE:
        yield f"  rollout: {service.rollout.state}"
    if service.not_arriving:
        yield f"  requests do not arrive from {', '.join(service.not_arriving)}"
    for endpoint in service.endpoints:
        yield f"  {_endpoint_line(endpoint)}"


def _release_text(row: ReleaseStatus) -> str:
    return f"release {row.release or 'none'} {row.share:g} %"


def _endpoint_line(endpoint: EndpointStatus) -> str:
    address = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    port = f":{endpoint.port}" if endpoint.port is not None else ""
    mark = "->" if endpoint.serving else "x "
    words = [f"{mark} {address + port:<24} {endpoint.health:<10} weight {endpoint.weight}"]
    if endpoint.weight_from == WeightOrigin.OPERATOR:
        words.append("set by an operator")
    if endpoint.slow_start_percent is not None:
        words.append(f"of which {endpoint.slow_start_percent} % until {endpoint.slow_start_until}")
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


def worker_status(
    observed: WorkerSnapshot,
    detail: StatusDetail = StatusDetail.EVENTS,
    connections: Mapping[VirtualKey, Mapping[RealKey, int]] | None = None,
    traffic: Mapping[VirtualKey, Mapping[RealKey, TrafficCounters]] = MappingProxyType({}),
) -> WorkerStatus:
    """Return the status of a worker. `connections` and `traffic` of each real server by virtual server; None and empty
    if they are not known.

    What changes all the time is in it as far as `detail` says.
    """
    facts, effective = observed.facts, observed.effective()
    found: tuple[ServiceStatus, ...] = ()
    if effective is not None and observed.plan is not None:
        view = effective.known
        seen = health_status(
            observed.health(view),
            effective.traffic.health,
            observed.judged,
            timed=detail is not StatusDetail.EVENTS,
            in_detail=detail is StatusDetail.FULL,
        )
        live = LiveFigures(
            observed.programmed,
            observed.since,
            connections,
            traffic,
            effective.shared,
            facts.data_plane,
            effective.slow_starts,
        )
        found = service_statuses(view, seen, observed.plan, observed.arrivals, live)
        found = _with_drops(found, observed.all_problems, facts.worker)
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
        probes=observed.judged.probes if detail is StatusDetail.FULL else None,
        store=facts.store,
        workers=worker_rows(facts.worker, found, observed.admin_addresses),
        notices=status_notices(notices(observed)),
        acting=observed.acting,
        autoscaling=() if detail is StatusDetail.EVENTS else observed.scaling,
        logs=None if detail is StatusDetail.EVENTS else observed.collected,
    )


def status_notices(found: Notices) -> tuple[StatusNotice, ...]:
    """Return everything that is wrong: errors first, and what stops the whole worker before what stops one service."""
    parts: tuple[tuple[str, Severity, tuple[CodedText, ...]], ...] = (
        ("frozen", Severity.ERROR, found.frozen),
        ("suspicion", Severity.WARNING, found.suspicions),
        ("failure", Severity.ERROR, found.failures),
    )
    rows = [
        StatusNotice(kind, severity.value, str(each.code), each.text)
        for kind, severity, texts in parts
        for each in texts
    ]
    rows += [
        StatusNotice("problem", each.severity.value, str(each.code), str(each), each.owner) for each in found.problems
    ]
    return tuple(sorted(rows, key=lambda row: row.severity != Severity.ERROR))


def notices(observed: WorkerSnapshot) -> Notices:
    """Return the messages of `worker_status` and of explanations, with their codes."""
    return Notices(
        problems=observed.all_problems,
        failures=observed.failures,
        frozen=tuple(observed.frozen[part] for part in sorted(observed.frozen)),
        suspicions=observed.judged.suspicions,
    )
