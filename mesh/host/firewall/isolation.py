"""Which container networks of this host are isolated, for a proxy that connects in the name of its clients. Pure.

What a proxy forwards leaves as the host's own, so that no rule of the engine sees who asked for it.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

from mesh.config.values import Network
from mesh.model.service import Address
from mesh.model.table import RealKey

_Ip: TypeAlias = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class IsolatedNetwork:
    """A container network that an operator isolated."""

    network: Network
    gateway: Address
    """The host's own address in it."""
    internal: bool
    """Whether its containers reach no other network (`--internal`)."""
    silent: bool
    """Whether its containers do not reach one another (`enable_icc=false`)."""


class NetworkIsolation:
    """Keeps the isolated networks of this host, and says whom a client may not reach. None is isolated at first."""

    def __init__(self) -> None:
        self._networks: tuple[IsolatedNetwork, ...] = ()
        self._gateways: frozenset[Address] = frozenset()

    def replace(self, networks: Iterable[IsolatedNetwork]) -> None:
        """Replace the isolated networks."""
        self._networks = tuple(networks)
        self._gateways = frozenset(network.gateway for network in self._networks)

    def barred(self, client: Address, real_servers: Collection[RealKey]) -> Collection[RealKey]:
        """Return the real servers that a client may not reach; empty for most clients, and for the host itself."""
        if not self._networks or client in self._gateways:
            return ()
        home = self._network_of(ip_address(client))
        return [real for real in real_servers if _separates(home, self._network_of(ip_address(real.address)))]

    def _network_of(self, address: _Ip) -> IsolatedNetwork | None:
        return next((each for each in self._networks if address in each.network), None)


def _separates(home: IsolatedNetwork | None, there: IsolatedNetwork | None) -> bool:
    """Return whether a client in one network may not reach an endpoint in another; None is any that is not isolated."""
    if home is not None and home == there:
        return home.silent
    return any(network is not None and network.internal for network in (home, there))
