"""What labels mean, which are refused, and the messages."""

from dataclasses import replace
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from mesh.config.labels.parse import KNOWN_LABELS, LABEL_PREFIXES, ParsedLabels, label_key, parse_labels, port_label
from mesh.config.labels.values import quote_value
from mesh.model.codes import Code
from mesh.model.probe import Probe, ProbeKind
from mesh.model.problem import Problem, Severity
from mesh.model.service import Forwarding, PortPublication, Route, Scheduler, SchedulerFlag, Service, Transport
from mesh.model.table import RealServer
from tests.builders import POOL, service

TCP, UDP = Transport.TCP, Transport.UDP
NAMED = {"aliyun.routing.port_80": "web"}


def read(labels: dict[str, str], owner: str = "demo/server") -> ParsedLabels:
    return parse_labels(labels, owner=owner, subject="service server", domain="local", pool=POOL)


def service_of(labels: dict[str, str]) -> Service:
    parsed = read(labels)
    assert parsed.problems == ()
    assert parsed.service is not None
    return parsed.service


def only_problem(labels: dict[str, str]) -> Problem:
    (problem,) = read(labels).problems
    return problem


def test_the_labels_of_the_first_example() -> None:
    parsed = read(
        {
            "aliyun.routing.port_80": "restserver.local",
            "aliyun.scale": "2",
            "aliyun.probe.url": "http://container:80",
            "aliyun.probe.initial_delay_seconds": "2",
            "aliyun.probe.timeout_seconds": "2",
        }
    )
    assert parsed.service == Service(
        owner="demo/server",
        name="restserver.local",
        routes=(Route("restserver.local", 80, TCP, 80),),
        probe=Probe(ProbeKind.HTTP, 80, "/", initial_delay=2, timeout=2),
    )
    assert (parsed.scale, parsed.problems) == (2, ())


@pytest.mark.parametrize("labels", [{}, {"maintainer": "me"}, {"mesh": "x", "aliyunx.routing.port_80": "a.local"}])
def test_without_mesh_labels_there_is_no_service_and_no_problem(labels: dict[str, str]) -> None:
    assert read(labels) == ParsedLabels(None, RealServer(), None, ())


@pytest.mark.parametrize(
    ("label", "value", "routes"),
    [
        pytest.param("port_80", "a.local", [("a.local", 80, TCP, 80)], id="plain"),
        pytest.param("port_80/tcp", "a.local", [("a.local", 80, TCP, 80)], id="tcp said"),
        pytest.param("port_80", "a", [("a.local", 80, TCP, 80)], id="bare name"),
        pytest.param("port_80", "A.Local.", [("a.local", 80, TCP, 80)], id="case and final dot"),
        pytest.param("port_80", "my_app.local", [("my_app.local", 80, TCP, 80)], id="underscore"),
        pytest.param("port_8080", "http://a", [("a.local", 80, TCP, 8080)], id="http"),
        pytest.param("port_8443", "https://a", [("a.local", 443, TCP, 8443)], id="https"),
        pytest.param("port_8080", "http://a:81", [("a.local", 81, TCP, 8080)], id="http with port"),
        pytest.param("port_5432", "tcp://db", [("db.local", 5432, TCP, 5432)], id="tcp"),
        pytest.param("port_53/udp", "ns", [("ns.local", 53, UDP, 53)], id="udp"),
        pytest.param("port_5353/udp", "udp://ns:53", [("ns.local", 53, UDP, 5353)], id="udp scheme"),
        pytest.param("port_80", " a ; b:81 ;", [("a.local", 80, TCP, 80), ("b.local", 81, TCP, 80)], id="list"),
    ],
)
def test_routing_names(label: str, value: str, routes: list[tuple[str, int, Transport, int]]) -> None:
    service = service_of({f"mesh.routing.{label}": value})
    assert [(r.name, r.listen_port, r.transport, r.container_port) for r in service.routes] == routes


