"""Decides which clients are served, and limits the slow work that each may cause. Pure.

An open resolver is a means of attack: a short query with a forged source address makes it send a long response to a
victim. And one client that asks for thousands of slow names must not take the upstreams from the others.
"""

import ipaddress
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
"""An IPv4 or IPv6 network."""

LOCAL_NETWORKS: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)
"""Private, shared, loopback and link-local networks (RFC 1918, 6598, 3927, 4193)."""


def network_matcher(networks: Sequence[Network]) -> Callable[[str], bool]:
    """Return a function that says whether a host is in one of the networks.

    It takes the host as the socket module writes it, and caches its results.
    """

    @lru_cache(4096)
    def allows(host: str) -> bool:
        address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in networks)

    return allows


@lru_cache(4096)
def quota_key(host: str) -> str:
    """Return the client that a host counts as.

    On the internet an IPv6 host has a /64 network to itself, so all addresses of that network count as one client.
    Private IPv6 addresses count one by one.
    """
    host = host.partition("%")[0]
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return host if address.is_private else str(ipaddress.ip_network((address, 64), strict=False))


class ClientQuota:
    """Limits how many queries wait for an upstream: a maximum in total, and one for each client."""

    def __init__(self, total: int, each: int) -> None:
        self._total = total
        self._each = each
        self._taken: dict[str, int] = {}
        self.taken = 0
        """How many queries are waiting, of all clients together."""

    def take(self, host: str) -> bool:
        """Reserve a place for a query from this host until `give`; returns whether there was one."""
        who = quota_key(host)
        mine = self._taken.get(who, 0)
        if self.taken >= self._total or mine >= self._each:
            return False
        self._taken[who] = mine + 1
        self.taken += 1
        return True

    def give(self, host: str) -> None:
        """Release the place of a query from this host."""
        who = quota_key(host)
        self.taken -= 1
        if self._taken[who] == 1:
            del self._taken[who]
        else:
            self._taken[who] -= 1
