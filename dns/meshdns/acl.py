"""Who is served, and how much of the work that takes time each may cause. Pure.

A resolver that answers everybody is a weapon: a short question with a forged source brings a long answer to a victim.
And one client that asks for thousands of slow names must not take the upstreams from the others.
"""

import ipaddress
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

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
    """Whether a host, as the socket module writes it, is in one of the networks; what was asked is remembered."""

    @lru_cache(4096)
    def allows(host: str) -> bool:
        address = ipaddress.ip_address(host.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in networks)

    return allows


@lru_cache(4096)
def quota_key(host: str) -> str:
    """Who a host counts as: on the internet an IPv6 host has a network of 64 bits to itself."""
    host = host.partition("%")[0]
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return host if address.is_private else str(ipaddress.ip_network((address, 64), strict=False))


class ClientQuota:
    """Places for questions that wait for an upstream: so many in all, and so many for one source."""

    def __init__(self, total: int, each: int) -> None:
        self._total = total
        self._each = each
        self._taken: dict[str, int] = {}
        self.taken = 0
        """By all together."""

    def take(self, host: str) -> bool:
        """Whether there is a place for a question from this host; it is its own until `give`."""
        who = quota_key(host)
        mine = self._taken.get(who, 0)
        if self.taken >= self._total or mine >= self._each:
            return False
        self._taken[who] = mine + 1
        self.taken += 1
        return True

    def give(self, host: str) -> None:
        """The question was answered."""
        who = quota_key(host)
        self.taken -= 1
        if self._taken[who] == 1:
            del self._taken[who]
        else:
            self._taken[who] -= 1