@pytest.mark.parametrize(
    ("label", "value", "reason", "remedy"),
    [
        ("port_80", "", "no name is given", "restserver.local"),
        ("port_80", "http://a.local/api", '"http://a.local/api" has a path', "write http://a.local"),
        ("port_80", "a.local?x=1", "has a path", "write a.local"),
        ("port_80", "*.local", "is a wildcard", "every name in full"),
        ("port_80", "a.local:0", '"0" is not a port', "from 1 to 65535"),
        ("port_80", "a.local:65536", "is not a port", "from 1 to 65535"),
        ("port_80", "a.local:", '"" is not a port', "from 1 to 65535"),
        ("port_80", "a.local:8_0", "is not a port", "from 1 to 65535"),
        ("port_80", "a.local:\u0663", "is not a port", "from 1 to 65535"),
        ("port_80", "-a.local", "is not a DNS name", "letters, digits and hyphens"),
        ("port_80", "a b", "is not a DNS name", "letters, digits and hyphens"),
        ("port_80", "a..local", "has an empty part", "restserver.local"),
        ("port_80", "a.", "has no domain", "write a.local"),
        ("port_80", "8080", "is a number", "routing.publish.port_"),
        ("port_80", "10.1.2.3", "is an address", "routing.vip"),
        ("port_80", "bücher.local", "is not ASCII", "xn--"),
        ("port_80", "a" * 64, "has 64 characters", "at most 63"),
        ("port_80", ".".join(["a" * 60] * 5), "has 304 characters", "at most 253"),
        ("port_80", "ftp://a", 'the scheme "ftp://" is not known', "http://, https://, tcp://, udp:// or sctp://"),
        ("port_80", "udp://a", "udp:// does not fit a label for tcp", "routing.port_80/udp"),
        ("port_53/udp", "tcp://a", "tcp:// does not fit a label for udp", "put the name under routing.port_53"),
        ("port_53/udp", "http://a", "http:// does not fit a label for udp", "put the name under routing.port_53"),
        ("port_x", "a", '"x" is not a port', "from 1 to 65535 after port_"),
        ("port_080", "a", '"080" is not a port', "from 1 to 65535 after port_"),
        ("port_80/quic", "a", '"/quic" is not a transport', "alone or with /udp or /sctp"),
        ("port_53/sctp", "udp://a", "udp:// does not fit a label for sctp", "put the name under routing.port_53/udp"),
        ("publish.port_80", "yes", '"yes" is not a port', "auto or a number"),
        ("publish.port_0", "auto", '"0" is not a port', "after port_"),
        ("publish.port_80", "70000", "is not a port", "auto or a number"),
    ],
)
def test_a_refused_port_label_has_a_reason_and_a_remedy(label: str, value: str, reason: str, remedy: str) -> None:
    parsed = read({f"aliyun.routing.{label}": value})
    (problem,) = parsed.problems
    assert parsed.service is None
    assert (problem.severity, problem.label, problem.where) == (Severity.ERROR, f"aliyun.routing.{label}", None)
    assert problem.subject == f"service server, label aliyun.routing.{label}"
    assert reason in problem.reason
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    ("label", "value", "expected"),
    [
        ("vip", "10.112.0.7", {"fixed_vip": "10.112.0.7"}),
        ("publish.port_80", "auto", {"publishes": (PortPublication(80, TCP, None),)}),
        ("publish.port_80/udp", "5353", {"publishes": (PortPublication(80, UDP, 5353),)}),
        ("publish.port_9090", "19090", {"publishes": (PortPublication(9090, TCP, 19090),)}),
        *[("scheduler", str(s), {"scheduler": s}) for s in Scheduler],
        ("publish.port_80/sctp", "2905", {"publishes": (PortPublication(80, Transport.SCTP, 2905),)}),
        ("session_sticky", "true", {"persistence": 300}),
        ("session_sticky", "60", {"persistence": 60}),
        ("session_sticky", "False", {"persistence": 0}),
    ],
)
def test_labels_of_the_service(label: str, value: str, expected: dict[str, object]) -> None:
    plain = service("web.local", owner="demo/server")
    for prefix in LABEL_PREFIXES:
        assert service_of({**NAMED, f"{prefix}routing.{label}": value}) == replace(plain, **expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("label", "value", "reason", "remedy"),
    [
        ("routing.vip", "10.113.0.1", "outside the VIP pool 10.112.0.0/16", "in 10.112.0.0/16"),
        ("routing.vip", "fd00::7", "outside the VIP pool", "in 10.112.0.0/16"),
        ("routing.vip", "10.112.0.007", "is not an address", "such as 10.112.0.7"),
        ("routing.vip", "10.112.0.7/32", "is not an address", "such as 10.112.0.7"),
        ("routing.vip", "fe80::1%eth0", "cannot be a VIP", "unicast"),
        ("routing.scheduler", "random", '"random" is not a scheduler', "rr wrr lc wlc sh mh sed nq dh"),
        ("routing.session_sticky", "yes", "is not a time", "true, false or whole seconds"),
        ("routing.session_sticky", "2678401", "is not a time", "up to 2678400"),
        ("routing.scheduler_flags", "ports", '"ports" is not a flag of a scheduler', "write fallback, port or both"),
        ("routing.scheduler_flags", ",", "is not a flag of a scheduler", "write fallback, port or both"),
        ("routing.scheduler_flags", "port", "the scheduler wrr has no flags", "write routing.scheduler: mh or sh"),
        ("routing.forwarding", "nat", '"nat" is not a forwarding method', "write masquerade or tunnel or direct"),
        ("routing.max_connections", "many", "is out of range", "from 0 to 1000000"),
        ("routing.weight", "1001", "is out of range", "from 0 to 1000"),
        ("routing.weight", "-1", "is out of range", "from 0 to 1000"),
        ("routing.weight", "9" * 5000, "is out of range", "from 0 to 1000"),
        ("routing.release", "", "is not the name of a release", "such as v2"),
        ("routing.release", "v 2", "is not the name of a release", "such as v2"),
        ("routing.release", "v" * 65, "is not the name of a release", "up to 64"),
        ("probe.url", "container:80", "is not the URL of a probe", "http://container:80"),
        ("probe.url", "ftp://container", "is not the URL of a probe", "tcp://container:80"),
        ("probe.url", "http://localhost:80", 'the host is "localhost"', "write container"),
        ("probe.url", "tcp://container", "has no port", "tcp://container:80"),
        ("probe.url", "tcp://container:80/x", "has a path", "write tcp://container:80"),
        ("probe.url", "http://container:99999", "is not a port", "from 1 to 65535"),
        ("probe.url", "http://container/a b", "is not the path", "percent-encode"),
        ("probe.url", "http://container/\u00e9", "is not the path", "percent-encode"),
        ("probe.url", "http://container/a#b", "is not the path", "no #"),
    ],
)
def test_a_refused_label_counts_as_absent(label: str, value: str, reason: str, remedy: str) -> None:
    parsed = read({**NAMED, f"mesh.{label}": value})
    (problem,) = parsed.problems
    assert (parsed.service, parsed.settings, parsed.release) == (service_of(NAMED), RealServer(), None)
    assert (problem.severity, problem.label) == (Severity.ERROR, f"mesh.{label}")
    assert reason in problem.reason
    assert remedy in problem.remedy


