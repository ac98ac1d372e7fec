"""Recognises addresses that an upstream must not answer with (DNS rebinding). Pure.

A page of a foreign name whose address changes to one of this host, of a VIP or of the private network is still the same
page for a browser, which then talks to services that trust their network. The own zone alone may answer with VIPs, and
nothing may answer with loopback addresses, or with "any address", which leads there (ip(7)).
"""

import ipaddress
from collections.abc import Iterable

from meshdns.acl import Network
from meshdns.rdata import RecordType

LOOPBACK_NETWORKS: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text) for text in ("127.0.0.0/8", "0.0.0.0/8", "::1/128", "::/128")
)
"""Networks that lead to the host that asks (RFC 6890)."""
PRIVATE_NETWORKS: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
    )
)
"""Private, shared and link-local networks (RFC 1918, 6598, 3927, 4193, 4291; 3879 for the deprecated last one)."""

_MAPPED, _COMPATIBLE = b"\0" * 10 + b"\xff\xff", b"\0" * 12
"""Prefixes of IPv6 addresses that stand for IPv4 addresses (RFC 4291, section 2.5.5)."""
_V4HINT, _V6HINT = 4, 6
"""Parameters of SVCB and HTTPS records that hold addresses (RFC 9460, section 7.3)."""


class AnswerFilter:
    """Recognises the addresses of some networks in records, in each spelling that leads there."""

    def __init__(self, networks: Iterable[Network]) -> None:
        networks = (*LOOPBACK_NETWORKS, *networks)
        self._v4 = _as_numbers(networks, 4)
        self._v6 = _as_numbers(networks, 6)
        self.first_bytes = bytes(any(_may_begin(network, byte) for network in self._v4) for byte in range(256))
        """By the first byte of an IPv4 address: 1 if an address that begins with it may be refused, else 0."""

    def refuses(self, kind: int, data: bytes) -> bool:
        """Return whether the RDATA of a record holds an address that is refused. Malformed RDATA holds none."""
        match kind:
            case RecordType.A:
                return self._refuses_v4(data)
            case RecordType.AAAA:
                return self._refuses_v6(data)
            case RecordType.SVCB | RecordType.HTTPS:
                return self._refuses_hint(data)
        return False

    def _refuses_v4(self, data: bytes) -> bool:
        if len(data) != 4:
            return False
        address = int.from_bytes(data, "big")
        return any(address & mask == network for network, mask in self._v4)

    def _refuses_v6(self, data: bytes) -> bool:
        if len(data) != 16:
            return False
        if data.startswith((_MAPPED, _COMPATIBLE)) and self._refuses_v4(data[12:]):
            return True
        address = int.from_bytes(data, "big")
        return any(address & mask == network for network, mask in self._v6)

    def _refuses_hint(self, data: bytes) -> bool:
        """Look at the address hints of a SVCB or HTTPS record: priority, target name, then parameters."""
        at = 2
        while at < len(data) and data[at]:
            at += data[at] + 1
        at += 1
        while at + 4 <= len(data):
            key, length = int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 2 : at + 4], "big")
            value = data[at + 4 : at + 4 + length]
            if key == _V4HINT and any(self._refuses_v4(value[n : n + 4]) for n in range(0, len(value), 4)):
                return True
            if key == _V6HINT and any(self._refuses_v6(value[n : n + 16]) for n in range(0, len(value), 16)):
                return True
            at += 4 + length
        return False


def _as_numbers(networks: Iterable[Network], version: int) -> list[tuple[int, int]]:
    """Return address and mask of the networks of one IP version."""
    return [(int(each.network_address), int(each.netmask)) for each in networks if each.version == version]


def _may_begin(network: tuple[int, int], byte: int) -> bool:
    """Return whether an IPv4 network has addresses with this first byte."""
    address, mask = network
    return byte & mask >> 24 == address >> 24
