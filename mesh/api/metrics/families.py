"""The metrics of a worker, under the names that dashboards and alerts use: `docs/metrics.md`. Pure.

The values of labels come from closed lists, except for the names of services and endpoints. Settings bound how many of
them have series of their own, and one series counts the other services. No label value is ever an address or a path.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from mesh.api.metrics.counts import ClusterCounts, EndpointState, ServiceCounts, ServiceState, count_cluster
from mesh.api.metrics.text_format import MetricFamily, MetricKind, MetricSample, format_family
from mesh.control.digest import digest_number
from mesh.control.endpoint_totals import endpoint_totals, traffic_by_server
from mesh.control.snapshot import WorkerSnapshot
from mesh.control.stats import LoopStats
from mesh.dataplane.drain import BackendKey
from mesh.dataplane.operations import OPERATION_NAMES
from mesh.health.stats import ProbeStats
from mesh.model.collected_logs import CollectedLogs
from mesh.model.part import DaemonPart, FrozenPart, ProblemPart
from mesh.model.probe import ProbeKind
from mesh.model.problem import Severity
from mesh.model.service import Health
from mesh.model.table import TrafficCounters, VirtualKey


@dataclass(frozen=True, slots=True)
class MetricsInput:
    """The state of a worker from which the metrics are computed."""

    observed: WorkerSnapshot
    """The snapshot of the worker."""
    loop: LoopStats = field(default_factory=LoopStats)
    """The counters of the control loop."""
    probes: ProbeStats = field(default_factory=ProbeStats)
    """The counters of the prober."""
    dns: Mapping[str, int] = field(default_factory=dict)
    """DNS questions by result: answered, forwarded, refused, dropped, limited."""
    forwarder: Mapping[str, int] = field(default_factory=dict)
    """The counters of the forwarder: the fields of `meshdns.forwarder.ForwardCounters`."""
    traffic: Mapping[VirtualKey, TrafficCounters] = field(default_factory=dict)
    """The traffic of each virtual server; empty if the data plane does not count it."""
    most_services: int = 1000
    """The most services with series of their own, the first ones by name."""
    watchers: int = 0
    """The number of watchers of the event stream."""
    watchers_dropped: int = 0
    """The number of watchers that were disconnected because they read too slowly."""
    refused_requests: Mapping[str, int] = field(default_factory=dict)
    """Requests that the admin API refused since the start, by reason."""
    endpoint_traffic: Mapping[BackendKey, TrafficCounters] = field(default_factory=dict)
    """The traffic to each real server; empty if the data plane does not count it."""
    most_endpoints: int = 200
    """The most endpoints with series of their own, those of the first services by name."""


@dataclass(frozen=True, slots=True)
class _ScrapeContext:
    measured: MetricsInput
    census: ClusterCounts
    endpoints: Mapping[tuple[str, str], TrafficCounters]
    """The traffic of each endpoint that has series of its own, by service and endpoint."""

    @property
    def shown(self) -> tuple[ServiceCounts, ...]:
        return self.census.rows[: self.measured.most_services]


_Read = Callable[[_ScrapeContext], Iterable[MetricSample]]


def _one(value: Callable[[_ScrapeContext], float]) -> _Read:
    """Return a reader of a single value without labels."""
    return lambda scrape: [((), value(scrape))]


def _info(scrape: _ScrapeContext) -> Iterator[MetricSample]:
    facts = scrape.measured.observed.facts
    yield (facts.version, facts.worker, facts.data_plane), 1


def _operations(scrape: _ScrapeContext) -> Iterator[MetricSample]:
    loop = scrape.measured.loop
    for kind in OPERATION_NAMES.values():
        yield (kind, "done"), loop.operations[kind] - loop.refusals[kind]
        yield (kind, "refused"), loop.refusals[kind]


def _frozen(scrape: _ScrapeContext) -> Iterator[MetricSample]:
    found = [_finder(part) for part in scrape.measured.observed.frozen]
    for part in FrozenPart:
        yield (part.replace(" ", "_"),), found.count(part)


def _scaled(scrape: _ScrapeContext) -> Iterator[MetricSample]:
    for each in scrape.measured.observed.scaling:
        counts = {"wanted": each.wanted, "kept": each.instances, "min": each.min_instances, "max": each.max_instances}
        for kind, count in counts.items():
            yield (each.service, kind), count


def _internal_errors(scrape: _ScrapeContext) -> Iterator[MetricSample]:
    counts = scrape.measured.observed.internal_errors
    for part in DaemonPart:
        yield (part.replace(" ", "_"),), counts.get(part, 0)


def _refused_requests(scrape: _ScrapeContext) -> Iterator[MetricSample]:
    for reason in ("unauthenticated", "forbidden", "invalid"):
        yield (reason,), scrape.measured.refused_requests.get(reason, 0)


def _problems(scrape: _ScrapeContext) -> Iterator[MetricSample]:
    observed = scrape.measured.observed
    for finder in ProblemPart:
        parts = [part for part in observed.problems if _finder(part) == finder]
        severities = [problem.severity for part in parts for problem in observed.problems[part]]
        for severity in Severity:
            yield (finder, severity), severities.count(severity)


def _finder(part: str) -> str:
    """Return the kind of a part: `source` for `source 0`."""
    return part.rstrip("0123456789").rstrip()


def _table(scrape: _ScrapeContext) -> tuple[int, int]:
    """Return the number of virtual servers and real servers of the last plan."""
    plan = scrape.measured.observed.plan
    servers = plan.table.virtual_servers if plan is not None else {}
    return len(servers), sum(len(server.real_servers) for server in servers.values())


def _digest(scrape: _ScrapeContext) -> Iterator[MetricSample]:
    digest = scrape.measured.observed.digest
    if digest is not None:
        yield (), digest_number(digest)


def _names(scrape: _ScrapeContext) -> int:
    plan = scrape.measured.observed.plan
    return len(plan.names) if plan is not None else 0


def _verdicts(scrape: _ScrapeContext) -> Iterator[MetricSample]:
    verdicts = scrape.measured.probes.verdicts
    for kind in ProbeKind:
        yield (kind, "success"), verdicts[kind, True]
        yield (kind, "failure"), verdicts[kind, False]


def _probed(scrape: _ScrapeContext) -> Iterator[MetricSample]:
    known = list(scrape.measured.observed.probed.values())
    return (((health,), known.count(health)) for health in Health)


def _questions(scrape: _ScrapeContext) -> Iterator[MetricSample]:
    return (((result,), count) for result, count in scrape.measured.dns.items())


def _carried(value: Callable[[TrafficCounters], int]) -> _Read:
    """Return a reader of one value per service, over its virtual servers; without counts there are no samples."""

    def read(scrape: _ScrapeContext) -> Iterator[MetricSample]:
        measured = scrape.measured
        parts = measured.observed.plan.parts if measured.observed.plan is not None and measured.traffic else {}
        for row in scrape.shown:
            if (part := parts.get(row.owner)) is not None:
                found = [measured.traffic[key] for key in part.virtual_servers if key in measured.traffic]
                yield (row.name,), sum(value(traffic) for traffic in found)

    return read


def _endpoint_samples(value: Callable[[TrafficCounters], int]) -> _Read:
    """Return a reader of one value per endpoint."""
    return lambda scrape: [(labels, value(traffic)) for labels, traffic in scrape.endpoints.items()]


def _endpoint_series(
    measured: MetricsInput, rows: Iterable[ServiceCounts]
) -> Mapping[tuple[str, str], TrafficCounters]:
    """Return the traffic of the first endpoints by name of their service; `rows` are the services in that order."""
    plan, found = measured.observed.plan, dict[tuple[str, str], TrafficCounters]()
    if plan is None or not measured.endpoint_traffic:
        return found
    counted = traffic_by_server(measured.endpoint_traffic)
    for row in rows:
        part = plan.parts.get(row.owner)
        for endpoint, traffic in endpoint_totals(part, counted) if part is not None else ():
            labels = (row.name, f"{endpoint.worker}/{endpoint.name or endpoint.id}")
            if labels not in found and len(found) >= measured.most_endpoints:
                return found
            # Names of containers are unique on their worker; of two alike, there is one series.
            found[labels] = found.get(labels, TrafficCounters()) + traffic
    return found


def _collected(value: Callable[[CollectedLogs], float], *, answers: bool = True) -> _Read:
    """Return a reader of one value of the collection of logs; without samples if nothing is known, or, with `answers`,
    if it does not answer.
    """

    def read(scrape: _ScrapeContext) -> Iterator[MetricSample]:
        found = scrape.measured.observed.collected
        if found is not None and (found.answers or not answers):
            yield (), value(found)

    return read


def _forwarder(what: str) -> _Read:
    return _one(lambda scrape: scrape.measured.forwarder.get(what, 0))


_C, _G = MetricKind.COUNTER, MetricKind.GAUGE
METRIC_FAMILIES: tuple[tuple[MetricFamily, _Read], ...] = (
    (
        MetricFamily(
            "vipmesh_info", _G, "Always 1; the labels are facts of the worker.", ("version", "worker", "data_plane")
        ),
        _info,
    ),
    (
        MetricFamily("vipmesh_passes_total", _C, "Completed passes of the control loop."),
        _one(lambda s: s.measured.loop.passes),
    ),
    (
        MetricFamily(
            "vipmesh_pass_duration_seconds", MetricKind.HISTOGRAM, "Duration of completed passes of the control loop."
        ),
        lambda s: [((), s.measured.loop.pass_seconds)],
    ),
    (
        MetricFamily(
            "vipmesh_last_pass_timestamp_seconds", _G, "Time when the control loop last ran, since the epoch."
        ),
        _one(lambda s: s.measured.loop.looked_at),
    ),
    (
        MetricFamily("vipmesh_repairs_total", _C, "Outside changes to the kernel state that were reverted."),
        _one(lambda s: s.measured.observed.repairs),
    ),
    (
        MetricFamily(
            "vipmesh_frozen", _G, "Parts that do not answer; their last good state stays in force.", ("part",)
        ),
        _frozen,
    ),
    (
        MetricFamily("vipmesh_acting", _G, "Whether the daemon of this worker acts for the swarm."),
        _one(lambda s: int(s.measured.observed.acting == s.measured.observed.facts.worker)),
    ),
    (
        MetricFamily(
            "vipmesh_autoscaling_instances",
            _G,
            "Instances of services that are scaled, on the worker that acts.",
            ("service", "kind"),
        ),
        _scaled,
    ),
    (
        MetricFamily(
            "vipmesh_autoscaling_measured",
            _G,
            "Averages of the last samples of services that are scaled, on the worker that acts.",
            ("service", "measure"),
        ),
        lambda s: [
            ((each.service, measure), value)
            for each in s.measured.observed.scaling
            for measure, value in sorted(each.values.items())
        ],
    ),
    (
        MetricFamily("vipmesh_problems", _G, "Current problems by the part that found them.", ("part", "severity")),
        _problems,
    ),
    (
        MetricFamily(
            "vipmesh_arrival_pairs",
            _G,
            "Pairs of a service and a network of clients, by whether requests arrive, of those that were observed.",
            ("state",),
        ),
        lambda s: [((state,), count) for state, count in s.measured.observed.arrivals.count().items()],
    ),
    (
        MetricFamily(
            "vipmesh_internal_errors_total",
            _C,
            "Unexpected exceptions that ended one check, connection, record, event or request, or a part.",
            ("part",),
        ),
        _internal_errors,
    ),
    (
        MetricFamily("vipmesh_logs_up", _G, "1 if vipmesh ship answers; 0 if not, while containers ask for it."),
        _collected(lambda logs: int(logs.answers), answers=False),
    ),
    (
        MetricFamily("vipmesh_logs_lag_seconds", _G, "How far the last delivered line of a container is behind."),
        _collected(lambda logs: logs.lag_seconds),
    ),
    (
        MetricFamily("vipmesh_logs_unread_bytes", _G, "Bytes of log files that are not delivered."),
        _collected(lambda logs: logs.unread_bytes),
    ),
    (
        MetricFamily("vipmesh_logs_lines_total", _C, "Log lines that the store of logs has."),
        _collected(lambda logs: logs.lines),
    ),
    (
        MetricFamily("vipmesh_logs_bytes_total", _C, "Bytes of the documents that the store of logs has."),
        _collected(lambda logs: logs.bytes),
    ),
    (
        MetricFamily(
            "vipmesh_logs_lost_total", _C, "Occasions on which rotation removed lines before they were collected."
        ),
        _collected(lambda logs: logs.lost),
    ),
    (
        MetricFamily("vipmesh_logs_refused_total", _C, "Log lines that the store of logs refused for good."),
        _collected(lambda logs: logs.refused),
    ),
    (
        MetricFamily("vipmesh_admin_refused_requests_total", _C, "Requests that the admin API refused.", ("reason",)),
        _refused_requests,
    ),
    (
        MetricFamily(
            "vipmesh_data_plane_stalls_total", _C, "Passes without effect because the data plane did not answer."
        ),
        _one(lambda s: s.measured.loop.stalls),
    ),
    (
        MetricFamily(
            "vipmesh_data_plane_operations_total", _C, "Operations on the data plane.", ("operation", "result")
        ),
        _operations,
    ),
    (
        MetricFamily("vipmesh_data_plane_refusals", _G, "Operations that the data plane refuses now."),
        _one(lambda s: len(s.measured.observed.failures)),
    ),
    (MetricFamily("vipmesh_virtual_servers", _G, "Virtual servers in the last plan."), _one(lambda s: _table(s)[0])),
    (MetricFamily("vipmesh_real_servers", _G, "Real servers in the last plan."), _one(lambda s: _table(s)[1])),
    (
        MetricFamily(
            "vipmesh_table_digest", _G, "Digest of what all workers must agree on: equal numbers mean equal tables."
        ),
        _digest,
    ),
    (
        MetricFamily("vipmesh_draining_real_servers", _G, "Real servers that drain."),
        _one(lambda s: s.measured.observed.draining),
    ),
    (
        MetricFamily("vipmesh_workers", _G, "Workers of the cluster with at least one endpoint."),
        _one(lambda s: s.census.workers),
    ),
    (
        MetricFamily("vipmesh_services", _G, "Services of the cluster by state.", ("state",)),
        lambda s: [((state,), s.census.services[state]) for state in ServiceState],
    ),
    (
        MetricFamily("vipmesh_endpoints", _G, "Endpoints of the cluster by state.", ("state",)),
        lambda s: [((state,), s.census.endpoints[state]) for state in EndpointState],
    ),
    (
        MetricFamily("vipmesh_service_endpoints", _G, "Endpoints of a service.", ("service",)),
        lambda s: [((row.name,), row.endpoints) for row in s.shown],
    ),
    (
        MetricFamily(
            "vipmesh_service_endpoints_serving", _G, "Endpoints of a service that take connections.", ("service",)
        ),
        lambda s: [((row.name,), row.serving) for row in s.shown],
    ),
    (
        MetricFamily(
            "vipmesh_release_share",
            _G,
            "Part of the new connections of a service that a release has by weight and share, from 0 to 1.",
            ("service", "release"),
        ),
        lambda s: [((row.name, each.release), float(each.share)) for row in s.shown for each in row.releases],
    ),
    (
        MetricFamily(
            "vipmesh_service_connections_total", _C, "Connections to a service through this worker.", ("service",)
        ),
        _carried(lambda traffic: traffic.connections),
    ),
    (
        MetricFamily(
            "vipmesh_service_received_bytes_total",
            _C,
            "Bytes from clients of a service through this worker.",
            ("service",),
        ),
        _carried(lambda traffic: traffic.bytes_in),
    ),
    (
        MetricFamily(
            "vipmesh_service_sent_bytes_total", _C, "Bytes to clients of a service through this worker.", ("service",)
        ),
        _carried(lambda traffic: traffic.bytes_out),
    ),
    (
        MetricFamily(
            "vipmesh_endpoint_connections_total",
            _C,
            "Connections to an endpoint through this worker.",
            ("service", "endpoint"),
        ),
        _endpoint_samples(lambda traffic: traffic.connections),
    ),
    (
        MetricFamily(
            "vipmesh_endpoint_received_bytes_total",
            _C,
            "Bytes from clients to an endpoint through this worker.",
            ("service", "endpoint"),
        ),
        _endpoint_samples(lambda traffic: traffic.bytes_in),
    ),
    (
        MetricFamily(
            "vipmesh_endpoint_sent_bytes_total",
            _C,
            "Bytes from an endpoint to clients through this worker.",
            ("service", "endpoint"),
        ),
        _endpoint_samples(lambda traffic: traffic.bytes_out),
    ),
    (
        MetricFamily(
            "vipmesh_services_without_series", _G, "Services without series of their own, beyond [metrics] services."
        ),
        _one(lambda s: len(s.census.rows) - len(s.shown)),
    ),
    (
        MetricFamily("vipmesh_probes_total", _C, "Completed probes by kind and result.", ("kind", "result")),
        _verdicts,
    ),
    (
        MetricFamily("vipmesh_probe_duration_seconds", MetricKind.HISTOGRAM, "Duration of completed probes."),
        lambda s: [((), s.measured.probes.seconds)],
    ),
    (
        MetricFamily("vipmesh_probed_endpoints", _G, "Probed endpoints of this worker by health.", ("health",)),
        _probed,
    ),
    (MetricFamily("vipmesh_probes_in_flight", _G, "Probes in flight."), _one(lambda s: s.measured.probes.in_flight)),
    (
        MetricFamily("vipmesh_probes_waiting", _G, "Probes that are due and wait because too many are in flight."),
        _one(lambda s: s.measured.probes.waiting),
    ),
    (MetricFamily("vipmesh_dns_names", _G, "Routing names in the last plan."), _one(_names)),
    (
        MetricFamily("vipmesh_dns_questions_total", _C, "DNS questions by result.", ("result",)),
        _questions,
    ),
    (
        MetricFamily(
            "vipmesh_dns_forward_cache_hits_total", _C, "DNS questions about other names answered from the cache."
        ),
        _forwarder("cached"),
    ),
    (MetricFamily("vipmesh_dns_forward_exchanges_total", _C, "Exchanges with upstream servers."), _forwarder("asked")),
    (
        MetricFamily("vipmesh_dns_forward_failures_total", _C, "Exchanges that no upstream server answered."),
        _forwarder("failed"),
    ),
    (
        MetricFamily("vipmesh_dns_forward_shared_total", _C, "DNS questions that joined a running exchange."),
        _forwarder("shared"),
    ),
    (
        MetricFamily("vipmesh_dns_forward_stale_total", _C, "DNS questions answered from expired cache entries."),
        _forwarder("stale"),
    ),
    (
        MetricFamily("vipmesh_dns_forward_capped_total", _C, "DNS questions refused because too many were in flight."),
        _forwarder("capped"),
    ),
    (
        MetricFamily("vipmesh_dns_forward_limited_total", _C, "DNS questions refused because a client sent too many."),
        _forwarder("limited"),
    ),
    (
        MetricFamily("vipmesh_dns_forward_unwanted_total", _C, "Packets from upstreams that answer no question."),
        _forwarder("unwanted"),
    ),
    (
        MetricFamily("vipmesh_dns_forward_blocked_total", _C, "Answers refused because of an address in them."),
        _forwarder("blocked"),
    ),
    (
        MetricFamily("vipmesh_dns_forward_completed_total", _C, "Answers of upstreams that led to own names."),
        _forwarder("completed"),
    ),
    (
        MetricFamily("vipmesh_event_watchers", _G, "Watchers of the event stream."),
        _one(lambda s: s.measured.watchers),
    ),
    (
        MetricFamily("vipmesh_event_watchers_dropped_total", _C, "Watchers disconnected because they read too slowly."),
        _one(lambda s: s.measured.watchers_dropped),
    ),
)
"""Every family with the reader of its samples, in the order of the text."""


def render_metrics(measured: MetricsInput) -> bytes:
    """Return the text of all metrics.

    It takes tens of milliseconds if there are thousands of services, so call it in a thread.
    """
    census = count_cluster(measured.observed)
    scrape = _ScrapeContext(measured, census, _endpoint_series(measured, census.rows))
    return "".join(line for family, read in METRIC_FAMILIES for line in format_family(family, read(scrape))).encode()