def test_weight_and_release_belong_to_the_endpoint() -> None:
    parsed = read({**NAMED, "mesh.routing.weight": "0", "mesh.routing.release": "v1.2-rc_3"})
    assert (parsed.settings, parsed.release, parsed.problems) == (RealServer(0), "v1.2-rc_3", ())
    assert parsed.service == service_of(NAMED)


PROBED = {**NAMED, "mesh.probe.url": "http://container"}


@pytest.mark.parametrize(
    ("url", "probe"),
    [
        ("http://container", Probe(ProbeKind.HTTP, 80)),
        ("http://container:80/path?q=1", Probe(ProbeKind.HTTP, 80, "/path?q=1")),
        ("http://container?q=1", Probe(ProbeKind.HTTP, 80, "/?q=1")),
        ("https://container/x", Probe(ProbeKind.HTTPS, 443, "/x")),
        ("HTTP://Container:8080", Probe(ProbeKind.HTTP, 8080)),
        ("tcp://container:5432", Probe(ProbeKind.TCP, 5432)),
    ],
)
def test_probe_urls(url: str, probe: Probe) -> None:
    assert service_of({**NAMED, "mesh.probe.url": url}).probe == probe


@pytest.mark.parametrize(
    ("label", "value", "changed"),
    [
        ("initial_delay_seconds", "0", {"initial_delay": 0.0}),
        ("timeout_seconds", "0.5", {"timeout": 0.5}),
        ("interval_seconds", "10", {"interval": 10.0}),
        ("healthy_threshold", "1", {"healthy_threshold": 1}),
        ("unhealthy_threshold", "10", {"unhealthy_threshold": 10}),
        ("expect_status", "204", {"expect_status": ((204, 204),)}),
        ("expect_status", "200-399, 404", {"expect_status": ((200, 399), (404, 404))}),
    ],
)
def test_probe_tuning(label: str, value: str, changed: dict[str, object]) -> None:
    probe = service_of({**PROBED, f"mesh.probe.{label}": value}).probe
    assert probe == replace(Probe(ProbeKind.HTTP, 80), **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("label", "value"),
    [
        *[(f"{kind}_seconds", bad) for kind in ("timeout", "interval") for bad in ("0", "0.0", "0.001", "86401")],
        *[("initial_delay_seconds", bad) for bad in ("-1", "2s", "1e3", "nan", "inf", ".5", "", "1_0")],
        *[(f"{kind}_threshold", bad) for kind in ("healthy", "unhealthy") for bad in ("0", "-1", "1.5", "1001")],
        *[("expect_status", bad) for bad in ("", "2xx", "399-200", "200-", "99", "600", "200,,404", "200-299-399")],
    ],
)
def test_refused_probe_tuning_leaves_the_default(label: str, value: str) -> None:
    parsed = read({**PROBED, f"mesh.probe.{label}": value})
    assert parsed.service is not None
    assert parsed.service.probe == Probe(ProbeKind.HTTP, 80)
    assert [(p.severity, p.label) for p in parsed.problems] == [(Severity.ERROR, f"mesh.probe.{label}")]


