"""What a remedy proposes is free: networks and ranges of ports."""

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.host.free_space import free_network, free_port_range, parse_port_list, port_list


@pytest.mark.parametrize(
    ("taken", "like", "free"),
    [
        ([], "10.112.0.0/16", "10.112.0.0/16"),
        (["10.112.0.0/16"], "10.112.0.0/16", "10.113.0.0/16"),
        (["10.112.0.0/16", "10.113.7.0/24"], "10.112.0.0/16", "10.114.0.0/16"),
        (["10.112.5.0/24"], "10.112.0.0/24", "10.112.0.0/24"),
        (["0.0.0.0/0"], "10.112.0.0/16", "10.112.0.0/16"),
        (["10.0.0.0/8"], "10.112.0.0/16", "172.16.0.0/16"),
        (["10.0.0.0/8", "172.16.0.0/12"], "10.112.0.0/16", "192.168.0.0/16"),
        (["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/17"], "10.112.0.0/16", "192.168.128.0/17"),
        (["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"], "10.112.0.0/16", None),
        (["10.113.0.0/16"], "10.0.0.0/8", "10.128.0.0/9"),
        (["127.112.0.0/24"], "127.112.0.0/16", "127.113.0.0/16"),
        (["10.112.0.0/12"], "fd00:1::/64", "fd76:6970:6d00::/64"),
        (["fd76:6970:6d00::/64"], "fd00:1::/64", "fd76:6970:6d00:1::/64"),
        (["fd00::/8"], "fd00:1::/64", None),
    ],
)
def test_a_free_network(taken: list[str], like: str, free: str | None) -> None:
    found = free_network(map(ip_network, taken), ip_network(like))
    assert found == (None if free is None else ip_network(free))


@st.composite
def private_networks(draw: st.DrawFn) -> Any:
    base = ip_network(draw(st.sampled_from(["10.0.0.0/8", "10.112.0.0/12", "172.16.0.0/12", "192.168.0.0/16"])))
    prefix = draw(st.integers(base.prefixlen, 28))
    number = draw(st.integers(0, (1 << (prefix - base.prefixlen)) - 1))
    return ip_network((int(base.network_address) + (number << (32 - prefix)), prefix))


@given(st.lists(private_networks(), max_size=12), st.integers(10, 26))
def test_a_proposed_network_overlaps_nothing(taken: list[Any], prefix: int) -> None:
    found = free_network(taken, ip_network(f"10.64.0.0/{prefix}"))
    if found is None:
        # Without gaps of 256 addresses all of the private space is taken: sample it.
        for sample in ("10.112.0.0/24", "172.31.255.0/24", "192.168.77.0/24"):
            assert any(network.overlaps(ip_network(sample)) for network in taken)
        return
    assert found.is_private
    assert found.prefixlen >= prefix
    assert not any(found.overlaps(network) for network in taken)


@pytest.mark.parametrize(
    ("blocked", "size", "free"),
    [
        (range(0), 2768, range(20000, 22768)),
        (range(20000, 61000), 2768, range(61000, 63768)),
        (range(20000, 65536), 2768, range(1024, 3792)),
        ([20001], 2, range(20002, 20004)),
        (range(1024, 65536), 1, None),
    ],
)
def test_a_free_range_of_ports(blocked: Any, size: int, free: range | None) -> None:
    assert free_port_range(blocked, size) == free


@given(st.sets(st.integers(1, 65535), max_size=40))
def test_a_list_of_ports_is_read_as_it_is_written(ports: set[int]) -> None:
    assert parse_port_list(port_list(ports)) == ports


@pytest.mark.parametrize("text", ["a", "1-b", "5-1", "70000", "1-70000", "-5"])
def test_what_is_no_list_of_ports_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no range of ports|invalid literal"):
        parse_port_list(text)
