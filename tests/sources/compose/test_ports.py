"""Ports of `x-endpoints` beside the ports that labels declare: each pair is right, or reported with what to write."""

from pathlib import Path

import pytest

from mesh.cli.lint import check_files
from mesh.config.labels.parse import parse_labels
from mesh.config.name_policy import NamePolicy
from mesh.model.codes import Code
from mesh.model.eligibility import probe_targets
from mesh.model.service import Endpoint, HostPort, Transport
from mesh.model.table import RealKey
from mesh.model.view import ClusterView
from mesh.sources.compose.source import ComposeSource

HTTP, METRICS = "mesh.routing.port_80: web.test", "mesh.routing.port_9090: m.test"
WEB = "mesh.probe.url: http://container"


def compose(*labels: str, endpoint: str = "127.0.0.11:18080") -> str:
    lines = "".join(f"      {label}\n" for label in labels)
    return f'services:\n  web:\n    x-endpoints: ["{endpoint}"]\n    labels:\n{lines}'


def reported(directory: Path, text: str) -> list[str]:
    """What `check` and the daemon's source say, which is the same."""
    file = directory / "compose.yaml"
    file.write_text(text)
    found = check_files([file], {}, policy=NamePolicy("mesh.internal"))
    _, problems = ComposeSource([file], env={}).read()
    mine = [problem for problem in found if problem.code is Code.COMPOSE_ENDPOINT_PORT]
    assert [problem for problem in problems if problem.code is Code.COMPOSE_ENDPOINT_PORT] == mine
    return [f"{problem.where}: {problem.subject}: {problem.reason}; {problem.remedy}" for problem in mine]


@pytest.mark.parametrize(
    ("labels", "endpoint", "expected"),
    [
        pytest.param([HTTP], "127.0.0.11:18080", "", id="one port: as the example has it"),
        pytest.param([HTTP, METRICS], "127.0.0.11", "", id="two ports of an address: a container with its own address"),
        pytest.param(
            [HTTP, METRICS],
            "127.0.0.11:18080",
            "3: service web, x-endpoints: 127.0.0.11:18080 is reached at port 18080 for container ports 80 and 9090 "
            "alike; write 127.0.0.11 without a port, or one service for each container port",
            id="two routed ports with one endpoint port",
        ),
        pytest.param(
            [HTTP, "mesh.routing.publish.port_443: auto", METRICS],
            "[::1]:1",
            "3: service web, x-endpoints: [::1]:1 is reached at port 1 for container ports 80, 443 and 9090 alike; "
            "write [::1] without a port, or one service for each container port",
            id="a published port counts as well",
        ),
        pytest.param(
            ["mesh.routing.port_53: dns.test", "mesh.routing.port_53/udp: dns.test"],
            "127.0.0.11:5353",
            "",
            id="one number over two transports: a name server",
        ),
        pytest.param([HTTP, f"{WEB}:9000/ok"], "127.0.0.11:18080", "", id="a port for health checks is asked itself"),
        pytest.param(
            ["mesh.routing.port_8080: web.test", f"{WEB}:80/"],
            "127.0.0.11:18080",
            "6: service web, label mesh.probe.url: port 80 is none of the container ports that are routed or "
            'published, so port 18080 of "127.0.0.11:18080" is probed in its place; write the container port 8080, '
            "or 127.0.0.11 in x-endpoints",
            id="the default port, although it is written",
        ),
        pytest.param(
            ["mesh.routing.port_8080: web.test", f"{WEB}/"], "127.0.0.11:18080", "", id="the default port, not written"
        ),
    ],
)
def test_what_is_reported(tmp_path: Path, labels: list[str], endpoint: str, expected: str) -> None:
    found = reported(tmp_path, compose(*labels, endpoint=endpoint))
    assert found == ([f"{tmp_path}/compose.yaml:{expected}"] if expected else [])


@pytest.mark.parametrize(
    ("labels", "asked"),
    [
        ({"mesh.probe.url": "http://container:80/"}, 18080),
        ({"mesh.probe.url": "http://container/"}, 18080),
        ({"mesh.probe.url": "http://container:9000/health"}, 9000),
        ({"mesh.probe.url": "tcp://container:9000"}, 9000),
        ({"mesh.probe.url": "grpc://container:50051"}, 50051),
        ({"mesh.probe.url": "http://container:443/", "mesh.routing.publish.port_443": "auto"}, 18080),
        ({"mesh.probe.url": "udp://container:53", "mesh.probe.send": "x"}, 53),
        ({"mesh.probe.url": "udp://container:53", "mesh.probe.send": "x", "mesh.routing.port_53/udp": "d.test"}, 18080),
    ],
)
def test_which_port_a_probe_asks(labels: dict[str, str], asked: int) -> None:
    endpoint = Endpoint("a", "p/web", "w1", "127.0.0.11", 18080)
    assert place(labels, endpoint) == RealKey("127.0.0.11", asked)


def test_a_probe_over_udp_follows_the_published_udp_port() -> None:
    ports = (HostPort(Transport.TCP, 53, 1053), HostPort(Transport.UDP, 53, 2053))
    endpoint = Endpoint("a", "p/web", "w1", "192.0.2.1", host_ports=ports)
    assert place({"mesh.probe.url": "udp://container:53", "mesh.probe.send": "x"}, endpoint).port == 2053
    assert place({"mesh.probe.url": "tcp://container:53"}, endpoint).port == 1053


def place(labels: dict[str, str], endpoint: Endpoint) -> RealKey:
    parsed = parse_labels(
        {"mesh.routing.port_80": "web.test", **labels}, owner="p/web", subject="web", domain="mesh.internal"
    )
    assert parsed.service is not None
    view = ClusterView(services=(parsed.service,), endpoints=(endpoint,))
    [(_, real)] = probe_targets(view).values()
    return real