@pytest.mark.parametrize(
    ("labels", "label", "text"),
    [
        pytest.param({"mesh.routing.pot_80": "a"}, "mesh.routing.pot_80", "write mesh.routing.port_80 if", id="port"),
        pytest.param(
            {"aliyun.publish.port_53/udp": "1"},
            "aliyun.publish.port_53/udp",
            "write aliyun.routing.publish.port_53/udp if",
            id="publish",
        ),
        pytest.param({"mesh.probe.uri": "x"}, "mesh.probe.uri", "write mesh.probe.url if", id="probe"),
        pytest.param({"mesh.": "x"}, "mesh.", "look up its name", id="nothing"),
        pytest.param({"aliyun.Zone": "x"}, "aliyun.Zone", "look up its name", id="nothing like it"),
    ],
)
def test_an_unknown_label_is_a_warning_with_the_nearest_name(labels: dict[str, str], label: str, text: str) -> None:
    problem = only_problem({**NAMED, **labels})
    assert (problem.severity, problem.label, problem.reason) == (Severity.WARNING, label, "there is no such label")
    assert text in problem.remedy


@pytest.mark.parametrize("label", ["probe.restart"])
def test_unsupported_labels_are_reported(label: str) -> None:
    problem = only_problem({**NAMED, f"aliyun.{label}": "2"})
    assert (problem.severity, problem.reason) == (Severity.WARNING, "it is not handled yet")


def test_labels_of_autoscaling_are_checked() -> None:
    assert read({**NAMED, "aliyun.auto_scaling.max_cpu": "70", "aliyun.auto_scaling.step": "2"}).problems == ()
    assert only_problem({**NAMED, "mesh.auto_scaling.max_cpu": "x"}).code is Code.SCALING_LABEL


@pytest.mark.parametrize(
    ("label", "remedy"),
    [
        ("lb.port_6379", "routing.publish.port_<port>"),
        ("custom_addon", "run a proxy"),
        ("proxy.VIRTUAL_HOST", "run a proxy"),
    ],
)
def test_labels_of_other_platforms_name_what_does_the_same(label: str, remedy: str) -> None:
    problem = only_problem({**NAMED, f"aliyun.{label}": "tcp://proxy:6379"})
    assert (problem.code, problem.severity) == (Code.LABEL_NOT_SUPPORTED, Severity.WARNING)
    assert remedy in problem.remedy
    assert "not handled yet" not in problem.reason


@pytest.mark.parametrize(
    ("label", "value"),
    [
        ("scale", "2"),
        ("global", "true"),
        ("depends", "db,cache"),
        ("latest_image", "true"),
        ("release.strategy", "replace"),
        ("rolling_updates", "True"),
    ],
)
def test_labels_of_stacks_are_known_also_where_nothing_routes_to_the_service(label: str, value: str) -> None:
    assert read({f"aliyun.{label}": value}).problems == ()


@pytest.mark.parametrize(
    ("label", "value"), [("global", "yes"), ("latest_image", "1"), ("rolling_updates", ""), ("release.strategy", "x")]
)
def test_a_label_of_stacks_with_another_value_is_refused(label: str, value: str) -> None:
    problem = only_problem({**NAMED, f"mesh.{label}": value})
    assert (problem.severity, problem.label) == (Severity.ERROR, f"mesh.{label}")


