"""The metrics of a worker: from hand-made snapshots, read by the parser of Prometheus, and compared with the docs."""

import ast
import re
from collections import Counter
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mesh.api.metrics.families import METRIC_FAMILIES, MetricsInput, render_metrics
from mesh.control.planner import make_plan
from mesh.control.snapshot import WorkerFacts, WorkerSnapshot
from mesh.control.stats import LoopStats
from mesh.health.snapshot import HealthSnapshot
from mesh.health.stats import ProbeStats
from mesh.model.claims import Claims
from mesh.model.codes import Code
from mesh.model.collected_logs import CollectedLogs
from mesh.model.errors import CodedText
from mesh.model.part import DaemonPart, FrozenPart, ProblemPart
from mesh.model.probe import ProbeKind
from mesh.model.problem import Problem, Severity
from mesh.model.service import DrainReason, Endpoint, Health, Instance, Transport
from mesh.model.table import RealKey, TrafficCounters, VirtualKey
from mesh.model.view import ClusterView
from tests.builders import TCP_PROBE, endpoint, service

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
FACTS = WorkerFacts("1.2", 'w"1\\', "fake", "a test")


def problem(reason: str, severity: Severity = Severity.ERROR) -> Problem:
    return Problem(Code.UNKNOWN_LABEL, severity, "service a", reason, "mend it")


def numbered_endpoint(owner: str, last: int, worker: str = FACTS.worker, drain: DrainReason | None = None) -> Endpoint:
    return endpoint(f"{owner}-{last}", worker, f"demo/{owner}", f"10.2.0.{last}", drain=drain)


SERVICES = (service("a.test", probe=TCP_PROBE), service("b.test"), service("c.test"), service("d.test"))
ENDPOINTS = (
    numbered_endpoint("a", 1),
    numbered_endpoint("a", 2),
    numbered_endpoint("a", 3),
    numbered_endpoint("a", 4, "w2"),
    numbered_endpoint("b", 5, drain=DrainReason.ASKED),
    numbered_endpoint("d", 6),
)
VIEW = ClusterView(
    SERVICES,
    ENDPOINTS,
    Claims(
        {"a.test": "10.112.0.2", "b.test": "10.112.0.3", "c.test": "10.112.0.4"},
        {"a.test": "demo/a", "b.test": "demo/b", "c.test": "demo/c", "d.test": "somebody/else"},
    ),
    {("w2", "a-4"): Health.HEALTHY},
)
PROBED = {
    (FACTS.worker, "a-1"): Health.HEALTHY,
    (FACTS.worker, "a-2"): Health.UNHEALTHY,
    (FACTS.worker, "a-3"): Health.STARTING,
}
OBSERVED = WorkerSnapshot(
    FACTS,
    VIEW,
    tuple(Instance(e.id, e.owner, e.address, {}, drain=e.drain) for e in ENDPOINTS),
    PROBED,
    HealthSnapshot(),
    make_plan(VIEW, {("w2", "a-4"): Health.HEALTHY} | PROBED),
    problems={
        "labels": (problem("one"), problem("two", Severity.WARNING)),
        "claims": (problem("three"),),
        "source 140": (problem("four"),),
        "source 141": (problem("five", Severity.WARNING),),
    },
    failures=(CodedText("add: no", Code.OPERATION_REFUSED),),
    frozen={
        "store": CodedText("it is away", Code.STORE_UNREACHABLE),
        "source 0": CodedText("gone", Code.ENGINE_UNREACHABLE),
        "source 1": CodedText("gone", Code.ENGINE_UNREACHABLE),
    },
    repairs=7,
    draining=2,
    digest="fedcba987654",
)


