"""The labels of each kind of probe: their meaning, and the messages of those that are refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from mesh.cli.lint import check_files
from mesh.config.labels.parse import ParsedLabels, parse_labels
from mesh.config.name_policy import NamePolicy
from mesh.model.probe import Probe, ProbeKind
from mesh.model.problem import Problem, Severity
from tests.builders import HTTP_PROBE

NAMED = {"mesh.routing.port_80": "a"}
SECRET = "Bearer s3cr3t"


def read(**labels: str) -> ParsedLabels:
    """`url="..."` is `mesh.probe.url`; in a name, `__` stands for a dot."""
    given = {f"mesh.probe.{name.replace('__', '.')}": value for name, value in labels.items()}
    return parse_labels({**NAMED, **given}, owner="demo/server", subject="service server", domain="local")


def probe(**labels: str) -> Probe | None:
    parsed = read(**labels)
    assert not parsed.problems, [str(problem) for problem in parsed.problems]
    assert parsed.service is not None
    return parsed.service.probe


def only_problem(**labels: str) -> Problem:
    (problem,) = read(**labels).problems
    return problem


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("grpc://container:50051", Probe(ProbeKind.GRPC, 50051, "/")),
        ("grpcs://container:443/shop.Cart", Probe(ProbeKind.GRPCS, 443, "/shop.Cart")),
        ("tcp://container:5432", Probe(ProbeKind.TCP, 5432)),
    ],
)
def test_kinds(url: str, expected: Probe) -> None:
    assert probe(url=url) == expected


@pytest.mark.parametrize(
    ("label", "value", "changed"),
    [
        ("method", "head", {"method": "HEAD"}),
        ("host", "shop.example", {"host": "shop.example"}),
        ("host", "[fd00::1]:8080", {"host": "[fd00::1]:8080"}),
        ("expect_body", '"status": "ok"', {"expect_body": '"status": "ok"'}),
        ("follow_redirects", "True", {"follow_redirects": True}),
        ("floor", "25%", {"floor": 25}),
        ("floor", "0", {"floor": 0}),
        ("startup_seconds", "300", {"startup": 300.0}),
        ("startup_interval_seconds", "0.5", {"startup_interval": 0.5}),
        ("header__X-Token", SECRET, {"headers": (("X-Token", SECRET),)}),
    ],
)
def test_options_of_an_http_probe(label: str, value: str, changed: dict[str, object]) -> None:
    assert probe(url="http://container", **{label: value}) == replace(HTTP_PROBE, **changed)  # type: ignore[arg-type]


def test_certificates_are_verified_by_default() -> None:
    assert probe(url="https://container") == Probe(ProbeKind.HTTPS, 443, tls_verify=True)
    assert probe(url="https://container", tls_verify="false") == Probe(ProbeKind.HTTPS, 443, tls_verify=False)


@pytest.mark.parametrize(
    ("written", "octets"),
    [
        ("PING", b"PING"),
        (r"PING\r\n", b"PING\r\n"),
        (r"\x00\xfF\0\\n", b"\x00\xff\0\\n"),
        ("grüß", "grüß".encode()),
    ],
)
def test_udp_sends_and_expects_bytes(written: str, octets: bytes) -> None:
    wanted = Probe(ProbeKind.UDP, 53, send=octets, expect_reply=octets)
    assert probe(url="udp://container:53", send=written, expect_reply=written) == wanted


def test_headers_are_in_order_whatever_the_engine_makes_of_it() -> None:
    there = probe(url="http://container", header__b="2", header__A="1")
    assert there is not None
    assert there.headers == (("A", "1"), ("b", "2"))


@pytest.mark.parametrize(
    ("labels", "reason", "remedy"),
    [
        ({"url": "http://container", "method": "DELETE"}, "is not a method", "GET HEAD OPTIONS POST"),
        ({"url": "http://container", "host": "a b"}, "is not a host", "shop.example"),
        ({"url": "http://container", "host": "http://a"}, "is not a host", "shop.example"),
        ({"url": "http://container", "expect_body": "x" * 1025}, "cannot be searched for", "1024"),
        ({"url": "http://container", "expect_body": "x", "method": "HEAD"}, "has no body", "probe.method: GET"),
        ({"url": "http://container", "follow_redirects": "yes"}, "is neither", "true or false"),
        ({"url": "http://container", "floor": "101"}, "is out of range", "from 0 to 100"),
        ({"url": "http://container", "header__Host": "a"}, "the probe sets the header", "write probe.host"),
        ({"url": "http://container", "header__User-Agent": "a"}, "the probe sets the header", "remove it"),
        ({"url": "http://container", "header__a b": "a"}, "is not the name of a header", "letters"),
        ({"url": "udp://container:53"}, "needs something to send", "probe.send"),
        ({"url": "udp://container:53", "send": r"\q"}, "is not an escape sequence", r"\x1b"),
        ({"url": "udp://container:53", "send": "a\\"}, "is not an escape sequence", r"\x1b"),
        ({"url": "udp://container:53", "send": "x" * 1233}, "a datagram of 1233 bytes", "1232"),
        ({"url": "udp://container", "send": "x"}, "has no port", "udp://container:53"),
        ({"url": "udp://container:53/x", "send": "x"}, "has a path", "write udp://container:53"),
        ({"url": "grpc://container"}, "has no port", "grpc://container:50051"),
        ({"url": "h2://container:1"}, "is not the URL of a probe", "http://container:80/health"),
    ],
)
def test_refused(labels: dict[str, str], reason: str, remedy: str) -> None:
    errors = [p for p in read(**labels).problems if p.severity is Severity.ERROR]
    assert len(errors) == 1, errors
    assert reason in errors[0].reason
    assert remedy in errors[0].remedy


@pytest.mark.parametrize(
    ("labels", "reason", "remedy"),
    [
        ({"url": "tcp://container:1", "method": "GET"}, "no effect on a tcp:// probe", "http:// or https://"),
        ({"url": "http://container", "tls_verify": "true"}, "no effect on an http:// probe", "https:// or grpcs://"),
        ({"url": "http://container", "send": "a"}, "no effect on an http:// probe", "udp://"),
        ({"url": "grpc://container:1", "header__a": "b"}, "no effect on a grpc:// probe", "http:// or https://"),
        ({"cmd": "true", "host": "a"}, "no effect on a command", "grpc"),
        ({"url": "http://container", "startup_interval_seconds": "6"}, "longer than the interval", "write less"),
        ({"header__a": "b"}, "no effect without probe.url", "add a probe.url"),
    ],
)
def test_options_without_effect_are_reported(labels: dict[str, str], reason: str, remedy: str) -> None:
    problem = only_problem(**labels)
    assert problem.severity is Severity.WARNING
    assert reason in problem.reason
    assert remedy in problem.remedy


def test_a_header_twice_in_two_spellings_is_refused() -> None:
    problem = only_problem(url="http://container", header__A="1", header__a="2")
    assert problem.severity is Severity.ERROR
    assert "twice" in problem.reason


def test_no_message_repeats_the_value_of_a_header(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(
        f"""\
services:
  server:
    labels:
      mesh.routing.port_80: a
      mesh.probe.url: http://container
      mesh.probe.header.x-token: "{SECRET}\\n"
      mesh.probe.header.x-other: "{SECRET}\\n{SECRET}"
      aliyun.probe.header.x-token: "{SECRET} another"
      mesh.probe.header.x-number: 0o1234567
      mesh.probe.header.host: {SECRET}
  other:
    labels:
      mesh.probe.header.x-token: {SECRET}
"""
    )
    problems = check_files([file], {}, policy=NamePolicy("local"))
    told = "\n".join(str(problem) for problem in problems)
    assert len(problems) == 5, told
    assert not any(part in told for part in ("s3cr3t", "Bearer", "1234567", "342391")), told
    assert SECRET not in repr(replace(HTTP_PROBE, headers=(("X-Token", SECRET),)))