def test_the_parallelism_of_rolling_updates_needs_them() -> None:
    assert read({**NAMED, "mesh.rolling_updates": "true", "mesh.rolling_updates.parallelism": "2"}).problems == ()
    problem = only_problem({**NAMED, "mesh.rolling_updates.parallelism": "2"})
    assert (problem.code, problem.severity) == (Code.LABEL_WITHOUT_EFFECT, Severity.WARNING)


@pytest.mark.parametrize("value", ["0", "-1", "two", "1001", ""])
def test_a_scale_that_is_no_number_of_instances_is_refused(value: str) -> None:
    problem = only_problem({**NAMED, "mesh.scale": value})
    assert (problem.severity, problem.label) == (Severity.ERROR, "mesh.scale")
    assert "1 to 1000" in problem.remedy


def test_a_service_that_nothing_routes_to_may_have_a_scale() -> None:
    parsed = read({"mesh.scale": "3"})
    assert (parsed.service, parsed.scale, parsed.problems) == (None, 3, ())


def test_a_command_as_probe() -> None:
    labels = {**NAMED, "mesh.probe.cmd": "test -e /ready && true", "mesh.probe.timeout_seconds": "1"}
    assert service_of(labels).probe == Probe(ProbeKind.COMMAND, None, timeout=1.0, command="test -e /ready && true")


def test_a_command_is_refused_if_the_source_cannot_run_it() -> None:
    labels = {**NAMED, "mesh.probe.cmd": "true", "mesh.probe.timeout_seconds": "1"}
    parsed = parse_labels(labels, owner="demo/server", subject="service server", domain="local", commands=False)
    (problem,) = parsed.problems
    assert (problem.severity, problem.label) == (Severity.WARNING, "mesh.probe.cmd")
    assert "it is run by a container engine" in problem.reason
    assert parsed.service is not None
    assert parsed.service.probe is None


@pytest.mark.parametrize(
    ("labels", "severity", "says"),
    [
        ({"mesh.probe.cmd": "x" * 4001}, Severity.ERROR, "is not a command"),
        ({"mesh.probe.cmd": " "}, Severity.ERROR, "is not a command"),
        (
            {"mesh.probe.cmd": "true", "mesh.probe.url": "http://container"},
            Severity.WARNING,
            "no effect beside probe.url",
        ),
        ({"mesh.probe.cmd": "true", "mesh.probe.expect_status": "200"}, Severity.WARNING, "no effect on a command"),
        ({"mesh.probe.url": "command://container"}, Severity.ERROR, "is not the URL of a probe"),
    ],
)
def test_mistakes_with_commands(labels: dict[str, str], severity: Severity, says: str) -> None:
    problem = only_problem({**NAMED, **labels})
    assert (problem.severity, says in problem.reason) == (severity, True), problem


def test_tuning_without_a_probe_has_no_effect() -> None:
    problem = only_problem({**NAMED, "mesh.probe.timeout_seconds": "1"})
    assert (problem.severity, problem.label) == (Severity.WARNING, "mesh.probe.timeout_seconds")
    assert "probe.url" in problem.remedy


def test_labels_of_a_service_that_nothing_routes_to_have_no_effect() -> None:
    parsed = read({"mesh.probe.url": "http://container", "mesh.routing.scheduler": "rr"})
    assert parsed.service is None
    assert [(p.severity, p.label) for p in parsed.problems] == [
        (Severity.WARNING, "mesh.probe.url"),
        (Severity.WARNING, "mesh.routing.scheduler"),
    ]


@pytest.mark.parametrize(
    ("labels", "label"),
    [
        ({"timeout_seconds": "6"}, "timeout_seconds"),
        ({"interval_seconds": "1"}, "interval_seconds"),
        ({"timeout_seconds": "3", "interval_seconds": "1"}, "timeout_seconds"),
    ],
)
def test_a_timeout_above_the_interval_is_a_warning(labels: dict[str, str], label: str) -> None:
    problem = only_problem({**PROBED, **{f"mesh.probe.{key}": value for key, value in labels.items()}})
    assert (problem.severity, problem.label) == (Severity.WARNING, f"mesh.probe.{label}")


def test_a_status_is_not_expected_of_tcp() -> None:
    problem = only_problem({**NAMED, "mesh.probe.url": "tcp://container:80", "mesh.probe.expect_status": "200"})
    assert (problem.severity, problem.label) == (Severity.WARNING, "mesh.probe.expect_status")