def read(measured: MetricsInput) -> dict[str, float]:
    """Each series as `name{label=value}` and its number."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(render_metrics(measured).decode()):
        for sample in family.samples:
            labels = ",".join(sorted(sample.labels.values()))
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in found, "a series is there once"
            found[key] = sample.value
    return found


def test_gauges_of_the_cluster_view() -> None:
    found = read(MetricsInput(OBSERVED))
    assert found['vipmesh_info{1.2,fake,w"1\\}'] == 1
    expected = {
        "vipmesh_repairs_total": 7,
        "vipmesh_frozen{store}": 1,
        "vipmesh_frozen{source}": 2,
        "vipmesh_frozen{data_plane}": 0,
        "vipmesh_frozen{host}": 0,
        "vipmesh_problems{error,labels}": 1,
        "vipmesh_problems{labels,warning}": 1,
        "vipmesh_problems{claims,error}": 1,
        "vipmesh_problems{claims,warning}": 0,
        "vipmesh_problems{error,source}": 1,
        "vipmesh_problems{source,warning}": 1,
        "vipmesh_problems{error,ports}": 0,
        "vipmesh_data_plane_refusals": 1,
        "vipmesh_draining_real_servers": 2,
        "vipmesh_table_digest": 0xFEDCBA987654,
        "vipmesh_virtual_servers": 3,
        "vipmesh_real_servers": 2,
        "vipmesh_dns_names": 3,
        "vipmesh_workers": 2,
        "vipmesh_services{serving}": 1,
        "vipmesh_services{empty}": 2,
        "vipmesh_services{refused}": 1,
        "vipmesh_endpoints{serving}": 2,
        "vipmesh_endpoints{starting}": 1,
        "vipmesh_endpoints{unhealthy}": 1,
        "vipmesh_endpoints{draining}": 1,
        "vipmesh_endpoints{refused}": 1,
        "vipmesh_service_endpoints{a.test}": 4,
        "vipmesh_service_endpoints_serving{a.test}": 2,
        "vipmesh_service_endpoints{c.test}": 0,
        "vipmesh_services_without_series": 0,
        "vipmesh_probed_endpoints{healthy}": 1,
        "vipmesh_probed_endpoints{starting}": 1,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert "vipmesh_service_endpoints{d.test}" not in found, "a refused service shares its name with another one"


@pytest.mark.parametrize("part", ProblemPart)
def test_the_problems_of_every_part_are_counted(part: ProblemPart) -> None:
    name = f"{part} 0" if part is ProblemPart.SOURCE else part.value
    found_problems = (problem("one"), problem("two", Severity.WARNING), problem("three", Severity.WARNING))
    found = read(MetricsInput(replace(OBSERVED, problems={name: found_problems})))
    assert found[f"vipmesh_problems{{{','.join(sorted([part, 'error']))}}}"] == 1
    assert found[f"vipmesh_problems{{{','.join(sorted([part, 'warning']))}}}"] == 2


@pytest.mark.parametrize("part", DaemonPart)
def test_the_internal_errors_of_every_part_are_counted(part: DaemonPart) -> None:
    found = read(MetricsInput(replace(OBSERVED, internal_errors={part: 3})))
    label = part.replace(" ", "_")
    assert {key: value for key, value in found.items() if key.startswith("vipmesh_internal_errors")} == {
        f"vipmesh_internal_errors_total{{{each.replace(' ', '_')}}}": 3 if each is part else 0 for each in DaemonPart
    }
    assert found[f"vipmesh_internal_errors_total{{{label}}}"] == 3


@pytest.mark.parametrize("part", FrozenPart)
def test_every_part_that_is_frozen_is_counted(part: FrozenPart) -> None:
    name = part.value if part in (FrozenPart.STORE, FrozenPart.DATA_PLANE) else f"{part} 3"
    found = read(MetricsInput(replace(OBSERVED, frozen={name: CodedText("it is away", Code.STORE_UNREACHABLE)})))
    assert {key for key, value in found.items() if key.startswith("vipmesh_frozen{") and value} == {
        f"vipmesh_frozen{{{part.replace(' ', '_')}}}"
    }


def test_every_reported_condition_belongs_to_a_known_part() -> None:
    """A part that is written by hand somewhere would be missing in the metrics."""
    frozen, problems = {*map(str, FrozenPart)}, {*map(str, ProblemPart)}
    known: dict[object, set[str]] = {"found": problems, "froze": frozen, "thawed": frozen}
    for path in (ROOT / "mesh").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            match call:
                case ast.Call(ast.Attribute(attr=("found" | "froze" | "thawed") as method), [ast.Constant(part), *_]):
                    assert str(part) in known[method], f"{path}:{call.lineno}"


def test_counters_of_the_control_loop_probes_and_dns() -> None:
    loop = LoopStats(5, 1, operations=Counter(bind_vip=3), refusals=Counter(bind_vip=1), looked_at=1.5e9)
    loop.pass_seconds.observe(0.02)
    probes = ProbeStats(Counter({(ProbeKind.TCP, True): 4, (ProbeKind.HTTP, False): 2}), in_flight=3, waiting=9)
    probes.seconds.observe(30)
    dns = {"answered": 11, "dropped": 2}
    found = read(MetricsInput(OBSERVED, loop, probes, dns, {"cached": 4, "failed": 1}))
    expected = {
        "vipmesh_passes_total": 5,
        "vipmesh_data_plane_stalls_total": 1,
        "vipmesh_pass_duration_seconds_count": 1,
        "vipmesh_pass_duration_seconds_bucket{0.01}": 0,
        "vipmesh_pass_duration_seconds_bucket{0.025}": 1,
        "vipmesh_last_pass_timestamp_seconds": 1.5e9,
        "vipmesh_data_plane_operations_total{bind_vip,done}": 2,
        "vipmesh_data_plane_operations_total{bind_vip,refused}": 1,
        "vipmesh_data_plane_operations_total{add_real_server,done}": 0,
        "vipmesh_probes_total{success,tcp}": 4,
        "vipmesh_probes_total{failure,http}": 2,
        "vipmesh_probes_total{command,failure}": 0,
        "vipmesh_probe_duration_seconds_bucket{10.0}": 0,
        "vipmesh_probe_duration_seconds_bucket{+Inf}": 1,
        "vipmesh_probes_in_flight": 3,
        "vipmesh_probes_waiting": 9,
        "vipmesh_dns_questions_total{answered}": 11,
        "vipmesh_dns_forward_cache_hits_total": 4,
        "vipmesh_dns_forward_failures_total": 1,
        "vipmesh_dns_forward_stale_total": 0,
    }
    assert {key: found.get(key) for key in expected} == expected


def test_traffic_of_a_service_is_the_sum_over_its_virtual_servers() -> None:
    one, other = VirtualKey("10.112.0.2", 80, Transport.TCP), VirtualKey("10.112.0.3", 80, Transport.TCP)
    stranger = VirtualKey("10.112.0.99", 80, Transport.TCP)
    traffic = {one: TrafficCounters(3, 400, 5000), other: TrafficCounters(), stranger: TrafficCounters(7, 7, 7)}
    found = read(MetricsInput(OBSERVED, traffic=traffic))
    assert found["vipmesh_service_connections_total{a.test}"] == 3
    assert found["vipmesh_service_received_bytes_total{a.test}"] == 400
    assert found["vipmesh_service_sent_bytes_total{a.test}"] == 5000
    assert found["vipmesh_service_connections_total{b.test}"] == 0
    silent = read(MetricsInput(OBSERVED))
    assert not any(key.startswith("vipmesh_service_connections_total") for key in silent), "0 would be a lie"


ENDPOINT_TRAFFIC = {
    (VirtualKey("10.112.0.2", 80, Transport.TCP), RealKey("10.2.0.1", 80)): TrafficCounters(3, 400, 5000),
    (VirtualKey("10.112.0.2", 80, Transport.TCP), RealKey("10.2.0.4", 80)): TrafficCounters(1, 2, 3),
    (VirtualKey("10.112.0.2", 80, Transport.TCP), RealKey("10.2.0.9", 80)): TrafficCounters(7, 7, 7),
}


@pytest.mark.parametrize("bound", [0, 1, 9])
def test_endpoints_have_series_of_their_own_up_to_a_limit(bound: int) -> None:
    found = read(MetricsInput(OBSERVED, endpoint_traffic=ENDPOINT_TRAFFIC, most_endpoints=bound))
    counted = {key: value for key, value in found.items() if key.startswith("vipmesh_endpoint_")}
    assert len(counted) == 3 * min(bound, 2), "what is behind the virtual server and no endpoint of ours has none"
    if bound == 9:
        assert sorted(value for key, value in counted.items() if "connections" in key) == [1, 3]
        assert sorted(value for key, value in counted.items() if "sent" in key) == [3, 5000]
        assert all("a.test" in key for key in counted)


@pytest.mark.parametrize("bound", [0, 1, 2])
def test_services_above_the_limit_have_no_series_of_their_own(bound: int) -> None:
    found = read(MetricsInput(OBSERVED, most_services=bound))
    named = [key for key in found if key.startswith("vipmesh_service_endpoints{")]
    assert named == [f"vipmesh_service_endpoints{{{name}.test}}" for name in "abc"[:bound]]
    assert found["vipmesh_services_without_series"] == 3 - bound
    assert found["vipmesh_endpoints{serving}"] == 2, "the totals have all of them"


def test_before_the_first_pass_no_state_is_reported() -> None:
    found = read(MetricsInput(WorkerSnapshot(FACTS)))
    assert found["vipmesh_services{serving}"] == 0
    assert found["vipmesh_passes_total"] == 0


def test_names_follow_the_conventions() -> None:
    """https://prometheus.io/docs/practices/naming/"""
    names = [family.name for family, _ in METRIC_FAMILIES]
    assert len(set(names)) == len(names)
    for family, _ in METRIC_FAMILIES:
        assert re.fullmatch(r"vipmesh_[a-z_]+", family.name)
        assert family.name.endswith("_total") == (family.kind == "counter"), family.name
        assert not family.name.endswith(("_count", "_sum", "_bucket")), family.name
        assert family.meaning.endswith(".")
        bounded = re.fullmatch(r"vipmesh_endpoint_\w+_total", family.name)
        assert ("endpoint" in family.labels) == bool(bounded), "endpoints come and go: each leaves a series behind"


