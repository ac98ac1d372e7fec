"""Access control: which clients are served, and the quota of each."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdns.acl import LOCAL_NETWORKS, ClientQuota, network_matcher, quota_key


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("172.31.255.255", True),
        ("172.32.0.0", False),
        ("192.168.0.1", True),
        ("100.64.0.1", True),
        ("169.254.1.1", True),
        ("8.8.8.8", False),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("fd00::1", True),
        ("2001:db8::1", False),
        ("::ffff:10.0.0.1", True),
        ("::ffff:8.8.8.8", False),
    ],
)
def test_default_acl(host: str, served: bool) -> None:
    assert network_matcher(LOCAL_NETWORKS)(host) is served


def test_configured_acl() -> None:
    allows = network_matcher([ipaddress.ip_network("192.0.2.0/24")])
    assert allows("192.0.2.7")
    assert not allows("127.0.0.1")


def test_which_addresses_share_a_quota() -> None:
    assert quota_key("10.0.0.1") != quota_key("10.0.0.2")
    assert quota_key("::ffff:10.0.0.1") == quota_key("10.0.0.1")
    assert quota_key("2a00::1:2:3:4") == quota_key("2a00::1:2:3:5"), "a host on the internet has so many addresses"
    assert quota_key("fd00::1") != quota_key("fd00::2"), "containers of one network have one each"
    assert quota_key("fe80::1%eth0") == quota_key("fe80::1")


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=200))
def test_quotas_are_never_exceeded_and_every_place_is_returned(steps: list[tuple[str, bool]]) -> None:
    shares = ClientQuota(6, 3)
    held: list[str] = []
    for who, take in steps:
        host = f"10.0.0.{ord(who)}"
        if take:
            fits = len(held) < 6 and held.count(host) < 3
            assert shares.take(host) is fits
            held += [host] * fits
        elif host in held:
            shares.give(host)
            held.remove(host)
        assert shares.taken == len(held)
    for host in held:
        shares.give(host)
    assert shares.taken == 0
    assert shares.take("10.0.0.99")
