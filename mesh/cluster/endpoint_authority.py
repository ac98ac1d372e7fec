"""Decides which endpoints in the records of other workers this worker may send traffic and probes to. Pure.

Whoever can write the store could otherwise have every worker connect to its own loopback, to its own addresses behind
its own firewall, or to a VIP in a circle (a confused deputy). What this worker's own sources say is its operator's word
and is not judged here.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from mesh.config.values import Network
from mesh.model.service import Address, Endpoint

_ONLY_HERE = (
    (IPv4Network("0.0.0.0/8"), "this host itself"),  # RFC 1122 section 3.2.1.3; Linux connects 0.0.0.0 to loopback
    (IPv4Network("127.0.0.0/8"), "loopback"),  # RFC 1122 section 3.2.1.3
    (IPv4Network("169.254.0.0/16"), "link-local"),  # RFC 3927
    (IPv6Network("::/128"), "this host itself"),  # RFC 4291 section 2.5.2
    (IPv6Network("::1/128"), "loopback"),  # RFC 4291 section 2.5.3
    (IPv6Network("fe80::/10"), "link-local"),  # RFC 4291 section 2.5.6
)
"""Networks whose addresses mean another host on each worker."""

_EMBEDDING = (
    (IPv6Network("::/96"), 0),  # IPv4-compatible, RFC 4291 section 2.5.5.1
    (IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped, RFC 4291 section 2.5.5.2
    (IPv6Network("::ffff:0:0:0/96"), 0),  # IPv4-translated, RFC 2765 section 2.1
    (IPv6Network("64:ff9b::/96"), 0),  # the well-known prefix of RFC 6052
    (IPv6Network("2002::/16"), 80),  # 6to4, RFC 3056
)
"""IPv6 networks whose addresses contain an IPv4 address, and the number of bits below it."""


class EndpointAuthority:
    """Judges the endpoints that other workers register."""

    def __init__(self, worker: str, pool: Network, networks: tuple[Network, ...] = ()) -> None:
        """`networks`: the only networks that endpoints of other workers may be in; empty for all."""
        self._worker = worker
        self._pool = pool
        self._networks = networks
        self._own: frozenset[Address] = frozenset()

    def move(self, addresses: frozenset[Address]) -> frozenset[Address]:
        """Replace this host's own addresses; the addresses that are own now and were not, or the other way round."""
        before, self._own = self._own, addresses
        return before ^ addresses

    def refusal(self, endpoint: Endpoint) -> str | None:
        """Why this worker does not use the endpoint, in words; None if it does. `endpoint` has a valid address."""
        if endpoint.worker == self._worker:
            return None
        refusal = self.address_refusal(endpoint.address)
        if refusal is None and self._networks:
            address = ip_address(endpoint.address)
            if not any(address in network for network in self._networks):
                return f"its address {address} is outside [cluster] endpoint_networks"
        return refusal

    def address_refusal(self, text: Address) -> str | None:
        """Why no other worker can be at this address; None if one can."""
        for address in spellings(ip_address(text)):
            for network, what in _ONLY_HERE:
                if address in network:
                    return f"its address {text} is {what}: another host on each worker"
            if address in self._pool:
                return f"its address {text} is in the VIP pool {self._pool}"
            if str(address) in self._own:
                return f"its address {text} is one of this host's own"
        return None


def is_at(endpoint: Endpoint, addresses: frozenset[Address]) -> bool:
    """Whether the endpoint has one of these addresses, in any spelling."""
    if ":" not in endpoint.address:
        return endpoint.address in addresses
    return any(str(address) in addresses for address in spellings(ip_address(endpoint.address)))


def spellings(address: IPv4Address | IPv6Address) -> Iterator[IPv4Address | IPv6Address]:
    """Yield the address, and the IPv4 address that it contains, if it does."""
    yield address
    if isinstance(address, IPv6Address):
        for network, below in _EMBEDDING:
            if address in network:
                yield IPv4Address((int(address) >> below) & 0xFFFFFFFF)
