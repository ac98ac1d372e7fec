"""Labels by which a new release is judged: which hosts a check may never name, in any spelling."""

import socket
from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.config.labels.parse import parse_labels
from mesh.config.labels.release_checks import (
    forbidden_address,
    parse_check_url,
    parse_max_failures,
    read_judge_limits,
    read_release_checks,
    written_address,
)
from mesh.config.labels.values import LabelRefusedError
from mesh.model.codes import Code
from mesh.model.release_checks import CheckUrl, ReleaseChecks

ROUTED = {"mesh.routing.port_80": "web"}


def codes(commands: bool = True, **labels: str) -> list[Code]:
    written = ROUTED | {f"mesh.release.{name.replace('_', '.', 1)}": value for name, value in labels.items()}
    found = parse_labels(written, owner="shop/web", subject="web", domain="mesh.internal", commands=commands)
    return [problem.code for problem in found.problems]


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("http://container:8080/check?x=1", CheckUrl(False, "container", 8080, "/check?x=1")),
        ("HTTPS://Container", CheckUrl(True, "container", 443)),
        ("http://metrics.example:9090?query=x", CheckUrl(False, "metrics.example", 9090, "/?query=x")),
        ("https://192.0.2.7/a", CheckUrl(True, "192.0.2.7", 443, "/a")),
        ("http://[2001:db8::7]:81/", CheckUrl(False, "2001:db8::7", 81)),
    ],
)
def test_a_url_is_a_host_a_port_and_a_path(text: str, means: CheckUrl) -> None:
    assert parse_check_url(text) == means
    assert read_release_checks({"aliyun.release.check.url": text}) == ReleaseChecks("", means)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "127.0.0.1",
        "127.9.9.9:80",
        "127.1",
        "0x7f.1",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
        "0",
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "2852039166",
        "224.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]:80",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::ffff:169.254.169.254]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[fe80::1]",
        "[ff02::1]",
    ],
)
def test_a_host_that_is_never_asked_is_refused_in_any_spelling(host: str) -> None:
    with pytest.raises(LabelRefusedError) as refused:
        parse_check_url(f"http://{host}/")
    assert refused.value.code is Code.RELEASE_CHECK
    assert codes(check_url=f"http://{host}/") == [Code.RELEASE_CHECK]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "container",
        "tcp://container:80",
        "http://",
        "http://a@b/",
        "http://a:b@container/",
        "http://container:0/",
        "http://container:70000/",
        "http://container/#x",
        "http://container/a b",
        "http://con tainer/",
        "http://[::1/",
        "http://a%2eb/",
        "http://[fe80::1%25eth0]/",
        f"http://container/{'x' * 3000}",
        "http://container/\x1b",
    ],
)
def test_what_is_no_url_of_a_check_is_refused(text: str) -> None:
    with pytest.raises(LabelRefusedError):
        parse_check_url(text)


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    for candidate in (text, f"http://{text}", f"https://[{text}]/"):
        try:
            found = parse_check_url(candidate)
        except LabelRefusedError:
            continue
        assert 1 <= found.port <= 65535
        assert (found.host + found.path).isascii()


@pytest.mark.parametrize("text", ["127.1", "1", "0x7f.0x1", "010.1.2", "1.2.3.4", "256.1", "1.2.65536", "08.1", "a.1"])
def test_short_addresses_are_those_of_the_c_library(text: str) -> None:
    try:
        means = IPv4Address(socket.inet_aton(text))
    except OSError:
        means = None
    assert written_address(text) == means


@given(st.integers(0, (1 << 32) - 1))
def test_an_ipv4_address_is_judged_alike_within_an_ipv6_one(number: int) -> None:
    plain = forbidden_address(IPv4Address(number))
    assert forbidden_address(ip_address(f"::ffff:{IPv4Address(number)}")) == plain


@pytest.mark.parametrize(("text", "means"), [("5", 5.0), ("0.5%", 0.5), ("100 %", 100.0), ("0", 0.0)])
def test_failures_are_per_cent(text: str, means: float) -> None:
    assert parse_max_failures(text) == means


def test_limits_of_the_judge() -> None:
    assert read_judge_limits({"mesh.release.max_failures": "2%", "mesh.release.min_connections": "0"}) == (2.0, 0)
    assert read_judge_limits({"mesh.release.max_failures": "-1"}) == (None, None)


def test_labels_of_the_judge_are_reported_with_what_is_wrong() -> None:
    assert codes(check_cmd="/bin/true", check_url="http://container:80/") == []
    assert codes(check_cmd="x" * 5000) == [Code.RELEASE_CHECK]
    assert codes(commands=False, check_cmd="/bin/true") == [Code.PROBE_COMMAND_WITHOUT_ENGINE]
    found = parse_labels(
        ROUTED | {"mesh.release.max_failures": "many", "mesh.release.min_connections": "-1"},
        owner="shop/web",
        subject="web",
        domain="mesh.internal",
    )
    assert [problem.code for problem in found.problems] == [Code.VALUE_OUT_OF_RANGE] * 2


def test_a_command_that_is_refused_is_absent() -> None:
    labels = {"mesh.release.check.cmd": "/bin/check", "aliyun.release.check.url": "http://127.1/"}
    assert read_release_checks(labels) == ReleaseChecks("/bin/check")
    assert read_release_checks({}) == ReleaseChecks()
