"""Shares a limited number of connections among clients. Pure.

One client may have up to `SHARE` times as many connections as are still free. So a client that is alone gets most of
them, several that flood get the same share each, and there is always room for another client.
"""

from collections import Counter
from functools import lru_cache
from ipaddress import IPv6Address, ip_network

from mesh.model.service import Address

SHARE = 4
"""How many times as many connections as are still free a client may have."""


class ConnectionShares:
    """The connections of all clients, at most `total` of them."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._counts: Counter[str] = Counter()
        self._taken = 0

    @property
    def free(self) -> int:
        """How many connections are free."""
        return self.total - self._taken

    def take(self, client: Address) -> bool:
        """Count a connection of this client until `give`; return False if the client has its share already."""
        key = client_key(client)
        if self._counts.get(key, 0) >= SHARE * self.free:
            return False
        self._counts[key] += 1
        self._taken += 1
        return True

    def give(self, client: Address) -> None:
        """Count a connection of this client no more."""
        key = client_key(client)
        self._taken -= 1
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]


@lru_cache(4096)
def client_key(host: str) -> str:
    """Return the client that a host counts as.

    On the internet an IPv6 host has a /64 network to itself, so all addresses of that network count as one client.
    Private IPv6 addresses count one by one. A host that is no address counts as itself.
    """
    host = host.partition("%")[0]
    try:
        address = IPv6Address(host)
    except ValueError:
        return host
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return host if address.is_private else str(ip_network((address, 64), strict=False))
