"""Source NAT for connections whose replies would otherwise bypass the worker that translated their destination.

IPVS rewrites the destination of a packet, not its source. If the endpoint then replies to the client directly, the
client drops the reply, which comes from an address that it did not contact. With `net.ipv4.vs.conntrack=1` a
connection's original destination is known after the translation. So a table of a few rules finds our connections
without having to follow the services:

1. connections to an endpoint elsewhere: that host has another default route;
2. connections from a container to itself or to a neighbour on the same network (hairpin): the neighbour would reply
   directly;
3. connections of the host itself: their source would be the VIP, or an address that the endpoint reaches another way.

All other connections keep the client's address: from a client elsewhere to an endpoint on a network of this worker's
containers.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from mesh.host import HostError
from mesh.host.local_networks import read_local_networks
from mesh.host.nft_table import OwnedTable, TableChange, remove_table
from mesh.host.overlap import Network
from mesh.model.claims import Claims
from mesh.model.codes import Code
from mesh.model.service import Address, Transport
from mesh.util import nft

TABLE = "vipmesh"
"""The name of the table."""


@dataclass(frozen=True, slots=True)
class MasqueradeRules:
    """The values that the table is made from."""

    pool: Network
    """The VIP pool; its IP version is that of the table."""
    local_networks: tuple[Network, ...] = ()
    """Networks whose hosts reply through this worker."""
    addresses: tuple[Address, ...] = ()
    """The worker's own addresses on which ports are published, of any IP version."""
    published: tuple[tuple[Transport, int], ...] = ()
    """The published ports."""


def render_script(rules: MasqueradeRules) -> str:
    """Return the nft(8) script that replaces our table in one transaction."""
    family = _family(rules.pool)
    lines = "\n".join(f"\t{line}" if line else "" for line in _table(rules, family))
    # `add` before `delete`: deleting a table that does not exist would fail the transaction.
    return f"add table {family} {TABLE}\ndelete table {family} {TABLE}\ntable {family} {TABLE} {{\n{lines}\n}}\n"


class Masquerade:
    """Keeps the table as it must be; an `HostUpkeep` of the control loop."""

    def __init__(self, pool: Network, answering: Sequence[Network] = ()) -> None:
        """`answering` is networks with this worker as their default route, beside those of its containers."""
        self._pool = pool
        self._answering = tuple(answering)
        self._table = OwnedTable(_family(pool), TABLE)

    async def repair(self, addresses: frozenset[Address], claims: Claims) -> list[str]:
        """Load the table if it differs; returns a line if it was missing or was changed outside vipmesh.

        Raises `HostError`.
        """
        try:
            return await self._mend(addresses, claims)
        except nft.NftError as error:
            raise HostError(
                Code.SOURCE_NAT, f"source NAT cannot be set up, replies of endpoints elsewhere are lost: {error}"
            ) from error

    async def _mend(self, addresses: frozenset[Address], claims: Claims) -> list[str]:
        found = await read_local_networks(self._pool)
        networks = tuple(dict.fromkeys((*found, *(n for n in self._answering if n.version == self._pool.version))))
        script = render_script(
            MasqueradeRules(self._pool, networks, tuple(sorted(addresses)), tuple(sorted(claims.ports)))
        )
        change = await self._table.ensure(script)
        if change is TableChange.MADE:
            return [f"nftables table {self._table.family} {TABLE} made"]
        if change is TableChange.REPAIRED:
            return [f"nftables table {self._table.family} {TABLE} was changed"]
        return []

    async def remove(self) -> list[str]:
        """Delete the table in both address families; returns a line for each that existed. Raises `HostError`."""
        try:
            removed = await remove_table(TABLE)
        except nft.NftError as error:
            raise HostError(Code.SOURCE_NAT, f"the nftables table {TABLE} stays: {error}") from error
        return [f"delete nftables table {family} {TABLE}" for family in removed]


def _table(rules: MasqueradeRules, family: str) -> Iterator[str]:
    """Yield the lines of the table: first the sets, then the chains that refer to them."""
    addresses = [a for a in rules.addresses if ip_address(a).version == rules.pool.version]
    kind = "ipv6_addr" if rules.pool.version == 6 else "ipv4_addr"
    yield from _set("addresses", kind, addresses)
    for transport in Transport:
        ports = [str(port) for published, port in rules.published if published is transport]
        yield from _set(f"published_{transport}", "inet_service", ports)
    yield from _set("local_networks", f"{kind}; flags interval", [str(network) for network in _outermost(rules)])
    yield "chain postrouting {"
    yield "\ttype nat hook postrouting priority srcnat; policy accept;"
    yield '\toif "lo" return'
    yield f"\tct original {family} daddr {rules.pool} jump translated"
    for transport in Transport:
        of = f"meta l4proto {transport} ct original proto-dst @published_{transport}"
        yield f"\tct original {family} daddr @addresses {of} jump translated"
    yield "}"
    yield "chain translated {"
    # A packet that still has a VIP as its destination was not rewritten, and its source must not be either.
    yield f'\t{family} daddr {rules.pool} return comment "not rewritten: tunnel or direct forwarding"'
    # The destination is this host itself, whose replies need no help.
    yield f"\t{family} daddr @addresses return"
    yield '\tfib saddr type local masquerade comment "the host itself"'
    for network in _outermost(rules):
        yield f'\t{family} saddr {network} {family} daddr {network} masquerade comment "hairpin"'
    yield f'\t{family} daddr != @local_networks masquerade comment "endpoints elsewhere"'
    yield "}"


def _set(name: str, kind: str, elements: Iterable[str]) -> Iterator[str]:
    yield f"set {name} {{"
    yield f"\ttype {kind};"
    joined = ", ".join(elements)
    if joined:
        yield f"\telements = {{ {joined} }}"
    yield "}"


def _outermost(rules: MasqueradeRules) -> list[Network]:
    """Return the networks without those inside of others, which a set of intervals refuses."""
    return [
        network
        for network in rules.local_networks
        if not any(other != network and _within(network, other) for other in rules.local_networks)
    ]


def _within(network: Network, other: Network) -> bool:
    return network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type]  # same version


def _family(pool: Network) -> str:
    return "ip6" if pool.version == 6 else "ip"
