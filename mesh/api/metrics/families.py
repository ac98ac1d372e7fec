"""What a worker measures, under the names that dashboards and alerts use: `docs/metrics.md`.

Labels come from closed lists, except for the names of services: of those, no more than a bound that the settings give
have series of their own, and a series says how many have none. No label ever has an address, an endpoint or a path in
it: containers come and go, and each would leave a series behind in whoever scrapes. Pure.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from mesh.api.metrics.counts import Census, EndpointState, Row, ServiceState, census
from mesh.api.metrics.text_format import Family, Kind, Sample, lines
from mesh.control.digest import as_number
from mesh.control.snapshot import Observed
from mesh.control.stats import LoopFigures
from mesh.dataplane.operations import OPERATIONS
from mesh.health.stats import ProbeFigures
from mesh.model.probe import ProbeKind
from mesh.model.problem import Severity
from mesh.model.service import Health
from mesh.model.table import Traffic, VirtualKey

FROZEN = ("store", "source", "data plane", "host")
"""What may fall silent, so that its last good state stays in force."""
FINDERS = ("labels", "claims", "ports", "source", "store", "name")
"""Who finds problems: of labels, conflicts over claims, ports that a program holds, files, records, a namesake."""


@dataclass(frozen=True, slots=True)
class Measured:
    """All that the metrics tell, at one moment."""

    observed: Observed
    loop: LoopFigures = field(default_factory=LoopFigures)
    probes: ProbeFigures = field(default_factory=ProbeFigures)
    dns: Mapping[str, int] = field(default_factory=dict)
    """What became of the questions: answered, forwarded, refused, dropped."""
    forwarder: Mapping[str, int] = field(default_factory=dict)
    """cached, asked, shared, failed, stale, capped."""
    traffic: Mapping[VirtualKey, Traffic] = field(default_factory=dict)
    """What went through each virtual server; empty if the data plane does not count."""
    most_services: int = 1000
    """So many services have series of their own, the first ones by name."""
    watchers: int = 0
    """Who follow the events of the API."""
    watchers_dropped: int = 0


@dataclass(frozen=True, slots=True)
class _Scrape:
    measured: Measured
    census: Census

    @property
    def shown(self) -> tuple[Row, ...]:
        return self.census.rows[: self.measured.most_services]


_Read = Callable[[_Scrape], Iterable[Sample]]


def _one(value: Callable[[_Scrape], float]) -> _Read:
    return lambda scrape: [((), value(scrape))]


def _info(scrape: _Scrape) -> Iterator[Sample]:
    facts = scrape.measured.observed.facts
    yield (facts.version, facts.worker, facts.data_plane), 1


def _operations(scrape: _Scrape) -> Iterator[Sample]:
    loop = scrape.measured.loop
    for kind in OPERATIONS.values():
        yield (kind, "done"), loop.operations[kind] - loop.refusals[kind]
        yield (kind, "refused"), loop.refusals[kind]


def _frozen(scrape: _Scrape) -> Iterator[Sample]:
    found = [_finder(part) for part in scrape.measured.observed.frozen]
    for part in FROZEN:
        yield (part.replace(" ", "_"),), found.count(part)


def _problems(scrape: _Scrape) -> Iterator[Sample]:
    observed = scrape.measured.observed
    for finder in FINDERS:
        parts = [part for part in observed.problems if _finder(part) == finder]
        severities = [problem.severity for part in parts for problem in observed.problems[part]]
        for severity in Severity:
            yield (finder, severity), severities.count(severity)


def _finder(part: str) -> str:
    """`source 0` is one of the sources."""
    return part.rstrip("0123456789").rstrip()


def _table(scrape: _Scrape) -> tuple[int, int]:
    plan = scrape.measured.observed.plan
    servers = plan.table.virtual_servers if plan is not None else {}
    return len(servers), sum(len(server.real_servers) for server in servers.values())


def _digest(scrape: _Scrape) -> Iterator[Sample]:
    digest = scrape.measured.observed.digest
    if digest is not None:
        yield (), as_number(digest)


def _names(scrape: _Scrape) -> int:
    plan = scrape.measured.observed.plan
    return len(plan.names) if plan is not None else 0


def _verdicts(scrape: _Scrape) -> Iterator[Sample]:
    verdicts = scrape.measured.probes.verdicts
    for kind in ProbeKind:
        yield (kind, "success"), verdicts[kind, True]
        yield (kind, "failure"), verdicts[kind, False]


def _probed(scrape: _Scrape) -> Iterator[Sample]:
    known = list(scrape.measured.observed.probed.values())
    return (((health,), known.count(health)) for health in Health)


def _questions(scrape: _Scrape) -> Iterator[Sample]:
    return (((result,), count) for result, count in scrape.measured.dns.items())


def _carried(value: Callable[[Traffic], int]) -> _Read:
    """Of each service, over its virtual servers; nothing where nothing is counted."""

    def read(scrape: _Scrape) -> Iterator[Sample]:
        measured = scrape.measured
        parts = measured.observed.plan.parts if measured.observed.plan is not None and measured.traffic else {}
        for row in scrape.shown:
            if (part := parts.get(row.owner)) is not None:
                found = [measured.traffic[key] for key in part.virtual_servers if key in measured.traffic]
                yield (row.name,), sum(value(traffic) for traffic in found)

    return read


def _forwarder(what: str) -> _Read:
    return _one(lambda scrape: scrape.measured.forwarder.get(what, 0))


_C, _G = Kind.COUNTER, Kind.GAUGE
TABLE: tuple[tuple[Family, _Read], ...] = (
    (
        Family("vipmesh_info", _G, "Always 1; the labels tell.", ("version", "worker", "data_plane")),
        _info,
    ),
    (
        Family("vipmesh_passes_total", _C, "Passes of the control loop that came to their end."),
        _one(lambda s: s.measured.loop.passes),
    ),
    (
        Family("vipmesh_pass_duration_seconds", Kind.HISTOGRAM, "How long a pass of the control loop took."),
        lambda s: [((), s.measured.loop.pass_seconds)],
    ),
    (
        Family("vipmesh_last_pass_timestamp_seconds", _G, "When the control loop last came round, since the epoch."),
        _one(lambda s: s.measured.loop.looked_at),
    ),
    (
        Family("vipmesh_repairs_total", _C, "What somebody else had changed in the kernel and was mended."),
        _one(lambda s: s.measured.observed.repairs),
    ),
    (
        Family("vipmesh_frozen", _G, "How many of a kind do not answer; their last state stays in force.", ("part",)),
        _frozen,
    ),
    (
        Family("vipmesh_problems", _G, "What is refused or ignored now, by who finds it.", ("part", "severity")),
        _problems,
    ),
    (
        Family("vipmesh_data_plane_stalls_total", _C, "Passes without effect, since the data plane did not answer."),
        _one(lambda s: s.measured.loop.stalls),
    ),
    (
        Family("vipmesh_data_plane_operations_total", _C, "Changes asked of the data plane.", ("operation", "result")),
        _operations,
    ),
    (
        Family("vipmesh_data_plane_refusals", _G, "Changes that the data plane refuses now."),
        _one(lambda s: len(s.measured.observed.failures)),
    ),
    (Family("vipmesh_virtual_servers", _G, "Virtual servers of the last plan."), _one(lambda s: _table(s)[0])),
    (Family("vipmesh_real_servers", _G, "Real servers of the last plan."), _one(lambda s: _table(s)[1])),
    (
        Family("vipmesh_table_digest", _G, "What all workers must agree on, as a number: equal numbers, equal tables."),
        _digest,
    ),
    (
        Family("vipmesh_draining_real_servers", _G, "Real servers that wait for their last connections."),
        _one(lambda s: s.measured.observed.draining),
    ),
    (Family("vipmesh_workers", _G, "Workers of the cluster with an endpoint."), _one(lambda s: s.census.workers)),
    (
        Family("vipmesh_services", _G, "Services of the cluster by whether they answer.", ("state",)),
        lambda s: [((state,), s.census.services[state]) for state in ServiceState],
    ),
    (
        Family("vipmesh_endpoints", _G, "Endpoints of the cluster by whether they take connections.", ("state",)),
        lambda s: [((state,), s.census.endpoints[state]) for state in EndpointState],
    ),
    (
        Family("vipmesh_service_endpoints", _G, "Endpoints of a service.", ("service",)),
        lambda s: [((row.name,), row.endpoints) for row in s.shown],
    ),
    (
        Family("vipmesh_service_endpoints_serving", _G, "Endpoints of a service that take connections.", ("service",)),
        lambda s: [((row.name,), row.serving) for row in s.shown],
    ),
    (
        Family("vipmesh_service_connections_total", _C, "Connections to a service through this worker.", ("service",)),
        _carried(lambda traffic: traffic.connections),
    ),
    (
        Family("vipmesh_service_received_bytes_total", _C, "Octets from clients through this worker.", ("service",)),
        _carried(lambda traffic: traffic.bytes_in),
    ),
    (
        Family("vipmesh_service_sent_bytes_total", _C, "Octets to clients through this worker.", ("service",)),
        _carried(lambda traffic: traffic.bytes_out),
    ),
    (
        Family("vipmesh_services_without_series", _G, "Services beyond [metrics] services: they have no own series."),
        _one(lambda s: len(s.census.rows) - len(s.shown)),
    ),
    (
        Family("vipmesh_probes_total", _C, "Probes by what was found.", ("kind", "result")),
        _verdicts,
    ),
    (
        Family("vipmesh_probe_duration_seconds", Kind.HISTOGRAM, "How long probes took."),
        lambda s: [((), s.measured.probes.seconds)],
    ),
    (Family("vipmesh_probed_endpoints", _G, "Endpoints of this worker that are probed.", ("health",)), _probed),
    (Family("vipmesh_probes_in_flight", _G, "Probes under way."), _one(lambda s: s.measured.probes.in_flight)),
    (
        Family("vipmesh_probes_waiting", _G, "Probes that are due and wait for room."),
        _one(lambda s: s.measured.probes.waiting),
    ),
    (Family("vipmesh_dns_names", _G, "Routing names of the last plan."), _one(_names)),
    (
        Family("vipmesh_dns_questions_total", _C, "Questions by what became of them.", ("result",)),
        _questions,
    ),
    (
        Family("vipmesh_dns_forward_cache_hits_total", _C, "Questions about other names answered from the cache."),
        _forwarder("cached"),
    ),
    (Family("vipmesh_dns_forward_exchanges_total", _C, "Exchanges with upstreams."), _forwarder("asked")),
    (
        Family("vipmesh_dns_forward_failures_total", _C, "Exchanges that no upstream answered."),
        _forwarder("failed"),
    ),
    (
        Family("vipmesh_dns_forward_shared_total", _C, "Questions that joined an exchange under way."),
        _forwarder("shared"),
    ),
    (
        Family("vipmesh_dns_forward_stale_total", _C, "Questions answered with what was past its time."),
        _forwarder("stale"),
    ),
    (
        Family("vipmesh_dns_forward_capped_total", _C, "Questions refused since too many were under way."),
        _forwarder("capped"),
    ),
    (Family("vipmesh_event_watchers", _G, "Who follow the events of the API."), _one(lambda s: s.measured.watchers)),
    (
        Family("vipmesh_event_watchers_dropped_total", _C, "Those who read too slowly and were let go."),
        _one(lambda s: s.measured.watchers_dropped),
    ),
)
"""Every family, in the order of the text."""


def exposition(measured: Measured) -> bytes:
    """The text of all metrics. It takes tens of milliseconds where services are many: run it beside the loop."""
    scrape = _Scrape(measured, census(measured.observed))
    return "".join(line for family, read in TABLE for line in lines(family, read(scrape))).encode()
