"""Endpoints of other workers that this worker must not use: a table of addresses in every spelling."""

from collections.abc import Mapping
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cluster.endpoint_authority import EndpointAuthority, is_at, spellings
from mesh.cluster.records.encode import encode_registration
from mesh.cluster.records.view_builder import ViewBuilder
from mesh.model.codes import Code
from tests.builders import POOL, endpoint, service

OWN = frozenset({"192.0.2.1", "2001:db8::1"})
IPV4_SPELLINGS = ("{0}", "::{0}", "::ffff:{0}", "::ffff:0:{0}", "64:ff9b::{0}")


def authority(*networks: str) -> EndpointAuthority:
    judge = EndpointAuthority("w1", POOL, tuple(map(ip_network, networks)))
    judge.move(OWN)
    return judge


def canonical(text: str) -> str:
    return str(ip_address(text))


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("0.1.2.3", "this host itself"),
        ("169.254.169.254", "link-local"),
        ("10.112.0.7", "in the VIP pool"),
        ("192.0.2.1", "one of this host"),
    ],
)
@pytest.mark.parametrize("spelling", IPV4_SPELLINGS)
def test_an_ipv4_address_is_refused_in_every_spelling(address: str, why: str, spelling: str) -> None:
    reason = authority().refusal(endpoint(worker="w2", address=canonical(spelling.format(address))))
    assert reason is not None
    assert why in reason


@pytest.mark.parametrize(
    "address", ["::1", "fe80::1", "febf::1", "2001:db8::1", "2002:7f00:1::", "2002:7f00:1:9::9", "2002:c000:201::1"]
)
def test_an_ipv6_address_is_refused(address: str) -> None:
    assert authority().refusal(endpoint(worker="w2", address=address)) is not None


@pytest.mark.parametrize(
    "address", ["10.2.0.1", "192.0.2.2", "2001:db8::2", "fd00::1", "::ffff:10.2.0.1", "64:ff9b::a02:1"]
)
def test_other_addresses_are_used(address: str) -> None:
    assert authority().refusal(endpoint(worker="w2", address=canonical(address))) is None


def test_the_peer_listener_of_another_worker_is_judged_by_its_address() -> None:
    assert authority().address_refusal("127.0.0.1") is not None
    assert authority().address_refusal("192.0.2.2") is None


def test_what_this_workers_own_sources_say_is_not_judged() -> None:
    for address in ("127.0.0.1", "192.0.2.1", "10.112.0.7"):
        assert authority("10.0.0.0/8").refusal(endpoint(worker="w1", address=address)) is None


def test_configured_networks_bound_the_rest() -> None:
    judge = authority("10.2.0.0/16", "fd00::/8")
    assert judge.refusal(endpoint(worker="w2", address="10.2.0.1")) is None
    assert judge.refusal(endpoint(worker="w2", address="fd00::1")) is None
    assert "endpoint_networks" in str(judge.refusal(endpoint(worker="w2", address="10.3.0.1")))
    assert "loopback" in str(authority("127.0.0.0/8").refusal(endpoint(worker="w2", address="127.0.0.1")))


def test_an_address_that_the_host_gets_later_is_refused_from_then_on() -> None:
    judge, other = authority(), endpoint(worker="w2", address="192.0.2.9")
    assert judge.refusal(other) is None
    moved = judge.move(OWN | {"192.0.2.9"})
    assert moved == {"192.0.2.9"}
    assert is_at(other, moved)
    assert judge.refusal(other) is not None


@given(st.ip_addresses(v=4))
def test_each_spelling_of_an_ipv4_address_contains_it(address: object) -> None:
    for spelling in IPV4_SPELLINGS:
        assert address in [*spellings(ip_address(spelling.format(address)))]


RECORDS = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), st.sampled_from(["127.0.0.1", "10.2.0.1", "10.2.0.2", "192.0.2.1"]), max_size=3
)


@given(st.lists(RECORDS, max_size=4))
def test_a_view_never_has_a_refused_endpoint_whatever_came_before(pictures: list[Mapping[str, str]]) -> None:
    judge = authority()
    reader = ViewBuilder(judge.refusal)
    for addresses in pictures:
        endpoints = [endpoint(id, "w2", address=address) for id, address in addresses.items()]
        seen, problems = reader.view(encode_registration("w2", [service()], endpoints))
        refused = [each for each in endpoints if judge.refusal(each) is not None]
        assert sorted(each.id for each in seen.endpoints) == sorted(e.id for e in endpoints if e not in refused)
        assert [problem.code for problem in problems] == [Code.ENDPOINT_NOT_PERMITTED] * len(refused)
        assert sorted(each.id for each in reader.endpoints()) == sorted(addresses), "all of them may be judged again"
