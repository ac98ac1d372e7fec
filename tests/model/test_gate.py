"""The gate: whatever passes it lets every later stage run without an exception, and poison is refused alone."""

import asyncio
import json
import math
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import msgspec
import pytest
from h2.connection import H2Connection
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mesh.api.metrics.families import MetricsInput, render_metrics
from mesh.api.status import StatusDetail, notices, render_status, worker_status
from mesh.cluster.claims import apply_claims, plan_claims
from mesh.cluster.records.decode import MAX_RECORD_BYTES, record_key
from mesh.cluster.records.encode import build_view, encode_registration
from mesh.control.dns_zone import ZonePublisher
from mesh.control.planner import make_plan
from mesh.control.snapshot import WorkerFacts, WorkerSnapshot
from mesh.dataplane.diff import diff_tables
from mesh.dataplane.ipvs.convert import encode_change
from mesh.dataplane.nftables.commands import plan_changes, server_commands
from mesh.dataplane.nftables.parse import ABSENT_RULESET
from mesh.dataplane.nftables.ruleset import base_chains
from mesh.dataplane.operations import BindVip, UnbindVip
from mesh.health.checks.grpc import _GrpcCall
from mesh.health.checks.http import build_request
from mesh.health.checks.tcp import tls_server_name
from mesh.health.prober import Prober
from mesh.health.targets import ProbeTarget
from mesh.model.codes import Code
from mesh.model.eligibility import probe_targets, probeable_by_anyone
from mesh.model.probe import Probe, ProbeKind, validate_host
from mesh.model.service import Endpoint, Health, PortPublication, Route, Service, Transport
from mesh.model.table import Table
from mesh.model.validation import (
    MAX_ROUTES,
    MAX_TEXT,
    validate_address,
    validate_endpoint,
    validate_name,
    validate_probe,
    validate_run,
    validate_service,
)
from mesh.model.view import ClusterView
from mesh.testing.dataplane import FakeDataPlane
from meshdns.zone import ZoneBuilder

POOL = ip_network("10.112.0.0/24")
SERVICE = Service(
    "shop/web",
    "web.test",
    (Route("web.test", 80, Transport.TCP, 8080),),
    (PortPublication(8080, Transport.TCP, None),),
    probe=Probe(ProbeKind.HTTP, 8080, host="web.test", headers=(("X-A", "b"),)),
)
ENDPOINT = Endpoint("shop/web/1", "shop/web", "w1", "10.1.0.1")
GOOD_SERVICE = Service("shop/good", "good.test", (Route("good.test", 80, Transport.TCP, 80),))
GOOD_ENDPOINT = Endpoint("shop/good/1", "shop/good", "w2", "10.1.0.9")