@pytest.mark.parametrize(
    ("family", "parts"),
    [
        ("vipmesh_problems", ProblemPart),
        ("vipmesh_frozen", FrozenPart),
        ("vipmesh_internal_errors_total", DaemonPart),
    ],
)
def test_the_docs_have_each_part_and_no_other(family: str, parts: type[StrEnum]) -> None:
    (row,) = re.findall(rf"^\| `part` of `{family}` \| (.*) \|$", (DOCS / "metrics.md").read_text(), re.MULTILINE)
    assert re.findall(r"`(\w+)`", row) == [part.replace(" ", "_") for part in parts]


def test_the_docs_have_each_metric_and_no_other() -> None:
    page = (DOCS / "metrics.md").read_text()
    rows = re.findall(r"^\| `(vipmesh_\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    told = {name: (kind, re.findall(r"`(\w+)`", labels), meaning) for name, kind, labels, meaning in rows}
    assert told == {f.name: (str(f.kind), list(f.labels), f.meaning) for f, _ in METRIC_FAMILIES}


def test_the_collection_of_logs_has_samples_only_while_it_is_known() -> None:
    def samples(collected: CollectedLogs | None) -> dict[str, float]:
        text = render_metrics(MetricsInput(replace(OBSERVED, collected=collected))).decode()
        return {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith("vipmesh_logs_")
        }

    assert samples(None) == {}
    assert samples(CollectedLogs(False)) == {"vipmesh_logs_up": 0}
    assert samples(CollectedLogs(True, 3, 1.5, 10, 100, 5000, 2, 1)) == {
        "vipmesh_logs_up": 1,
        "vipmesh_logs_lag_seconds": 1.5,
        "vipmesh_logs_unread_bytes": 10,
        "vipmesh_logs_lines_total": 100,
        "vipmesh_logs_bytes_total": 5000,
        "vipmesh_logs_lost_total": 2,
        "vipmesh_logs_refused_total": 1,
    }
