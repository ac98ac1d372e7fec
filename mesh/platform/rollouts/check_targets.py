"""Which addresses a check of a release may ask besides its instances. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TypeAlias

from mesh.config.labels.release_checks import forbidden_address, plain_address
from mesh.model.service import Address

CheckNetwork: TypeAlias = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class CheckTargets:
    """What an operator allows, and what no setting does."""

    networks: tuple[CheckNetwork, ...] = ()
    """`[rollouts] check_networks`."""
    pool: CheckNetwork | None = None
    """That of the VIPs."""
    own: Collection[Address] = frozenset()
    """Addresses of this host, published ports included."""
    vips: Collection[Address] = frozenset()

    def refusal(self, address: str) -> str | None:
        """Return why a check may not ask an address, as getaddrinfo(3) gives it; None if it may."""
        try:
            plain = plain_address(ip_address(address.partition("%")[0]))
        except ValueError:
            return "it is no address"
        if "%" in address:
            return "it is a link-local address"
        if (reason := forbidden_address(plain)) is not None:
            return f"it is {reason}"
        if str(plain) in _plain(self.own):
            return "it is this host"
        if (self.pool is not None and plain in self.pool) or str(plain) in _plain(self.vips):
            return "it is a VIP"
        if not any(plain in network for network in self.networks):
            return "it is in none of [rollouts] check_networks"
        return None


def _plain(addresses: Iterable[Address]) -> frozenset[str]:
    return frozenset(str(plain_address(ip_address(each.partition("%")[0]))) for each in addresses)