def test_thresholds_and_forwarding_belong_to_the_endpoint() -> None:
    labels = {"routing.max_connections": "100", "routing.min_connections": "80", "routing.forwarding": "Direct"}
    parsed = read({**NAMED, **{f"mesh.{key}": value for key, value in labels.items()}})
    assert (parsed.settings, parsed.problems) == (RealServer(1, Forwarding.DIRECT, 100, 80), ())


@pytest.mark.parametrize(
    ("upper", "lower", "severity", "reason"),
    [
        pytest.param(None, "5", Severity.WARNING, "no effect on its own", id="no upper"),
        pytest.param("4", "5", Severity.ERROR, "5 is above routing.max_connections, 4", id="crossed"),
    ],
)
def test_a_lower_threshold_needs_an_upper_one(upper: str | None, lower: str, severity: Severity, reason: str) -> None:
    there = {"mesh.routing.max_connections": upper} if upper else {}
    parsed = read({**NAMED, **there, "mesh.routing.min_connections": lower})
    (problem,) = parsed.problems
    assert (problem.severity, problem.label) == (severity, "mesh.routing.min_connections")
    assert reason in problem.reason
    assert parsed.settings.lower_threshold == 0


@pytest.mark.parametrize("prefix", ["mesh", "aliyun"])
@pytest.mark.parametrize("text", ["1", "60", "900"])
def test_seconds_of_slow_start_belong_to_the_endpoint(prefix: str, text: str) -> None:
    parsed = read({**NAMED, f"{prefix}.routing.slow_start_seconds": text})
    assert (parsed.slow_start, parsed.problems) == (int(text), ())


@pytest.mark.parametrize("text", ["0", "901", "1.5", "-1", "true", "", "9" * 500])
def test_other_times_of_slow_start_are_refused(text: str) -> None:
    parsed = read({**NAMED, "mesh.routing.slow_start_seconds": text})
    (problem,) = parsed.problems
    assert (problem.severity, problem.label) == (Severity.ERROR, "mesh.routing.slow_start_seconds")
    assert "from 1 to 900" in problem.remedy
    assert parsed.slow_start == 0


@pytest.mark.parametrize("scheduler", ["rr", "lc", "sh", "mh", "dh"])
def test_slow_start_beside_a_scheduler_without_it_is_a_warning(scheduler: str) -> None:
    labels = {"mesh.routing.slow_start_seconds": "60", "mesh.routing.scheduler": scheduler}
    (problem,) = read({**NAMED, **labels}).problems
    assert (problem.severity, problem.label) == (Severity.WARNING, "mesh.routing.slow_start_seconds")


@pytest.mark.parametrize(
    ("label", "value", "reason"),
    [
        ("port_8080", "web.local:81", "port 81 leads to container port 8080"),
        ("publish.port_80", "auto", "published port auto leads to container port 80"),
    ],
)
@pytest.mark.parametrize("forwarding", ["direct", "tunnel"])
def test_only_masquerading_moves_ports(forwarding: str, label: str, value: str, reason: str) -> None:
    parsed = read({**NAMED, f"mesh.routing.{label}": value, "mesh.routing.forwarding": forwarding})
    (problem,) = parsed.problems
    assert (problem.severity, problem.label) == (Severity.ERROR, "mesh.routing.forwarding")
    assert reason in problem.reason
    assert parsed.settings.forwarding is Forwarding.MASQUERADE


def test_flags_of_the_hashing_schedulers() -> None:
    service = service_of({**NAMED, "mesh.routing.scheduler": "mh", "mesh.routing.scheduler_flags": "Port, fallback"})
    assert service is not None
    assert service.flags == {SchedulerFlag.PORT, SchedulerFlag.FALLBACK}


def test_both_prefixes_with_the_same_value_are_accepted() -> None:
    labels = {f"{prefix}routing.port_80{tcp}": " web" for prefix in LABEL_PREFIXES for tcp in ("", "/tcp")}
    assert service_of(labels) == service_of(NAMED)


def test_both_prefixes_with_different_values_count_as_neither() -> None:
    parsed = read({**NAMED, "mesh.routing.weight": "5", "aliyun.routing.weight": "6"})
    (problem,) = parsed.problems
    assert parsed.settings.weight == 1
    assert problem.severity is Severity.ERROR
    assert "aliyun.routing.weight" in problem.subject
    assert "mesh.routing.weight" in problem.reason


