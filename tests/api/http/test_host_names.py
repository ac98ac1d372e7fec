"""Which `Host` and `Origin` a request may have."""

import pytest

from mesh.api.http.host_names import host_refusal, is_foreign_origin

NAMES = frozenset({"worker-1", "worker-1.example"})


@pytest.mark.parametrize(
    "header",
    [
        "localhost",
        "LOCALHOST:9780",
        "localhost.",
        "vipmesh",
        "worker-1",
        "Worker-1.Example:9780",
        "worker-1.example.",
        "127.0.0.1",
        "192.0.2.11:9780",
        "[::1]",
        "[2001:db8::1]:9780",
        "[fe80::1%eth0]:9780",
        "worker-1:",
    ],
)
def test_names_of_this_worker_and_addresses_are_allowed(header: str) -> None:
    assert host_refusal(header, NAMES) is None


@pytest.mark.parametrize("header", ["worker", "d:80", "x", "2130706433"])
def test_over_the_unix_socket_any_name_without_a_dot_will_do(header: str) -> None:
    assert host_refusal(header, NAMES, is_local=True) is None
    assert host_refusal(header, NAMES) is not None
    for foreign in (f"{header.partition(':')[0]}.test", ".", "..", ""):
        assert host_refusal(foreign, NAMES, is_local=True) is not None


@pytest.mark.parametrize(
    "header",
    [
        "evil.test",
        "evil.test:9780",
        "evil",
        "worker-1.evil.test",
        "evil.worker-1.example",
        "localhost.evil.test",
        "127.0.0.1.evil.test",
        "127.0.0.1.nip.io:9780",
        "0x7f.1",
        "2130706433",
        "worker-2",
        "..",
        "-",
    ],
)
def test_other_names_are_refused_with_the_setting_that_allows_them(header: str) -> None:
    refusal = host_refusal(header, NAMES)
    assert refusal is not None
    assert refusal.status == 403
    assert "[admin] hosts" in refusal.reason


@pytest.mark.parametrize(
    "header",
    [
        "",
        " ",
        "a b",
        "[",
        "[::1",
        "::1",
        "[:::]",
        "[g::1]",
        "a:b",
        "a:1:2",
        "user@localhost",
        "localhost/x",
        "localhost,evil.test",
        "localhost\tx",
        "é.test",
        "\udcff",
        "a" * 301,
        "localhost:123456",
        "localhost\n",
    ],
)
def test_what_is_no_host_is_a_bad_request(header: str) -> None:
    refusal = host_refusal(header, NAMES)
    assert refusal is not None
    assert refusal.status == 400


@pytest.mark.parametrize(
    ("origin", "host", "foreign"),
    [
        (None, "localhost", False),
        ("http://localhost:9780", "localhost:9780", False),
        ("https://WORKER-1", "worker-1", False),
        ("http://localhost", "localhost:9780", True),
        ("null", "localhost", True),
        ("", "localhost", True),
        ("http://[", "localhost", True),
        ("http://evil.test", "localhost", True),
        ("http://localhost@evil.test", "localhost", True),
    ],
)
def test_the_origin_must_be_that_of_the_page(origin: str | None, host: str, foreign: bool) -> None:
    assert is_foreign_origin(origin, host) == foreign
