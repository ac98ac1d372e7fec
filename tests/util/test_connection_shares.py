"""How clients share connections."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.host.rlimits import DescriptorShares, share_descriptors
from mesh.util.connection_shares import SHARE, ConnectionShares


def fill(shares: ConnectionShares, client: str) -> int:
    taken = 0
    while shares.take(client):
        taken += 1
    return taken


def test_a_client_alone_gets_most_and_others_get_some_all_the_same() -> None:
    shares = ConnectionShares(1000)
    assert fill(shares, "10.0.0.1") == 1000 * SHARE / (SHARE + 1)
    assert [fill(shares, f"10.0.0.{number}") for number in range(2, 6)] == [160, 32, 7, 1]
    assert not shares.take("10.0.0.9")
    shares.give("10.0.0.1")
    assert shares.take("10.0.0.9")


def test_addresses_of_one_ipv6_network_on_the_internet_are_one_client() -> None:
    shares = ConnectionShares(10)
    taken = fill(shares, "2a00:1:2:3::1")
    assert not shares.take("2a00:1:2:3::2")
    assert shares.take("2a00:1:2:4::1")
    shares.give("2a00:1:2:3::2")
    assert shares.free == 10 - taken
    assert ConnectionShares(1).take("::ffff:10.0.0.1")


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=200), st.integers(1, 20))
def test_what_is_given_back_is_free_again(steps: list[tuple[str, bool]], total: int) -> None:
    shares, held = ConnectionShares(total), list[str]()
    for client, takes in steps:
        if takes and shares.take(client):
            held.append(client)
        elif client in held:
            held.remove(client)
            shares.give(client)
        assert shares.free == total - len(held) >= 0
    for client in held:
        shares.give(client)
    assert shares.free == total


@pytest.mark.parametrize("limit", [64, 128, 256, 512, 1024, 4096, 65536])
@pytest.mark.parametrize("addresses", [1, 2, 5])
def test_descriptors_are_reserved_whatever_strangers_open(limit: int, addresses: int) -> None:
    shares = share_descriptors(limit, addresses)
    strangers = (
        addresses * shares.dns_connections
        + 2 * shares.admin_connections
        + 2 * shares.proxied_connections
        + shares.proxied_sessions
    )
    if limit >= 256:
        assert strangers + shares.checks <= limit - 96
    assert min(shares.checks, shares.dns_connections, shares.admin_connections) >= 4


def test_the_usual_limit_is_enough_for_all_of_them() -> None:
    assert share_descriptors(65536, 3).checks == DescriptorShares().checks == 1024