def test_the_lowest_container_port_names_the_service_whatever_the_order() -> None:
    labels = {"mesh.routing.port_443": "b", "mesh.routing.port_53/udp": "d", "mesh.routing.port_53": "c;e"}
    service = service_of(labels)
    assert service.names == ("c.local", "e.local", "d.local", "b.local")
    assert service_of(dict(reversed(labels.items()))) == service


def test_a_listen_port_leads_to_one_container_port() -> None:
    parsed = read({"mesh.routing.port_8080": "http://api", "mesh.routing.port_80": "web"})
    (problem,) = parsed.problems
    assert parsed.service is not None
    assert parsed.service.routes == (Route("web.local", 80, TCP, 80),)
    assert problem.label == "mesh.routing.port_8080"
    assert "tcp port 80 of the VIP already leads to container port 80" in problem.reason
    assert "api.local:8080" in problem.remedy


def test_tcp_and_udp_listen_on_the_same_port() -> None:
    assert len(service_of({"mesh.routing.port_53": "ns", "mesh.routing.port_53/udp": "ns"}).routes) == 2


def test_a_name_twice_counts_once() -> None:
    parsed = read({"mesh.routing.port_80": "web;WEB.local;http://web"})
    assert parsed.service is not None
    assert parsed.service.routes == (Route("web.local", 80, TCP, 80),)
    assert {p.severity for p in parsed.problems} == {Severity.WARNING}


def test_a_number_is_published_once() -> None:
    parsed = read({**NAMED, "mesh.routing.publish.port_80": "8000", "mesh.routing.publish.port_81": "8000"})
    (problem,) = parsed.problems
    assert parsed.service is not None
    assert parsed.service.publishes == (PortPublication(80, TCP, 8000),)
    assert problem.label == "mesh.routing.publish.port_81"


def test_a_published_service_without_routes_has_its_own_name() -> None:
    service = service_of({"mesh.routing.publish.port_80": "auto"})
    assert (service.name, service.routes, service.names) == ("server.local", (), ("server.local",))


def test_a_published_service_without_a_valid_name_of_its_own_needs_a_label() -> None:
    parsed = read({"mesh.routing.publish.port_80": "auto"}, owner="demo/-server-")
    (problem,) = parsed.problems
    assert (parsed.service, problem.severity, problem.label) == (None, Severity.ERROR, None)
    assert "routing.port_<container port>" in problem.remedy


def test_a_vip_is_normalised_and_any_is_accepted_without_a_pool() -> None:
    labels = {**NAMED, "mesh.routing.vip": "FD00:0:0::7"}
    for pool in (None, IPv6Network("fd00::/64")):
        parsed = parse_labels(labels, owner="demo/server", subject="s", domain="local", pool=pool)
        assert parsed.problems == ()
        assert parsed.service is not None
        assert parsed.service.fixed_vip == "fd00::7"


def test_messages_stay_on_one_short_line() -> None:
    for problem in read(
        {"mesh.x\x1b[31m\n" + "y" * 999: "z", "mesh.routing.port_80": "\x1b[2J\u202e" + "a" * 9999}
    ).problems:
        assert str(problem).isprintable()
        assert len(str(problem)) < 400


def test_quoted_text_is_distinguishable_from_the_message() -> None:
    assert quote_value("a\nb") == '"a\\nb"'
    assert quote_value("\ud800") == '"\\ud800"'
    assert quote_value("x" * 61) == f'"{"x" * 60}..."'


def test_key_of_finds_the_label_under_either_prefix() -> None:
    labels = {"other": "", "aliyun.routing.port_53/udp": "ns", "mesh.routing.port_80/tcp": "web"}
    assert label_key(labels, port_label(Route, 53, UDP)) == "aliyun.routing.port_53/udp"
    assert label_key(labels, port_label(Route, 80, TCP)) == "mesh.routing.port_80/tcp"
    assert label_key(labels, port_label(PortPublication, 80, TCP)) is None


# ------------------------------------------------------------------------------------------------------- document


def test_the_reference_lists_exactly_the_known_labels() -> None:
    text = (Path(__file__).parents[3] / "docs" / "labels.md").read_text()
    table = text.split("## Reference", 1)[1].split("\n## ", 1)[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    documented = [name.strip("` ") for row in rows for name in row.split("` `")]
    assert documented == list(KNOWN_LABELS)
