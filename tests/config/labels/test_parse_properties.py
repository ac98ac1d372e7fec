"""Properties that hold for any labels."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.config.labels.parse import KNOWN_LABELS, LABEL_PREFIXES, ParsedLabels, parse_labels, port_label
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import PortPublication, Route, Scheduler, Service, Transport
from tests.builders import POOL

TCP, UDP = Transport.TCP, Transport.UDP


def read(labels: dict[str, str]) -> ParsedLabels:
    return parse_labels(labels, owner="demo/server", subject="service server", domain="local", pool=POOL)


NAMES = sorted({known.replace("<container port>[/udp]", "") for known in KNOWN_LABELS})
VALUES = ["80", "a", "a.local", "http://a", "udp://b:53", "auto", "true", "10.112.0.9", "wlc", "2", "0.5", "200-399"]
keys = st.one_of(
    st.text(),
    st.builds(
        "".join,
        st.tuples(
            st.sampled_from(LABEL_PREFIXES),
            st.sampled_from(NAMES),
            st.one_of(st.just(""), st.text(max_size=5), st.integers(0, 70000).map(str)),
            st.sampled_from(["", "", "/udp", "/tcp"]),
        ),
    ),
)
anything = st.text() | st.text(st.characters(codec=None, categories=None)) | st.sampled_from(VALUES)
pieces = st.lists(st.sampled_from([*VALUES, ";", ":", "://", "/", ".", "-", "container", ","])).map("".join)


@given(st.dictionaries(keys, anything | pieces, max_size=12), st.text())
def test_no_labels_raise_and_accepted_services_are_valid(labels: dict[str, str], owner: str) -> None:
    parsed = parse_labels(labels, owner=owner, subject="service s", domain="local", pool=POOL)
    assert 0 <= parsed.settings.weight <= 1000
    assert 0 <= parsed.settings.lower_threshold <= parsed.settings.upper_threshold <= 1_000_000
    for problem in parsed.problems:
        assert str(problem).isprintable()
        assert problem.label is None or problem.label in labels
    if parsed.service is not None:
        assert_sound(parsed.service)


@given(st.dictionaries(keys, pieces, max_size=12))
def test_the_order_of_labels_changes_nothing_that_is_declared(labels: dict[str, str]) -> None:
    there, back = read(labels), read(dict(reversed(labels.items())))
    assert (there.service, there.settings, there.release) == (back.service, back.settings, back.release)


def assert_sound(service: Service) -> None:
    assert service.name == (service.routes[0].name if service.routes else service.name)
    assert service.routes or service.publishes
    for name in service.names:
        assert name == name.lower()
        assert len(name) <= 253
        assert all(0 < len(part) <= 63 for part in name.split("."))
        assert name.isascii()
        assert "." in name
    listen: dict[tuple[int, Transport], int] = {}
    for route in service.routes:
        assert 1 <= route.listen_port <= 65535
        assert 1 <= route.container_port <= 65535
        assert listen.setdefault((route.listen_port, route.transport), route.container_port) == route.container_port
    assert len(set(service.routes)) == len(service.routes)
    by_hand = [(p.transport, p.port) for p in service.publishes if p.port is not None]
    assert len(set(by_hand)) == len(by_hand)
    assert service.fixed_vip is None or ip_address(service.fixed_vip) in POOL
    assert service.persistence >= 0
    if service.probe is not None:
        assert service.probe.timeout > 0
        assert service.probe.interval > 0
        assert service.probe.path.startswith("/")
        assert all(100 <= low <= high <= 599 for low, high in service.probe.expect_status)


# ------------------------------------------------------------------------------------------------- there and back


def labels_of(service: Service) -> dict[str, str]:
    """Labels that say what the service says."""
    labels: dict[str, str] = {"mesh.routing.scheduler": service.scheduler}
    for route in service.routes:
        key = f"mesh.{port_label(Route, route.container_port, route.transport)}"
        labels[key] = ";".join(filter(None, [labels.get(key), f"{route.name}:{route.listen_port}"]))
    for publish in service.publishes:
        labels[f"mesh.{port_label(PortPublication, publish.container_port, publish.transport)}"] = str(
            publish.port or "auto"
        )
    if service.fixed_vip:
        labels["mesh.routing.vip"] = service.fixed_vip
    if service.persistence:
        labels["mesh.routing.session_sticky"] = str(service.persistence)
    if probe := service.probe:
        labels["mesh.probe.url"] = f"{probe.kind}://container:{probe.port}{probe.path if probe.kind != 'tcp' else ''}"
        labels["mesh.probe.initial_delay_seconds"] = str(probe.initial_delay)
        labels["mesh.probe.timeout_seconds"] = str(probe.timeout)
        labels["mesh.probe.interval_seconds"] = str(probe.interval)
        labels["mesh.probe.healthy_threshold"] = str(probe.healthy_threshold)
        labels["mesh.probe.unhealthy_threshold"] = str(probe.unhealthy_threshold)
        if probe.kind != "tcp":
            labels["mesh.probe.expect_status"] = ",".join(f"{low}-{high}" for low, high in probe.expect_status)
    return labels


@pytest.mark.parametrize(
    "service",
    [
        Service("demo/server", "a.local", (Route("a.local", 80, TCP, 80),)),
        Service(
            "demo/server",
            "b.example.org",
            (Route("b.example.org", 53, TCP, 53), Route("c.local", 5353, TCP, 53), Route("a.local", 53, UDP, 53)),
            (PortPublication(53, UDP, None), PortPublication(80, TCP, 8080)),
            "10.112.3.4",
            Scheduler.MH,
            600,
            Probe(ProbeKind.HTTPS, 443, "/x?y=%20", 1.5, 0.25, 30, 1, 5, ((200, 204), (418, 418))),
        ),
        Service("demo/server", "server.local", (), (PortPublication(9, TCP, 9),), probe=Probe(ProbeKind.TCP, 9)),
    ],
    ids=lambda service: service.name,
)
def test_a_service_survives_a_round_trip_through_labels(service: Service) -> None:
    parsed = read(labels_of(service))
    assert (parsed.service, parsed.problems) == (service, ())