WILD_TEXT = st.sampled_from(
    [
        "",
        ".",
        "..",
        "a..b",
        "a" * 64 + ".test",
        "A.test",
        "-",
        "*.test",
        "bücher.test",
        "\x00",
        "\r\nX: y",
        "\x1b[2J",
        "a/b",
        "%",
        "web.test.",
        "10.0.0.1",
        "::1",
        "x" * 5000,
        "\u2028",
        "[",
        "[::1",
        "a b",
        "😀",
        "a\nb",
        "None",
    ]
) | st.text(max_size=20)
WILD_NUMBER = (
    st.sampled_from([0, -1, 1, 65_535, 65_536, 1 << 31, 1 << 32, 1 << 63, 1 << 64, 0.0, -0.5, 1e-9, 1e308, 0.5])
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
)
WILD_ADDRESS = st.sampled_from(
    [
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "127.0.0.1",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "fe80::1%eth0",
        "1.2.3",
        "010.0.0.1",
        "10.0.0.1/8",
        "0x7f.1",
        "fe80::1",
        "10.1.0.300",
        "169.254.1.1",
        "FE80::1",
        "10.1.0.1 ",
        "2001:db8::1",
    ]
)
WILD: st.SearchStrategy[Any] = st.one_of(
    WILD_TEXT,
    WILD_NUMBER,
    WILD_ADDRESS,
    st.none(),
    st.booleans(),
    st.just([]),
    st.just({}),
    st.just([["a", "b"]] * 300),
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    found = [at] if at else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        found += paths(each, (*at, key))
    return found


def changed(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    if not at:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = changed(value[at[0]], at[1:], new)
    return copy


def as_json(value: Service | Endpoint) -> Any:
    return {"v": 1, **json.loads(msgspec.json.encode(msgspec.to_builtins(value, order="deterministic")))}


@st.composite
def records(draw: st.DrawFn) -> dict[str, bytes]:
    """Records of two workers, of which one has a few wild values."""
    service, endpoint = as_json(SERVICE), as_json(ENDPOINT)
    if draw(st.booleans()):
        service["probe"]["kind"] = draw(st.sampled_from(list(ProbeKind)))
        service["probe"]["port"] = draw(st.sampled_from([None, 80]))
        service["probe"]["command"] = "true"
        service["probe"]["send"] = "YQ=="
        service["probe"]["expect_body"] = draw(st.sampled_from(["", "ok"]))
    for _ in range(draw(st.integers(0, 3))):
        service = changed(service, draw(st.sampled_from(paths(service))), draw(WILD))
    for _ in range(draw(st.integers(0, 2))):
        endpoint = changed(endpoint, draw(st.sampled_from(paths(endpoint))), draw(WILD))
    worker = draw(st.sampled_from(["w1", "w0", "a b", "\x1b", "w%1", ""]))
    found = {
        record_key("workers", worker, "services", "shop/web"): json.dumps(service).encode(),
        record_key("workers", "w1", "endpoints", "shop/web/1"): json.dumps(endpoint).encode(),
        record_key("claims", "names", draw(WILD_TEXT)): b'{"owner": "shop/web"}',
        record_key("claims", "older-names"): json.dumps({"names": [draw(WILD_TEXT)]}).encode(),
        record_key("claims", "services", draw(WILD_TEXT)): b'{"vip": "10.112.0.77"}',
        record_key("claims", "ports", "tcp", draw(WILD_TEXT)): b'{"name": "web.test", "container_port": 8080}',
        record_key("health", draw(WILD_TEXT), "shop/web/1"): b'{"health": "healthy"}',
        record_key("workers", draw(WILD_TEXT), "daemon"): b'{"version": "1", "session": "x", "listens": "x:y"}',
    }
    return found | encode_registration("w2", [GOOD_SERVICE], [GOOD_ENDPOINT])


def run_all_stages(view: ClusterView) -> ClusterView:
    """Claim, plan, diff, encode for each data plane, build the zone, prepare each probe, and show everything."""
    wishes, _ = plan_claims(view.services, view.claims, pool=POOL, ports=range(30_000, 30_010))
    claimed = view.with_claims(apply_claims(view.claims, wishes))
    health = {endpoint.key: Health.HEALTHY for endpoint in claimed.endpoints}
    plan = make_plan(claimed, health, ["192.0.2.1"], resolver="10.112.0.1")
    assert not plan.broken, plan.broken
    operations = diff_tables(Table(), plan.table)
    for operation in (*operations, *diff_tables(plan.table, Table())):
        str(operation)
        if not isinstance(operation, BindVip | UnbindVip):
            encode_change(operation)
    changes = [each for each in operations if not isinstance(each, BindVip | UnbindVip)]
    for virtual, after in plan_changes({}, changes, 4).after.items():
        server_commands(base_chains(4), ABSENT_RULESET, virtual, after)
    asyncio.run(FakeDataPlane().apply(operations))
    builder = ZoneBuilder(["mesh.internal"])
    zones = []
    ZonePublisher(lambda services: zones.append(builder.update(services)))(plan.by_name)
    assert len(zones) == 1
    targets = {}
    for key, (probe, real) in probe_targets(claimed).items():
        probeable_by_anyone(probe, real)
        build_request(real.address, real.port, probe)
        tls_server_name(real.address, probe).encode("idna")
        if probe.kind in (ProbeKind.GRPC, ProbeKind.GRPCS):
            assert isinstance(_GrpcCall(probe, str(real))._http, H2Connection)  # noqa: SLF001
        targets[key] = ProbeTarget(probe, real.address, real.port)
    asyncio.run(watch(targets))
    snapshot = WorkerSnapshot(WorkerFacts("1", "w1", "fake", "x"), claimed, (), health, plan=plan)
    render_status(worker_status(snapshot, StatusDetail.FULL), notices(snapshot))
    render_metrics(MetricsInput(snapshot))
    return claimed


async def watch(targets: Any) -> None:
    prober = Prober(lambda: None, {})
    prober.watch(targets)
    assert len(prober._wheel) == len(targets), "each is due"  # noqa: SLF001


@given(records())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(encode_registration("w1", [SERVICE], [ENDPOINT]))
def test_what_passes_the_gate_lets_every_stage_run(found: dict[str, bytes]) -> None:
    view, problems = build_view(found)
    assert all(str(problem).isprintable() and len(str(problem)) < 1500 for problem in problems)
    claimed = run_all_stages(view)
    if "workers/w2/services/shop%2Fgood" in found:
        assert GOOD_SERVICE in view.services, "one poisoned record costs no other"
        assert GOOD_ENDPOINT in view.endpoints
        assert claimed.claims.vips["good.test"]


def poisoned(**fields: object) -> bytes:
    """A record of a service with these fields of its probe."""
    record = as_json(SERVICE)
    record["probe"] |= fields
    return json.dumps(record).encode()


POISON: dict[str, str | bytes] = {
    "no port for the probe": json.dumps(
        as_json(SERVICE) | {"routes": [], "publishes": [], "probe": {"kind": "http", "port": None}}
    ),
    "a name": json.dumps(as_json(SERVICE) | {"name": "no dns name"}),
    "a route's name": json.dumps(as_json(SERVICE) | {"routes": [["a..b", 80, "tcp", 80]]}),
    "interval of 0": poisoned(interval=0),
    "negative interval": poisoned(interval=-5),
    "endless interval": poisoned(interval=1e300),
    "timeout of 0": poisoned(timeout=0),
    "endless timeout": poisoned(timeout=1e12),
    "threshold of 0": poisoned(healthy_threshold=0),
    "no status": poisoned(expect_status=[]),
    "statuses": poisoned(expect_status=[[0, 99999]]),
    "host not ASCII": poisoned(host="b\u00fccher.example"),
    "host that IDNA refuses": poisoned(host="a..b"),
    "line end in a host": poisoned(host="a\r\nX: y"),
    "line end in a header": poisoned(headers=[["X-A", "b\r\nX-B: c"]]),
    "line end in the name of a header": poisoned(headers=[["X\r\nY", "b"]]),
    "line end in the method": poisoned(method="GET / HTTP/1.1\r\nX: y"),
    "line end in the path": poisoned(path="/\r\n"),
    "path not ASCII": poisoned(path="/\u00e9"),
    "too many headers": poisoned(headers=[["X", "y"]] * 300),
    "a long body": poisoned(expect_body="x" * 10_000),
    "a long datagram": poisoned(send="YWFh" * 2000),
    "udp without a datagram": poisoned(kind="udp"),
    "command without a command": poisoned(kind="command"),
    "affinity": json.dumps(as_json(SERVICE) | {"persistence": 1 << 40}),
    "negative affinity": json.dumps(as_json(SERVICE) | {"persistence": -1}),
    "too many routes": json.dumps(
        as_json(SERVICE)
        | {"routes": [{"name": "a.test", "listen_port": 1, "transport": "tcp", "container_port": 1}] * 2000}
    ),
    "deep": "[" * 100_000,
    "not UTF-8": b"\xff\xfe",
    "a number": "5",
    "much": json.dumps(as_json(SERVICE) | {"more": "x" * MAX_RECORD_BYTES}),
    "half a surrogate pair": '{"v": 1, "owner": "\\ud800", "name": "a.test", "routes": []}',
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON.keys())
def test_a_poisoned_record_is_refused_alone(poison: str | bytes) -> None:
    value = poison if isinstance(poison, bytes) else poison.encode()
    found = encode_registration("w2", [GOOD_SERVICE], [GOOD_ENDPOINT])
    view, problems = build_view(found | {"workers/w1/services/shop%2Fweb": value})
    assert [problem.code for problem in problems] == [Code.RECORD_UNREADABLE]
    assert view.services == (GOOD_SERVICE,)
    run_all_stages(view)


def test_older_names_that_are_no_names_are_refused() -> None:
    view, problems = build_view({"claims/older-names": b'{"names": ["github.com", "a b"]}'})
    assert [problem.code for problem in problems] == [Code.RECORD_UNREADABLE]
    assert view.claims.older_names is None, "as if they were not known"
    view, problems = build_view({"claims/older-names": b'{"names": ["github.com"]}'})
    assert view.claims.older_names == frozenset({"github.com"})
    assert not problems


@pytest.mark.parametrize("run", ["", "x" * 65, "a\nb", "\ud800"])
def test_a_run_that_is_refused(run: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        validate_run(run)
    with pytest.raises(ValueError, match=r"."):
        validate_endpoint(replace(ENDPOINT, run=run), ENDPOINT.key)


@pytest.mark.parametrize(
    "text", ["a..b", ".", "", "-a.test", "a" * 64, "A.test", "a.test.", "\u00e9.test", "a b", "x" * 300]
)
def test_names_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a DNS name"):
        validate_name(text)


@pytest.mark.parametrize(
    "text", ["web.test", "a", "_dmarc.test", "x" * 63 + ".test", "1.2.3.4.example", "xn--bcher-kva.test"]
)
def test_names_that_pass(text: str) -> None:
    assert validate_name(text) == text


@pytest.mark.parametrize(
    "text", ["a..b", "a:0", "a:65536", "[1.2.3.4]", "[::::]", "[::1", ".a", "a/b", "a b", "a:b", "x" * 64]
)
def test_hosts_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        validate_host(text)


@pytest.mark.parametrize(
    "text", ["shop.example", "shop.example:8443", "[2001:db8::1]:443", "10.0.0.1", "a_b", "Shop.Example."]
)
def test_hosts_that_pass_can_be_asked_for_by_tls(text: str) -> None:
    assert validate_host(text) == text
    assert tls_server_name("10.0.0.1", Probe(ProbeKind.HTTPS, 1, host=text)).encode("idna")


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf, -math.inf, 1e9, 0.001])
@pytest.mark.parametrize("field", ["interval", "timeout", "startup_interval"])
def test_times_have_a_floor_and_a_ceiling(field: str, seconds: float) -> None:
    with pytest.raises(ValueError, match="out of range"):
        validate_probe(Probe(ProbeKind.TCP, 1, **{field: seconds}))  # type: ignore[arg-type]


def test_bounds_of_counts() -> None:
    routes = tuple(Route("a.test", 1 + n % 65_000, Transport.TCP, 1) for n in range(MAX_ROUTES + 1))
    with pytest.raises(ValueError, match="more than"):
        validate_service(Service("a/b", "a.test", routes))
    long = "x" * (MAX_TEXT + 1)
    with pytest.raises(ValueError, match="printable characters"):
        validate_endpoint(Endpoint(long, "a/b", "w", "10.0.0.1"), ("w", long))


@pytest.mark.parametrize(
    "text", ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "fe80::1%1", "010.0.0.1", "FE80::1", "x"]
)
def test_addresses_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        validate_address(text)
